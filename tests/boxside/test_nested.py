"""Whatever reads an answer of a box as JSON is stopped by no number of brackets, and by no bytes that are no text."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from devboxd.boxside import activity, agents, bridgehead, jobs, panes, rebase
from devboxd.control.connect import bridged
from devboxd.control.connect.bridge_start import _Talk
from devboxd.errors import DevboxError

NO_TEXT = b'{"problem": "\xff", "kind": "\xff", "relay": "\xff", "port": 22, "path": "\xff"}'
DEEP = 20_000
NESTED = '{"x": ' + "[" * DEEP + "]" * DEEP + "}"


@pytest.mark.parametrize(
    "read",
    [
        lambda: activity.read(NESTED),
        lambda: agents.answer(NESTED.encode()),
        lambda: jobs.read(NESTED, jobs.Ran),
        lambda: panes.read(NESTED.encode()),
        lambda: rebase.read(NESTED),
    ],
)
def test_an_answer_of_brackets_is_none(read: Callable[[], object]) -> None:
    with pytest.raises(DevboxError):
        read()


def test_a_status_or_a_stream_of_brackets_is_none() -> None:
    assert bridged._status(NESTED.encode()) is None
    assert bridgehead.accepted_by(NESTED.encode()) is None


@pytest.mark.parametrize("read", [agents.answer, panes.read])
def test_an_answer_that_is_no_text_is_none(read: Callable[[bytes], object]) -> None:
    with pytest.raises(DevboxError, match="the box does not say"):
        read(NO_TEXT)


def test_a_stream_or_a_start_that_is_no_text_is_none() -> None:
    assert bridgehead.accepted_by(NO_TEXT) is None
    talk = _Talk(b"", b"")
    talk.output(NO_TEXT + b"\n")
    assert talk.note is None
    assert talk.problem
