"""Text that we did not write, and times: how both are shown and read. One place for each rule.

``devboxctl`` has this module in its start-up path, so it imports nothing until it must.
"""

from __future__ import annotations

TYPE_CHECKING = False  # mypy takes it for typing.TYPE_CHECKING; importing typing costs 8 ms
if TYPE_CHECKING:
    from collections.abc import Container
    from typing import Final

LINE_MAX: Final = 300  # characters of a foreign text in one of our sentences
LOOKED_AT: Final = (
    20  # times the limit: what is longer than that is cut before anybody looks at each character
)
MARKS_MAX: Final = 4  # accents on one letter: more are no script but a tower over the lines above
REPLACEMENT: Final = "\ufffd"
SPAN_UNITS: Final = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}  # seconds

# Shown as nothing, though Unicode calls them letters, marks or symbols: with them two names that differ
# look the same. DerivedCoreProperties.txt, Default_Ignorable_Code_Point, as far as ``str.isprintable``
# lets them pass, and the empty braille pattern. Variation selectors only choose between two looks.
_INVISIBLE: Final = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u2800\u3164\uffa0")


def printable(text: str, keep: str = "") -> str:
    """Make text of a box, of AWS or of a file safe to show: it can neither drive a terminal nor deceive.

    Control characters (C0, DEL, C1) and all white space become a space. What turns the direction of writing,
    has no width, has no meaning or cannot be encoded becomes U+FFFD, so that one sees that something is
    there. The length stays the same, but for accents beyond ``MARKS_MAX`` on one letter.

    Args:
        keep: control characters that stay, such as a line break.
    """
    if text.isascii():
        if text.isprintable():
            return text
        return "".join(c if c in keep or c.isprintable() else " " for c in text)
    from unicodedata import category

    shown = []
    marks = 0
    for character in text:
        kind = "" if character.isascii() else category(character)
        marks = marks + 1 if kind in ("Mn", "Me") else 0
        if marks > MARKS_MAX:
            continue
        if character in keep or (character.isprintable() and character not in _INVISIBLE):
            shown.append(character)
        else:
            shown.append(" " if kind in ("", "Cc", "Zs", "Zl", "Zp") else REPLACEMENT)
    return "".join(shown)


def one_line(text: str, limit: int = LINE_MAX) -> str:
    """Make foreign text fit into a sentence: ``printable``, single spaces, at most ``limit`` characters."""
    clean = " ".join(printable(text[: LOOKED_AT * limit]).split())
    return clean if len(clean) <= limit else clean[: limit - 1] + "…"


def rfc3339(seconds: float, *, millis: bool = True) -> str:
    """Write Unix seconds as RFC 3339 in UTC: ``2026-11-20T10:00:00.000Z``, or without the fraction.

    Raises: ValueError, OverflowError: beyond the years 1 to 9999.
    """
    from datetime import UTC, datetime

    moment = datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None)
    return moment.isoformat(timespec="milliseconds" if millis else "seconds") + "Z"


def parse_rfc3339(text: str) -> float:
    """Read a time as AWS and its tools write it, as Unix seconds. Without a zone it is UTC.

    A trailing ``UTC`` in place of the zone is taken, too: old versions of botocore write it.

    Raises: ValueError.
    """
    from datetime import UTC, datetime

    moment = datetime.fromisoformat(text.strip().removesuffix("UTC"))
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return moment.timestamp()


def parse_span(
    text: str, *, units: Container[str] = SPAN_UNITS, parts: int = 4, digits: int = 9, exact: bool = False
) -> float | None:
    """Read a time span such as ``30m``, ``1h30m`` or ``2d``, as seconds; None: it is none.

    Args:
        units: of ``SPAN_UNITS``, those that may be used.
        parts: how many numbers with a unit there may be.
        digits: how many each number may have, 9 at most.
        exact: spaces and capitals are not taken.
    """
    import re

    plain = text if exact else text.strip().lower().replace(" ", "")
    found = re.findall(r"(\d{1,9})(s|min|m|h|d)", plain)
    if not 1 <= len(found) <= parts or plain != "".join(count + unit for count, unit in found):
        return None
    if any(len(count) > digits or unit not in units for count, unit in found):
        return None
    return sum(int(count) * SPAN_UNITS[unit] for count, unit in found)
