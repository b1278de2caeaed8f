"""Escapes typed after a new line, as in ssh: ``~.`` leave, ``~?`` help, ``~^Z`` suspend, ``~~`` a tilde."""

from __future__ import annotations

LEAVE, HELP, SUSPEND = "leave", "help", "suspend"
_ACTIONS = {ord("."): LEAVE, ord("?"): HELP, 0x1A: SUSPEND}
_LINE_ENDS = b"\r\n"
_PASTE_BEGINS, _PASTE_ENDS = b"\x1b[200~", b"\x1b[201~"

HELP_TEXT = (
    "{e}.   leave (the session goes on)\r\n"
    "{e}^Z  suspend this terminal\r\n"
    "{e}{e}   send the escape character\r\n"
    "{e}?   this help\r\n"
    "(escapes are recognised at the start of a line)\r\n"
)


class Escapes:
    """Takes typed bytes; gives back bytes to send and names of actions, in order."""

    def __init__(self, character: int | None) -> None:
        self._character = character
        self._at_line_start = True
        self._held = False
        self._pasting = False

    def feed(self, data: bytes) -> list[bytes | str]:
        """Split what was typed. A paste is never searched: its text was not typed as an escape."""
        if self._character is None or not data:
            return [data] if data else []
        if _PASTE_BEGINS in data:
            self._pasting = True
        if self._pasting:
            if _PASTE_ENDS in data:
                self._pasting = False
            self._at_line_start = False
            return [data]
        if not self._held and self._character not in data:
            self._at_line_start = data[-1] in _LINE_ENDS
            return [data]
        return self._search(data, self._character)

    def _search(self, data: bytes, character: int) -> list[bytes | str]:
        found: list[bytes | str] = []
        plain = bytearray()
        for byte in data:
            if self._held:
                self._held = False
                if (action := _ACTIONS.get(byte)) is not None:
                    if plain:
                        found.append(bytes(plain))
                        plain.clear()
                    found.append(action)
                    self._at_line_start = True
                    continue
                plain.append(character)
                if byte == character:
                    self._at_line_start = False
                    continue
            elif byte == character and self._at_line_start:
                self._held = True
                continue
            plain.append(byte)
            self._at_line_start = byte in _LINE_ENDS
        if plain:
            found.append(bytes(plain))
        return found


def escape_character(text: str) -> int | None:
    """Read the value of ``--escape``: one ASCII character, ``^X``, or ``none``. Raises ValueError."""
    if text == "none":
        return None
    if len(text) == 1 and text.isascii():
        return ord(text)
    if len(text) == 2 and text[0] == "^" and "@" <= text[1].upper() <= "_":
        return ord(text[1].upper()) - 64
    raise ValueError(text)
