"""Names: what may be a box, a user, a host key, a session, and which box a name means.

A box is called by any Name tag (EC2 lets every character into a tag), by a name from the configuration, by
its instance id, or by the beginning of one of them. ssh wants host names: ``host_label`` derives one.
"""

from __future__ import annotations

import base64
import binascii
import difflib
import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Final, Protocol

import msgspec

from devboxd.errors import BadRequest
from devboxd.model.states import Mux

HOST_SUFFIX: Final = ".devbox"
REASON_PREFIX: Final = "devbox"  # the Reason of every session of ours begins so
REASON_MAX: Final = 256  # characters (StartSession, API reference)
NAME_MAX: Final = 256  # characters of a tag's value (EC2 User Guide, "Tag restrictions")
LABEL_MAX: Final = 48  # characters of a derived host name, before its digits
CLOSE_MAX: Final = 3  # names offered for a misspelt one

_INSTANCE_ID: Final = re.compile(r"(i-[0-9a-f]{8}(?:[0-9a-f]{9})?|mi-[0-9a-f]{17})\Z")
_LONG: Final = re.compile(r"-[0-9a-f]{6}\Z")  # how every long label ends
_HOST: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?\Z")
# What useradd, SSSD and winbind (without a domain's backslash) call users, and no shell or ssh gives a
# meaning. A leading hyphen would be an option.
_USER: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@-]{0,63}\$?\Z")
_DOCUMENT: Final = re.compile(r"[A-Za-z0-9_.:/-]{3,128}\Z")  # DocumentName of StartSession (ssm API model)
_HOST_KEY_TYPE: Final = re.compile(r"(?:sk-)?(?:ssh|ecdsa-sha2)-[A-Za-z0-9@.-]+\Z")
_CERTIFICATE: Final = "-cert-v0"  # known_hosts takes certificates by their authority only
_PATTERN: Final = frozenset(" *?!,|@#[]:;\"'\\`$&<>(){}")
HOST_KEY_MAX: Final = (
    16384  # characters; an RSA key of 16,384 bits takes 2,764, post-quantum ones about 4,000
)


def is_instance_id(text: str) -> bool:
    """Say whether this is an EC2 or hybrid instance id: valid as a box without asking anybody."""
    return _INSTANCE_ID.match(text) is not None


def is_name(text: str) -> bool:
    """Say whether a box can be called so: whatever can be a Name tag and is not blank."""
    if not text.strip() or len(text) > NAME_MAX or "\0" in text:
        return False
    try:
        text.encode()  # half a surrogate pair is no text
    except UnicodeEncodeError:
        return False
    return True


def is_host_name(text: str) -> bool:
    """Say whether ssh takes this as (the first part of) a host name, in its files too."""
    return _HOST.match(text) is not None


def is_pinnable(text: str) -> bool:
    """Say whether this can stand before a key in known_hosts, where some characters mean other hosts, too."""
    return bool(text) and text.isprintable() and not text.startswith("-") and not set(text) & _PATTERN


def is_user(text: str) -> bool:
    """Say whether this can be a login name on a box."""
    return _USER.match(text) is not None


def is_document(text: str) -> bool:
    """Say whether StartSession takes this as the name or ARN of a session document."""
    return _DOCUMENT.match(text) is not None


def check_user(name: str) -> str:
    """Return ``name`` if it can be a login name. Raises BadRequest."""
    if not is_user(name):
        raise BadRequest(
            f"{name[:64]!r} cannot be a user's name", hint="letters, digits, dots, hyphens, underscores and @"
        )
    return name


def check_session(name: str) -> str:
    """Return ``name`` if both multiplexers take it as a session name.

    Raises:
        BadRequest: empty, too long, or with a character that tmux or zellij gives a meaning.
    """
    if not name or len(name) > 64 or not all(c.isalnum() or c in "-_" for c in name) or name.startswith("-"):
        raise BadRequest(
            f"{name[:64]!r} cannot name a session",
            hint="use up to 64 letters, digits, hyphens and underscores",
        )
    return name


def check_mux(text: str, known: Sequence[Mux] = tuple(Mux)) -> Mux:
    """The multiplexer of that name, which is one of ``known``. Raises BadRequest."""
    if text not in known:
        raise BadRequest(
            f"{text[:64]!r} is no multiplexer that devbox knows", hint=f"one of: {', '.join(known)}"
        )
    return Mux(text)


def host_key(line: str) -> str | None:
    """The public key in a line of a box, as ``type base64`` without its comment; None where it is none.

    It ends in our known_hosts, so nothing goes in that is not wholly a key: the base64 has to hold the name
    of the type again (RFC 4253, 6.6), and certificates are left out.
    """
    kind, _, rest = line.strip().partition(" ")
    text = rest.split(" ", 1)[0]
    if len(text) > HOST_KEY_MAX or not _HOST_KEY_TYPE.match(kind) or _CERTIFICATE in kind:
        return None
    try:
        blob = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    inner = kind.encode()
    if not blob.startswith(len(inner).to_bytes(4, "big") + inner) or len(blob) < len(inner) + 4 + 16:
        return None
    return f"{kind} {text}"


def known_host(box: str, port: int) -> str:
    """What stands before the key of a box in known_hosts, in lower case as ssh looks it up."""
    host = "".join(c.lower() if c.isascii() else c for c in f"{box}{HOST_SUFFIX}")
    return host if port == 22 else f"[{host}]:{port}"


def strip_suffix(text: str) -> str:
    """Take ``gpu.devbox`` for ``gpu``: ssh hands us host names."""
    return text.removesuffix(HOST_SUFFIX)


def owner_reason(owner: str) -> str:
    """What the Reason of every session begins with that this owner (user and machine) has opened."""
    return f"{REASON_PREFIX}/{owner}/"


def session_reason(owner: str, kind: str, run: str) -> str:
    """The Reason of a session: whose it is, what for, and which life of the daemon opened it."""
    return f"{owner_reason(owner)}{kind}/{run}"[:REASON_MAX]


# Host names -----------------------------------------------------------------------------------------


def host_label(name: str) -> str:
    """The host name of a box that is called so, without its suffix; the name itself where that will do.

    ``My Dev Box`` → ``my-dev-box``, ``büro`` → ``buro``. Several names can have the same; see ``long_label``.
    """
    return name if is_host_name(name) else _plain(name) or long_label(name)


def long_label(name: str) -> str:
    """A host name that no other name has: a readable part and six digits that follow from the name."""
    digits = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:6]
    return f"{_plain(name) or 'box'}-{digits}"


@lru_cache(maxsize=4096)
def _plain(name: str) -> str:
    """What of a name is left in the letters of a host name: it may be nothing."""
    plain = unicodedata.normalize("NFKD", name.casefold()).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:LABEL_MAX].strip("-")


def host_labels(names: Iterable[str]) -> dict[str, str]:
    """Give each name a host name of its own. Host names know no upper and lower case.

    A name that is a host name already keeps it. Where two want the same, the one in lower case that needed no
    change keeps it, and the others get their long one: what is pinned for a host never changes hands.
    """
    known = set(names)
    wanted = Counter(host_label(name).lower() for name in known)

    def is_own(name: str, label: str) -> bool:
        if f"{label}{HOST_SUFFIX}" in known:
            return False  # a box is called so, and a name in full comes first
        return wanted[label.lower()] == 1 or name == label.lower()

    return {
        name: label if is_own(name, label) else long_label(name)
        for name in known
        for label in [host_label(name)]
    }


# Which box a name means -----------------------------------------------------------------------------


class Named(Protocol):
    """An instance, as far as its names go."""

    @property
    def id(self) -> str: ...
    @property
    def name(self) -> str | None: ...
    @property
    def project(self) -> str | None: ...
    @property
    def is_running(self) -> bool: ...


class Found(msgspec.Struct, frozen=True):
    """One box. ``name``: what it is called in full; ``target``: instance id, or a name to look up in turn."""

    name: str
    target: str


class Several(msgspec.Struct, frozen=True):
    """More than one box; each as one has to write it to mean that one. ``begun``: all begin so."""

    names: tuple[str, ...]
    begun: bool = False


class Nothing(msgspec.Struct, frozen=True):
    """No box. ``close``: names that look alike; ``known``: all there are."""

    close: tuple[str, ...] = ()
    known: tuple[str, ...] = ()


Meaning = Found | Several | Nothing


def called(name: str, boxes: Iterable[Named]) -> Found | Several | None:
    """The box with this Name tag or project; where one of them runs, stopped ones are not meant."""
    fitting = [box for box in boxes if name in (box.name, box.project)]
    ids = sorted(box.id for box in fitting if box.is_running) or sorted(box.id for box in fitting)
    if len(ids) > 1:
        return Several(tuple(ids))
    return Found(name, ids[0]) if ids else None


def meaning(text: str, boxes: Sequence[Named], configured: Mapping[str, str]) -> Meaning:
    """Say which box ``text`` means.

    The first rule that any box fits decides: the configured name; the Name tag or project; the host name; the
    beginning of any of these or of an id.

    Args:
        boxes: the instances that exist.
        configured: name in the configuration → its target (an instance id or a Name tag).
    """
    bare = strip_suffix(text)
    for asked in dict.fromkeys((text, bare)):
        if asked in configured:
            return Found(asked, configured[asked])
        if (found := called(asked, boxes)) is not None:
            return found
    callables = _callables(boxes, configured)
    labels = host_labels(callables)
    for fits in (_is_host, _begins):
        fitting = {
            target: name for name, target in callables.items() if fits(bare, name, target, labels[name])
        }
        if len(fitting) == 1:
            [(target, name)] = fitting.items()
            return Found(name, target)
        if fitting:
            return Several(tuple(sorted(fitting.values())), begun=fits is _begins)
    known = tuple(sorted(callables))
    return Nothing(_close(bare, known), known)


class Listing(msgspec.Struct, frozen=True):
    """How a box is shown. ``ref``: what to write to mean this box and no other; ``host``: its host name."""

    name: str
    ref: str
    host: str


def listings(boxes: Sequence[Named], configured: Mapping[str, str]) -> dict[str, Listing]:
    """By instance id (or what the configuration says, where no box fits): how each box is shown."""
    refs = _references(boxes, configured)
    shown = {box.id: box.name if box.name and is_name(box.name) else refs[box.id] for box in boxes}
    for name, target in _callables(boxes, configured).items():
        if name in configured:
            refs[target] = shown[target] = name
    labels = host_labels(refs.values())
    return {id_: Listing(shown[id_], ref, labels[ref] + HOST_SUFFIX) for id_, ref in refs.items()}


def _references(boxes: Sequence[Named], configured: Mapping[str, str]) -> dict[str, str]:
    """By instance id: its name or project where that means this box alone, or else its id."""
    owners: dict[str, list[Named]] = {}
    for box in boxes:
        for name in {box.name, box.project} - {None, ""}:
            assert name is not None
            owners.setdefault(name, []).append(box)

    def means(name: str | None, box: Named) -> bool:
        return (
            name is not None
            and is_name(name)
            and not is_instance_id(name)
            and configured.get(name, box.id) in (box.id, name)
            and called(name, owners.get(name, ())) == Found(name, box.id)
        )

    return {
        box.id: next((name for name in (box.name, box.project) if name and means(name, box)), box.id)
        for box in boxes
    }


def _callables(boxes: Sequence[Named], configured: Mapping[str, str]) -> dict[str, str]:
    """All that can be written for a box → its instance id (or what the configuration says, where none fits).

    Configured names come last: of two names for one box, they carry its settings.
    """
    found = {name: id_ for id_, name in _references(boxes, configured).items()}
    for name, target in configured.items():
        meant = None if is_instance_id(target) else called(target, boxes)
        found.pop(name, None)
        if not isinstance(meant, Several):
            found[name] = meant.target if meant is not None else target
    return found


def _is_host(text: str, name: str, target: str, label: str) -> bool:
    same = unicodedata.normalize("NFC", text) == unicodedata.normalize("NFC", name)
    low = text.lower()
    if same or low in (label.lower(), host_label(name).lower()):
        return True
    return _LONG.search(low) is not None and low == long_label(name)


def _begins(text: str, name: str, target: str, label: str) -> bool:
    return bool(text) and any(word.startswith(text) for word in (name, label, target))


def _close(text: str, known: Collection[str]) -> tuple[str, ...]:
    """Names that ``text`` may be a slip of, the likeliest first."""
    by_lower = {name.lower(): name for name in known}
    return tuple(by_lower[low] for low in difflib.get_close_matches(text.lower(), by_lower, n=CLOSE_MAX))
