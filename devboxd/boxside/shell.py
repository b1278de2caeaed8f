"""What runs on the box for an attach: the start command, and the marks it leaves in the output.

Session Manager starts a command with a bare environment: no USER, no login shell, the service's folder,
a terminal of 0 by 0, and whatever user the account says. The start script repairs all of that, finds the
multiplexer, and reports what it found and how it ended through marks: application program commands
(``ESC _ … ESC \\``) that carry a nonce. Terminals ignore such strings, and we take them out.
"""

from __future__ import annotations

import msgspec

from devboxd.boxside.script import load, wrap
from devboxd.model.names import check_session
from devboxd.model.states import Mux


def attach_command(
    *,
    nonce: str,
    session: str,
    term: str,
    user: str | None = None,
    mux: Mux | None = None,
    colorterm: str | None = None,
    locale: str | None = None,
    command: str | None = None,
    lends_agent: bool = False,
) -> str:
    """The text that joins or creates the mux session ``session`` on the box (or runs ``command`` there).

    Raises:
        BadRequest: a name that cannot be, or a command that is too long.
    """
    check_session(session)
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
