"""The data channel of one session: a state machine from bytes to effects.

It joins framing, delivery, handshake and encryption, and does nothing itself: every call returns the
effects for its owner to carry out, in order. ``now`` is monotonic seconds and never goes back. Bytes,
states and timers are explained in ``docs/protocol.md``.

    opening ──(handshake request)──► handshake ──(its end, and a no-op acknowledged)──► ready
       └────(first output: a shell without handshake)────────────────────────────────────▲
    any state ──(channel_closed: Closed; beyond repair: Broken)──► closed
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

from devboxd.ssm.crypto import OVERHEAD, CryptoError
from devboxd.ssm.delivery import Inbox, Outbox
from devboxd.ssm.effect import (
    Broken,
    Closed,
    Effect,
    ErrorOutput,
    ExitCode,
    FlagReceived,
    NeedDataKey,
    Notice,
    Output,
    ProbeAnswered,
    Ready,
    Send,
    SendText,
    Writable,
)
from devboxd.ssm.frame import (
    ACKNOWLEDGE,
    CHANNEL_CLOSED,
    INPUT,
    OUTPUT,
    PAUSE_PUBLICATION,
    START_PUBLICATION,
    FrameError,
    encode,
    encode_acknowledge,
    unpack,
)
from devboxd.ssm.handshake import Handshake, HandshakeError
from devboxd.ssm.limits import BULK as BULK
from devboxd.ssm.limits import PORT as PORT
from devboxd.ssm.limits import SHELL as SHELL
from devboxd.ssm.limits import Limits as Limits  # all four are part of the interface of this module
from devboxd.ssm.payload import (
    CLIENT_VERSION,
    ChannelClosed,
    PayloadError,
    PayloadType,
    acknowledged_sequence,
    exit_code,
    open_message,
    parse,
)

NO_OP: Final = b"{}"  # of type PARAMETER, which every far end acknowledges and ignores
MAX_SIZES: Final = 4  # sizes on their way; of those waiting behind them only the newest counts
MIN_PAYLOAD: Final = OVERHEAD + 1
MAX_PAYLOAD: Final = 64 * 1024

_OUTPUT: Final = int(PayloadType.OUTPUT)
_SEALED: Final = frozenset(map(int, (PayloadType.OUTPUT, PayloadType.STDERR, PayloadType.EXIT_CODE)))
_CONTENT: Final = _SEALED | {int(PayloadType.FLAG)}


class State(StrEnum):
    """How far a channel has come."""

    OPENING = "opening"
    HANDSHAKE = "handshake"
    READY = "ready"
    CLOSED = "closed"


class Channel:
    """One data channel, across all links that carry it.

    ``received`` never raises, whatever arrives. Memory is bounded by ``Limits`` and by ``room``.
    """

    def __init__(
        self,
        *,
        session_id: str,
        target: str,
        client_id: UUID,
        new_id: Callable[[], UUID] | None = None,
        limits: Limits = SHELL,
        entropy: Callable[[int], bytes] = os.urandom,
    ) -> None:
        """``new_id`` gives message ids; without it they count up from ``client_id`` (random) cheaply.

        ``target`` must be what StartSession was given: it is part of the encryption context.
        """
        self.session_id = session_id
        self.target = target
        self.client_id = client_id
        self.limits = limits
        self.state = State.OPENING
        self.agent_version = ""
        self.session_type: str | None = None
        self.properties: dict[str, Any] | None = None
        self.drops: Counter[str] = Counter()  # by reason: what was received and not used
        self.heard_at: float | None = None  # when the far end (not the gateway) last gave a sign of life
        self._payload = max(MIN_PAYLOAD, min(limits.payload, MAX_PAYLOAD))
        self._new_id = new_id
        self._inbox = Inbox(limits.early_frames, limits.early_bytes)
        self._outbox = Outbox()
        self._is_up = False
        self._was_up = False
        self._lost_at = 0.0
        self._wall_offset_ms = 0.0  # added to now * 1000 it is Unix time
        self._handshake = Handshake(session_id, target, entropy)
        self._phase_since: float | None = None  # of the handshake timers; None: not running
        self._greeting: int | None = None  # sequence of the no-op after the handshake
        self._probe: tuple[int, float] | None = None  # sequence, when it was asked
        self._sizes: dict[int, bytes] = {}  # on their way
        self._size: bytes | None = None  # the last one asked for
        self._size_waits = False
        self._is_starved = True  # the owner has seen, or will see, that there is no room
        self._id_counter = int.from_bytes(client_id.bytes[8:], "big") & (1 << 62) - 1
        self._id_start = client_id.bytes[:8]

    # -- what the owner may look at

    @property
    def ready(self) -> bool:
        """Say whether ``send`` takes data."""
        return self.state is State.READY

    @property
    def is_encrypted(self) -> bool:
        """Say whether payloads are sealed with a KMS data key."""
        return self._handshake.cipher is not None

    @property
    def dropped(self) -> int:
        """How many messages were dropped as bad, unexpected or in excess of a bound."""
        return self.drops.total()

    @property
    def round_trip(self) -> float:
        """Smoothed time from a frame to its acknowledgement, in seconds."""
        return self._outbox.round_trip.smoothed

    @property
    def unacknowledged(self) -> int:
        """Frames of ours that the far end has not acknowledged."""
        return len(self._outbox)

    @property
    def bytes_unacknowledged(self) -> int:
        """Their payload bytes."""
        return self._outbox.bytes

    @property
    def missing(self) -> int:
        """Frames of the far end that are missing below the latest one. It repairs ten a second."""
        return self._inbox.missing

    def gap_age(self, now: float) -> float:
        """Seconds for which the present gap has been there; 0 where nothing is missing."""
        since = self._inbox.gap_since
        return 0.0 if since is None else max(0.0, now - since)

    @property
    def is_paused(self) -> bool:
        """Say whether the gateway told us that the far end is not there."""
        return self._outbox.paused

    @property
    def payload_size(self) -> int:
        """Bytes per frame that we send. Raise it only once larger frames were acknowledged."""
        return self._payload

    @payload_size.setter
    def payload_size(self, value: int) -> None:
        self._payload = max(MIN_PAYLOAD, min(value, MAX_PAYLOAD))
        self._note_room()

    @property
    def room(self) -> int:
        """Bytes that ``send`` takes now; 0 means: wait for ``Writable``.

        Never a crumb: either there is room for a whole frame or there is none.
        """
        if self.state is not State.READY:
            return 0
        chunk = self._chunk
        limits = self.limits
        frames = limits.window_frames - len(self._outbox)
        free = min(limits.window_bytes - self._outbox.bytes, frames * chunk)
        return free if free >= min(chunk, limits.window_bytes) else 0

    @property
    def _chunk(self) -> int:
        return self._payload - OVERHEAD if self.is_encrypted else self._payload

    @property
    def _comfort(self) -> int:
        """Room that is worth a ``Writable``: waking the producer for every frame would cost more."""
        return min(self.limits.window_bytes, self.limits.window_frames * self._chunk) // 4

    def _note_room(self) -> None:
        """Owe the producer a ``Writable`` if there is no room, whoever took it."""
        if not self.room:
            self._is_starved = True

    # -- links

    def opened(self, now: float, *, token: str, request_id: UUID, wall_ms: int) -> list[Effect]:
        """A link is up: open the channel on it, then repeat what may have been lost with the last one.

        Args:
            wall_ms: Unix time in milliseconds, for the created date of frames.
        """
        if self.state is State.CLOSED:
            return []
        if self._is_up:
            self.lost(now)
        if self._phase_since is not None:
            self._phase_since += now - self._lost_at
        if self._probe is not None:
            self._probe = (self._probe[0], self._probe[1] + now - self._lost_at)
        self._is_up = self._was_up = True
        self._wall_offset_ms = max(1, wall_ms) - now * 1000  # 0 is rejected by both real peers
        self._inbox.opened(now)
        effects: list[Effect] = [
            SendText(open_message(request_id, token, self.client_id, CLIENT_VERSION)),
        ]
        # The far end repairs ten frames a second; this clears its whole backlog at once.
        effects += [Send(self._acknowledgement(sequence, id_, now)) for sequence, id_ in self._inbox.recent]
        effects += map(Send, self._outbox.opened(now))
        if self._size_waits:
            self._emit_size(now, effects)
        return effects

    def lost(self, now: float) -> None:
        """The link is gone. Timers stand still; nothing is forgotten."""
        if not self._is_up:
            return
        self._is_up = False
        self._lost_at = now
        self._inbox.lost(now)
        self._outbox.lost(now)

    # -- from the far end

    def received(self, data: bytes | str, now: float) -> list[Effect]:
        """Take one websocket message. Never raises for what is in it."""
        if not self._is_up or self.state is State.CLOSED:
            return []
        if isinstance(data, str):
            self.drops["text"] += 1  # nothing but the open message is text
            return []
        try:
            type_, sequence, payload, payload_type, _, id_, _ = unpack(data)
        except FrameError:
            self.drops["bad frame"] += 1
            return []
        effects: list[Effect] = []
        if type_ == OUTPUT:
            self._heard(now, effects)
            self._stream(sequence, id_, payload_type, payload, now, effects)
        elif type_ == ACKNOWLEDGE:
            try:
                acknowledged = acknowledged_sequence(payload)
            except PayloadError:
                self.drops["bad acknowledgement"] += 1
                return effects
            self._heard(now, effects)
            self._acknowledged(acknowledged, now, effects)
        elif type_ == CHANNEL_CLOSED:
            self._close(payload, effects)
        elif type_ == PAUSE_PUBLICATION:
            self._outbox.paused = True
        elif type_ == START_PUBLICATION:
            was_paused, self._outbox.paused = self._outbox.paused, False
            # Without a pause before it, it follows the opening of a link, and all was just sent.
            patience = -1.0 if was_paused else self.round_trip
            effects += map(Send, self._outbox.resend_all(now, older_than=patience))
        else:
            self.drops["unknown type"] += 1
        return effects

    def _heard(self, now: float, effects: list[Effect]) -> None:
        self.heard_at = now
        if self._outbox.paused:
            # Only a far end that is there can have sent this: the pause is over.
            self._outbox.paused = False
            effects += map(Send, self._outbox.resend_all(now))

    def _stream(
        self, sequence: int, id_: bytes, payload_type: int, payload: bytes, now: float, effects: list[Effect]
    ) -> None:
        inbox = self._inbox
        if self._handshake.is_sealed and payload_type in _SEALED:
            try:
                if self._handshake.cipher is None:
                    raise CryptoError("there is no key yet")
                payload = self._handshake.cipher.decrypt(payload)
            except CryptoError:
                # Unacknowledged: had it been clear by mistake it would come again, sealed.
                self.drops["not sealed"] += 1
                return
        if inbox.advance(sequence, id_):
            inbox.heard(now)
            effects.append(Send(self._acknowledgement(sequence, id_, now)))
            if payload_type == _OUTPUT and self.state is State.READY:
                if payload:
                    effects.append(Output(payload))
            else:
                self._deliver(payload_type, payload, now, effects)
            return
        if not inbox.accept(sequence, id_, payload_type, payload, now):
            self.drops["too far ahead"] += 1
            return
        effects.append(Send(self._acknowledgement(sequence, id_, now)))
        self._drain(now, effects)

    def _drain(self, now: float, effects: list[Effect]) -> None:
        while (found := self._inbox.pop(now)) is not None:
            self._deliver(*found, now, effects)
            if self.state is State.CLOSED:
                return

    def _deliver(self, payload_type: int, payload: bytes, now: float, effects: list[Effect]) -> None:
        """Act on the next frame in order. It has been acknowledged."""
        try:
            if payload_type in _CONTENT:
                self._on_content(payload_type, payload, now, effects)
            elif payload_type == PayloadType.HANDSHAKE_REQUEST:
                self._on_request(payload, now, effects)
            elif payload_type == PayloadType.CHALLENGE_REQUEST:
                self._on_challenge(payload, now, effects)
            elif payload_type == PayloadType.HANDSHAKE_COMPLETE:
                self._on_complete(payload, now, effects)
            else:
                self.drops["unknown payload type"] += 1
        except HandshakeError as error:
            self._break(error.message, effects)

    def _on_content(self, payload_type: int, payload: bytes, now: float, effects: list[Effect]) -> None:
        if self.state is State.OPENING:
            self._become_ready(now, effects)  # no handshake comes: a plain shell
        elif self.state is State.HANDSHAKE:
            if not self._handshake.is_complete:
                raise HandshakeError("the far end sent output during the handshake")
            # Its plugin runs, so it takes data: no need to wait for the no-op's acknowledgement.
            self._become_ready(now, effects)
        if not payload:
            return
        if payload_type == PayloadType.OUTPUT:
            effects.append(Output(payload))
        elif payload_type == PayloadType.STDERR:
            effects.append(ErrorOutput(payload))
        elif payload_type == PayloadType.EXIT_CODE:
            try:
                effects.append(ExitCode(exit_code(payload)))
            except PayloadError:
                self.drops["bad exit code"] += 1
        elif len(payload) == 4:
            effects.append(FlagReceived(int.from_bytes(payload, "big")))
        else:
            self.drops["bad flag"] += 1

    def _acknowledged(self, sequence: int, now: float, effects: list[Effect]) -> None:
        self._inbox.heard(now)
        frame = self._outbox.acknowledged(sequence, now)
        if frame is None:
            return
        if self._sizes and self._sizes.pop(sequence, None) is not None and self._size_waits:
            self._emit_size(now, effects)
        if self._probe is not None and self._probe[0] == sequence:
            effects.append(ProbeAnswered(max(0.0, now - self._probe[1])))
            self._probe = None
        if self._greeting == sequence and self.state is State.HANDSHAKE:
            self._become_ready(now, effects)
        elif self._is_starved and (room := self.room) and room >= self._comfort:
            self._is_starved = False
            effects.append(Writable())

    def _close(self, payload: bytes, effects: list[Effect]) -> None:
        try:
            reason = parse(payload, ChannelClosed).output or ""
        except PayloadError:
            reason = ""  # the type alone is the service's word
        self.state = State.CLOSED
        effects.append(Closed(reason))

    def _break(self, reason: str, effects: list[Effect]) -> None:
        self.state = State.CLOSED
        effects.append(Broken(reason))

    # -- the handshake

    def _on_request(self, payload: bytes, now: float, effects: list[Effect]) -> None:
        if self.state is not State.OPENING:
            # One answer only: a second one blocks the far end's reader for good.
            self.drops["late handshake"] += 1
            return
        self.state = State.HANDSHAKE
        answer = self._handshake.begin(payload)
        request = self._handshake.request
        assert request is not None
        self.agent_version = request.agent_version
        self.session_type = request.session_type
        self.properties = request.properties
        if self._handshake.is_sealed and self._inbox.holds(_SEALED):
            raise HandshakeError("the far end sent output before a key was agreed")
        if isinstance(answer, NeedDataKey):
            effects.append(answer)
        else:
            self._answer(answer, now, effects)

    def data_key(self, plaintext: bytes, ciphertext: bytes, now: float) -> list[Effect]:
        """Answer ``NeedDataKey``: the key in clear and as KMS encrypted it. A repeat changes nothing."""
        effects: list[Effect] = []
        if self.state is State.HANDSHAKE:
            self._answer(self._handshake.take_key(plaintext, ciphertext), now, effects)
        return effects

    def data_key_failed(self, reason: str, now: float) -> list[Effect]:
        """Answer ``NeedDataKey`` with a refusal: the far end then ends the session and repeats ``reason``."""
        effects: list[Effect] = []
        if self.state is State.HANDSHAKE:
            self._answer(self._handshake.refuse_key(reason), now, effects)
        return effects

    def _answer(self, response: bytes | None, now: float, effects: list[Effect]) -> None:
        if response is not None:
            self._phase_since = now if self._is_up else self._lost_at
            self._emit(int(PayloadType.HANDSHAKE_RESPONSE), response, now, effects)

    def _on_challenge(self, payload: bytes, now: float, effects: list[Effect]) -> None:
        answer = self._handshake.answer_challenge(payload)
        if answer is None:
            self.drops["late handshake"] += 1
        else:
            self._emit(int(PayloadType.CHALLENGE_RESPONSE), answer, now, effects)

    def _on_complete(self, payload: bytes, now: float, effects: list[Effect]) -> None:
        if self.state is not State.HANDSHAKE or self._handshake.is_complete:
            self.drops["late handshake"] += 1
            return
        if text := self._handshake.complete(payload):
            effects.append(Notice(text))
        self._phase_since = now
        # The far end says so before it is ready: the first frame is often rejected, and at times
        # acknowledged and lost. So that one is a no-op, and the real data waits for its acknowledgement.
        self._greeting = self._emit(int(PayloadType.PARAMETER), NO_OP, now, effects, eager=True)

    def _become_ready(self, now: float, effects: list[Effect]) -> None:
        self.state = State.READY
        self._phase_since = None
        effects.append(Ready(self.session_type, self.properties, self.agent_version, self.is_encrypted))
        if self._size is not None:
            self._emit_size(now, effects)  # what came before may have been acknowledged and thrown away
        self._is_starved = False
        effects.append(Writable())

    # -- to the far end

    def send(self, payload_type: int, data: bytes, now: float) -> list[Effect]:
        """Send terminal input, port bytes, a size or a flag.

        Output is cut into frames of ``payload_size`` and must fit into ``room``. A size is always taken:
        while opening it is sent at once (the pty may exist before the first output), during a handshake
        it waits for the end. A flag is taken once the channel is ready; before, the far end would throw
        it away, so nothing is sent. Nothing empty is ever sent.

        Raises:
            ValueError: more output than there is room for.
        """
        if self.state is State.CLOSED or not data:
            return []
        effects: list[Effect] = []
        if payload_type == PayloadType.SIZE:
            self._on_size(data, now, effects)
        elif payload_type == PayloadType.OUTPUT:
            if len(data) > self.room:
                raise ValueError(f"{len(data)} bytes to send, and room for {self.room}")
            chunk = self._chunk
            if len(data) <= chunk:
                self._emit(_OUTPUT, data, now, effects)
            else:
                for start in range(0, len(data), chunk):
                    self._emit(_OUTPUT, data[start : start + chunk], now, effects)
        elif self.state is State.READY:
            self._emit(payload_type, data, now, effects)
        self._note_room()
        return effects

    def probe(self, now: float) -> list[Effect]:
        """Ask the far end (not the gateway) for a sign of life: ``ProbeAnswered`` follows if it lives.

        Does nothing before the channel is ready, or while a probe is on its way.
        """
        if self.state is not State.READY or self._probe is not None:
            return []
        effects: list[Effect] = []
        self._probe = (self._emit(int(PayloadType.PARAMETER), NO_OP, now, effects), now)
        self._note_room()
        return effects

    def skip_ahead(self, now: float) -> list[Effect]:
        """Give up all missing frames: acknowledge them unseen, and deliver what came after them.

        For terminals after a long outage, where catching up at ten frames a second would take longer
        than a redraw. Reset the terminal first (an escape sequence may be cut), and force a redraw after.

        Raises:
            ValueError: a port session; its byte stream would be corrupt.
        """
        if self.session_type == "Port":
            raise ValueError("a port session must not skip bytes")
        if self.state is not State.READY or not self._is_up:
            return []
        effects: list[Effect] = []
        self._drain(now, effects)
        while (sequence := self._inbox.skip()) is not None:
            id_ = self._next_id()
            self._inbox.recent.append((sequence, id_))
            effects.append(Send(self._acknowledgement(sequence, id_, now)))
            self._drain(now, effects)
        return effects

    def _on_size(self, data: bytes, now: float, effects: list[Effect]) -> None:
        self._size = data
        if not self._was_up:
            self._size_waits = True  # a frame needs the wall clock, which comes with the first link
            return
        if self.state is State.HANDSHAKE:
            return  # it goes out at the end of the handshake
        if self._sizes and next(reversed(self._sizes.values())) == data:
            self._size_waits = False
            return  # it is on its way already, and will be repeated until it is acknowledged
        self._emit_size(now, effects)

    def _emit_size(self, now: float, effects: list[Effect]) -> None:
        if self._size is None or self.state is State.HANDSHAKE:
            return
        self._size_waits = len(self._sizes) >= MAX_SIZES
        if not self._size_waits:
            sequence = self._emit(int(PayloadType.SIZE), self._size, now, effects)
            self._sizes[sequence] = self._size
            self._note_room()

    def _emit(
        self, payload_type: int, data: bytes, now: float, effects: list[Effect], *, eager: bool = False
    ) -> int:
        """Number, seal, store and (with a link) send one frame; return its sequence."""
        if payload_type == _OUTPUT and (cipher := self._handshake.cipher) is not None:
            data = cipher.encrypt(data)
        outbox = self._outbox
        sequence = outbox.next_sequence
        created_ms = int(self._wall_offset_ms + now * 1000)
        wire = encode(INPUT, sequence, data, payload_type, 0, self._next_id(), created_ms)
        if outbox.add(wire, len(data), now, eager=eager):
            effects.append(Send(wire))
        return sequence

    def _acknowledgement(self, sequence: int, acknowledged: bytes, now: float) -> bytes:
        return encode_acknowledge(
            sequence, acknowledged, self._next_id(), int(self._wall_offset_ms + now * 1000)
        )

    def _next_id(self) -> bytes:
        if self._new_id is not None:
            return self._new_id().bytes
        self._id_counter = (self._id_counter + 1) & (1 << 62) - 1
        return self._id_start + (self._id_counter | 1 << 63).to_bytes(8, "big")

    # -- time

    def tick(self, now: float) -> list[Effect]:
        """Do what is due. Calling it early or late is harmless."""
        effects: list[Effect] = []
        if not self._is_up or self.state is State.CLOSED:
            return effects
        if (reason := self._overdue(now)) is not None:
            self._break(reason, effects)
        else:
            effects += map(Send, self._outbox.due(now))
        return effects

    def next_deadline(self) -> float | None:
        """When ``tick`` must be called next; None while there is nothing to wait for."""
        if not self._is_up or self.state is State.CLOSED:
            return None
        resend = self._outbox.next_deadline()
        torn = self._inbox.torn_at(self.limits.gap)
        given_up = self._given_up_at()
        phase = self._phase_until()
        return min((at for at in (resend, torn, given_up, phase) if at is not None), default=None)

    def _given_up_at(self) -> float | None:
        since = self._outbox.oldest_since
        return None if since is None else since + self.limits.give_up

    def _phase_until(self) -> float | None:
        if self._phase_since is None:
            return None
        limits = self.limits
        return self._phase_since + (limits.greeting if self._handshake.is_complete else limits.handshake)

    def _overdue(self, now: float) -> str | None:
        """Why the session is given up, if it is."""
        if (at := self._given_up_at()) is not None and at <= now:
            return f"the far end left a frame unacknowledged for {self.limits.give_up:.0f} s"
        if (at := self._phase_until()) is not None and at <= now:
            if not self._handshake.is_complete:
                return "the handshake did not complete"
            return "the far end takes no data after the handshake: does anything listen on the port?"
        if self._inbox.is_torn(self.limits.gap, now):
            return "output is lost for ever: a frame of the far end stays missing"
        return None
