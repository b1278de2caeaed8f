"""peek and say with the installed daemon and command line, on a simulated box with its real tmux."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest

from tests.e2e.kit import World, need, until

LONG = 120.0


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """A world of its own, with a project."""
    need("tmux")
    with World() as made:
        done = made.run("launch", "work", "--type", "t4g.small", "--instance-profile", "devbox", timeout=LONG)
        assert done.returncode == 0, done.stderr.decode() + made.log[-3000:]
        until(lambda: made.run("exec", "work", "true").returncode == 0, "the box answers", LONG)
        yield made


def test_a_question_is_seen_and_answered_without_a_terminal(world: World) -> None:
    wrong = world.run("peek", "work")
    assert (wrong.returncode, wrong.stdout) == (3, b"")
    assert b"no session of zellij or tmux runs on work" in wrong.stderr
    assert world.run("say", "work", "yes").returncode == 3, "no session is made for it"

    ask = "stty -echo; printf 'delete \\033[31mit\\033[0m?\\n'; read -r it; echo \"<$it>\"; sleep 1000"
    world.ok("exec", "work", "tmux", "new-session", "-d", "-s", "main", ask)
    until(lambda: world.ok("peek", "work") == "delete it?\n", "the question is seen")
    found = world.json("peek", "work")
    assert (found["box"], found["mux"], found["session"], found["lines"]) == (
        "work",
        "tmux",
        "main",
        ["delete it?"],
    )

    said = world.ok("say", "work", "yes,", "please")
    assert said.startswith("typed 'yes, please', Enter into main (tmux, window 0:")
    until(lambda: "<yes, please>" in world.ok("peek", "work", "main", "--lines", "5"), "it is answered")
    typed = json.loads(world.ok("--json", "say", "work", "-", "--no-enter", stdin=b"a\nb\n"))
    assert (typed["characters"], typed["keys"]) == (3, [])
    assert "please" not in world.ok("events") + world.log, "what is typed may be a secret"


def test_what_is_typed_is_input_and_looking_is_none(world: World) -> None:
    """The terminal of the pane tells when somebody typed; the collector reads that."""
    read = 'stty -echo; while read -r it; do echo "<$it>"; done'
    world.ok("exec", "work", "tmux", "new-session", "-d", "-s", "quiet", read)
    tty = world.ok("exec", "work", "tmux", "display-message", "-p", "-t", "=quiet:", "#{pane_tty}").strip()
    world.ok("exec", "work", "touch", "-a", "-d", "2020-01-01", tty)
    world.ok("peek", "work", "quiet")
    assert int(world.ok("exec", "work", "stat", "-c", "%X", tty)) < 1_600_000_000
    world.ok("say", "work", "--session", "quiet", "x")
    until(lambda: "<x>" in world.ok("peek", "work", "quiet"), "it arrives")
    assert int(world.ok("exec", "work", "stat", "-c", "%X", tty)) > 1_700_000_000


def test_colours_are_kept_on_a_terminal_and_nothing_else(world: World) -> None:
    line = "printf 'a \\033[31mred\\033[0m \\033]0;title\\007one\\n'; sleep 1000"
    world.ok("exec", "work", "tmux", "new-session", "-d", "-s", "red", line)
    until(lambda: world.ok("peek", "work", "red") == "a red one\n", "it is seen")
    assert world.ok("peek", "--color", "work", "red") == "a red one\n", "not into a pipe"
    with world.terminal("peek", "--color", "work", "red") as terminal:
        terminal.until("a red one")
        assert b"a \x1b[31mred\x1b[39m one\x1b[0m\r\n" in terminal.seen
        assert b"title" not in terminal.seen


def test_bad_input_is_one_sentence(world: World) -> None:
    for words, status in (
        (("peek", "work", "no such"), 2),
        (("peek", "work", "nope"), 3),
        (("peek", "work", "--lines", "0"), 2),
        (("peek", "work", "--mux", "screen"), 2),
        (("say", "work"), 2),
        (("say", "work", "--key", "NoKey"), 2),
        (("say", "work", "a\033b"), 2),
        (("peek", "nobox"), 3),
    ):
        done = world.run(*words)
        assert (done.returncode, done.stdout) == (status, b""), (words, done.stderr)
        assert done.stderr.startswith(b"error: "), done.stderr


def test_a_box_that_is_down_is_said_at_once_and_not_started(world: World) -> None:
    world.ok("stop", "work", timeout=LONG)
    began = time.monotonic()
    done = world.run("peek", "work")
    assert (done.returncode, done.stdout) == (5, b""), done.stderr
    assert time.monotonic() - began < 10.0
    assert world.json("projects", "work")["phase"] in ("warm", "saving", "ready")
