"""Whatever a daemon passes on (names and tags of boxes, texts of AWS and of the far end), nothing of it drives
the terminal, turns the line round or forges a line of ours: tried with every command and every route."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Union

import msgspec
import pytest

from devboxctl.entry import run
from devboxctl.fast.reply import escape
from devboxd.api import starting, wire
from devboxd.api.routes import ROUTES, Route, Shape
from devboxd.text import printable
from tests.ctl.fake_daemon import FakeDaemon, Peer
from tests.ctl.terminal import Tty

# Control characters of both sets, direction, no width, a line of its own, half a pair, an accent tower.
EVIL = (
    "x\x1b]0;owned\x07\x9b2J\x1b[31m\u202egnp\u2066\u200bz\u00ad\u2800\r\nhint: rm -rf ~\u2028y\x85\x7fe"
    + "\u0301" * 9
)
GONE = 2**22 + 3  # a process id that no process has

COMMANDS = [
    ["ls"],
    ["ls", "--json"],
    ["show", "gpu"],
    ["status"],
    ["ping", "gpu"],
    ["events"],
    ["doctor"],
    ["doctor", "gpu"],
    ["login"],
    ["login", "--from-environment"],
    ["whoami"],
    ["config", "show"],
    ["config", "show", "--origin"],
    ["config-ssh"],
    ["config-ssh", "--check"],
    ["config-ssh", "--remove"],
    ["forward", "gpu", "8000"],
    ["forward", "gpu", "8000", "--foreground"],
    ["forward", "ls"],
    ["forward", "rm", "all"],
    ["forward", "rm", "nope"],
    ["forward", "rm", EVIL],
    ["ssh", "gpu"],
    ["attach", "gpu", "--raw"],
    ["attach", "gpu"],
    ["exec", "gpu", "true"],
    ["api", "GET", "boxes"],
    ["projects"],
    ["projects", "gpu"],
    ["launch", "gpu"],
    ["launch", "gpu", "--dry-run"],
    ["up", "gpu", "--no-wait"],
    ["stop", "gpu"],
    ["terminate", "gpu"],
    ["reboot", "gpu"],
    ["resize", "gpu", "--disk", "80"],
    ["rebase", "gpu", "--onto", "other", "--yes"],
    ["rebase", "gpu", "--onto", "other", "--dry-run"],
    ["rename", "gpu", "cpu"],
    ["fork", "gpu", "cpu"],
    ["adopt", "i-0a", "gpu"],
    ["delete", "gpu", "--json"],
    ["delete", "gpu", "--yes"],
    ["snapshot", "gpu"],
    ["generations", "ls", "gpu"],
    ["idle", "gpu"],
    ["idle", "gpu", "--after", "1h"],
    ["why", "gpu"],
    ["extend", "gpu"],
    ["keep-alive", "gpu", "--for", "1h"],
    ["lease", "ls", "gpu"],
    ["lease", "rm", "gpu", "x"],
    ["run", "--detach", "gpu", "true"],
    ["jobs", "gpu"],
    ["logs", "gpu", "x"],
    ["peek", "gpu"],
    ["say", "gpu", "yes"],
    ["agent", "status"],
    ["agent", "status", "gpu"],
    ["agent", "setup", "gpu"],
    ["generations", "pin", "gpu", "1"],
    ["generations", "rm", "gpu", "1"],
    ["ops", "ls"],
    ["ops", "resume", "gpu", "--no-wait"],
    ["ops", "abandon", "gpu", "--json"],
    ["ops", "abandon", "gpu", "--no-wait", "--yes"],
    ["gc", "gpu"],
    ["gc", "--dry-run"],
    ["cost"],
    ["cost", "gpu"],
    ["cost", "--by", "day"],
    ["cost", "gpu", "--what-if", "stopped"],
    ["types"],
    ["ui"],
    ["bridge", "ls"],
    ["bridge", "rm", "gpu"],
    ["budget", "show"],
    ["budget", "set", "--limit", "5"],
    ["budget", "rm"],
    ["rebuild"],
    ["store", "show"],
    ["export", "gpu"],
    ["import", "--omsf-table", "devbox-main"],
    ["import", str(Path(__file__).with_name("export.json"))],
    ["ops", "cancel", "--no-wait", "gpu"],
    ["generations", "show", "gpu", "1"],
    ["generations", "diff", "gpu", "1", "2"],
    ["store", "migrate", "gpu", "--to", "dynamodb"],
    ["notify", "try"],
    ["notify", "rm", "slack"],
    ["init", "user"],
    ["iam", "policy"],
    ["init", "account"],
    ["daemon", "status"],
    ["daemon", "start"],
    ["daemon", "stop"],
]
RESTART = ["daemon", "restart", "--yes"]  # with ``no_daemon`` in place of another one that would run


def no_daemon(log_path: str, link: int | None = None) -> tuple[int, int]:
    """A daemon that was started, as far as its starter can tell."""
    return GONE, os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)


def filled(kind: Any) -> Any:
    """A value of a type of ``wire`` with hostile text wherever there is text, as JSON has it."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (Union, types.UnionType):
        return filled(next(one for one in arguments if one is not type(None)))
    if origin is list:
        return [filled(arguments[0])]
    if origin is dict:
        return {EVIL: filled(arguments[1])}
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return {field.name: filled(field.type) for field in msgspec.structs.fields(kind)}
    return {str: EVIL, int: GONE, float: 1.5, bool: True}.get(kind, EVIL)


def status_of(peer: Peer, exit_: dict[str, Any]) -> None:
    """A stream that says hostile things and ends."""
    peer.upgrade()
    for state in ("reconnecting", "reopening", "waiting", "notice", EVIL):
        peer.status(state, text=EVIL, mux=EVIL, since=EVIL)
    peer.exit(**exit_)


@pytest.fixture
def hostile(daemon: FakeDaemon, home: Path, monkeypatch: pytest.MonkeyPatch) -> FakeDaemon:
    """A daemon all of whose answers are hostile."""
    programs = home / "bin"  # no browser; an ssh that does nothing
    programs.mkdir()
    (programs / "ssh").write_text("#!/bin/sh\necho ssh ran\n")
    (programs / "ssh").chmod(0o700)
    monkeypatch.setenv("PATH", str(programs))
    for route in ROUTES.values():
        path = route.path.removeprefix("/v1/").format(box="gpu", project="gpu", job="x", id=escape(EVIL))
        answer = filled(route.answer)
        if route.shape is Shape.VALUE:
            daemon.routes[f"{route.method} {path}"] = answer
        elif route.shape is Shape.LINES:
            daemon.routes[f"{route.method} {path}"] = [answer]
        else:
            end = {"status": None, "reason": EVIL, "failure": filled(wire.Failure)}
            daemon.streams[path] = lambda peer, _, end=end: status_of(peer, end)  # type: ignore[misc]
    return daemon


# What an attach says where something takes long, in the last line or the title, and how that goes away again.
OUR_LINE = re.compile(
    r"\x1b7\x1b\[30;1H\x1b\[0(?:;7m ([^\x1b]*) \x1b\[0m\x1b\[K|m\x1b\[2K)\x1b8"
    r"|\x1b\[22;2t\x1b\]2;([^\x1b]*)\x1b\\|\x1b\[23;2t"
)


def check(output: str) -> None:
    """Nothing that a terminal obeys or that deceives, and no line of the far end's own."""
    assert output == printable(output, keep="\n\t")
    assert not re.search(r"^(?:hint|error|warning): rm", output, re.MULTILINE)


def check_in_a_pipe(words: list[str], environ: dict[str, str]) -> None:
    """Run a command where no terminal is."""
    line = [sys.executable, "-m", "devboxctl", *words]
    done = subprocess.run(
        line, capture_output=True, timeout=60, check=False, stdin=subprocess.DEVNULL, env=environ
    )
    said = done.stdout + done.stderr
    assert said, "the test has seen nothing"
    assert b"Traceback" not in said
    check(done.stdout.decode())
    check(done.stderr.decode())


def check_on_a_terminal(words: list[str], environ: dict[str, str]) -> None:
    """A person sees tables and progress that a pipe does not, and our own line where something takes long."""
    with Tty(words, environ, size=(100, 30)) as tty:
        tty.wait()
    check(OUR_LINE.sub(r"\1\2\n", tty.screen.decode().replace("\r\n", "\n")))


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_no_answer_reaches_the_terminal_unfiltered(hostile: FakeDaemon, words: list[str]) -> None:
    """``ls`` in an account where a stranger may tag instances must be as safe as ``ls`` in one's home."""
    environ = {**os.environ, "NO_COLOR": "1"}
    check_in_a_pipe(words, environ)
    check_on_a_terminal(words, environ)


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_no_failure_reaches_the_terminal_unfiltered(hostile: FakeDaemon, words: list[str]) -> None:
    """The message of an error often quotes the service, or the box."""
    failure = (409, {**filled(wire.Failure), "exit_status": 5})
    for name in list(hostile.routes):
        hostile.routes[name] = failure
    for name in list(hostile.streams):
        hostile.routes[f"POST {name}"] = failure
    check_in_a_pipe(words, dict(os.environ))


def test_what_became_of_clients_over_a_restart_reaches_the_terminal_filtered(
    hostile: FakeDaemon, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Why some were cut is told by the next daemon."""
    monkeypatch.setattr(starting, "_spawn", no_daemon)
    for kept in (True, False):
        if not kept:
            hostile.routes["POST hand-over"] = (409, {**filled(wire.Failure), "exit_status": 5})
        run(RESTART)
        output = capsys.readouterr()
        assert "were cut: x ]0;owned" in output.err
        check(output.out)
        check(output.err)


def test_the_trial_reaches_every_route(hostile: FakeDaemon, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new route is tried, too, or says here why not."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDTEST")  # to be lent
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    untried = {
        "GET /openapi.json",
        "POST /v1/proxy",
        "DELETE /v1/sessions/{id}",
        "POST /v1/attach",
    }  # a file, bytes, by api only, on a terminal only (tests/ctl/test_attach.py)
    monkeypatch.setattr(starting, "_spawn", no_daemon)
    for words in [*COMMANDS, RESTART]:
        if words[0] == "ssh":  # becomes ssh
            line = [sys.executable, "-m", "devboxctl", *words]
            subprocess.run(line, capture_output=True, timeout=60, check=False, stdin=subprocess.DEVNULL)
        else:
            run(words)
    seen = {(method, path.partition("?")[0]) for method, path, _ in hostile.requests}
    missing = {f"{route.method} {route.path}" for route in _unseen(seen)}
    assert missing - untried == set()


def _unseen(seen: set[tuple[str, str]]) -> Iterator[Route[Any, Any]]:
    for route in ROUTES.values():
        path = route.path.removeprefix("/v1/").format(box="gpu", project="gpu", job="x", id=escape(EVIL))
        if (route.method, path) not in seen:
            yield route


def test_json_stays_exact_and_harmless(hostile: FakeDaemon) -> None:
    """Programs get what there is, and a person who looks at it gets ASCII."""
    line = [sys.executable, "-m", "devboxctl", "--json", "ls"]
    done = subprocess.run(line, capture_output=True, timeout=60, check=True, stdin=subprocess.DEVNULL)
    assert done.stdout.isascii()
    assert json.loads(done.stdout)["boxes"][0]["name"] == EVIL
