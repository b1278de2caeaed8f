"""The start script of an attach, in real shells and terminals, and the filter for its marks."""

from __future__ import annotations

import getpass
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devboxd.boxside.shell import Mark, MarkFilter, attach_command
from tests.boxside.terminal import Terminal

NONCE = "0123456789abcdef"
MARK = b"\x1b_devbox;0123456789abcdef;start;tmux;ana\x1b\\"
SHELLS = [path for path in ("/bin/sh", "/bin/dash", "/bin/bash") if Path(path).exists()]


def together(found: list[bytes | Mark]) -> list[bytes | Mark]:
    """Plain pieces in a row as one."""
    result: list[bytes | Mark] = []
    for piece in found:
        if isinstance(piece, bytes) and result and isinstance(result[-1], bytes):
            result[-1] += piece
        else:
            result.append(piece)
    return result


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        (b"ab" + MARK + b"cd", [b"ab", Mark(("start", "tmux", "ana")), b"cd"]),
        (MARK + MARK, [Mark(("start", "tmux", "ana"))] * 2),
        (b"\x1b[1m" + MARK + b"\x1b", [b"\x1b[1m", Mark(("start", "tmux", "ana")), b"\x1b"]),
        (b"\x1b_other;x\x1b\\", [b"\x1b_other;x\x1b\\"]),
        (b"\x1b_devbox;ffffffffffffffff;exit;0\x1b\\x", [b"\x1b_devbox;ffffffffffffffff;exit;0\x1b\\x"]),
        (b"\x1b\x1b_\x1b_devbox;", [b"\x1b\x1b_\x1b_devbox;"]),
    ],
)
def test_marks_are_found_however_the_stream_is_cut(stream: bytes, expected: list[bytes | Mark]) -> None:
    """The agent cuts at 1024 bytes wherever that is; a foreign string is not ours to take."""
    for first in range(len(stream) + 1):
        for second in range(first, len(stream) + 1):
            marks = MarkFilter(NONCE)
            pieces = [stream[:first], stream[first:second], stream[second:]]
            found = [piece for part in pieces for piece in marks.feed(part)]
            assert together([*found, *([rest] if (rest := marks.flush()) else [])]) == expected


@settings(deadline=None)
@given(
    st.lists(st.binary(max_size=40) | st.sampled_from([MARK, MARK[:9], b"\x1b", b"\x1b_", b"\x1b_devbox;"]))
)
def test_no_byte_of_the_screen_is_lost_or_moved(parts: list[bytes]) -> None:
    """Whatever a program prints; and not more is held back than one mark."""
    marks = MarkFilter(NONCE)
    plain = b""
    for part in parts:
        plain += b"".join(piece for piece in marks.feed(part) if isinstance(piece, bytes))
        assert len(marks._held) <= MarkFilter.LONGEST
    plain += marks.flush()
    assert plain == b"".join(parts).replace(MARK, b"")


def test_an_endless_mark_is_given_up() -> None:
    """A program that prints our prefix and never ends it must not stop the screen."""
    marks = MarkFilter(NONCE)
    start = MARK[:30]
    assert b"".join(p for p in marks.feed(start + b"x" * 400) if isinstance(p, bytes)) == start + b"x" * 400


@pytest.fixture
def env(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """What the agent gives a command, with a home of its own and a real tmux that is nobody else's."""
    home = Path(subprocess.check_output(["mktemp", "-d", "/tmp/dbx-XXXXXX"], text=True).strip())
    tools = home / "bin"
    tools.mkdir()
    (home / ".profile").write_text(f"PATH={tools}:$PATH\nPS1='> '\n")
    yield {
        "PATH": f"{tools}:/usr/bin:/bin:/usr/sbin:/sbin",
        "HOME": str(home),
        "TERM": "xterm-256color",
        "LANG": "C.UTF-8",
        "DEVBOX_KEEP_HOME": "1",
        "TMUX_TMPDIR": str(home),
        "ZELLIJ_SOCKET_DIR": str(home),
    }
    if shutil.which("tmux"):
        subprocess.run(["tmux", "kill-server"], env={"TMUX_TMPDIR": str(home), "PATH": os.defpath}, stderr=-3)
    shutil.rmtree(home, ignore_errors=True)


def fake(env: dict[str, str], name: str, text: str) -> None:
    """Put a program in front of all others."""
    file = Path(env["HOME"]) / "bin" / name
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(0o755)


def marks_of(output: bytes) -> list[tuple[str, ...]]:
    return [piece.words for piece in MarkFilter(NONCE).feed(output) if isinstance(piece, Mark)]


def command(**more: str | None) -> str:
    more.setdefault("session", "main")
    more.setdefault("term", "xterm-256color")
    return attach_command(nonce=NONCE, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("shell", SHELLS)
def test_a_command_runs_in_a_login_environment_and_reports_its_status(
    shell: str, env: dict[str, str]
) -> None:
    """Session Manager sets neither USER nor a shell, and the folder is its own."""
    text = 'echo "u=$USER l=$LOGNAME c=$COLORTERM lang=$LANG t=$TERM tmux=[$TMUX]"; pwd; exit 5'
    with Terminal(command(command=text, colorterm="truecolor"), env | {"TMUX": "x"}, shell=shell) as terminal:
        terminal.resize(80, 24)
        terminal.until(rb"exit;5\x1b")
        user = getpass.getuser()
        assert (
            f"u={user} l={user} c=truecolor lang=C.UTF-8 t=xterm-256color tmux=[]".encode() in terminal.output
        )
        assert env["HOME"].encode() in terminal.output
        assert marks_of(terminal.output) == [("start", "command", user), ("exit", "5")]


def test_the_first_size_is_waited_for(env: dict[str, str]) -> None:
    """A full-screen program that starts at 0 by 0 crashes or draws nothing."""
    with Terminal(command(command="stty size"), env) as terminal:
        terminal.read(0.3)
        assert b"start;" not in terminal.output
        terminal.resize(132, 50)
        terminal.until(rb"50 132\r\n")


@pytest.mark.parametrize(
    ("asked", "installed", "expected"),
    [
        (None, ["zellij", "tmux"], "zellij"),
        (None, ["tmux"], "tmux"),
        ("tmux", ["zellij", "tmux"], "tmux"),
        ("zellij", ["zellij", "tmux"], "zellij"),
        ("none", ["zellij", "tmux"], "none"),
    ],
)
def test_the_right_multiplexer_is_taken(
    asked: str | None, installed: list[str], expected: str, env: dict[str, str]
) -> None:
    """zellij first, then tmux; the user's choice wins."""
    for name in installed:
        fake(env, name, f'echo "{name} got: $*"; exit 0')
    if "zellij" not in installed:
        env["PATH"] = f"{env['HOME']}/bin:/usr/bin:/bin"
        (Path(env["HOME"]) / ".profile").write_text(f"PATH={env['PATH']}\n")
        if shutil.which("zellij", path="/usr/bin:/bin"):
            pytest.skip("zellij is in the system's path")
    with Terminal(command(mux=asked, session="work-1"), env) as terminal:
        terminal.resize(80, 24)
        terminal.until(rb"start;\w+;")
        assert marks_of(terminal.output)[0][1] == expected
        if expected == "none":
            terminal.type(b"exit 3\r")
            terminal.until(rb"exit;3\x1b")
            return
        terminal.until(rb"exit;0\x1b")
        arguments = {"zellij": "attach --create work-1", "tmux": "-u new-session -A -s work-1"}[expected]
        assert f"{expected} got: {arguments}".encode() in terminal.output


def test_a_mux_that_is_asked_for_and_missing_is_said(env: dict[str, str]) -> None:
    """Another one in its place would surprise."""
    (Path(env["HOME"]) / ".profile").write_text("PATH=/nowhere\n")
    with Terminal(command(mux="zellij"), env) as terminal:
        terminal.resize(80, 24)
        terminal.until(rb"\x1b\\")
        assert marks_of(terminal.output) == [("fail", "no-mux", "zellij", "missing")]


def test_a_user_who_is_not_there_is_said(env: dict[str, str]) -> None:
    """Not a shell as somebody else."""
    with Terminal(command(user="no-such-user"), env) as terminal:
        terminal.resize(80, 24)
        terminal.until(rb"\x1b\\")
        assert marks_of(terminal.output) == [("fail", "no-user", "no-such-user")]


def test_a_user_whom_the_session_may_not_become_is_said(env: dict[str, str]) -> None:
    """sudo wants a password: a prompt nobody can answer would hang."""
    fake(env, "id", 'case "$1" in -un) echo somebody;; -u) echo 4711;; *) exec /usr/bin/id "$@";; esac')
    fake(env, "sudo", "exit 1")
    with Terminal(command(user="root"), env) as terminal:
        terminal.resize(80, 24)
        terminal.until(rb"\x1b\\")
        assert marks_of(terminal.output) == [("fail", "no-sudo", "root")]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to become another user")
def test_another_user_is_become_with_all_that_belongs_to_it(env: dict[str, str]) -> None:
    """Home, shell and name are that user's."""
    env.pop("DEVBOX_KEEP_HOME")
    with Terminal(command(user="nobody", command='echo "u=$USER id=$(id -un)"'), env) as terminal:
        terminal.resize(80, 24)
        terminal.until(rb"exit;0\x1b")
        assert b"u=nobody id=nobody" in terminal.output
        assert marks_of(terminal.output)[0] == ("start", "command", "nobody")


@pytest.mark.skipif(shutil.which("infocmp") is None, reason="infocmp is not installed")
@pytest.mark.parametrize(
    ("term", "becomes"),
    [
        ("xterm-kitty-of-the-future", "xterm-256color"),
        ("alacritty-x", "xterm-256color"),
        ("strange", "xterm"),
    ],
)
def test_a_terminal_that_the_box_does_not_know_gets_one_that_it_does(
    term: str, becomes: str, env: dict[str, str]
) -> None:
    """Or nothing full-screen works."""
    with Terminal(command(command='echo "t=$TERM."', term=term), env) as terminal:
        terminal.resize(80, 24)
        terminal.until(rf"t={becomes}\.".encode())


def test_hostile_words_stay_words(env: dict[str, str], tmp_path: Path) -> None:
    """TERM and COLORTERM come from the client's environment."""
    trap = tmp_path / "ran"
    nasty = f"x'; touch {trap}; '\"$(touch {trap})`touch {trap}` {{{{ssm:x}}}}"
    text = attach_command(
        nonce=NONCE, session="main", term=nasty, colorterm=nasty, locale=nasty, command="echo ok-$((1+1))"
    )
    with Terminal(text, env) as terminal:
        terminal.resize(80, 24)
        terminal.until(rb"ok-2")
        terminal.until(rb"exit;0\x1b")
    assert not trap.exists()


@pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")
def test_a_second_terminal_joins_the_same_real_tmux(env: dict[str, str]) -> None:
    """That is what makes a lost session no loss."""
    text = command(mux="tmux")
    with Terminal(text, env) as first:
        first.resize(80, 24)
        first.until(rb"start;tmux;")
        first.type(b"echo pid-$$-dip\r")
        pid = first.until(rb"pid-(\d+)-dip")[1]
    with Terminal(text, env) as second:
        second.resize(80, 24)
        second.until(rb"start;tmux;")
        second.type(b"clear; echo again-$$-niaga\r")
        assert second.until(rb"again-(\d+)-niaga")[1] == pid
        second.type(b"exit\r")
        second.until(rb"exit;0\x1b")
