"""Jobs: commands that go on in a box without anybody connected."""

from __future__ import annotations

from typing import Annotated

import msgspec

from devboxd.api.wire.common import API_VERSION, Line
from devboxd.api.wire.project import ProjectName


class JobRequest(ProjectName, omit_defaults=True):
    """Run a command in a window of the mux session ``session``, or without one where the box has no tmux."""

    command: list[str] = msgspec.field(default_factory=list)
    session: Line = "main"


class JobId(ProjectName, omit_defaults=True):
    """Which job, and which of its output: from byte ``offset``, or the last of it.

    ``wait``: seconds to wait for more, 20 at most.
    """

    job: Line = ""
    offset: Annotated[int, msgspec.Meta(ge=0)] | None = None
    wait: float = 0.0


class Job(msgspec.Struct, omit_defaults=True):
    """``state``: running, done, failed, lost. ``size``: bytes of output so far; ``window``: where it is in the mux."""

    id: str
    command: str
    state: str
    since: str | None = None
    ended: str | None = None
    status: int | None = None
    window: str | None = None
    size: int = 0


class JobList(msgspec.Struct, omit_defaults=True):
    """The jobs of a box, oldest first."""

    project: str
    jobs: list[Job]
    version: int = API_VERSION


class JobLog(msgspec.Struct, omit_defaults=True):
    """A piece of the output: ``data`` in base64, of bytes ``begun`` to ``next``. Older ones may be gone."""

    job: Job
    begun: int
    next: int
    data: str = ""
    version: int = API_VERSION
