"""attach on a real terminal, with a daemon that misbehaves as real ones do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ctl import fake_daemon
from tests.ctl.fake_daemon import DETACH, INPUT, OUTPUT, RESIZE, FakeDaemon, Gone, Peer
from tests.ctl.terminal import PATIENCE, SHELL, Tty

TTY_MODE = slice(0, 4)


@pytest.fixture
def attached(daemon: FakeDaemon) -> Iterator[Tty]:
    with Tty(["attach", "gpu"], os.environ) as tty:
        tty.wait_for(b"welcome")
        yield tty


def start_process(home: Path) -> subprocess.Popen[bytes]:
    """A daemon that can be killed."""
    path = f"{os.environ['XDG_RUNTIME_DIR']}/devbox/devboxd.sock"
    if os.path.exists(path):
        os.unlink(path)
    process = subprocess.Popen(
        [sys.executable, fake_daemon.__file__, path], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"listening\n"
    return process


def end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


def next_frame(daemon: FakeDaemon, kind: int) -> bytes:
    while True:
        found, payload = daemon.frames.get(timeout=PATIENCE)
        if found == kind:
            return payload


def test_typing_is_echoed_by_the_far_end_and_the_end_restores_the_terminal(attached: Tty) -> None:
    assert attached.is_raw()
    attached.type(b"ls\x1a\x1c\x13\r")
    attached.wait_for(b"ls\x1a\x1c\x13\r")
    attached.type(b"exit\r")
    assert attached.wait() == 0
    assert attached.mode == attached.before
    assert b"[devbox: main on gpu has ended]" in attached.screen


def test_the_request_says_what_the_terminal_is(daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLORTERM", "truecolor")
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    words = ["attach", "gpu", "work", "--user", 'a"b', "-p", "dev", "--region=eu-west-1", "--mux", "tmux"]
    with Tty(words, os.environ, size=(133, 42)) as tty:
        tty.wait_for(b"welcome")
        tty.type(b"exit\r")
        assert tty.wait() == 0
    assert daemon.requests == [
        (
            "POST",
            "attach",
            {
                "box": "gpu",
                "session": "work",
                "user": 'a"b',
                "profile": "dev",
                "region": "eu-west-1",
                "mux": "tmux",
                "columns": 133,
                "rows": 42,
                "term": "xterm-256color",
                "colorterm": "truecolor",
                "locale": "de_DE.UTF-8",
            },
        )
    ]


def test_a_terminal_without_a_size_counts_as_80_by_24(daemon: FakeDaemon) -> None:
    with Tty(["attach", "gpu"], os.environ, size=(0, 0)) as tty:
        tty.wait_for(b"welcome")
        assert (daemon.requests[0][2]["columns"], daemon.requests[0][2]["rows"]) == (80, 24)
        tty.resize(0, 0)
        assert next_frame(daemon, RESIZE) == bytes((0, 80, 0, 24))


def test_a_new_size_reaches_the_daemon(daemon: FakeDaemon, attached: Tty) -> None:
    attached.resize(120, 50)
    assert next_frame(daemon, RESIZE) == bytes((0, 120, 0, 50))


def test_tilde_dot_detaches_and_says_how_to_come_back(attached: Tty) -> None:
    attached.type(b"~.")
    assert attached.wait() == 0
    assert attached.mode == attached.before
    text = b"[devbox: detached from main on gpu; attach again with: devboxctl attach gpu]"
    assert text in attached.screen
    # The far end never got the chance to switch its modes off: we did.
    assert b"\x1b[?1049l" in attached.screen
    assert b"\x1b[?2004l" in attached.screen


def test_tilde_question_mark_helps_and_two_tildes_are_one(daemon: FakeDaemon, attached: Tty) -> None:
    attached.type(b"~?")
    attached.wait_for(b"start of a line)")
    attached.type(b"\r~~x~.\r")
    attached.wait_for(b"\r~x~.\r")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT])
def test_a_signal_ends_it_with_the_terminal_restored(attached: Tty, number: signal.Signals) -> None:
    attached.program.send_signal(number)
    assert attached.wait() == 128 + number
    assert attached.mode == attached.before


def test_a_bug_of_ours_still_restores_the_terminal(home: Path, daemon: FakeDaemon) -> None:
    """Whatever goes wrong inside, the shell that comes back must echo."""
    broken = (
        "import fcntl, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"
        "from devboxctl import entry; from devboxctl.fast import attach\n"
        "def fail(*_): raise RuntimeError('boom\\x1b[2J')\n"
        "attach.Attach.on_input = fail\n"
        "sys.argv = ['devboxctl', *sys.argv[1:]]; entry.main()"
    )
    with Tty(["attach", "gpu"], os.environ, run=broken) as tty:
        tty.wait_for(b"welcome")
        tty.type(b"x")
        assert tty.wait() == 1
        assert tty.mode == tty.before
        assert b"error: devboxctl failed unexpectedly: RuntimeError: boom [2J" in tty.screen
        assert b"Traceback" not in tty.screen


def test_ctrl_c_passes_while_output_floods(daemon: FakeDaemon) -> None:
    """The usual reason for Ctrl-C is too much output."""

    def flood(peer: Peer, _: FakeDaemon) -> None:
        peer.upgrade()
        peer.status("online", mux="tmux")
        peer.connection.settimeout(0.0)
        block = bytes((OUTPUT,)) + (65536).to_bytes(4, "big") + b"y\r\n" * 21845 + b"!"
        sent = b""
        while True:
            try:
                sent = sent[peer.connection.send(sent) :] if sent else block
            except BlockingIOError:
                time.sleep(0.001)
            try:
                data = peer.connection.recv(100)
            except BlockingIOError:
                continue
            if b"\x03" in data:
                break
            if not data:
                raise Gone
        peer.connection.settimeout(PATIENCE)
        peer.connection.sendall(sent)
        peer.exit(status=130)

    daemon.streams["attach"] = flood
    with Tty(["attach", "gpu"], os.environ) as tty:
        tty.wait_for(b"y\r\ny\r\n")
        tty.type(b"\x03")
        assert tty.wait() == 130
        assert tty.mode == tty.before


def test_ctrl_c_overtakes_a_paste_that_the_box_does_not_take(daemon: FakeDaemon) -> None:
    got = bytearray()

    def stuck(peer: Peer, _: FakeDaemon) -> None:
        peer.upgrade()
        peer.status("online", mux="tmux")
        peer.send(OUTPUT, b"ready")
        while b"\x03" not in got:
            kind, payload = peer.receive()
            assert kind == INPUT
            got.extend(payload)
        peer.exit(status=0)

    daemon.streams["attach"] = stuck
    with Tty(["attach", "gpu"], os.environ) as tty:
        tty.wait_for(b"ready")
        for _ in range(100):
            tty.type(b"p" * 2000)
        until = time.monotonic() + PATIENCE
        while len(got) <= 60000:  # all that goes without credit
            assert time.monotonic() < until, len(got)
            time.sleep(0.01)
        tty.type(b"\x03")
        assert tty.wait() == 0
    assert len(got) <= 65536, "more than the window was sent without credit"
    assert got.endswith(b"p\x03")
    assert len(got) > 60000


def test_a_window_that_reads_nothing_holds_up_the_far_end_and_can_still_be_left(daemon: FakeDaemon) -> None:
    """A terminal stopped by its emulator must not fill our memory nor swallow ~."""
    sent = 0

    def flood(peer: Peer, _: FakeDaemon) -> None:
        nonlocal sent
        peer.upgrade()
        peer.send(OUTPUT, b"ready")
        peer.connection.settimeout(0.5)
        try:
            while True:
                peer.send(OUTPUT, b"z" * 65536)
                sent += 65536
        except Gone:
            pass
        peer.connection.settimeout(PATIENCE)
        while peer.receive()[0] != DETACH:
            pass

    daemon.streams["attach"] = flood
    with Tty(["attach", "gpu"], os.environ) as tty:
        tty.wait_for(b"ready")
        time.sleep(0.7)
        assert sent < 2 << 20
        tty.type(b"~.")
        until = time.monotonic() + PATIENCE
        while tty.program.poll() is None and time.monotonic() < until:
            time.sleep(0.02)  # nothing is read here
        assert tty.program.returncode == 0
        assert tty.mode == tty.before


def test_a_killed_daemon_is_waited_for_and_joined_again(home: Path) -> None:
    """An upgrade of the daemon must not cost anybody a terminal."""
    first = start_process(home)
    with Tty(["attach", "gpu"], os.environ) as tty:
        tty.wait_for(b"welcome")
        end(first)
        tty.wait_for(b"the daemon is gone")
        assert tty.is_raw()
        tty.type(b"lost keys\r")
        tty.wait_for(b"\a")
        second = start_process(home)
        try:
            tty.wait_for(b"welcome")
            tty.type(b"here\r")
            tty.wait_for(b"here\r")
            assert b"lost keys" not in tty.screen
            tty.type(b"exit\r")
            assert tty.wait() == 0
            assert tty.mode == tty.before
        finally:
            end(second)


def test_joining_again_says_so(daemon: FakeDaemon) -> None:
    def dies(peer: Peer, daemon: FakeDaemon) -> None:
        daemon.streams["attach"] = fake_daemon.echo
        peer.upgrade()
        peer.status("online", mux="zellij")
        peer.send(OUTPUT, b"first")

    daemon.streams["attach"] = dies
    with Tty(["attach", "gpu"], os.environ) as tty:
        tty.wait_for(b"welcome")
    assert [r[2].get("rejoin") for r in daemon.requests] == [None, True]


def test_one_can_leave_while_the_daemon_is_away(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    process = start_process(home)
    with Tty(["attach", "gpu"], os.environ) as tty:
        tty.wait_for(b"welcome")
        end(process)
        tty.wait_for(b"the daemon is gone")
        tty.type(b"\r~.")
        assert tty.wait() == 0
        assert tty.mode == tty.before
        assert b"attach again with" in tty.screen


def test_a_raw_shell_ends_with_its_daemon_and_says_why(home: Path) -> None:
    process = start_process(home)
    with Tty(["attach", "--raw", "gpu"], os.environ) as tty:
        tty.wait_for(b"welcome")
        end(process)
        assert tty.wait() == 7
        assert tty.mode == tty.before
        assert b"the shell on gpu is lost" in tty.screen


def test_a_session_that_is_gone_for_good_ends_with_its_own_status(daemon: FakeDaemon) -> None:
    def gone(peer: Peer, _: FakeDaemon) -> None:
        peer.upgrade()
        peer.send(OUTPUT, b"\x1b[?1000h\x1b[>1uready")
        failure = {
            "code": "wrong-state",
            "message": "gpu was terminated\x1b[31m",
            "exit_status": 5,
            "hint": "none",
        }
        peer.exit(failure=failure)

    daemon.streams["attach"] = gone
    with Tty(["attach", "gpu"], os.environ) as tty:
        assert tty.wait() == 5
        assert b"error: gpu was terminated [31m" in tty.screen
        assert b"\x1b[?1000l" in tty.screen
        assert b"\x1b[<1u" in tty.screen


def test_trouble_is_shown_in_one_line_that_goes_away_again(daemon: FakeDaemon) -> None:
    def trouble(peer: Peer, daemon: FakeDaemon) -> None:
        peer.upgrade()
        peer.status("online", mux="zellij")
        peer.send(OUTPUT, b"ready")
        peer.status("reconnecting", text="no network\x1b[2J")
        while peer.receive()[0] != INPUT:
            pass
        peer.status("online", mux="zellij")
        sizes: list[bytes] = []
        while len(sizes) < 2:
            kind, payload = peer.receive()
            if kind == RESIZE:
                sizes.append(payload)
        daemon.frames.put((RESIZE, b"".join(sizes)))
        peer.exit(status=0)

    daemon.streams["attach"] = trouble
    with Tty(["attach", "gpu"], os.environ) as tty:
        tty.wait_for(b"\x1b7\x1b[30;1H\x1b[0;7m devbox: no network [2J; ~. leaves \x1b[0m")
        tty.type(b"x")
        tty.wait_for(b"\x1b7\x1b[30;1H\x1b[0m\x1b[2K\x1b8")
        assert tty.wait() == 0
    assert next_frame(daemon, RESIZE) == bytes((0, 100, 0, 29, 0, 100, 0, 30)), (
        "the mux was not made to redraw"
    )


def test_a_short_hiccup_is_not_shown(daemon: FakeDaemon) -> None:
    def hiccup(peer: Peer, _: FakeDaemon) -> None:
        peer.upgrade()
        peer.send(OUTPUT, b"ready")
        peer.status("reconnecting", text="no network")
        peer.status("online", mux="zellij")
        peer.exit(status=0)

    daemon.streams["attach"] = hiccup
    with Tty(["attach", "gpu"], os.environ) as tty:
        assert tty.wait() == 0
        assert b"no network" not in tty.screen


def test_suspend_gives_the_shell_a_sane_terminal_and_fg_comes_back(daemon: FakeDaemon) -> None:
    shell = ["bash", "--norc", "--noprofile", "-i"]
    environ = {**os.environ, "PS1": "shell> ", "HISTFILE": "/dev/null"}
    with Tty(shell, environ, run=SHELL) as tty:
        tty.wait_for(b"shell> ")
        tty.type(f"{sys.executable} -m devboxctl attach gpu\r".encode())
        tty.wait_for(b"welcome")
        assert tty.is_raw()
        tty.type(b"~\x1a")
        tty.wait_for(b"shell> ")
        tty.type(b"echo $((40+2))\r")
        tty.wait_for(b"42")
        tty.type(b"fg\r")
        sizes = [next_frame(daemon, RESIZE)]
        tty.type(b"exit\r")
        tty.wait_for(b"has ended]")
        assert sizes == [bytes((0, 100, 0, 30))]
        tty.type(b"exit\r")
        tty.wait()


def job(daemon: FakeDaemon) -> Tty:
    """An interactive shell with job control, in which an attach runs."""
    environ = {**os.environ, "PS1": "shell> ", "HISTFILE": "/dev/null"}
    tty = Tty(["bash", "--norc", "--noprofile", "-i"], environ, run=SHELL)
    tty.wait_for(b"shell> ")
    tty.type(f"{sys.executable} -m devboxctl attach gpu\r".encode())
    tty.wait_for(b"welcome")
    return tty


def until_raw(tty: Tty) -> None:
    """Wait until the attach has the terminal."""
    until = time.monotonic() + PATIENCE
    while not tty.is_raw():
        assert time.monotonic() < until, tty.screen[-1000:]
        tty.read(0.02)


def until_stopped(tty: Tty) -> None:
    """Ask the shell until it says that its job is stopped: it may not have run yet."""
    until = time.monotonic() + PATIENCE
    tty.wait_for(b"shell> ")
    while True:
        tty.type(b"jobs\r")
        tty.wait_for(b"jobs\r\n")
        while b"shell> " not in tty.screen:
            assert time.monotonic() < until, tty.screen[-1000:]
            tty.read()
        said, _, tty.screen = tty.screen.partition(b"shell> ")
        if b"Stopped" in said:
            return
        assert time.monotonic() < until, said


def ends_well(tty: Tty) -> None:
    """The attach still works, and gives the shell's own terminal back."""
    tty.type(b"still here\r")
    tty.wait_for(b"still here\r")
    assert tty.is_raw()
    tty.type(b"exit\r")
    tty.wait_for(b"has ended]")
    tty.wait_for(b"shell> ")
    tty.type(b"stty -a | tr ';' '\\n' | grep -w -e icanon -e echo; echo $((40+2))\r")
    tty.wait_for(b"42\r\n")
    tty.type(b"exit\r")
    tty.wait()


def test_suspend_background_foreground(daemon: FakeDaemon) -> None:
    """``bg`` lets it ask for the terminal, which stops it again; ``fg`` broke that call off, and it died."""
    with job(daemon) as tty:
        for _ in range(3):
            tty.type(b"~\x1a")
            tty.wait_for(b"shell> ")
            tty.type(b"bg\r")
            tty.wait_for(b"attach gpu &")
            until_stopped(tty)
            tty.type(b"fg\r")
            until_raw(tty)
            tty.type(b"\r")
        ends_well(tty)


def test_stopped_and_continued_from_elsewhere(daemon: FakeDaemon) -> None:
    """A debugger, a batch system, a laptop's power saver: in the foreground, and in the background."""
    with job(daemon) as tty:
        shell = tty.program.pid
        attached = int(
            subprocess.run(
                ["pgrep", "-P", str(shell)], capture_output=True, text=True, check=True
            ).stdout.split()[0]
        )
        for _ in range(5):
            os.kill(attached, signal.SIGSTOP)
            tty.wait_for(b"shell> ")
            os.kill(attached, signal.SIGCONT)  # in the background: it wants the terminal and is stopped
            time.sleep(0.2)
            tty.type(b"fg\r")
            until_raw(tty)
        ends_well(tty)


def test_a_job_that_is_killed_while_suspended_leaves_the_terminal_to_its_shell(daemon: FakeDaemon) -> None:
    """It wanted to give back a terminal that was not its own any more, and was stopped by that."""
    with job(daemon) as tty:
        tty.type(b"~\x1a")
        tty.wait_for(b"shell> ")
        tty.type(b"kill %1; sleep 0.5; fg\r")
        tty.wait_for(b"shell> ")
        tty.type(b"jobs; echo left-$((40+2))\r")
        tty.wait_for(b"left-42")
        assert b"Stopped" not in tty.screen
        tty.type(b"exit\r")
        tty.wait()


def test_started_in_the_background_it_waits_for_the_foreground(daemon: FakeDaemon) -> None:
    """``attach &`` and then ``fg``."""
    environ = {**os.environ, "PS1": "shell> ", "HISTFILE": "/dev/null"}
    with Tty(["bash", "--norc", "--noprofile", "-i"], environ, run=SHELL) as tty:
        tty.wait_for(b"shell> ")
        tty.type(f"{sys.executable} -m devboxctl attach gpu &\r".encode())
        time.sleep(1.0)
        tty.type(b"fg\r")
        tty.wait_for(b"welcome")
        ends_well(tty)


@pytest.mark.parametrize("words", [["attach", "gpu"], ["exec", "-t", "gpu", "--", "top"]])
def test_ctrl_c_leaves_a_wait_in_which_nothing_is_on_the_screen_yet(
    daemon: FakeDaemon, words: list[str]
) -> None:
    """It went to a box that was not there, and the user waited two minutes."""
    gone = threading.Event()

    def waits(peer: Peer, _: FakeDaemon) -> None:
        peer.upgrade()
        peer.status("starting", text="gpu is not connected to Session Manager yet")
        try:
            while peer.receive()[0] != DETACH:
                pass
            gone.set()
        except Gone:
            gone.set()

    daemon.streams["attach"] = daemon.streams["exec"] = waits
    with Tty(words, os.environ) as tty:
        tty.wait_for(b"gpu is not connected to Session Manager yet")
        tty.type(b"\x03")
        assert tty.wait() == 130
        assert tty.mode == tty.before
    assert gone.wait(5)


def test_a_notice_is_seen_and_changes_nothing(daemon: FakeDaemon) -> None:
    """It came just before "online", and was gone before it was drawn."""

    def tells(peer: Peer, _: FakeDaemon) -> None:
        peer.upgrade()
        peer.status("notice", text="gpu does not know the terminal foo")
        peer.status("online", mux="tmux")
        peer.send(OUTPUT, b"\x1b[?1049hwelcome")
        while peer.receive()[0] != DETACH:
            pass
        peer.exit(reattach=True)

    daemon.streams["attach"] = tells
    with Tty(["attach", "gpu"], os.environ) as tty:
        tty.wait_for(b"devbox: gpu does not know the terminal foo")
        tty.wait_for(b"\x1b[2K")  # taken away again
        tty.type(b"~.")
        assert tty.wait() == 0


@pytest.mark.parametrize("term", ["dumb", "", "unknown"])
def test_a_dumb_terminal_gets_words_and_no_sequences(
    daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch, term: str
) -> None:
    """Emacs' shell shows them as rubbish."""

    def tells(peer: Peer, _: FakeDaemon) -> None:
        peer.upgrade()
        peer.status("starting", text="gpu is not connected yet")
        peer.status("online", mux="none", text="this terminal is dumb")
        peer.send(OUTPUT, b"$ ")
        peer.status("reconnecting", text="no network")
        peer.status("online", mux="none")
        peer.exit(status=0)

    daemon.streams["attach"] = tells
    with Tty(["attach", "gpu"], {**os.environ, "TERM": term}) as tty:
        assert tty.wait() == 0
        for text in (b"gpu is not connected yet", b"this terminal is dumb", b"no network", b"back"):
            assert tty.screen.count(b"[devbox: " + text) == 1
        assert b"\x1b" not in tty.screen


def run_piped(*words: str, typed: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "devboxctl", *words],
        input=typed,
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )


@pytest.mark.parametrize(
    "words",
    [
        ["attach", "gpu"],
        ["attach", "gpu", "work1"],
        ["attach", "gpu", "--raw"],
        ["attach", "gpu", "--command", "top"],
        ["attach", "gpu", "--escape", "none"],
        ["attach", "gpu", "--region", "eu-west-1"],
    ],
)
@pytest.mark.parametrize("stdin", ["nothing", "pipe", "closed"])
def test_without_a_terminal_attach_refuses_and_no_session_hears_of_it(
    daemon: FakeDaemon, words: list[str], stdin: str
) -> None:
    """``attach web work1 </dev/null`` typed an end of file into the shell that other terminals had open."""
    line = [sys.executable, "-m", "devboxctl", *words]
    if stdin == "closed":
        line = ["sh", "-c", 'exec "$@" <&-', "sh", *line]
    typed = b"exit\n" if stdin == "pipe" else b""
    done = subprocess.run(line, input=typed, capture_output=True, timeout=PATIENCE, check=False)
    assert done.returncode == 2
    assert b"error: attach needs a terminal" in done.stderr
    assert b"devboxctl exec gpu -- COMMAND" in done.stderr
    assert not done.stdout
    assert not daemon.requests


def test_a_box_from_the_environment_refuses_as_well(
    daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The slow way through the full parser ends at the same place."""
    monkeypatch.setenv("DEVBOX_BOX", "gpu")
    assert run_piped("attach").returncode == 2
    assert not [path for method, path, _ in daemon.requests if method == "POST"]


def test_the_end_of_a_pipe_is_passed_on_to_a_command_of_its_own(daemon: FakeDaemon) -> None:
    """``exec -t`` runs what nobody shares."""

    def wait_for_end(peer: Peer, _: FakeDaemon) -> None:
        peer.upgrade()
        kinds: list[int] = []
        while not kinds or kinds[-1] != fake_daemon.END_OF_INPUT:
            kinds.append(peer.receive()[0])
        peer.exit(status=3)

    daemon.streams["exec"] = wait_for_end
    assert run_piped("exec", "-t", "gpu", "--", "cat", typed=b"x").returncode == 3


def test_a_refusal_never_touches_the_terminal(daemon: FakeDaemon) -> None:
    daemon.routes["POST attach"] = (
        404,
        {"code": "box-not-found", "message": "no box nope", "exit_status": 3},
    )
    daemon.routes["GET boxes"] = {"boxes": []}
    with Tty(["attach", "nope"], os.environ) as tty:
        assert tty.wait() == 3
        assert tty.screen == b"error: no box nope\r\n"
