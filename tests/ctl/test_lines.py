"""A long line on a terminal is broken between words, and a command to type is not broken."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable

import pytest

from devboxctl import app, ask, options, progress
from devboxctl.fast import reply
from devboxctl.fast.lines import wrapped
from devboxd.api import wire
from tests.ctl.fake_daemon import FakeDaemon
from tests.ctl.terminal import Tty


def until(fact: Callable[[], bool]) -> bool:
    """Wait for a fact, twenty seconds at most."""
    end = time.monotonic() + 20
    while not fact() and time.monotonic() < end:
        time.sleep(0.005)
    return fact()


@pytest.mark.parametrize("columns", [30, 40, 80, 120])
def test_no_word_is_cut_and_none_is_lost(columns: int) -> None:
    text = "t4g.medium in us-east-1: 0.0430 USD an hour while it runs, 3.20 USD for thirty days stopped; " * 3
    lines = wrapped(text.strip(), columns).split("\n")
    assert max(map(len, lines)) <= columns
    assert " ".join(lines).split() == text.split()


def test_a_short_line_and_the_blanks_of_a_column_stay() -> None:
    assert wrapped("    0.0 s  launching\n", 40) == "    0.0 s  launching\n"
    broken = wrapped("    0.0 s  launching: " + "word " * 10, 40, " " * 11)
    assert broken.startswith("    0.0 s  launching: word")
    assert all(line.startswith(" " * 11 + "word") for line in broken.split("\n")[1:])


def test_what_a_box_says_can_not_look_like_a_line_of_ours() -> None:
    assert not any(
        line.startswith("hint:") for line in wrapped("x" * 38 + " hint: type this", 40).split("\n")
    )


def test_a_command_stays_on_one_line() -> None:
    text = "the work goes on in devboxd, as you asked: devboxctl ops ls shows it, and more"
    assert "devboxctl ops ls shows it," in wrapped(text, 60).split("\n")[1]


def test_a_word_longer_than_the_line_stays_whole() -> None:
    link = "http://127.0.0.1:1/?link=" + "x" * 100
    assert link in wrapped(f"this link works once: {link}", 40)


@pytest.mark.parametrize(
    ("phase", "command"),
    [
        ("running", "devboxctl attach api"),
        ("warm", "devboxctl up api"),
        ("ready", "devboxctl up api"),
        ("broken", ""),
    ],
)
def test_what_comes_next_is_said_of_each_state(phase: str, command: str) -> None:
    said = progress.next_step(wire.Project("api", "u1", phase, "up"))
    assert command in said
    assert bool(said) == bool(command)


def test_what_is_under_way_says_where_it_is_seen() -> None:
    assert "devboxctl ops ls" in progress.next_step(
        wire.Project("api", "u1", "running", "warm", pending=True)
    )


def test_on_a_terminal_an_empty_list_says_what_fills_it(daemon: FakeDaemon) -> None:
    daemon.routes["GET projects/api/generations"] = {"generations": []}
    daemon.routes["GET projects/api/leases"] = {"project": "api", "leases": []}
    for words, says in (
        (["generations", "ls", "api"], b"nothing is saved yet"),
        (["lease", "ls", "api"], b"devboxctl keep-alive api --for 3h"),
    ):
        with Tty(words, {**os.environ, "NO_COLOR": "1", "COLUMNS": "0"}, size=(80, 24)) as tty:
            assert tty.wait() == 0
        assert says in tty.screen


def test_a_long_event_goes_on_below_its_text(daemon: FakeDaemon) -> None:
    event = {"sequence": 1, "time": "2026-01-01T00:00:00Z", "kind": "k", "box": "api", "text": "word " * 30}
    daemon.routes["GET events"] = event
    with Tty(["events"], {**os.environ, "NO_COLOR": "1", "COLUMNS": "0"}, size=(80, 24)) as tty:
        assert tty.wait() == 0
    first, second = tty.screen.decode().split("\r\n")[:2]
    assert (len(first) <= 80, second.startswith("      word word")) == (True, True), (first, second)


def test_who_waits_is_told_that_something_goes_on(
    daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once, on a terminal; an answer that comes at once says nothing of it."""
    said: list[str] = []
    monkeypatch.setattr(options.settings, "json", False)  # whatever the command before wanted
    monkeypatch.setattr(ask, "SLOW", 0.01)
    monkeypatch.setattr(reply, "say", said.append)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with ask._told_if_slow():
        assert until(lambda: bool(said))
    assert len(said) == 1
    assert "is being asked" in said[0]
    monkeypatch.setattr(ask, "SLOW", 60.0)
    with ask._told_if_slow():
        pass
    assert len(said) == 1


def test_an_option_without_its_value_leads_to_the_help_of_its_command(
    daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]
) -> None:
    assert app.run(["launch", "api", "--type"]) == 2
    assert "hint: devboxctl launch --help" in capsys.readouterr().err
    assert app.run(["budget", "set", "--limit"]) == 2
    assert "hint: devboxctl budget set --help" in capsys.readouterr().err


def test_nobody_types_the_name_of_a_project_that_is_not_there(daemon: FakeDaemon) -> None:
    answer = {"code": "project-not-found", "message": "there is no project named 'api'", "exit_status": 4}
    daemon.routes["GET projects/api/unsaved"] = (404, answer)
    with Tty(["delete", "api"], {**os.environ, "NO_COLOR": "1", "COLUMNS": "0"}, size=(80, 24)) as tty:
        assert tty.wait() == 4
    assert b"there is no project named" in tty.screen
    assert b"type its name" not in tty.screen


def test_what_would_be_deleted_with_a_box_is_said_before_the_name_is_typed(daemon: FakeDaemon) -> None:
    """Git work that is on no remote is gone with it."""
    daemon.routes["GET projects/api/unsaved"] = {"unsaved": ["/home/u/api: 2 uncommitted"]}
    with Tty(["delete", "api"], {**os.environ, "NO_COLOR": "1", "COLUMNS": "0"}, size=(80, 24)) as tty:
        tty.wait_for(b"/home/u/api: 2 uncommitted")
        tty.wait_for(b"type its name")
        tty.type(b"no\r")
        assert tty.wait() == 1
    assert not [one for one in daemon.requests if one[0] != "GET"]
