"""agent setup: what is asked of the box, and what becomes of its answer."""

from __future__ import annotations

import json

import pytest

from devboxd.boxside.agents import answer
from devboxd.boxside.script import load_program
from devboxd.control.base.shared import Shared
from devboxd.control.connect.execute import ExecSpec
from devboxd.control.connect.hooks import Hooks
from devboxd.control.connect.terminal import Terminal
from devboxd.errors import BadRequest
from devboxd.model.agent import Set
from devboxd.model.answer import BoxSaysNo
from devboxd.model.box import Account, BoxRef
from devboxd.model.terminal import Input, Leaving
from tests.control.fakes import LoopClock

BOX = BoxRef("api", "i-0123456789abcdef0", Account())
DONE = b'{"done": [{"agent": "claude", "file": "/f", "said": "hooks", "changed": true}], "agents": [7]}\n'


class Box:
    """Answers with what a test says."""

    def __init__(self, output: bytes = DONE) -> None:
        self.shared = Shared.of(LoopClock())
        self.hooks = Hooks(self.run, self.shared.news)
        self.asked: list[dict[str, object]] = []
        self._output = output

    async def run(self, spec: ExecSpec, terminal: Terminal) -> Leaving:
        message = await terminal.receive()
        assert isinstance(message, Input)
        self.asked.append(json.loads(message.data))
        terminal.output(self._output)
        return Leaving(status=0)


async def test_hooks_are_asked_for_by_name_and_the_program_travels_with_them() -> None:
    box = Box()
    found = await box.hooks.set_up(BOX, "all")
    assert found.done == [Set("claude", "/f", "hooks", True)]
    assert found.notes == (), "what is no note is left out"
    await box.hooks.set_up(BOX, "codex", undo=True, dry_run=True)
    await box.hooks.status(BOX)
    program = load_program("agent_hook")
    assert box.asked == [
        {
            "program": program,
            "verb": "setup",
            "undo": False,
            "dry": False,
            "for": ["claude", "codex", "generic"],
        },
        {"program": program, "verb": "setup", "undo": True, "dry": True, "for": ["codex"]},
        {"program": program, "verb": "status"},
    ]
    assert [event.kind for event in box.shared.news.events()] == ["agent.hooks"], "a dry run is no event"


async def test_an_agent_that_nobody_knows_is_not_asked_for() -> None:
    box = Box()
    with pytest.raises(BadRequest, match="no agent"):
        await box.hooks.set_up(BOX, "cursor")
    assert box.asked == []


@pytest.mark.parametrize(
    "output",
    [
        b"",
        b"[]",
        b"[" * 100_000,
        b'{"done": [{}]}',
        b'{"done": [{"agent": "", "file": "", "said": ""}]}',
        b'{"done": [' + b",".join([b'{"agent": "a", "file": "f", "said": "s"}'] * 30) + b"]}",
    ],
)
def test_a_box_that_says_nonsense_is_not_believed(output: bytes) -> None:
    with pytest.raises(BoxSaysNo, match="does not say"):
        answer(output)


def test_what_went_wrong_is_said() -> None:
    with pytest.raises(BoxSaysNo, match="the disk is full"):
        answer(b'motd\n{"problem": "the disk\\nis full"}\n')
    with pytest.raises(BoxSaysNo, match="python3 is not on the box"):
        answer(b"problem python3 is not on the box\n")
