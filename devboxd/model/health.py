"""Named conditions: what a person should know or do, until it is no longer so."""

from __future__ import annotations

from typing import Literal

import msgspec

Severity = Literal["info", "warning", "error"]


class Condition(msgspec.Struct, frozen=True):
    """One thing that is not as it should be.

    ``code`` names the kind; together with ``subject`` (a profile, a box, a file) it is unique.
    ``since`` is Unix time in seconds.
    """

    code: str
    title: str
    text: str
    hint: str | None = None
    severity: Severity = "warning"
    subject: str = ""
    since: float = 0.0


class Event(msgspec.Struct, frozen=True):
    """Something that happened. ``kind`` is dotted: session.resumed, forward.added, login.needed."""

    sequence: int
    time: float  # Unix seconds
    kind: str
    text: str
    box: str | None = None
    data: dict[str, str | int | float | bool | None] = {}
