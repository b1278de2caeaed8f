"""``devboxctl exec`` as a script uses it: no terminal anywhere."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import time

import pytest

from tests.e2e.kit import World, until

MIB = 1 << 20


@pytest.fixture
def world(either_world: World) -> World:
    """Over a bridge, and where there can be none."""
    return either_world


def test_a_script_gets_status_and_separate_streams(world: World) -> None:
    done = world.run("exec", "api", "--", "sh", "-c", "echo out; echo err >&2; exit 37")
    assert (done.returncode, done.stdout, done.stderr) == (37, b"out\n", b"err\n")


def test_eight_mebibytes_come_byte_for_byte(world: World) -> None:
    """Of any kind: the agent alone would lose what is not UTF-8."""
    data = os.urandom(8 * MIB)
    (world.disk() / "big").write_bytes(data)
    done = world.run("exec", "api", "--", "cat", "big")
    assert done.returncode == 0, done.stderr
    assert hashlib.sha256(done.stdout).hexdigest() == hashlib.sha256(data).hexdigest()


def test_standard_input_goes_byte_for_byte_and_ends(world: World) -> None:
    data = os.urandom(2 * MIB)
    done = world.run("exec", "api", "--", "sha256sum", stdin=data)
    assert done.stdout.split()[0].decode() == hashlib.sha256(data).hexdigest()


def test_a_command_without_input_sees_its_end_at_once(world: World) -> None:
    done = world.run("exec", "api", "-n", "--", "cat", stdin=b"not for you")
    assert (done.returncode, done.stdout) == (0, b"")


def test_a_pipe_that_closes_early_ends_the_command(world: World) -> None:
    """``exec … | head`` must not run for ever."""
    before = {session["id"] for session in world.far_sessions()}  # of other tests in the same world
    with world.start(
        "exec", "api", "-n", "--", "yes", stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"y\n"
        process.stdout.close()
        assert process.wait(15) == -signal.SIGPIPE
    until(lambda: not {session["id"] for session in world.far_sessions()} - before, "the session has ended")


def test_an_interrupt_ends_the_remote_command(world: World) -> None:
    command = ["sh", "-c", "trap 'exit 9' INT; echo up; sleep 60 & wait"]
    with world.start("exec", "api", "-n", "--", *command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(15) == 9


@pytest.mark.parametrize("fault", ["rst", "fin", "close", "agent-cut"])
def test_a_cut_in_the_middle_costs_nothing(world: World, fault: str) -> None:
    data = os.urandom(6 * MIB)
    (world.disk() / "big").write_bytes(data)
    with world.start("exec", "api", "-n", "--", "cat", "big", stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        got = process.stdout.read(MIB)
        assert world.fault(fault) >= 1
        got += process.stdout.read()
    assert process.returncode == 0
    assert hashlib.sha256(got).digest() == hashlib.sha256(data).digest()


def test_an_unknown_box_is_255_and_says_so(world: World) -> None:
    """255 as with ssh: a status of our own would be taken for the command's."""
    done = world.run("exec", "nobody", "--", "true")
    assert (done.returncode, done.stdout) == (255, b"")
    assert b"there is no box named 'nobody'" in done.stderr


def test_a_bare_instance_id_is_a_box(world: World) -> None:
    assert world.ok("exec", world.boxes["web"]["id"], "--", "pwd") == f"{world.disk('web')}\n"


def test_a_terminal_on_request(world: World) -> None:
    """``-t``: sizes, Ctrl-C and colours, and still the status."""
    with world.terminal("exec", "api", "-t", "--", "sh", "-c", "stty size; read x; exit 5") as terminal:
        terminal.until("30 100")
        terminal.line("go")
        assert terminal.wait() == 5


def test_many_at_once_are_kept_apart(world: World) -> None:
    began = time.monotonic()
    runs = [
        world.start("exec", "api", "-n", "--", "sh", "-c", f"echo {n}; exit {n}", stdout=subprocess.PIPE)
        for n in range(12)
    ]
    outputs = [run.communicate(timeout=40)[0] for run in runs]
    assert outputs == [f"{n}\n".encode() for n in range(12)]
    assert [run.returncode for run in runs] == list(range(12))
    print(f"12 execs at once: {time.monotonic() - began:.2f} s")
