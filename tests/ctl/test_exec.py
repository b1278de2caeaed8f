"""exec: bytes, back-pressure, signals and exit statuses."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time

import pytest

from tests.ctl.fake_daemon import (
    CREDIT,
    CREDIT_OUTPUT,
    END_OF_INPUT,
    ERROR_OUTPUT,
    INPUT,
    OUTPUT,
    SIGNAL,
    FakeDaemon,
    Gone,
    Peer,
)
from tests.ctl.terminal import PATIENCE, Tty

EXEC = [sys.executable, "-m", "devboxctl", "exec"]


def run(*words: str, typed: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([*EXEC, *words], input=typed, capture_output=True, timeout=PATIENCE, check=False)


def test_both_outputs_are_byte_exact_and_the_status_is_the_commands(daemon: FakeDaemon) -> None:
    every = bytes(range(256)) * 3000

    def command(peer: Peer, _: FakeDaemon) -> None:
        peer.upgrade()
        peer.status("reconnecting", text="not shown on standard output")
        for at in range(0, len(every), 50000):
            peer.send(OUTPUT, every[at : at + 50000])
            peer.send(ERROR_OUTPUT, every[at : at + 50000][::-1])
        peer.exit(status=42)

    daemon.streams["exec"] = command
    done = run("gpu", "--", "true", "--", "-x", "ü")
    assert done.returncode == 42
    assert done.stdout == every
    assert done.stderr == b"".join(every[at : at + 50000][::-1] for at in range(0, len(every), 50000))
    assert daemon.requests[0][2]["argv"] == ["true", "--", "-x", "ü"]


def test_input_goes_up_within_its_credit_and_then_ends(daemon: FakeDaemon) -> None:
    data = os.urandom(300_000)
    got = bytearray()
    ahead = []

    def command(peer: Peer, _: FakeDaemon) -> None:
        peer.upgrade()
        outstanding = 0
        while True:
            kind, payload = peer.receive()
            if kind == END_OF_INPUT:
                break
            assert kind == INPUT
            got.extend(payload)
            outstanding += len(payload)
            ahead.append(outstanding)
            if outstanding > 40000:
                peer.send(CREDIT, outstanding.to_bytes(4, "big"))
                outstanding = 0
        peer.exit(status=0)

    daemon.streams["exec"] = command
    assert run("gpu", "--", "cat", typed=data).returncode == 0
    assert got == data
    assert max(ahead) <= 65536


def test_without_input_the_command_is_told_so(daemon: FakeDaemon) -> None:
    def command(peer: Peer, _: FakeDaemon) -> None:
        peer.upgrade()
        assert peer.request["stdin"] is False
        assert peer.receive()[0] == END_OF_INPUT
        peer.exit(status=0)

    daemon.streams["exec"] = command
    assert run("gpu", "-n", "--", "cat", typed=b"not read").returncode == 0


def test_output_is_credited_only_when_it_was_written(daemon: FakeDaemon) -> None:
    """A slow reader holds up the remote command, not our memory."""
    total = 4 << 20
    ahead = []

    def command(peer: Peer, _: FakeDaemon) -> None:
        peer.upgrade()
        sent = credited = 0
        while credited < total:
            while sent - credited < 262144 and sent < total:
                peer.send(OUTPUT, b"o" * 32768)
                sent += 32768
            ahead.append(sent - credited)
            kind, payload = peer.receive()
            if kind == CREDIT_OUTPUT:
                credited += int.from_bytes(payload, "big")
        assert credited == total
        peer.exit(status=0)

    daemon.streams["exec"] = command
    process = subprocess.Popen([*EXEC, "gpu", "-n", "--", "cat"], stdout=subprocess.PIPE)
    assert process.stdout is not None
    time.sleep(0.3)
    assert len(ahead) < 12, "credit was given for bytes that nobody read"
    assert len(process.stdout.read()) == total
    assert process.wait(PATIENCE) == 0
    process.stdout.close()


def test_a_closed_pipe_ends_it_like_any_filter(daemon: FakeDaemon) -> None:
    hung_up = threading.Event()

    def command(peer: Peer, _: FakeDaemon) -> None:
        peer.upgrade()
        try:
            while True:
                peer.send(OUTPUT, b"y\n" * 1000)
        except Gone:
            hung_up.set()

    daemon.streams["exec"] = command
    line = f"{sys.executable} -m devboxctl exec gpu -n -- yes | head -1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", line], capture_output=True, timeout=PATIENCE, check=False)
    assert done.stdout == b"y\n141\n"
    assert done.stderr == b""
    assert hung_up.wait(PATIENCE)


def test_ctrl_c_goes_to_the_command_and_its_status_comes_back(daemon: FakeDaemon) -> None:
    def command(peer: Peer, _: FakeDaemon) -> None:
        peer.upgrade()
        peer.send(OUTPUT, b"up\n")
        while True:
            kind, payload = peer.receive()
            if kind == SIGNAL:
                peer.exit(status=128 + payload[0])
                return

    daemon.streams["exec"] = command
    process = subprocess.Popen([*EXEC, "gpu", "-n", "--", "sleep", "9"], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE) == 130
    process.stdout.close()


def test_a_command_that_ignores_ctrl_c_can_be_left_with_a_second_one(daemon: FakeDaemon) -> None:
    def command(peer: Peer, daemon: FakeDaemon) -> None:
        peer.upgrade()
        peer.send(OUTPUT, b"up\n")
        while True:
            if peer.receive()[0] == SIGNAL:
                peer.send(OUTPUT, b"ignored\n")

    daemon.streams["exec"] = command
    process = subprocess.Popen([*EXEC, "gpu", "-n", "--", "sleep", "9"], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == b"ignored\n"
    process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE) == 130
    process.stdout.close()


def test_who_interrupts_a_command_that_goes_on_is_told_what_the_next_one_does(daemon: FakeDaemon) -> None:
    """Its box may have fallen into a black hole with the signal."""

    def command(peer: Peer, _: FakeDaemon) -> None:
        peer.upgrade()
        peer.send(OUTPUT, b"up\n")
        while True:
            peer.receive()

    daemon.streams["exec"] = command
    with Tty(["exec", "gpu", "--", "sleep", "9"], os.environ) as tty:
        tty.wait_for(b"up")
        tty.program.send_signal(signal.SIGINT)
        tty.wait_for(b"[devbox: the command goes on; the next Ctrl-C leaves it, and hangs it up]")
        tty.program.send_signal(signal.SIGINT)
        assert tty.wait() == 130


@pytest.mark.parametrize("words", [["gpu", "--", "true"], ["-p", "x", "gpu", "--", "true"]])
def test_a_command_that_could_not_run_is_255(daemon: FakeDaemon, words: list[str]) -> None:
    daemon.routes["POST exec"] = (409, {"code": "wrong-state", "message": "gpu is stopped", "exit_status": 5})
    done = run(*words)
    assert done.returncode == 255
    assert done.stderr == b"error: gpu is stopped\n"


def test_a_daemon_that_dies_is_255(daemon: FakeDaemon) -> None:
    def command(peer: Peer, _: FakeDaemon) -> None:
        peer.upgrade()
        peer.send(OUTPUT, b"half")

    daemon.streams["exec"] = command
    done = run("gpu", "--", "true")
    assert done.returncode == 255
    assert done.stdout == b"half"
    assert b"error: " in done.stderr


def test_options_reach_the_daemon(daemon: FakeDaemon) -> None:
    def command(peer: Peer, _: FakeDaemon) -> None:
        peer.upgrade()
        peer.exit(status=0)

    daemon.streams["exec"] = command
    assert run("gpu", "--cwd", "/w", "--env", "A=1", "--env", "HOME", "--user=me", "--", "x").returncode == 0
    request = daemon.requests[0][2]
    assert (request["cwd"], request["user"]) == ("/w", "me")
    assert request["env"] == {"A": "1", "HOME": os.environ["HOME"]}


def test_with_a_terminal_the_command_gets_one(daemon: FakeDaemon) -> None:
    def command(peer: Peer, daemon: FakeDaemon) -> None:
        peer.upgrade()
        assert peer.request["tty"] is True
        peer.send(OUTPUT, b"ready")
        assert peer.receive() == (CREDIT_OUTPUT, (5).to_bytes(4, "big"))
        assert peer.receive() == (INPUT, b"~.\x03")
        peer.exit(status=7)

    daemon.streams["exec"] = command
    with Tty(["exec", "gpu", "-t", "--", "top"], os.environ) as tty:
        tty.wait_for(b"ready")
        assert tty.is_raw()
        tty.type(b"~.\x03")
        assert tty.wait() == 7
        assert tty.mode == tty.before
        assert tty.screen == b""


def test_keys_are_left_to_the_shell_when_the_command_has_no_terminal(daemon: FakeDaemon) -> None:
    def command(peer: Peer, _: FakeDaemon) -> None:
        peer.upgrade()
        assert peer.request["stdin"] is False
        peer.exit(status=0)

    daemon.streams["exec"] = command
    with Tty(["exec", "gpu", "--", "cat"], os.environ) as tty:
        assert tty.wait() == 0


def test_a_wait_shows_itself_on_a_terminal_and_goes_when_the_command_speaks(daemon: FakeDaemon) -> None:
    """Two minutes of silence for a box that was not there."""
    waited = threading.Event()

    def slow(peer: Peer, _: FakeDaemon) -> None:
        peer.upgrade()
        peer.status("starting", text="gpu is not connected to Session Manager yet")
        assert waited.wait(PATIENCE)
        peer.status("online")
        peer.send(OUTPUT, b"hello\r\n")
        peer.exit(status=0)

    daemon.streams["exec"] = slow
    with Tty(["exec", "gpu", "--", "true"], os.environ) as tty:
        tty.wait_for(b"devbox: gpu is not connected to Session Manager yet")
        until = time.monotonic() + PATIENCE
        while not any(int(shown) >= 2 for shown in re.findall(rb"yet \((\d+) s\)", tty.screen)):
            assert time.monotonic() < until, tty.screen[-1000:]
            tty.read()
        waited.set()
        assert tty.wait() == 0
        assert tty.screen.endswith(b"\r\x1b[Khello\r\r\n"), "nothing of it is left"


def test_the_wait_for_an_answer_shows_itself_and_ends_at_the_first_ctrl_c(daemon: FakeDaemon) -> None:
    """The daemon asks AWS for the box before it answers, which may take a minute: nothing was said."""
    ended = threading.Event()

    def far(peer: Peer, _: FakeDaemon) -> None:
        assert ended.wait(PATIENCE)

    daemon.streams["exec"] = far
    with Tty(["exec", "gpu", "--", "true"], os.environ) as tty:
        tty.wait_for(b"devbox: looking for the box")
        tty.program.send_signal(signal.SIGINT)
        assert tty.wait() == 130
        assert tty.screen.endswith(b"\r\x1b[K"), "nothing of it is left"
        ended.set()


def test_a_found_box_is_not_looked_for_any_more(daemon: FakeDaemon) -> None:
    found, gone = threading.Event(), threading.Event()

    def slow(peer: Peer, _: FakeDaemon) -> None:
        assert found.wait(PATIENCE)
        peer.upgrade()
        assert gone.wait(PATIENCE)
        peer.exit(status=0)

    daemon.streams["exec"] = slow
    with Tty(["exec", "gpu", "--", "sleep", "60"], os.environ) as tty:
        tty.wait_for(b"devbox: looking for the box")
        found.set()
        tty.wait_for(b"\r\x1b[K")
        gone.set()
        assert tty.wait() == 0


def test_a_script_hears_nothing_of_a_wait_but_notices(daemon: FakeDaemon) -> None:
    """Standard error belongs to the command."""

    def slow(peer: Peer, _: FakeDaemon) -> None:
        peer.upgrade()
        peer.status("starting", text="not connected yet")
        time.sleep(1.3)
        peer.status("notice", text="python3 is not on the box")
        peer.send(ERROR_OUTPUT, b"its own\n")
        peer.exit(status=0)

    daemon.streams["exec"] = slow
    line = [sys.executable, "-m", "devboxctl", "exec", "gpu", "--", "true"]
    done = subprocess.run(line, capture_output=True, timeout=PATIENCE, check=False, stdin=subprocess.DEVNULL)
    assert sorted(done.stderr.splitlines()) == [b"[devbox: python3 is not on the box]", b"its own"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_ends_a_wait(daemon: FakeDaemon, number: signal.Signals) -> None:
    """It was passed on to a command that did not run."""

    def waits(peer: Peer, _: FakeDaemon) -> None:
        peer.upgrade()
        peer.status("starting", text="not connected yet")
        kind, payload = peer.receive()
        while kind != SIGNAL:
            kind, payload = peer.receive()
        peer.exit(status=128 + payload[0], reason="ended before the command ran")  # as the real one does

    daemon.streams["exec"] = waits
    with Tty(["exec", "gpu", "--", "true"], os.environ) as tty:
        tty.wait_for(b"not connected yet")
        tty.program.send_signal(number)
        assert tty.wait() == 128 + number
