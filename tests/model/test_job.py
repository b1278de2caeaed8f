"""What becomes of a job, and what can be one."""

from __future__ import annotations

import pytest

from devboxd.boxside import jobs as box
from devboxd.errors import BadRequest
from devboxd.model.answer import BoxSaysNo
from devboxd.model.job import COMMAND_MOST, WORDS_MOST, Job, JobNotFound, JobState, check_id, checked


@pytest.mark.parametrize(
    ("runs", "status", "state", "words"),
    [
        (True, None, JobState.RUNNING, "runs"),
        (True, 0, JobState.DONE, "is done"),  # its supervisor is about to end
        (False, 0, JobState.DONE, "is done"),
        (False, 7, JobState.FAILED, "failed with status 7"),
        (False, 143, JobState.FAILED, "failed with status 143"),
        (False, None, JobState.LOST, "was lost: the box or its supervisor went down"),
    ],
)
def test_what_became_of_a_job(runs: bool, status: int | None, state: JobState, words: str) -> None:
    job = Job("x7k2", "make", runs, status=status)
    assert (job.state, job.end) == (state, words)


@pytest.mark.parametrize(
    "command",
    [[], [""], ["x"] * (WORDS_MOST + 1), ["x" * COMMAND_MOST], ["a", "b\0c"]],
)
def test_what_can_be_no_command(command: list[str]) -> None:
    with pytest.raises(BadRequest):
        checked(command)


def test_words_of_a_command_stay_as_they_are() -> None:
    words = ["sh", "-c", "echo 'a b'\n$X", ""]
    assert checked(words) == words


@pytest.mark.parametrize("id_", ["", "..", "../x", "a/b", "A", "x" * 17, "x\n", "é"])
def test_an_id_can_not_be_a_path(id_: str) -> None:
    with pytest.raises(JobNotFound):
        check_id(id_)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        '{"jobs": [{"id": "../x", "command": "", "runs": true}]}',
        '{"jobs": [{"id": "x", "command": "", "runs": true, "status": 4711}]}',
        '{"jobs": [{"id": "x", "command": "' + "x" * 500 + '", "runs": true}]}',
        '{"jobs": [' + ",".join(['{"id": "x", "command": "", "runs": true}'] * 101) + "]}",
        '{"problem": "no\\u001b[2J room"}',
    ],
)
def test_a_box_that_says_what_can_not_be(text: str) -> None:
    with pytest.raises(BoxSaysNo) as refused:
        box.read(text, box.Listed)
    assert "\x1b" not in str(refused.value)


def test_a_box_may_print_before_its_answer() -> None:
    found = box.read('motd\n{"jobs": [{"id": "x", "command": "ls", "runs": false}]}\n', box.Listed)
    assert found.jobs == [Job("x", "ls", False)]
