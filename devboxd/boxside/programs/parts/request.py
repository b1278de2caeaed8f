"""A request that comes on standard input."""

import json
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

REQUEST_MOST = 256 << 10  # bytes


class Refused(Exception):
    """It can not be done; the sentence says why."""


def requested() -> "dict[str, Any]":
    """What is asked. Raises Refused or ValueError."""
    text = sys.stdin.buffer.read(REQUEST_MOST)
    if not text:
        raise Refused("nothing can be passed to a program of this box (see devboxctl doctor BOX)")
    found = json.loads(text.decode())  # type: dict[str, Any]
    return found
