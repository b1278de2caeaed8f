"""peek and say: what is asked of the box, what becomes of its answer, and that nobody waits for ever."""

from __future__ import annotations

import asyncio
import json
import re

import pytest

from devboxd.control.base.shared import Shared
from devboxd.control.connect.ask import LIMIT
from devboxd.control.connect.execute import ExecSpec
from devboxd.control.connect.panes import Panes
from devboxd.control.connect.terminal import Terminal
from devboxd.errors import BadRequest, Unreachable
from devboxd.model.answer import BoxSaysNo
from devboxd.model.box import Account, BoxRef
from devboxd.model.pane import MuxSessionNotFound
from devboxd.model.terminal import EndOfInput, Input, Leaving
from tests.control.fakes import LoopClock

BOX = BoxRef("api", "i-0123456789abcdef0", Account())
PANE = b'{"mux": "tmux", "session": "main", "window": "0:sh", "lines": ["x"], "cut": false, "sessions": []}\n'


class Box:
    """Answers with what a test says."""

    def __init__(self, output: bytes = PANE, leaving: Leaving | None = None) -> None:
        self.shared = Shared.of(LoopClock())
        self.panes = Panes(self.run, self.shared.news)
        self.asked: list[dict[str, object]] = []
        self.specs: list[ExecSpec] = []
        self._output = output
        self._leaving = leaving or Leaving(status=0)

    async def run(self, spec: ExecSpec, terminal: Terminal) -> Leaving:
        self.specs.append(spec)
        message = await terminal.receive()
        assert isinstance(message, Input)
        self.asked.append(json.loads(message.data))
        assert isinstance(await terminal.receive(), EndOfInput)
        terminal.output(self._output)
        return self._leaving


async def test_a_question_goes_through_standard_input_as_the_user_of_the_box() -> None:
    box = Box()
    found = await box.panes.peek(BOX, "main", count=5, mux="tmux", user="ann")
    assert (found.session, found.lines) == ("main", ["x"])
    assert box.asked == [{"verb": "peek", "session": "main", "mux": "tmux", "lines": 5, "color": False}]
    assert box.specs[0].user == "ann"
    assert box.shared.news.events() == [], "who looks leaves no trace"


async def test_what_is_typed_is_told_nobody() -> None:
    """An event says that something was typed, and where: a password may be among it."""
    box = Box()
    _, keys = await box.panes.say(BOX, None, "hunter2", ["Tab"])
    assert [one.name for one in keys] == ["Tab", "Enter"]
    assert box.asked[0]["text"] == "hunter2"
    assert not [word for word in box.specs[0].argv if "hunter2" in word]
    (event,) = box.shared.news.events()
    assert "hunter2" not in event.text
    assert event.text == "something was typed into main (tmux, window 0:sh)"


async def test_bad_input_never_reaches_the_box() -> None:
    box = Box()
    for work in (
        box.panes.peek(BOX, "a b"),
        box.panes.peek(BOX, None, count=0),
        box.panes.peek(BOX, None, mux="screen"),
        box.panes.peek(BOX, None, mux="none"),
        box.panes.say(BOX, None, "\x1b", []),
    ):
        with pytest.raises(BadRequest):
            await work
    assert box.specs == []


async def test_the_hint_about_a_mux_names_what_can_be_asked_for() -> None:
    """Not ``none``, which attach takes: there is no session to look at."""
    for name in ("screen", "none"):
        with pytest.raises(BadRequest) as caught:
            await Box().panes.peek(BOX, None, mux=name)
        assert caught.value.hint is not None
        assert {"zellij", "tmux"} == set(re.findall(r"zellij|tmux|none", caught.value.hint))


async def test_a_box_without_the_session_says_which_there_are() -> None:
    box = Box(b'{"missing": true, "sessions": [{"mux": "tmux", "name": "build"}]}')
    with pytest.raises(MuxSessionNotFound, match="no session x") as caught:
        await box.panes.say(BOX, "x", "yes", [])
    assert caught.value.hint == "there are: build"
    assert box.shared.news.events() == [], "nothing was typed"


@pytest.mark.parametrize(
    ("output", "leaving", "error", "text"),
    [
        (b"", Leaving(error=Unreachable("it is stopped")), Unreachable, "it is stopped"),
        (b"", Leaving(reason="the daemon ends"), Unreachable, "cut off"),
        (b"", Leaving(status=127), BoxSaysNo, "failed on api"),
        (b'{"problem": "tmux: no server"}', None, BoxSaysNo, "no server"),
        (b"\xff" * 100_000, None, BoxSaysNo, "does not say"),
    ],
)
async def test_every_way_to_fail_is_one_sentence(
    output: bytes, leaving: Leaving | None, error: type[Exception], text: str
) -> None:
    box = Box(output, leaving)
    with pytest.raises(error, match=text):
        await box.panes.peek(BOX, None)


@pytest.mark.looptime
async def test_a_box_that_never_answers_is_given_up() -> None:
    box = Box()

    async def hang(spec: ExecSpec, terminal: Terminal) -> Leaving:
        await asyncio.Event().wait()
        raise AssertionError

    panes = Panes(hang, box.shared.news)
    began = asyncio.get_running_loop().time()
    with pytest.raises(Unreachable, match="did not answer"):
        await panes.peek(BOX, None)
    assert asyncio.get_running_loop().time() - began == pytest.approx(LIMIT, abs=1.0)
