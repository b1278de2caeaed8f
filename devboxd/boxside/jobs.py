"""The program of jobs as the daemon knows it: what it is asked, and what it answers (``programs/jobs.py``)."""

from __future__ import annotations

from typing import Annotated, Final, TypeVar

import msgspec

from devboxd.boxside import said
from devboxd.boxside.script import load_program
from devboxd.model.job import JOBS_MOST, READ_MOST, Job

ANSWER_MOST: Final = 256 << 10  # characters of an answer
T = TypeVar("T", bound="Answer")

Jobs = Annotated[list[Job], msgspec.Meta(max_length=JOBS_MOST)]


class Answer(msgspec.Struct):
    """What every answer may be. ``missing``: there is no such job."""

    problem: str | None = None
    missing: bool = False


class Listed(Answer):
    """All jobs, oldest first."""

    jobs: Jobs = []


class Piece(Answer):
    """A piece of a log: ``data`` in base64, of bytes ``begun`` to ``next`` of the output."""

    job: Job | None = None
    begun: Annotated[int, msgspec.Meta(ge=0, lt=1 << 62)] = 0
    next: Annotated[int, msgspec.Meta(ge=0, lt=1 << 62)] = 0
    data: Annotated[str, msgspec.Meta(max_length=READ_MOST * 2)] = ""


class Ended(Answer):
    """Jobs that have ended and that nobody was told of; ``running``: how many go on."""

    ended: Jobs = []
    running: Annotated[int, msgspec.Meta(ge=0, le=1000)] = 0


class Ran(Answer):
    """A job that was begun."""

    job: Job | None = None


def program() -> str:
    """The text that ``jobs.sh`` takes."""
    return load_program("jobs")


def read(text: str, kind: type[T]) -> T:
    """Read what the box printed last. It may print before it, and may be hostile.

    Raises:
        BoxSaysNo: with what it says, or that it says nothing that can be read.
    """
    line = said.last_line(text, ANSWER_MOST)
    return said.answer(line, kind, "the box does not say what became of its jobs")
