"""The daemon's life: one at a time, an orderly end, what a killed one leaves, and logins that expire."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import time

from tests.e2e.kit import World, fetch, until
from tests.kit.processes import is_alive


def test_a_second_daemon_refuses_and_leaves_the_first_alone(world: World) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "devboxd"], env=world.env, capture_output=True, timeout=30, check=False
    )
    assert done.returncode == 69
    assert b"devboxd is running already (process " in done.stderr
    assert done.stdout == b""
    assert world.json("status")["pid"] == world.daemon_pid()


def test_the_socket_is_for_its_user_only(world: World) -> None:
    assert stat.S_IMODE(world.socket.stat().st_mode) == 0o600
    assert stat.S_IMODE(world.socket.parent.stat().st_mode) == 0o700


def test_the_command_line_starts_a_daemon_that_is_not_there(world: World) -> None:
    """And says so in one line, on standard error."""
    world.stop_daemon()
    done = world.run("exec", "api", "--", "echo", "hi")
    assert (done.returncode, done.stdout) == (0, b"hi\n")
    assert done.stderr == b"devboxd was not running: started it\n"


def test_a_command_right_after_a_kill_finds_the_next_daemon(world: World) -> None:
    """The killed one still takes connections for a moment, and one that waits may start another beside ours."""
    for _ in range(5):
        pid = world.ensure_daemon()
        os.kill(pid, signal.SIGKILL)
        commands = [
            world.start("exec", "api", "--", "echo", "hi", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            for _ in range(2)
        ]
        for command in commands:
            out, err = command.communicate(timeout=60)
            assert (command.returncode, out) == (0, b"hi\n"), err


def test_a_daemon_is_started_once_the_last_one_has_let_go(world: World) -> None:
    """One that ends in order closes its socket first, and its lock last."""
    world.stop_daemon()
    lock = os.open(world.socket.parent / "devboxd.lock", os.O_RDWR)
    fcntl.flock(lock, fcntl.LOCK_EX)
    said = len(world.log)
    with world.start("exec", "api", "--", "echo", "hi", stdout=subprocess.PIPE) as command:
        until(lambda: "devboxd is running already" in world.log[said:], "ours could not start")
        os.close(lock)
        assert command.communicate(timeout=60)[0] == b"hi\n"


def test_asking_for_the_status_of_no_daemon_is_69_and_starts_none(world: World) -> None:
    world.stop_daemon()
    assert world.run("daemon", "status").returncode == 69
    assert world.daemon_pid() is None


def test_sigterm_ends_every_session_at_the_other_side(world: World) -> None:
    [address] = world.forward("0:80")
    fetch(address)
    with (
        world.attached(session="term") as terminal,
        world.start(
            "exec", "api", "-n", "--", "sh", "-c", "echo up; sleep 60", stdout=subprocess.PIPE
        ) as command,
    ):
        assert command.stdout is not None
        assert command.stdout.readline() == b"up\n"
        pid = terminal.shell_pid()
        until(lambda: len(world.far_sessions()) >= 2, "a terminal and a lane are open")
        held = {one["id"] for one in world.far_sessions()}
        began = time.monotonic()
        world.stop_daemon()
        assert time.monotonic() - began < 8.0
        # The terminal starts the next daemon at once, whose sessions are its own.
        assert not held & {one["id"] for one in world.far_sessions()}
        assert command.wait(20) == 255
        assert terminal.shell_pid() == pid  # the terminal has started the next daemon, and is back
        terminal.type(b"\r~.")
        assert terminal.wait() == 0


def test_what_a_killed_daemon_left_is_swept_by_the_next(world: World) -> None:
    [address] = world.forward("0:80")
    fetch(address)
    held = {one["id"] for one in world.far_sessions()}
    assert held
    world.kill_daemon()
    left = {one["id"] for one in world.far_sessions()}
    assert held <= left
    world.start_daemon()
    until(lambda: not left & {one["id"] for one in world.far_sessions()}, "the old sessions are ended")
    until(lambda: "sweep.ended" in world.ok("events"), "it is told")


def test_other_peoples_sessions_are_not_swept(world: World) -> None:
    """Somebody may use the official client beside us."""
    body = json.dumps({"Target": world.boxes["api"]["id"], "Reason": "devbox/somebody-else/shell"})
    done = subprocess.run(
        ["curl", "-s", world.url, "-H", "X-Amz-Target: AmazonSSM.StartSession",
         "-H", "Content-Type: application/x-amz-json-1.1", "-d", body],
        capture_output=True, check=True,
    )  # fmt: skip
    theirs = json.loads(done.stdout)["SessionId"]
    world.kill_daemon()
    world.start_daemon()
    world.ok("exec", "api", "--", "true")
    time.sleep(0.3)
    assert theirs in {one["id"] for one in world.far_sessions()}


def test_expired_credentials_leave_open_sessions_alone_and_refuse_new_ones_with_4(world: World) -> None:
    with world.attached(session="expiry") as terminal:
        pid = terminal.shell_pid()
        world.fault("expire-credentials", seconds=600)
        assert terminal.shell_pid() == pid
        done = world.run("ping", "web")
        assert done.returncode == 4, done.stderr
        assert b"expired" in done.stderr
        assert b"hint: renew AWS_ACCESS_KEY_ID" in done.stderr
        done = world.run("exec", "web", "--", "true")  # to which no lane is open
        assert done.returncode == 255  # the remote command's own status otherwise
        assert b"expired" in done.stderr
        assert terminal.shell_pid() == pid
        world.fault("clear")
        world.ok("exec", "api", "--", "true")
        terminal.type(b"\r~.")
        assert terminal.wait() == 0


def test_a_bad_configuration_keeps_the_last_good_one_and_says_so(world: World) -> None:
    file = world.folder / "config" / "devbox" / "config.d" / "broken.toml"
    file.write_text("[defaults]\nkeep_alive = 7\n")
    try:
        until(lambda: world.json("status")["conditions"], "a condition is raised")
        [condition] = world.json("status")["conditions"]
        assert "keep_alive" in condition["text"]
    finally:
        file.unlink()
    until(lambda: not world.json("status")["conditions"], "the condition is gone")


def test_status_has_the_promised_keys(world: World) -> None:
    """Fields are added, never renamed or removed."""
    world.forward("0:80")
    status = world.json("status")
    assert status.keys() >= {
        "daemon_version", "pid", "started", "socket", "sessions", "forwards", "attached", "conditions",
        "activation", "api_version", "version", "held_sessions",
    }  # fmt: skip
    assert status["version"] == 1
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", status["started"])
    assert world.json("ls").keys() == {"boxes", "conditions", "stale_since", "version"}
    [forward] = world.json("forward", "ls")["forwards"]
    assert forward.keys() >= {
        "id", "box", "state", "local", "remote", "connections", "total_connections", "bytes_up", "bytes_down",
        "sessions", "error", "auto",
    }  # fmt: skip


def test_events_follow_what_happens(world: World) -> None:
    with world.start("--json", "events", "--follow", stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        world.forward("0:80")
        kinds: list[str] = []
        while "forward.added" not in kinds:
            kinds.append(json.loads(process.stdout.readline())["kind"])
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130


def test_doctor_and_ping_and_show_speak_json_and_nothing_else(world: World) -> None:
    checks = world.json("doctor", "api")["checks"]
    assert {check["result"] for check in checks} <= {"ok", "warning", "skipped"}
    assert {"session", "command", "agent"} <= {check["name"] for check in checks}
    ping = world.json("ping", "api")
    assert len(ping["round_trips"]) == 3
    assert world.json("show", "api")["id"] == world.boxes["api"]["id"]


def test_errors_are_json_on_standard_error_when_asked(world: World) -> None:
    done = world.run("--json", "show", "nobody")
    assert (done.returncode, done.stdout) == (3, b"")
    assert json.loads(done.stderr).keys() == {"code", "message", "hint", "retryable", "version"}


def test_a_bad_request_does_not_hurt_the_daemon(world: World) -> None:
    """Noise on the socket is answered or dropped; the next client is served."""
    half = b"POST /v1/attach HTTP/1.1\r\nHost: x\r\nContent-Length: 9999\r\n\r\n{"
    for noise in (b"\x00" * 4096, b"GET / HTTP/1.1\r\n\r\n", half, os.urandom(65536)):
        with socket.socket(socket.AF_UNIX) as one:
            one.settimeout(5)
            one.connect(str(world.socket))
            with contextlib.suppress(OSError):
                one.sendall(noise)
    pid = world.daemon_pid()
    assert pid is not None
    assert is_alive(pid)
    world.ok("status")


def test_no_secret_is_written_anywhere(world: World) -> None:
    """Tokens open sessions, and the log is what people paste into bug reports."""
    world.ok("exec", "api", "--", "true")
    text = world.log + (world.folder / "state" / "devbox" / "journal.json").read_text()
    assert not re.search(r"AAEAA[0-9a-f]{16}", text)
    assert world.env["AWS_SECRET_ACCESS_KEY"] not in text
