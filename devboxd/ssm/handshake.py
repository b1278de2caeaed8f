"""The opening talk of a session: what the far end asks for, what we answer, and version gates.

Source: ``docs/protocol.md``, "Handshake".
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable
from typing import Any, Final

import msgspec

from devboxd.errors import DevboxError
from devboxd.ssm.crypto import Cipher, CryptoError
from devboxd.ssm.effect import NeedDataKey
from devboxd.ssm.payload import (
    CLIENT_VERSION,
    Challenge,
    HandshakeComplete,
    HandshakeRequest,
    PayloadError,
    parse,
)

SESSION_TYPES: Final = frozenset({"Standard_Stream", "InteractiveCommands", "NonInteractiveCommands", "Port"})
MAX_ACTIONS: Final = 32  # two exist; the answer has to fit into one frame
MAX_NAME: Final = 64  # characters of a name that we repeat to the far end

SUCCESS: Final = 1
FAILED: Final = 2
UNSUPPORTED: Final = 3


class HandshakeError(DevboxError):
    """The far end and we can not agree: this session is of no use."""

    code = "handshake-failed"
    retryable = True


class Request(msgspec.Struct, frozen=True):
    """What the far end wants. ``actions`` keeps the order of the request.

    ``problems`` holds, for each action that we already know to fail, its status and the reason.
    """

    agent_version: str
    actions: list[str]
    problems: dict[str, tuple[int, str]]
    session_type: str | None = None
    properties: dict[str, Any] | None = None
    key_id: str | None = None
    challenge: str | None = None


def read_request(payload: bytes) -> Request:
    """Parse a handshake request.

    Raises:
        PayloadError: not a handshake request, or one with absurdly many actions.
    """
    message = parse(payload, HandshakeRequest)
    requested = message.requested_client_actions or []
    if len(requested) > MAX_ACTIONS:
        raise PayloadError(f"a handshake with {len(requested)} actions")
    problems: dict[str, tuple[int, str]] = {}
    session_type: str | None = None
    properties: dict[str, Any] | None = None
    key_id: str | None = None
    challenge: str | None = None
    names: list[str] = []
    for action in requested:
        name = action.action_type[:MAX_NAME]
        parameters = action.action_parameters or {}
        if name in names:
            continue  # once is enough; the far end fails the session on any answer but success
        names.append(name)
        if name == "SessionType":
            session_type = _text(parameters.get("SessionType"))
            found = parameters.get("Properties")
            properties = found if isinstance(found, dict) else None
            if session_type not in SESSION_TYPES:
                problems[name] = (FAILED, f"Unknown session type {(session_type or '')[:MAX_NAME]}")
        elif name == "KMSEncryption":
            key_id = _text(parameters.get("KMSKeyId")) or None
            challenge = _text(parameters.get("Challenge")) or None
            if key_id is None:
                problems[name] = (FAILED, "Failed to process action KMSEncryption: no key id")
        else:
            problems[name] = (UNSUPPORTED, f"Unsupported action {name}")
    return Request(message.agent_version or "", names, problems, session_type, properties, key_id, challenge)


def encryption_context(session_id: str, target: str, challenge: str | None) -> dict[str, str]:
    """The KMS context of the data key. The far end rebuilds it for Decrypt, so it must match exactly.

    The challenge stays as received (base64). Where one was sent, we always take it into the context and
    say so in the answer: a far end may be configured to insist.
    """
    context = {"aws:ssm:SessionId": session_id, "aws:ssm:TargetId": target}
    if challenge is not None:
        context["aws:ssm:RandomChallenge"] = challenge
    return context


def write_response(request: Request, *, encrypted_key: bytes | None = None, key_problem: str = "") -> bytes:
    """Answer every action once.

    Args:
        encrypted_key: the data key as KMS encrypted it, where the request asks for encryption.
        key_problem: why there is none.
    """
    processed: list[dict[str, object]] = []
    errors: list[str] = []
    for name in request.actions:
        status, error = request.problems.get(name, (SUCCESS, ""))
        result: dict[str, object] | None = None
        if name == "KMSEncryption" and status == SUCCESS:
            if encrypted_key is None:
                status, error = FAILED, f"Failed to process action KMSEncryption: {key_problem}"
            else:
                result = {
                    "KMSCipherTextKey": b64encode(encrypted_key).decode("ascii"),
                    "KMSCipherTextHash": None,
                }
                if request.challenge is not None:
                    result["ChallengeAcknowledgement"] = True
        if error:
            errors.append(error)
        processed.append({"ActionType": name, "ActionStatus": status, "ActionResult": result, "Error": error})
    return msgspec.json.encode(
        {"ClientVersion": CLIENT_VERSION, "ProcessedClientActions": processed, "Errors": errors or None}
    )


class Handshake:
    """Our side of one handshake: each thing is answered once, whatever is repeated or comes late.

    Holds the session's cipher afterwards.
    """

    __slots__ = (
        "_entropy",
        "_has_answered",
        "_has_answered_challenge",
        "_session_id",
        "_target",
        "cipher",
        "is_complete",
        "is_sealed",
        "request",
    )

    def __init__(self, session_id: str, target: str, entropy: Callable[[int], bytes]) -> None:
        self._session_id = session_id
        self._target = target
        self._entropy = entropy
        self._has_answered = False
        self._has_answered_challenge = False
        self.request: Request | None = None
        self.cipher: Cipher | None = None
        self.is_sealed = False  # encryption was asked for: clear output is refused from now on
        self.is_complete = False

    def begin(self, payload: bytes) -> bytes | NeedDataKey:
        """Take the request: return the response, or what is needed to write it.

        Raises:
            HandshakeError: not a request.
        """
        try:
            self.request = request = read_request(payload)
        except PayloadError as error:
            raise HandshakeError(f"the handshake can not be understood: {error.message}") from None
        if "KMSEncryption" in request.actions:
            self.is_sealed = True
            if request.key_id is not None:
                context = encryption_context(self._session_id, self._target, request.challenge)
                return NeedDataKey(request.key_id, context)
        self._has_answered = True
        return write_response(request)

    def take_key(self, plaintext: bytes, ciphertext: bytes) -> bytes | None:
        """Take the data key: return the response, or None when none is wanted (any more)."""
        if self.request is None or self._has_answered:
            return None
        try:
            self.cipher = Cipher(plaintext, self._entropy)
        except CryptoError as error:
            return self.refuse_key(error.message)
        self._has_answered = True
        return write_response(self.request, encrypted_key=ciphertext)

    def refuse_key(self, reason: str) -> bytes | None:
        """There will be no data key: return the response, or None when none is wanted (any more)."""
        if self.request is None or self._has_answered:
            return None
        self._has_answered = True
        return write_response(self.request, key_problem=reason[:512])

    def answer_challenge(self, payload: bytes) -> bytes | None:
        """Prove that we hold the key: return the answer, or None when it was not our turn.

        Raises:
            HandshakeError: the far end does not hold the key.
        """
        if self.cipher is None or self.is_complete or self._has_answered_challenge:
            return None
        try:
            answer = Challenge(self.cipher.answer(parse(payload, Challenge).challenge))
        except (CryptoError, PayloadError) as error:
            raise HandshakeError(f"the far end does not hold the data key: {error.message}") from None
        self._has_answered_challenge = True
        return msgspec.json.encode(answer)

    def complete(self, payload: bytes) -> str:
        """Take the end of the handshake; return the administrator's text for the user.

        Raises:
            HandshakeError: there is no key (yet), and encryption was asked for.
        """
        if self.is_sealed and self.cipher is None:
            raise HandshakeError("the far end goes on without the encryption that it asked for")
        self.is_complete = True
        try:
            return parse(payload, HandshakeComplete).customer_message or ""
        except PayloadError:
            return ""  # only that text is lost


def compare_versions(left: str, right: str) -> int:
    """Compare as the far end does: part by part, as numbers where both are; more parts win a tie.

    Returns:
        Below 0, 0 or above 0. Source: ``vectors/client_version_gates.json``.
    """
    ours, theirs = left.split("."), right.split(".")
    for one, other in zip(ours, theirs, strict=False):
        if one == other:
            continue
        if one.isdecimal() and other.isdecimal() and len(one) < 10 and len(other) < 10:
            if int(one) != int(other):
                return -1 if int(one) < int(other) else 1
            continue
        return -1 if one < other else 1
    return (len(ours) > len(theirs)) - (len(ours) < len(theirs))


def speaks_mux(agent_version: str, properties: dict[str, Any] | None) -> bool:
    """Say whether a port session carries smux: for forwards, with a far end above 3.0.196.0.

    Both sides decide for themselves; the far end also looks at our version, which is above its gate.
    """
    return (properties or {}).get("type") == "LocalPortForwarding" and _is_above(agent_version, "3.0.196.0")


def needs_keepalive(agent_version: str) -> bool:
    """Say whether the far end ends a smux session that was silent for 30 s: up to 3.1.1511.0."""
    return not _is_above(agent_version, "3.1.1511.0")


def _is_above(version: str, gate: str) -> bool:
    # The official client falls back to "no" for what is not four numbers.
    return len(version.split(".")) == 4 and compare_versions(version, gate) > 0


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
