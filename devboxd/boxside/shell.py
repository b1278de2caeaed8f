"""What runs on the box for an attach: the start command, and the marks it leaves in the output.

Session Manager starts a command with a bare environment: no USER, no login shell, the service's folder,
a terminal of 0 by 0, and whatever user the account says. The start script repairs all of that, finds the
multiplexer, and reports what it found and how it ended through marks: application program commands
(``ESC _ … ESC \\``) that carry a nonce. Terminals ignore such strings, and we take them out.
"""

from __future__ import annotations

from typing import Final

import msgspec

from devboxd.boxside.script import load, wrap
from devboxd.errors import BadRequest

MUXES: Final = ("zellij", "tmux", "none")


def check_session_name(name: str) -> str:
    """Return ``name`` if both multiplexers take it as a session name.

    Raises:
        BadRequest: empty, too long, or with a character that tmux or zellij gives a meaning.
    """
    if not name or len(name) > 64 or not all(c.isalnum() or c in "-_" for c in name) or name.startswith("-"):
        raise BadRequest(
            f"{name!r} cannot name a session", hint="use up to 64 letters, digits, hyphens and underscores"
        )
    return name


def attach_command(
    *,
    nonce: str,
    session: str,
    term: str,
    user: str | None = None,
    mux: str | None = None,
    colorterm: str | None = None,
    locale: str | None = None,
    command: str | None = None,
    lends_agent: bool = False,
) -> str:
    """The text that joins or creates the mux session ``session`` on the box (or runs ``command`` there).

    Raises:
        BadRequest: a name that cannot be, or a command that is too long.
    """
    check_session_name(session)
    if mux is not None and mux not in MUXES:
        raise BadRequest(f"{mux!r} is no multiplexer that devbox knows", hint=f"one of: {', '.join(MUXES)}")
    return wrap(
        load("attach.sh"),
        "1",
        nonce,
        user or "",
        mux or "",
        session,
        term,
        colorterm or "",
        locale or "",
        command or "",
        "1" if lends_agent else "",
    )


class Mark(msgspec.Struct, frozen=True):
    """A mark of ours in the output: ``words`` are its fields after the nonce."""

    words: tuple[str, ...]


class MarkFilter:
    """Takes our marks out of terminal output, however they are cut.

    Bytes that could be the start of a mark are held back until the next ones decide; ``flush`` gives them
    up when there are none.
    """

    LONGEST = 256  # bytes; a longer string is not ours

    def __init__(self, nonce: str) -> None:
        self._prefix = f"\x1b_devbox;{nonce};".encode()
        self._held = b""

    def feed(self, data: bytes) -> list[bytes | Mark]:
        """Split output into plain bytes and marks, in order."""
        found: list[bytes | Mark] = []
        data = self._held + data if self._held else data
        self._held = b""
        while data:
            start = data.find(b"\x1b_")
            if start < 0:
                if data.endswith(b"\x1b"):
                    self._held, data = data[-1:], data[:-1]
                if data:
                    found.append(data)
                break
            if start:
                found.append(data[:start])
                data = data[start:]
            if not data.startswith(self._prefix[: len(data)]):
                found.append(data[:2])
                data = data[2:]
                continue
            end = data.find(b"\x1b\\", len(self._prefix))
            if end < 0:
                if len(data) <= self.LONGEST:
                    self._held = data
                else:
                    found.append(data)
                break
            words = data[len(self._prefix) : end].decode("utf-8", "replace").split(";")
            found.append(Mark(tuple(words)))
            data = data[end + 2 :]
        return found

    def flush(self) -> bytes:
        """Give up what is held back: no more output will come."""
        held, self._held = self._held, b""
        return held


def printable(text: str, limit: int = 300) -> str:
    """Make text of the far end safe to show: one line, no control characters, bounded."""
    clean = "".join(c if c.isprintable() else " " for c in text)
    clean = " ".join(clean.split())
    return clean if len(clean) <= limit else clean[: limit - 1] + "…"
