"""What a remote program has switched on in our terminal, and the line in which we say something ourselves.

Pure: bytes in, bytes out.
"""

from __future__ import annotations

# Private modes that outlive a program which dies (or whose link dies), and what switches each off again.
# 1049/47/1047: other screen; 100x: mouse; 1004: focus reports; 2004: bracketed paste; 25: cursor; 1: keypad.
_OFF_AT_END = {
    *(b"1000", b"1002", b"1003", b"1005", b"1006", b"1015", b"1004", b"2004", b"2026", b"2031"),
    *(b"1049", b"1047", b"47", b"1"),
}
_ON_AT_END = {b"25", b"7"}
_TAIL = 24  # bytes kept from one piece to the next: longer than any sequence we look for


class Modes:
    """Watches output for modes, so that leaving can undo exactly those that are still on."""

    def __init__(self) -> None:
        self._changed: dict[bytes, bool] = {}
        self._keyboards = 0  # pushes of the kitty keyboard protocol
        self._keypad = False
        self._tail = b""

    def watch(self, data: bytes) -> None:
        """Look at output. Costs two searches when there is nothing to see."""
        if self._tail:
            data = self._tail + data
        self._tail = b""
        at = data.find(b"\x1b")
        while at >= 0:
            end = self._sequence(data, at)
            if end < 0:
                self._tail = data[at : at + _TAIL] if len(data) - at < _TAIL else b""
                return
            at = data.find(b"\x1b", end)

    def _sequence(self, data: bytes, at: int) -> int:
        """Read the sequence at ``at``; returns where to go on, -1 when it is cut off."""
        if len(data) < at + 2:
            return -1
        kind = data[at + 1]
        if kind in b"=>":
            self._keypad = kind == ord("=")
            return at + 2
        if kind != ord("["):
            return at + 2
        end = at + 2
        while end < len(data) and 0x20 <= data[end] < 0x40:
            end += 1
            if end - at > _TAIL:
                return end
        if end == len(data):
            return -1
        body, final = data[at + 2 : end], data[end]
        if body.startswith(b"?") and final in b"hl":
            for mode in body[1:].split(b";"):
                if mode in _OFF_AT_END or mode in _ON_AT_END:  # the rest is of no interest, and without end
                    self._changed[mode] = final == ord("h")
        elif final == ord("u") and body[:1] in (b">", b"<"):
            step = int(body[1:]) if body[:1] == b"<" and body[1:].isdigit() else 1
            self._keyboards = max(0, self._keyboards + (1 if body[:1] == b">" else -step))
        return end + 1

    def undo(self) -> bytes:
        """Build what brings the terminal back to how a shell expects it; empty when nothing is on."""
        undo = b"".join(
            b"\x1b[?" + mode + b"l" for mode in sorted(_OFF_AT_END) if self._changed.get(mode)
        ) + b"".join(
            b"\x1b[?" + mode + b"h" for mode in sorted(_ON_AT_END) if self._changed.get(mode) is False
        )
        if self._keyboards:
            undo += b"\x1b[<%du" % self._keyboards
        if self._keypad:
            undo += b"\x1b>"
        if undo:
            undo += b"\x1b[0m"
        self._changed.clear()
        self._keyboards, self._keypad, self._tail = 0, False, b""
        return undo


def bottom_line(text: str, columns: int, rows: int) -> bytes:
    """Show ``text`` in the last line; the cursor comes back to where it was."""
    shown = text[: max(0, columns - 2)]
    return f"\x1b7\x1b[{rows};1H\x1b[0;7m {shown} \x1b[0m\x1b[K\x1b8".encode()


def erased_bottom_line(rows: int) -> bytes:
    """Take the line away again. What stood there is redrawn by the mux."""
    return f"\x1b7\x1b[{rows};1H\x1b[0m\x1b[2K\x1b8".encode()


def line(text: str, columns: int) -> bytes:
    """Show ``text`` in the line where the cursor is, in place of what stood there."""
    return f"\r\x1b[0m{text[: max(0, columns - 1)]}\x1b[K".encode()


def erased_line() -> bytes:
    """Take that line away."""
    return b"\r\x1b[K"


def title(text: str) -> bytes:
    """Say it in the window title instead, for a shell whose last line nobody would redraw."""
    return f"\x1b[22;2t\x1b]2;{text}\x1b\\".encode()


def former_title() -> bytes:
    """Put the title back."""
    return b"\x1b[23;2t"
