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


def prelude(nonce: str, size: int) -> bytes:
    """What to type into a plain shell so that it runs the next ``size`` bytes in its place.

    The start command is longer than the 4095 bytes that a terminal keeps of a line, so it follows when the
    terminal edits no lines any more. The space in front keeps this out of the history of most shells.
    """
    mark = f"printf '\\033_devbox;%s;type\\033\\\\' {nonce}"
    return f' stty raw -echo; {mark}; D=$(head -c {size}); stty sane; exec sh -c "$D"\r'.encode()


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
        """Split output into plain bytes and marks, in order; no two plain pieces in a row.

        Takes time linear in ``data``, whatever it is: every byte is passed over once or twice.
        """
        found: list[bytes | Mark] = []
        data = self._held + data if self._held else data
        prefix, plain, at = self._prefix, 0, 0  # where what was not given out yet begins; where to look
        hold = len(data)
        while (start := data.find(prefix, at)) >= 0:
            # There is no escape inside a mark, so the next one ends it or shows that it is none.
            end = data.find(b"\x1b", start + len(prefix), start + self.LONGEST)
            if end < 0 or end + 1 == len(data):
                if len(data) - start <= self.LONGEST:
                    hold = start
                    break
                at = start + len(prefix)
            elif data[end + 1] != ord("\\"):
                at = end
            else:
                if start > plain:
                    found.append(data[plain:start])
                words = data[start + len(prefix) : end].decode("utf-8", "replace").split(";")
                found.append(Mark(tuple(words)))
                plain = at = end + 2
        else:
            # Only an escape in the last few bytes can be the beginning of a prefix that is cut.
            last = data.rfind(b"\x1b", max(plain, len(data) - len(prefix) + 1))
            if last >= 0 and prefix.startswith(data[last:]):
                hold = last
        self._held = data[hold:]
        if hold > plain:
            found.append(data[plain:hold])
        return found

    @property
    def held(self) -> bytes:
        """What is held back. Fed to another one it has the same effect."""
        return self._held

    def flush(self) -> bytes:
        """Give up what is held back: no more output will come."""
        held, self._held = self._held, b""
        return held
