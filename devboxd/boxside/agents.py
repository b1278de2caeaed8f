"""The program that sets up hooks of coding agents, as the daemon knows it (``programs/agents.py``)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Final

import msgspec

from devboxd.boxside import said
from devboxd.boxside.script import in_python, load_program
from devboxd.model.agent import AgentNote, Set, read

ANSWER_MOST: Final = 60 << 10  # bytes of an answer
FILES_MOST: Final = 20  # that a box may tell of


class Answer(msgspec.Struct):
    """What became of each file, and what agents say of themselves."""

    problem: str | None = None
    done: Annotated[list[Set], msgspec.Meta(max_length=FILES_MOST)] = []
    agents: list[Any] = []

    @property
    def notes(self) -> tuple[AgentNote, ...]:
        """As far as they are some."""
        return read(self.agents)


def argv() -> list[str]:
    """The command; its request comes on standard input."""
    return in_python("agents", "")


def set_up(which: Sequence[str], *, undo: bool, dry_run: bool) -> bytes:
    """Ask to put hooks in place, or to take them away."""
    return _request(verb="setup", undo=undo, dry=dry_run, **{"for": list(which)})


def status() -> bytes:
    """Ask how it is."""
    return _request(verb="status")


def _request(**asked: object) -> bytes:
    return msgspec.json.encode({"program": load_program("agent_hook"), **asked})


def answer(output: bytes) -> Answer:
    """Read what the box printed last. It may print before it, and may be hostile.

    Raises:
        BoxSaysNo: with what it says, or that it says nothing that can be read.
    """
    line = said.last_line(output, ANSWER_MOST)
    return said.answer(line, Answer, "the box does not say what became of the hooks")
