"""What is told of the notes of coding agents; the program that writes them travels without this."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

TELLS = (
    ("name", 60),
    ("state", 16),
    ("text", 300),
    ("where", 64),
)  # what is told of an agent's note, and characters of it


def told_of(note: "dict[str, Any]") -> "dict[str, Any] | None":
    """What is told of an agent's note; None: it is none."""
    try:
        found = {key: str(note.get(key) or "")[:most] for key, most in TELLS}  # type: dict[str, Any]
        found.update(pid=int(note["pid"]), since=float(note["since"]), quiet=bool(note.get("quiet")))
    except (ValueError, KeyError, TypeError, OverflowError):
        return None
    return found if 0 <= found["since"] < 1e11 else None  # which may be no number that JSON knows
