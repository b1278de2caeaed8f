"""Panes of multiplexer sessions: looked at, and typed into."""

from __future__ import annotations

from typing import Annotated

import msgspec

from devboxd.api.wire.common import API_VERSION, Line, Target, Text


class PeekRequest(Target, omit_defaults=True):
    """The pane in front of a session: its last ``lines``, or its screen. ``color``: with colour sequences.

    Without ``session``: ``main``, or the only one there is.
    """

    session: Line | None = None
    lines: int | None = None
    color: bool = False
    mux: Line | None = None
    user: Line | None = None


class MuxSession(msgspec.Struct, omit_defaults=True):
    """A session of a multiplexer on a box."""

    mux: str
    name: str


class Pane(msgspec.Struct, omit_defaults=True):
    """What a pane shows. ``columns``, ``rows``: 0 where the mux does not tell; ``cut``: an answer takes no more lines.

    ``lines`` is text of the box: with ``color`` there are control sequences in it.
    """

    box: str
    mux: str
    session: str
    window: str = ""
    command: str = ""
    columns: int = 0
    rows: int = 0
    lines: list[str] = []
    cut: bool = False
    sessions: list[MuxSession] = []
    version: int = API_VERSION


class SayRequest(Target, omit_defaults=True):
    """Type a text into a pane, then keys, then Enter. Keys alone: no Enter."""

    text: Text = ""
    keys: Annotated[list[Line], msgspec.Meta(max_length=1000)] = msgspec.field(default_factory=list)
    enter: bool = True
    session: Line | None = None
    mux: Line | None = None
    user: Line | None = None

    def __repr__(self) -> str:
        """Nothing that a log might keep."""
        return f"SayRequest(box={self.box!r}, session={self.session!r})"


class Typed(msgspec.Struct, omit_defaults=True):
    """What was typed where: so many characters of text, and these keys after them."""

    box: str
    mux: str
    session: str
    window: str = ""
    command: str = ""
    characters: int = 0
    keys: list[str] = []
    version: int = API_VERSION
