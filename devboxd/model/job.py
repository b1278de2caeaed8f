"""Jobs: commands that go on in a box without anybody connected, as the box tells of them."""

from __future__ import annotations

import enum
import re
from collections.abc import Sequence
from typing import Annotated, Final

import msgspec

from devboxd.errors import BadRequest, DevboxError, Kind

WORDS_MOST: Final = 256  # of a command
COMMAND_MOST: Final = 4000  # characters of a command
JOBS_MOST: Final = 100  # that a box may tell of
READ_MOST: Final = 32 << 10  # bytes of a log in one answer
WAIT_MOST: Final = 20.0  # seconds that one question for more output waits

_ID: Final = re.compile(r"[a-z0-9]{1,16}")
Short = Annotated[str, msgspec.Meta(max_length=400)]
Moment = Annotated[float, msgspec.Meta(ge=0, lt=1e11)]


class JobNotFound(DevboxError):
    """There is no job of that id on the box."""

    code = "job-not-found"
    kind = Kind.NOT_FOUND


class JobState(enum.StrEnum):
    """What became of a job."""

    RUNNING = "running"
    DONE = "done"  # it ended with status 0
    FAILED = "failed"  # with another
    LOST = "lost"  # nobody knows: the box was stopped under it, or its supervisor was killed


class Job(msgspec.Struct, frozen=True):
    """What a box tells of a job. ``size``: bytes of output so far; ``window``: where it is in the mux."""

    id: Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9]{1,16}$")]
    command: Short
    runs: bool
    since: Moment | None = None
    window: Short | None = None
    status: Annotated[int, msgspec.Meta(ge=0, le=255)] | None = None
    at: Moment | None = None
    size: Annotated[int, msgspec.Meta(ge=0, lt=1 << 62)] = 0

    @property
    def state(self) -> JobState:
        """What became of it."""
        if self.status is not None:
            return JobState.FAILED if self.status else JobState.DONE
        return JobState.RUNNING if self.runs else JobState.LOST

    @property
    def end(self) -> str:
        """How it ended, in words."""
        match self.state:
            case JobState.DONE:
                return "is done"
            case JobState.FAILED:
                return f"failed with status {self.status}"
            case JobState.LOST:
                return "was lost: the box or its supervisor went down"
            case JobState.RUNNING:
                return "runs"


def checked(command: Sequence[str]) -> list[str]:
    """The command of a job.

    Raises:
        BadRequest: it can not be one.
    """
    if not command or not command[0]:
        raise BadRequest("a job needs a command", hint="devboxctl run BOX -- make test")
    if len(command) > WORDS_MOST or sum(len(word) + 1 for word in command) > COMMAND_MOST:
        raise BadRequest(
            f"the command of a job has {WORDS_MOST} words and {COMMAND_MOST} characters at most",
            hint="put it into a script on the box",
        )
    if any("\0" in word for word in command):
        raise BadRequest("a command can have no NUL in it")
    return list(command)


def check_id(id_: str) -> str:
    """The id of a job, before it becomes a path.

    Raises:
        JobNotFound: none has such an id.
    """
    if _ID.fullmatch(id_) is None:
        raise JobNotFound(f"there is no job {id_[:40]!r}", hint="devboxctl jobs BOX lists them")
    return id_
