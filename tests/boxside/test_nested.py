"""Whatever reads an answer of a box as JSON is stopped by no number of brackets."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from devboxd.boxside import activity, agents, bridgehead, jobs, panes, rebase
from devboxd.control.connect import bridged
from devboxd.errors import DevboxError

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
