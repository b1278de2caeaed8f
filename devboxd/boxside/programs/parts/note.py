"""Small JSON files of our own."""

import json
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any


def load(path: str, most: int) -> "dict[str, Any]":
    """A note of ours, of which ``most`` characters are read; empty where it is not there, or damaged."""
    try:
        with open(path) as file:
            found = json.loads(file.read(most))
        return found if isinstance(found, dict) else {}
    except (OSError, ValueError):
        return {}


def save(path: str, value: "dict[str, Any]") -> None:
    """All of it or nothing."""
    with open(path + ".new", "w") as file:
        file.write(json.dumps(value))
    os.rename(path + ".new", path)
