"""One command on several boxes: whose line is whose, and what became of each."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from typing import Any

import pytest

from devboxctl.app import run
from tests.ctl.fake_daemon import CREDIT_OUTPUT, ERROR_OUTPUT, OUTPUT, SIGNAL, FakeDaemon, Peer
from tests.ctl.terminal import PATIENCE

BOXES = [
    {"name": "api", "id": "i-1", "state": "running", "tags": {"team": "search"}},
    {"name": "web-1", "id": "i-2", "state": "running", "tags": {"team": "web"}},
    {"name": "web-10", "id": "i-3", "state": "running", "tags": {"team": "web"}},
    {"name": "web-2", "id": "i-4", "state": "stopped", "tags": {"team": "web"}},
    {"name": "a,b", "id": "i-5", "state": "running"},
    {"name": "web-old", "id": "", "state": "none", "project": "web-old", "phase": "ready"},
    {"name": "web-warm", "id": "i-6", "state": "stopped", "project": "web-warm", "phase": "warm"},
]


def speaks(peer: Peer, _: FakeDaemon) -> None:
    """Say the box's name in two pieces, something on the other stream, and a last line without an end."""
    box = peer.request["box"]
    assert peer.request["stdin"] is False
    if box == "gone":
        body = json.dumps({"code": "x", "message": "no gone"}).encode()
        peer.connection.sendall(b"HTTP/1.1 404 X\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        return
    peer.upgrade()
    peer.send(OUTPUT, f"I am {box}".encode())
    peer.send(ERROR_OUTPUT, b"careful\n")
    peer.send(OUTPUT, b"!\nlast")
    peer.exit(status=3 if box == "web-1" else 0)


@pytest.fixture
def boxes(daemon: FakeDaemon) -> FakeDaemon:
    daemon.routes["GET boxes"] = {"boxes": BOXES}
    daemon.streams["exec"] = speaks
    return daemon


def devboxctl(*words: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "devboxctl", *words]
    return subprocess.run(line, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)


def test_every_line_says_whose_it_is(boxes: FakeDaemon) -> None:
    done = devboxctl("exec", "api,web-10", "hostname", "-f")
    assert sorted(done.stdout.splitlines()) == [
        "api:    I am api!",
        "api:    last",
        "web-10: I am web-10!",
        "web-10: last",
    ]
    assert sorted(done.stderr.splitlines()) == ["api:    careful", "web-10: careful"]
    assert done.returncode == 0
    asked = [body for method, path, body in boxes.requests if path == "exec"]
    assert [one["argv"] for one in asked] == [["hostname", "-f"]] * 2


@pytest.mark.parametrize(
    ("words", "asked", "status"),
    [
        (["api,web-1", "x"], ["api", "web-1"], 3),
        (["web-*", "x"], ["web-1", "web-10"], 3),
        (["web-?", "x"], ["web-1"], 3),
        (["--tag", "team=search", "x"], ["api"], 0),
        (["--tag", "team=web", "--", "x"], ["web-1", "web-10"], 3),
        (["--tag=team", "x", "--tag", "y"], ["api", "web-1", "web-10"], 3),
        (["api,api,api", "x"], ["api"], 0),
        (["api,a*", "x"], ["a,b", "api"], 0),
        (["a,b", "x"], ["a,b"], 0),
        (["api,gone", "x"], ["api", "gone"], 255),
        (["api,", "x"], ["api"], 0),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else str(value),
)
def test_several_boxes_are_meant_in_several_ways(
    boxes: FakeDaemon, words: list[str], asked: list[str], status: int
) -> None:
    done = devboxctl("exec", *words)
    assert sorted(body["box"] for _, path, body in boxes.requests if path == "exec") == asked
    assert done.returncode == status, done.stderr
    if "gone" in asked:
        assert "gone: [devbox: error: no gone]" in done.stderr
    if words[0] == "web-*":
        assert "left out: web-2 is stopped\n" in done.stderr
        away = "left out: web-old has no box that runs (ready); devboxctl up web-old brings it up\n"
        assert away in done.stderr
        assert "web-1:  [devbox: exit status 3]\n" in done.stderr


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["x-*", "x"], 3),
        (["web-2*", "x"], 2),
        (["--tag", "no=thing", "x"], 2),
        (["-t", "api,web-1", "x"], 2),
        ([",", "x"], 2),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else str(value),
)
def test_nothing_is_run_where_nothing_is_meant(boxes: FakeDaemon, words: list[str], status: int) -> None:
    """A pattern that matches nothing is a slip, and must not look like success."""
    assert run(["exec", *words]) == status
    assert not any(path == "exec" for _, path, _ in boxes.requests)


def test_names_need_no_list_of_boxes(boxes: FakeDaemon) -> None:
    """Without permission for EC2, ids and configured names still work."""
    boxes.routes["GET boxes"] = (403, {"code": "denied", "message": "no", "exit_status": 6})
    assert devboxctl("exec", "i-1,i-2", "x").returncode == 0
    assert devboxctl("exec", "i-*", "x").returncode == 6


def test_lines_in_json_say_box_and_stream(boxes: FakeDaemon) -> None:
    done = devboxctl("exec", "--json", "api,web-1,gone", "x")
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert all(one.pop("version") == 1 for one in found)
    of_api = [one for one in found if one.pop("box") == "api"]
    assert {"stream": "error", "text": "careful"} in of_api
    assert [one["text"] for one in of_api if one.get("stream") == "output"] == ["I am api!", "last"]
    assert of_api[-1] == {"status": 0}
    assert any(one.get("status") == 3 for one in found)
    assert any(one.get("error", {}).get("message") == "no gone" for one in found)
    assert done.returncode == 255


def test_a_box_that_floods_is_paced_and_its_long_line_cut(daemon: FakeDaemon) -> None:
    """Forty megabytes without a line's end must not stand in memory, and every byte must arrive."""
    size = 40 << 20

    def floods(peer: Peer, _: FakeDaemon) -> None:
        peer.upgrade()
        window = 262144
        sent = 0
        while sent < size:
            while window < 65536:
                kind, payload = peer.receive()
                assert kind == CREDIT_OUTPUT
                window += int.from_bytes(payload, "big")
            peer.send(OUTPUT, b"x" * 65536)
            window -= 65536
            sent += 65536
        peer.exit(status=0)

    daemon.routes["GET boxes"] = {"boxes": BOXES}
    daemon.streams["exec"] = floods
    line = [sys.executable, "-m", "devboxctl", "exec", "api,web-1", "yes"]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        time.sleep(1.0)  # nobody reads: it must wait, not grow
        with open(f"/proc/{process.pid}/statm") as file:
            assert int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") < 100 << 20
        count = 0
        while chunk := process.stdout.read(1 << 20):
            count += chunk.count(b"x")
    assert count == 2 * size
    assert process.returncode == 0


def test_ctrl_c_goes_to_all_of_them_and_the_second_ends_us(daemon: FakeDaemon) -> None:
    def sleeps(peer: Peer, daemon: FakeDaemon) -> None:
        peer.upgrade()
        peer.send(OUTPUT, b"up\n")
        while (frame := peer.receive())[0] != SIGNAL:
            pass
        daemon.frames.put(frame)
        if peer.request["box"] == "api":
            peer.exit(status=130)
            return
        while True:
            peer.receive()

    daemon.routes["GET boxes"] = {"boxes": BOXES}
    daemon.streams["exec"] = sleeps
    line = [sys.executable, "-m", "devboxctl", "exec", "api,web-1", "sleep"]
    process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)
    assert process.stdout is not None
    assert {process.stdout.readline(), process.stdout.readline()} == {b"api:   up\n", b"web-1: up\n"}
    process.send_signal(signal.SIGINT)
    got: list[Any] = [daemon.frames.get(timeout=PATIENCE) for _ in range(2)]
    assert got == [(SIGNAL, bytes((signal.SIGINT,)))] * 2
    assert process.poll() is None, "web-1 has not ended"
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
