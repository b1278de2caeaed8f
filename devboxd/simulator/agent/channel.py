"""The far end's data channel: sequence numbers, acknowledgements, resends, handshake, encryption.

Imitates amazon-ssm-agent 3.3 with its weaknesses: one reader that a blocked handler blocks, resends of the
oldest frame only, no digest check, a reader that dies of a malformed header. Sources:
``agent/session/datachannel/datachannel.go`` of aws/amazon-ssm-agent, and recorded sessions.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import logging
import random
import struct
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from devboxd.simulator.clock import Clock
from devboxd.simulator.gateway.session import AgentLink, LinkCut
from devboxd.simulator.kms import Kms, KmsError
from devboxd.simulator.options import Options
from devboxd.ssm import frame, payload
from devboxd.ssm.payload import PayloadType

log = logging.getLogger(__name__)

PAYLOAD: Final = 1024  # bytes per output frame
_OUTGOING: Final = 100_000  # frames kept for resending; more are sent once and forgotten
_INCOMING: Final = 100_000
_RTO_MAX: Final = 1.0
_GRANULARITY: Final = 0.01
_ENCRYPTED: Final = frozenset({PayloadType.OUTPUT, PayloadType.STDERR, PayloadType.EXIT_CODE})
_HEADER: Final = struct.Struct(">32sIQqQ16s")  # after the header length

Handler = Callable[[int, bytes], Awaitable[bool]]


class HandshakeFailed(Exception):
    """The handshake ended the session; the text goes to the client in ``channel_closed``."""


class ReaderDied(Exception):
    """A message that makes the real agent's reader panic."""


@dataclass(slots=True)
class Encryption:
    """AES-GCM both ways, with the agent's counting nonces."""

    key_id: str
    challenge: str  # base64 text, part of the encryption context
    encrypt: AESGCM | None = None
    decrypt: AESGCM | None = None
    nonce: int = 0
    secret: bytes = b""  # what the client must send back

    def seal(self, data: bytes) -> bytes:
        """Encrypt; the nonce counts up, little-endian."""
        assert self.encrypt is not None
        self.nonce = (self.nonce + 1) % (1 << 96)
        nonce = self.nonce.to_bytes(12, "little")
        return nonce + self.encrypt.encrypt(nonce, data, None)

    def open(self, data: bytes) -> bytes:
        """Decrypt.

        Raises:
            InvalidTag, ValueError: not for us; the real agent leaves such a frame unacknowledged.
        """
        assert self.decrypt is not None
        return self.decrypt.decrypt(data[:12], data[12:], None)


@dataclass(slots=True)
class _Waiting:
    data: bytes
    sent: float


@dataclass(slots=True)
class _Handshake:
    skipped: bool = False
    complete: bool = False
    response: asyncio.Event = field(default_factory=asyncio.Event)
    confirmed: asyncio.Event = field(default_factory=asyncio.Event)
    error: str = ""
    client_version: str = ""


@dataclass(frozen=True, slots=True)
class _Message:
    type: str
    created: int
    sequence: int
    wire_id: bytes  # halves swapped
    payload_type: int
    payload: bytes


def _decode(data: bytes) -> _Message:
    """Read a message as the agent does: no digest check, payload to the end.

    Raises:
        ReaderDied: the header length points past the end.
    """
    length = int.from_bytes(data[:4], "big")
    if len(data) < _HEADER.size + 4 or length + 4 > len(data) or 117 <= len(data) <= 119:
        raise ReaderDied(f"{len(data)} bytes with header length {length}")
    name, _, created, sequence, _, raw = _HEADER.unpack_from(data, 4)
    payload_type = int.from_bytes(data[112:116], "big") if length >= 116 else 0
    text = name.strip(b"\0").strip().strip(b"\0").decode("ascii", "replace")
    return _Message(text, created, sequence, raw, payload_type, data[length + 4 :])


class AgentChannel:
    """One session's data channel, seen from the box. Its owner runs ``read`` and ``resend`` as tasks.

    ``handler`` takes (payload type, payload) and says whether it was ready; it may block, and then
    everything blocks, as on a real box.
    """

    def __init__(
        self, session_id: str, target: str, *, handler: Handler, options: Options, clock: Clock,
        entropy: random.Random, pacing: float,
    ) -> None:  # fmt: skip
        self.cancelled = asyncio.Event()  # channel_closed arrived, or the handshake failed
        self.active = asyncio.Event()  # not paused
        self.active.set()
        self.separate_output = False
        self._session_id = session_id
        self._target = target
        self._handler = handler
        self._options = options
        self._clock = clock
        self._random = entropy
        self._pacing = pacing
        self._link: AgentLink | None = None
        self._sending = asyncio.Lock()
        self._handling = asyncio.Lock()
        self._sequence = 0
        self._outgoing: OrderedDict[int, _Waiting] = OrderedDict()
        self._outstanding = asyncio.Event()
        self._drained = asyncio.Event()
        self._drained.set()
        self._round_trip, self._variation, self._timeout = 0.1, 0.0, 0.2
        self._expected = 0
        self._early: dict[int, _Message] = {}
        self._handshake = _Handshake()
        self._encryption: Encryption | None = None
        self._kms: Kms | None = None

    @property
    def client_version(self) -> str:
        """What the client said in the handshake; empty without one."""
        return self._handshake.client_version

    @property
    def unacknowledged(self) -> int:
        """Frames the client has not acknowledged."""
        return len(self._outgoing)

    def attach(self, link: AgentLink) -> None:
        """Use a new link; counters go on."""
        self._link = link
        self.active.set()

    # -- sending -------------------------------------------------------------------------------------

    async def send(self, payload_type: PayloadType, data: bytes) -> None:
        """Send one stream frame; while paused, or without a link, it is only stored."""
        if not data:
            return
        encryption = self._encryption
        async with self._sending:
            if encryption is not None and encryption.encrypt is not None and payload_type in _ENCRYPTED:
                data = encryption.seal(data)
            flags = frame.SYN if self._sequence == 0 else 0
            message = frame.encode(
                frame.OUTPUT, self._sequence, data, payload_type, flags, self._id().bytes, self._now_ms()
            )
            # Recorded before it is sent: the real agent does it the other way round and loses an
            # acknowledgement that is faster than that, about once in a hundred loopback sessions.
            if len(self._outgoing) < _OUTGOING:
                self._outgoing[self._sequence] = _Waiting(message, self._clock.monotonic())
                self._outstanding.set()
                self._drained.clear()
            self._sequence += 1
            if self.active.is_set():
                await self._transmit(message)

    async def pace(self) -> None:
        """The pause that the agent makes after every output message."""
        await asyncio.sleep(self._pacing)

    async def report_state(self, state: str) -> None:
        """Tell the gateway (not the client) how the session is: Connected, Terminating."""
        text = f'{{"SchemaVersion":1,"SessionState":"{state}","SessionId":"{self._session_id}"}}'
        await self._control(frame.AGENT_SESSION_STATE, text.encode())

    async def drain(self) -> None:
        """Wait until the client has acknowledged all, but not for ever."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._options.end_wait):
                await self._drained.wait()

    async def finish_handling(self) -> None:
        """Let the reader finish the message in its hands, so that its acknowledgement still goes out."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.1), self._handling:
                pass

    async def resend(self) -> None:
        """Look at the oldest unacknowledged frame every 100 ms and send it again when it is overdue."""
        while True:
            await self._outstanding.wait()
            await asyncio.sleep(self._options.resend_tick)
            if not self.active.is_set() or not self._outgoing:
                continue
            oldest = next(iter(self._outgoing.values()))
            if self._clock.monotonic() - oldest.sent > self._timeout:
                oldest.sent = self._clock.monotonic()
                await self._transmit(oldest.data)

    async def _control(self, type_: str, text: bytes) -> None:
        flags = frame.SYN | frame.FIN
        await self._transmit(frame.encode(type_, 0, text, 0, flags, self._id().bytes, self._now_ms()))

    async def _transmit(self, message: bytes) -> None:
        if self._link is not None:
            with contextlib.suppress(LinkCut):  # the reader notices, too, and reconnects
                await self._link.send(message)

    # -- receiving -----------------------------------------------------------------------------------

    async def read(self, link: AgentLink) -> None:
        """Process messages of one link until it is cut.

        Raises:
            LinkCut: reconnect, and read again.
            ReaderDied: nothing is processed any more; the real agent sits deaf from here on.
        """
        while True:
            data = await link.receive()
            async with self._handling:
                await self._process(_decode(data))

    async def _process(self, message: _Message) -> None:
        if message.type == frame.PAUSE_PUBLICATION:
            self.active.clear()
        elif message.type == frame.START_PUBLICATION:
            self.active.set()
        elif message.type == frame.CHANNEL_CLOSED:
            self.cancelled.set()
        elif not message.created:
            log.debug("message without a date ignored")
        elif message.type == frame.ACKNOWLEDGE:
            self.active.set()
            with contextlib.suppress(payload.PayloadError):
                self._acknowledged(payload.parse(message.payload, payload.Acknowledgement))
        elif message.type == frame.INPUT:
            self.active.set()
            await self._stream(message)

    def _acknowledged(self, content: payload.Acknowledgement) -> None:
        waiting = self._outgoing.pop(content.acknowledged_message_sequence_number, None)
        if waiting is None:
            return
        if not self._outgoing:
            self._outstanding.clear()
            self._drained.set()
        sample = self._clock.monotonic() - waiting.sent
        self._variation = 0.75 * self._variation + 0.25 * abs(self._round_trip - sample)
        self._round_trip = 0.875 * self._round_trip + 0.125 * sample
        self._timeout = min(_RTO_MAX, self._round_trip + max(_GRANULARITY, 4 * self._variation))

    async def _stream(self, message: _Message) -> None:
        if message.sequence < self._expected:
            await self._acknowledge(message)
        elif message.sequence > self._expected:
            if len(self._early) < _INCOMING:
                await self._acknowledge(message)
                self._early[message.sequence] = message
        elif await self._handle(message):
            await self._acknowledge(message)
            self._expected += 1
            while (early := self._early.get(self._expected)) is not None and await self._handle(early):
                del self._early[self._expected]
                self._expected += 1

    async def _acknowledge(self, message: _Message) -> None:
        await self._transmit(
            frame.encode_acknowledge(
                message.sequence, message.wire_id, self._id().bytes, self._now_ms(), frame.INPUT
            )
        )

    async def _handle(self, message: _Message) -> bool:
        """Give a message to whoever it is for. False: not taken, so never acknowledged."""
        data = message.payload
        if (
            self._encryption is not None
            and self._encryption.decrypt
            and message.payload_type == PayloadType.OUTPUT
        ):
            if len(data) < 12:
                raise ReaderDied("an encrypted payload shorter than its nonce")
            try:
                data = self._encryption.open(data)
            except (InvalidTag, ValueError):
                return False
        if message.payload_type == PayloadType.HANDSHAKE_RESPONSE:
            return await self._responded(data)
        if message.payload_type == PayloadType.CHALLENGE_RESPONSE:
            return self._challenged(data)
        if not self._handshake.skipped and not self._handshake.complete:
            return True  # early input: acknowledged and dropped
        try:
            return await self._handler(message.payload_type, data)
        except (OSError, ValueError) as error:
            log.debug("input not taken: %r", error)
            return False

    # -- handshake -----------------------------------------------------------------------------------

    def skip_handshake(self) -> None:
        """Take input from now on."""
        self._handshake.skipped = True

    async def perform_handshake(self, session_type: str, properties: Any, kms: Kms | None) -> None:
        """Ask the client to agree on the session type, and on a data key where there is a KMS.

        Raises:
            HandshakeFailed: with the text for the client.
        """
        started = self._clock.monotonic()
        actions: list[dict[str, Any]] = [
            {
                "ActionType": "SessionType",
                "ActionParameters": {"SessionType": session_type, "Properties": properties},
            }
        ]
        if kms is not None:
            challenge = base64.b64encode(self._random.randbytes(16)).decode()
            self._encryption = Encryption(kms.key_id, challenge, nonce=self._random.getrandbits(95))
            self._kms = kms
            parameters = {"KMSKeyId": kms.key_id, "Challenge": challenge}
            actions.append({"ActionType": "KMSEncryption", "ActionParameters": parameters})
        request = {"AgentVersion": self._options.agent_version, "RequestedClientActions": actions}
        await self.send(PayloadType.HANDSHAKE_REQUEST, _json(request))
        await self._await(
            self._handshake.response,
            "Handshake timed out. "
            "Please ensure that you have the latest version of the session manager plugin.",
        )
        if self._encryption is not None and self._encryption.encrypt is not None:
            self._encryption.secret = self._random.randbytes(64)
            sealed = base64.b64encode(self._encryption.seal(self._encryption.secret)).decode()
            await self.send(PayloadType.CHALLENGE_REQUEST, _json({"Challenge": sealed}))
            await self._await(self._handshake.confirmed, "Timed out waiting for encryption challenge.")
        nanoseconds = int((self._clock.monotonic() - started) * 1e9)
        complete = {"HandshakeTimeToComplete": nanoseconds, "CustomerMessage": self._customer_message()}
        await self.send(PayloadType.HANDSHAKE_COMPLETE, _json(complete))
        self._handshake.complete = True

    def _customer_message(self) -> str:
        text = ""
        if self.separate_output and compare_versions(self.client_version, "1.2.295") <= 0:
            text = (
                "Please update session manager plugin version (minimum required version 1.2.312.0) "
                "for fully support of separate StdOut/StdErr output.\r\n"
            )
        return text + ("This session is encrypted using AWS KMS." if self._encryption else "")

    async def _await(self, event: asyncio.Event, timeout_text: str) -> None:
        try:
            async with asyncio.timeout(self._options.handshake_timeout):
                await event.wait()
        except TimeoutError:
            raise HandshakeFailed(timeout_text) from None
        if self._handshake.error:
            raise HandshakeFailed(self._handshake.error)

    async def _responded(self, data: bytes) -> bool:
        if self._handshake.response.is_set():
            # The real reader hands the answer to nobody and waits for ever.
            await asyncio.Event().wait()
        try:
            fields = json.loads(data)
            actions = fields.get("ProcessedClientActions") or []
            self._handshake.client_version = str(fields.get("ClientVersion") or "")
            for action in actions:
                if error := self._action_error(action):
                    self._handshake.error = error
                    self.cancelled.set()
        except (ValueError, AttributeError, TypeError):
            return False
        self._handshake.response.set()
        return True

    def _action_error(self, action: dict[str, Any]) -> str:
        kind, status = action.get("ActionType"), action.get("ActionStatus")
        if status != 1:
            return f"{kind} failed on client with status {status} error: {action.get('Error')}"
        if kind != "KMSEncryption" or self._encryption is None or self._kms is None:
            return ""
        result = action.get("ActionResult") or {}
        acknowledged = bool(result.get("ChallengeAcknowledgement"))
        if self._options.require_challenge and not acknowledged:
            return "client does not support required encryption context random challenge"
        context = {"aws:ssm:SessionId": self._session_id, "aws:ssm:TargetId": self._target}
        if acknowledged:
            context["aws:ssm:RandomChallenge"] = self._encryption.challenge
        try:
            key = self._kms.decrypt(base64.b64decode(result.get("KMSCipherTextKey") or ""), context)
        except KmsError as error:
            return f"Fetching data key failed: {error.code}: {error}"
        self._encryption.encrypt, self._encryption.decrypt = AESGCM(key[:32]), AESGCM(key[32:64])
        return ""

    def _challenged(self, data: bytes) -> bool:
        encryption = self._encryption
        if encryption is None or encryption.decrypt is None:
            return False
        try:
            answer = encryption.open(base64.b64decode(payload.parse(data, payload.Challenge).challenge))
        except (InvalidTag, ValueError, payload.PayloadError):
            return False
        if answer != encryption.secret:
            return False
        self._handshake.confirmed.set()
        return True

    def _id(self) -> UUID:
        return UUID(int=self._random.getrandbits(128), version=4)

    def _now_ms(self) -> int:
        return int(self._clock.wall() * 1000)


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def compare_versions(left: str, right: str) -> int:
    """Compare as the agent does: numerically part by part where both are numbers, more parts win ties."""
    a, b = (left.split(".") if left else []), right.split(".")
    for x, y in zip(a, b, strict=False):
        if x == y:
            continue
        if x.isdigit() and y.isdigit():
            if int(x) != int(y):
                return 1 if int(x) > int(y) else -1
        else:
            return 1 if x > y else -1
    return (len(a) > len(b)) - (len(a) < len(b))
