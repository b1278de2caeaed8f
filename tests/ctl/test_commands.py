"""The commands that ask and print: data on stdout, the rest on stderr, and the exit statuses of the table."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from devboxctl import spec
from devboxctl.app import run
from devboxctl.fast import boxes
from devboxctl.fast.reply import UsageError
from devboxd.api import wire
from tests.ctl.fake_daemon import ANSWER, FakeDaemon, Peer
from tests.ctl.terminal import PATIENCE, Tty

Capture = pytest.CaptureFixture[str]

GPU = {"name": "gpu", "id": "i-0a", "state": "running", "connection": "connected", "type": "g5.xlarge"}
EVIL = {"name": "web\x1b]0;owned\x07", "id": "i-0b", "state": "stopped\nx\x9b31m"}
FORWARD = {"id": "f1a", "box": "gpu", "state": "listening", "local": "127.0.0.1:8000", "remote": "8000"}
OTHER = {
    "id": "f1b",
    "box": "gpu",
    "state": "online",
    "local": "127.0.0.1:9000",
    "remote": "80",
    "bytes_up": 12345,
}


def failure(code: str, status: int, **more: object) -> dict[str, object]:
    return {"code": code, "message": f"it is {code}", "exit_status": status, **more}


def test_ls_in_a_pipe_is_tabs_without_headers_or_control_characters(
    daemon: FakeDaemon, capsys: Capture
) -> None:
    daemon.routes["GET boxes"] = {"boxes": [GPU, EVIL], "stale_since": "2026-01-01T00:00:00Z"}
    assert run(["ls", "-p", "dev"]) == 0
    out, err = capsys.readouterr()
    assert out == (
        "gpu\trunning\tconnected\tg5.xlarge\t\ti-0a\t0\t0\t\t\t\n"
        "web ]0;owned \tstopped x 31m\tunknown\t\t\ti-0b\t0\t0\t\t\t\n"
    )
    assert "2026-01-01" in err
    assert daemon.requests[-1][1] == "boxes?profile=dev"


@pytest.mark.parametrize("words", [["ls", "--json"], ["--json", "ls"]])
def test_json_has_all_keys_also_those_with_defaults(
    daemon: FakeDaemon, capsys: Capture, words: list[str]
) -> None:
    daemon.routes["GET boxes"] = {"boxes": [GPU, EVIL]}
    assert run(words) == 0
    out = capsys.readouterr().out
    found = json.loads(out)
    assert found["version"] == 1
    assert found["stale_since"] is None
    assert set(found["boxes"][0]) == set(wire.Box.__struct_fields__)
    assert "\x1b" not in out
    assert "\x9b" not in out


def test_the_short_way_of_ls_says_the_same(daemon: FakeDaemon, capsys: Capture) -> None:
    """Scripts take the one, people the other; nobody should be able to tell."""
    condition = {"code": "c", "title": "t\x1b", "text": "x", "hint": "h"}
    daemon.routes["GET boxes"] = {"boxes": [GPU, EVIL], "conditions": [condition], "stale_since": "now"}
    for words in (["ls"], ["ls", "--json"], ["ls", "-p", "x", "--region=y"]):
        assert run(words) == 0
        slow = capsys.readouterr()
        assert boxes.main(words[1:]) == 0
        assert capsys.readouterr() == slow
        assert daemon.requests[-1] == daemon.requests[-2]
    daemon.routes["GET boxes"] = (403, failure("denied", 6, hint="ask"))
    for words in (["ls"], ["ls", "--json"]):
        assert run(words) == 6
        slow = capsys.readouterr()
        assert boxes.main(words[1:]) == 6
        assert capsys.readouterr() == slow
    daemon.routes["GET boxes"] = {"boxes": 7}
    assert boxes.main([]) is None


TAGGED = [
    {**GPU, "tags": {"team": "search", "env": "dev"}},
    {**GPU, "name": "web-1", "id": "i-0c", "state": "stopped", "tags": {"team": "web"}},
    {**GPU, "name": "web-2", "id": "i-0d", "tags": {"team": "web", "env": ""}},
]


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ("", "gpu web-1 web-2"),
        ("--state running", "gpu web-2"),
        ("--state running --state stopped", "gpu web-1 web-2"),
        ("--state stopped,running", "gpu web-1 web-2"),
        ("--state=pending", ""),
        ("--tag team=web", "web-1 web-2"),
        ("--tag team=web --state stopped", "web-1"),
        ("--tag env", "gpu web-2"),
        ("--tag env=", "web-2"),
        ("--tag team=s*", "gpu"),
        ("--tag nothing", ""),
        ("--tag team=web --tag env", "web-2"),
        ("gpu", "gpu"),
        ("we", "web-1 web-2"),
        ("web-?", "web-1 web-2"),
        ("i-0c", "web-1"),
        ("gpu web-1", "gpu web-1"),
        ("web-* --state running", "web-2"),
    ],
)
def test_ls_shows_what_is_asked_for(daemon: FakeDaemon, capsys: Capture, words: str, names: str) -> None:
    """And both ways of it agree."""
    daemon.routes["GET boxes"] = {"boxes": TAGGED}
    assert run(["ls", *words.split()]) == 0
    slow = capsys.readouterr()
    assert [line.split("\t")[0] for line in slow.out.splitlines()] == names.split()
    assert boxes.main(words.split()) == 0
    assert capsys.readouterr() == slow


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["nosuch"], 3, "there is no box like nosuch"),
        (["gpu", "nosuch", "x*"], 3, "there is no box like nosuch, x*"),
        (["--state", "asleep"], 2, "'asleep' is no state"),
    ],
)
def test_ls_says_what_it_cannot_find(
    daemon: FakeDaemon, capsys: Capture, words: list[str], status: int, said: str
) -> None:
    daemon.routes["GET boxes"] = {"boxes": TAGGED}
    for short in (run, lambda line: boxes.main(line[1:])):
        assert short(["ls", *words]) == status
        assert said in capsys.readouterr().err


SAVED: dict[str, object] = {"name": "work", "id": "", "state": "none", "ref": "work", "host": "work.devbox"}
SAVED |= {"project": "work", "phase": "ready", "generation": 3}


def test_ls_shows_projects_that_have_no_box(daemon: FakeDaemon, capsys: Capture) -> None:
    """In a script as in a terminal; both ways of it agree."""
    daemon.routes["GET boxes"] = {"boxes": [GPU, SAVED]}
    assert run(["ls", "wo", "--state", "none"]) == 0
    slow = capsys.readouterr().out
    assert slow == "work\tnone\t\t\t\t\t\t\twork.devbox\tready\t3\n"
    assert boxes.main(["wo", "--state", "none"]) == 0
    assert capsys.readouterr().out == slow
    with Tty(["ls"], {**os.environ, "NO_COLOR": "1", "COLUMNS": "0"}, size=(120, 30)) as tty:
        assert tty.wait() == 0
    headers, gpu, work = tty.screen.decode().split("\r\n")[:3]
    assert headers.split()[:4] == ["name", "state", "phase", "generation"]
    assert (gpu.split()[:4], work.split()[:4]) == (
        ["gpu", "running", "-", "-"],
        ["work", "none", "ready", "3"],
    )


def test_everybodys_boxes_are_listed_when_asked_for(daemon: FakeDaemon) -> None:
    daemon.routes["GET boxes"] = {"boxes": [GPU]}
    assert run(["ls", "--all-owners", "-p", "dev"]) == 0
    assert daemon.requests[-1][1] == "boxes?profile=dev&all_owners=true"
    assert boxes.main(["--all-owners", "-p", "dev"]) == 0
    assert daemon.requests[-1][1] == "boxes?profile=dev&all_owners=true"


def test_global_options_do_not_leak_into_the_next_command(daemon: FakeDaemon, capsys: Capture) -> None:
    daemon.routes["GET boxes"] = {"boxes": []}
    run(["--json", "-p", "x", "ls"])
    run(["ls"])
    assert daemon.requests[-1][1] == "boxes"
    assert capsys.readouterr().out.count("\n") == 1


def test_ls_on_a_terminal_is_a_table(daemon: FakeDaemon) -> None:
    daemon.routes["GET boxes"] = {"boxes": [GPU, EVIL]}
    with Tty(["ls"], {**os.environ, "NO_COLOR": "1", "COLUMNS": "0"}, size=(120, 30)) as tty:
        assert tty.wait() == 0
    lines = tty.screen.decode().split("\r\n")
    assert lines[0].split() == ["name", "state", "connection", "type", "zone", "id", "sessions", "forwards"]
    assert lines[1].split() == ["gpu", "running", "connected", "g5.xlarge", "-", "i-0a", "0", "0"]
    assert b"\x1b]0;" not in tty.screen


def on_a_terminal(words: list[str], columns: int) -> list[str]:
    """The lines of the screen."""
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    with Tty(words, {**environment, "NO_COLOR": "1"}, size=(columns, 60)) as tty:
        assert tty.wait() == 0
    return [line.rstrip() for line in tty.screen.decode().split("\r\n")]


def test_a_narrow_terminal_shows_one_thing_with_no_word_cut(daemon: FakeDaemon) -> None:
    daemon.routes["GET boxes/gpu"] = {
        **GPU,
        "launched": "2026-11-26T19:52:32.000Z",
        "base": "debian-13",
        "next": "devboxctl terminate gpu saves it, and lets its instance go",
    }
    lines = on_a_terminal(["show", "gpu"], 40)
    assert max(map(len, lines)) <= 40
    at = lines.index("next")
    assert lines[at + 1 : at + 3] == ["  devboxctl terminate gpu saves it, and", "  lets its instance go"]
    wider = on_a_terminal(["show", "gpu"], 50)
    at = wider.index("next        devboxctl terminate gpu saves it, and")
    assert wider[at + 1] == "            lets its instance go", "below itself, where there is room"
    assert any(line.split() == ["base", "debian-13"] for line in lines)
    (launched,) = [line.split()[1:] for line in lines if line.startswith("launched")]
    assert len(launched) == 2, "a day and a time of this machine's clock, as everywhere"
    assert "T" not in "".join(launched)


LONG = {
    "name": "a-box-with-a-long-name",
    "id": "i-0123456789abcdef0",
    "state": "shutting-down",
    "connection": "notconnected",
    "type": "c7gd.16xlarge",
    "zone": "ap-southeast-2a",
}


@pytest.mark.parametrize("columns", [200, 100, 80, 70, 60, 40, 20])
def test_ls_breaks_no_id_however_narrow_the_terminal(daemon: FakeDaemon, columns: int) -> None:
    daemon.routes["GET boxes"] = {"boxes": [LONG, {**GPU, "connection": "unknown"}]}
    # A runner of tests may say how wide it would like to be.
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    with Tty(["ls"], {**environment, "NO_COLOR": "1"}, size=(columns, 30)) as tty:
        assert tty.wait() == 0
    lines = tty.screen.decode().split("\r\n")
    assert any(LONG["id"] in line for line in lines)
    data = [line for line in lines if not line.startswith("left out")]
    if columns >= 60:
        assert max(map(len, data)) <= columns
        assert lines[0].startswith("name")
    else:
        assert lines[0] == LONG["name"], "too narrow for a table: a list"
    if columns == 80:
        assert lines[-2].startswith("left out for lack of room:")
        assert "zone" in lines[-2]
        with Tty(["ls", "-w"], {**environment, "NO_COLOR": "1"}, size=(columns, 30)) as wide:
            assert wide.wait() == 0
        assert b"ap-southeast-2a" in wide.screen
        assert b"left out" not in wide.screen


def test_a_column_that_nobody_may_fill_is_not_shown(daemon: FakeDaemon) -> None:
    """Unknown in every row says nothing but that something is wrong, which it is not."""
    daemon.routes["GET boxes"] = {"boxes": [{**GPU, "connection": "unknown"}]}
    with Tty(["ls"], os.environ, size=(200, 30)) as tty:
        assert tty.wait() == 0
    assert b"connection" not in tty.screen
    assert b"unknown" not in tty.screen


@pytest.mark.parametrize(
    ("http", "code", "status"),
    [
        (404, "box-not-found", 3),
        (401, "login-needed", 4),
        (409, "wrong-state", 5),
        (403, "denied", 6),
        (504, "unreachable", 7),
        (202, "pending", 8),
        (402, "over-budget", 9),
        (500, "internal", 1),
    ],
)
def test_failures_become_a_line_a_hint_and_a_status(
    daemon: FakeDaemon, capsys: Capture, http: int, code: str, status: int
) -> None:
    daemon.routes["GET boxes"] = {"boxes": []}
    daemon.routes["GET boxes/gpu"] = (http, failure(code, status, hint="do\x1b[0m this", retryable=True))
    assert run(["show", "gpu"]) == status
    assert capsys.readouterr() == ("", f"error: it is {code}\nhint: do [0m this\n")
    assert run(["show", "gpu", "--json"]) == status
    out, err = capsys.readouterr()
    assert out == ""
    assert json.loads(err) == {
        "code": code,
        "message": f"it is {code}",
        "hint": "do\x1b[0m this",
        "retryable": True,
        "version": 1,
    }


@pytest.mark.parametrize(
    "words",
    [
        ["nonsense"],
        ["ls", "--nonsense"],
        ["ping", "gpu", "--count", "many"],
        ["exec", "gpu"],
        ["exec", "gpu", "--env", "=x", "--", "true"],
        ["exec", "gpu", "--env", "1=2", "--", "true"],
        ["exec", "gpu", "--env", "--chdir=/etc", "--", "true"],
        ["attach", "gpu", "--escape", "long"],
        ["attach", "gpu", "--mux", "screen"],
        ["forward", "gpu"],
        ["forward", "gpu", "not:a:port:at:all"],
        ["forward", "rm"],
        ["completion", "tcsh"],
        ["config-ssh", "--check", "--remove"],
        ["proxy", "gpu", "70000"],
        ["show"],
        ["attach"],
        ["forward", "8000"],
    ],
    ids=" ".join,
)
def test_wrong_usage_is_status_2_with_a_hint(home: Path, capsys: Capture, words: list[str]) -> None:
    """And no daemon is started for it."""
    assert run(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert not os.path.exists(f"{os.environ['XDG_RUNTIME_DIR']}/devbox")


def test_wrong_usage_in_json(home: Path, capsys: Capture) -> None:
    assert run(["--json", "show"]) == 2
    assert json.loads(capsys.readouterr().err)["code"] == "usage"


def test_the_box_may_come_from_the_environment(
    daemon: FakeDaemon, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEVBOX_BOX", "gpu")
    daemon.routes["GET boxes/gpu"] = GPU
    daemon.routes["POST forwards"] = {"forwards": [FORWARD]}
    assert run(["show"]) == 0
    assert "state\trunning\n" in capsys.readouterr().out
    assert run(["forward", "8000"]) == 0
    assert daemon.requests[-1][2]["box"] == "gpu"


def test_on_a_terminal_a_missing_box_can_be_picked(daemon: FakeDaemon) -> None:
    daemon.routes["GET boxes"] = {"boxes": [GPU, EVIL, SAVED]}
    daemon.routes["GET boxes/gpu"] = GPU
    with Tty(["show"], os.environ) as tty:
        tty.wait_for(b"3  work  (no box now: ready)")
        tty.wait_for(b"which box? ")
        assert b"\x1b]0;" not in tty.screen
        tty.type(b"7\n")
        tty.wait_for(b"which box? ")
        tty.type(b"1\n")
        assert tty.wait() == 0
        assert b"g5.xlarge" in tty.screen


def test_names_are_escaped_in_paths(daemon: FakeDaemon) -> None:
    daemon.routes["GET boxes/a%2F..%2F%C3%BC%20b"] = GPU
    assert run(["show", "a/../ü b"]) == 0


def test_forwards_are_asked_for_as_written(daemon: FakeDaemon, capsys: Capture) -> None:
    daemon.routes["POST forwards"] = {"forwards": [FORWARD]}
    words = [
        "forward",
        "gpu",
        "8000",
        "9000:db:5432",
        "./s.sock:22",
        "-b",
        "0.0.0.0",
        "-D",
        "--auto",
        "-r",
        "eu",
    ]
    assert run(words) == 0
    assert capsys.readouterr().out == "127.0.0.1:8000 -> gpu:8000\tf1a\n"
    assert daemon.requests[-1][2] == {
        "box": "gpu",
        "region": "eu",
        "auto": True,
        "forwards": [
            {"port": 8000, "local_port": 8000, "bind": "0.0.0.0"},
            {"port": 5432, "host": "db", "local_port": 9000, "bind": "0.0.0.0"},
            {"port": 22, "local_path": os.path.abspath("s.sock")},
            {"dynamic": True, "local_port": 1080, "bind": "0.0.0.0"},
        ],
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("8000", [(8000, None, 8000)]),
        ("0:80", [(80, None, 0)]),
        ("8000-8002", [(8000, None, 8000), (8001, None, 8001), (8002, None, 8002)]),
        ("9000-9001:80-81", [(80, None, 9000), (81, None, 9001)]),
        ("db.internal:5432", [(5432, "db.internal", 5432)]),
        ("1:db.internal:5432", [(5432, "db.internal", 1)]),
        ("10.0.0.5:80", [(80, "10.0.0.5", 80)]),
        ("[fd00::1]:80", [(80, "fd00::1", 80)]),
        ("9:[fd00::1]:80-81", None),
        ("9-10:[fd00::1]:80-81", [(80, "fd00::1", 9), (81, "fd00::1", 10)]),
        *(
            (text, None)
            for text in ("", ":", "80:", ":80", "x", "0", "65536", "9-8", "1:2:3:4", "1-300", "[::1:80")
        ),
        *((text, None) for text in ("/tmp/s", "/tmp/s:80-81", "a b:80", "-x:80", "1-2:3", "80:٣")),
    ],
)
def test_forward_specs(text: str, expected: list[tuple[int, str | None, int]] | None) -> None:
    if expected is None:
        with pytest.raises(UsageError):
            spec.read(text)
    else:
        assert [(s.port, s.host, s.local_port) for s in spec.read(text)] == expected


def test_a_unix_socket_may_have_a_host_too() -> None:
    (one,) = spec.read("/tmp/a:b/s:db:5432")
    assert (one.local_path, one.host, one.port) == ("/tmp/a:b/s", "db", 5432)


def test_forward_ls_and_rm_take_a_prefix_a_port_or_all(daemon: FakeDaemon, capsys: Capture) -> None:
    daemon.routes["GET forwards"] = {"forwards": [FORWARD, OTHER]}
    daemon.routes["DELETE forwards/f1a"] = {**FORWARD, "state": "removed"}
    daemon.routes["DELETE forwards/f1b"] = {**OTHER, "state": "removed"}
    assert run(["forward", "ls"]) == 0
    assert (
        capsys.readouterr().out.splitlines()[1]
        == "f1b\tgpu\tonline\t127.0.0.1:9000\t80\t0\t0\t12.3 kB\t0 B\t\t"
    )
    assert run(["forward", "rm", "f1"]) == 3
    assert "several" in capsys.readouterr().err
    assert run(["forward", "rm", "f1b"]) == 0
    assert run(["forward", "rm", "8000"]) == 0
    assert run(["forward", "rm", "all", "--json"]) == 0
    deleted = [path for method, path, _ in daemon.requests if method == "DELETE"]
    assert deleted == ["forwards/f1b", "forwards/f1a", "forwards/f1a", "forwards/f1b"]


def test_rm_all_goes_on_where_one_is_gone_or_cannot_be_removed(daemon: FakeDaemon, capsys: Capture) -> None:
    """The mirrors of --auto go with it; and one that fails must not keep the rest."""
    auto = {**FORWARD, "id": "a0", "local": "-", "remote": "auto", "auto": True}
    mirror = {**FORWARD, "id": "a1", "local": "127.0.0.1:3000", "remote": "3000", "auto": True}
    daemon.routes["GET forwards"] = {"forwards": [auto, mirror, FORWARD, OTHER]}
    daemon.routes["DELETE forwards/a0"] = auto
    daemon.routes["DELETE forwards/f1a"] = (404, failure("box-not-found", 3))
    daemon.routes["DELETE forwards/f1b"] = OTHER
    assert run(["forward", "rm", "all"]) == 0
    assert capsys.readouterr().err == "removed 2 forwards\n"
    daemon.routes["DELETE forwards/a0"] = (409, failure("wrong-state", 5))
    assert run(["forward", "rm", "all"]) == 5
    assert capsys.readouterr().err == "error: it is wrong-state\nremoved 1 forward\n"
    assert not any(path == "forwards/a1" for _, path, _ in daemon.requests)


def test_forward_in_the_foreground_holds_its_stream_until_ctrl_c(daemon: FakeDaemon) -> None:
    closed = threading.Event()

    def hold(peer: Peer, _: FakeDaemon) -> None:
        peer.upgrade()
        peer.send(ANSWER, json.dumps({"forwards": [FORWARD]}).encode())
        try:
            peer.exactly(1)
        finally:
            closed.set()

    daemon.streams["forwards/hold"] = hold
    with Tty(["forward", "gpu", "8000", "--foreground"], os.environ) as tty:
        tty.wait_for(b"holding")
        assert not closed.is_set()
        tty.type(b"\x03")
        assert tty.wait() == 130
    assert closed.wait(PATIENCE)
    assert [request[:2] for request in daemon.requests] == [("POST", "forwards/hold")], (
        "nothing is polled, and others may hold what we asked for: not ours to delete"
    )


def test_forwards_in_the_foreground_come_back_with_the_daemon_and_end_with_the_forwards(
    daemon: FakeDaemon, capsys: Capture
) -> None:
    """A restart of the daemon is not worth a word; removing the last one ends the command."""
    lives = iter(("restarted", "removed"))

    def hold(peer: Peer, _: FakeDaemon) -> None:
        peer.upgrade()
        peer.send(ANSWER, json.dumps({"forwards": [FORWARD]}).encode())
        if next(lives) == "removed":
            peer.exit(reason="the forwards were removed")

    daemon.streams["forwards/hold"] = hold
    assert run(["forward", "gpu", "8000", "--foreground"]) == 0
    out, err = capsys.readouterr()
    assert out.count("127.0.0.1:8000") == 1
    assert err == "holding; Ctrl-C ends\nthe forwards were removed\n"


def test_api_prints_the_description_or_makes_one_call(daemon: FakeDaemon, capsys: Capture) -> None:
    """As gh api does: what no command does can be done."""
    daemon.routes["GET /openapi.json"] = {"openapi": "3.1.0"}
    daemon.routes["GET status"] = {"pid": 7, "socket": "\x9b31m\u202e"}
    daemon.routes["POST boxes/api/ping"] = lambda peer: {"asked": peer.request}
    daemon.routes["GET events"] = [{"sequence": 1}, {"sequence": 2}]
    assert run(["api"]) == 0
    assert capsys.readouterr().out == '{"openapi": "3.1.0"}\n'
    for path in ("status", "/status", "v1/status", "/v1/status"):
        assert run(["api", "get", path]) == 0
        assert capsys.readouterr().out == '{"pid": 7, "socket": "\\u009b31m\\u202e"}\n'
    assert run(["api", "POST", "boxes/api/ping", '{"count": 1}']) == 0
    assert capsys.readouterr().out == '{"asked": {"count": 1}}\n'
    assert run(["api", "GET", "events?since=0"]) == 0
    assert capsys.readouterr().out == '{"sequence": 1}\n{"sequence": 2}\n'


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["api", "PATCH", "status"], "PATCH is no method of this API"),
        (["api", "GET"], "PATH is missing"),
        (["api", "GET", "boxes/a b"], "cannot have"),
        (["api", "POST", "stop", "{"], "is not JSON"),
        (["api", "POST", "stop", "[" * 100_000], "is not JSON"),
    ],
)
def test_a_wrong_api_call_is_said_before_it_is_made(
    daemon: FakeDaemon, capsys: Capture, words: list[str], says: str
) -> None:
    assert run(words) == 2
    assert says in capsys.readouterr().err
    assert daemon.requests == []


def test_an_api_call_that_is_refused_fails_like_a_command(daemon: FakeDaemon, capsys: Capture) -> None:
    failure = {"code": "box-not-found", "message": "there is no box named 'x'", "exit_status": 3}
    daemon.routes["GET boxes/x"] = (404, failure)
    assert run(["api", "GET", "boxes/x"]) == 3
    assert capsys.readouterr().err == "error: there is no box named 'x'\n"


def test_status_shows_what_to_do_first(daemon: FakeDaemon, capsys: Capture) -> None:
    daemon.routes["GET status"] = {
        "daemon_version": "0.0.1",
        "pid": 7,
        "started": "2026-01-01T00:00:00Z",
        "socket": "/s",
        "sessions": 1,
        "forwards": 2,
        "attached": 3,
        "conditions": [
            {"code": "c", "title": "Login needed", "text": "expired\x1b", "hint": "devboxctl login"}
        ],
    }
    daemon.routes["GET sessions"] = {
        "sessions": [{"id": "s1", "box": "gpu", "kind": "mux", "state": "online"}]
    }
    assert run(["status"]) == 0
    out, err = capsys.readouterr()
    assert err.startswith("warning: Login needed: expired \nhint: devboxctl login\n")
    assert "daemon restart" in err
    assert "holding\t1 session, 2 forwards, 3 terminals\n" in out
    assert run(["status", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["held_sessions"][0]["id"] == "s1"


SESSIONS = [
    {
        "id": "ann-0a",
        "box": "gpu",
        "kind": "mux",
        "state": "online",
        "name": "main",
        "target": "i-0a",
        "profile": "w",
    },
    {"id": "ann-0b", "box": "gpu", "kind": "port", "state": "online", "target": "i-0a"},
    {"id": "ann-1c", "box": "web", "kind": "exec", "state": "online", "target": "i-0b"},
    {"id": "", "box": "new", "kind": "mux", "state": "starting"},
]


@pytest.mark.parametrize(
    ("words", "ended"),
    [
        (["gpu"], ["ann-0a", "ann-0b"]),
        (["ann-1"], ["ann-1c"]),
        (["ann-0a", "web"], ["ann-0a", "ann-1c"]),
        (["i-0b"], ["ann-1c"]),
        (["*"], ["ann-0a", "ann-0b", "ann-1c"]),
        (["ann-0"], None),
        (["nosuch"], None),
        (["new"], None),
    ],
)
def test_sessions_are_ended_by_box_or_by_id(
    daemon: FakeDaemon, capsys: Capture, words: list[str], ended: list[str] | None
) -> None:
    daemon.routes["GET sessions"] = {"sessions": SESSIONS}
    for one in SESSIONS:
        daemon.routes[f"DELETE sessions/{one['id']}"] = one
    assert run(["sessions", "end", *words, "--json"]) == (3 if ended is None else 0)
    asked = [path.removeprefix("sessions/") for method, path, _ in daemon.requests if method == "DELETE"]
    assert asked == (ended or [])


def test_sessions_say_whose_and_what_they_are(daemon: FakeDaemon, capsys: Capture) -> None:
    daemon.routes["GET sessions"] = {"sessions": SESSIONS}
    assert run(["sessions", "ls", "gpu"]) == 0
    first, second = (line.split("\t") for line in capsys.readouterr().out.splitlines())
    assert (first[:4], first[-2:]) == (["ann-0a", "gpu", "main", "mux"], ["w", ""])
    assert second[2] == ""


def test_whoami_says_account_role_region_and_how_long(daemon: FakeDaemon, capsys: Capture) -> None:
    daemon.routes["GET identity"] = {
        "account": "123456789012",
        "arn": "arn:aws:sts::123456789012:assumed-role/dev/ann",
        "kind": "role",
        "name": "dev",
        "session": "ann",
        "profile": "work",
        "region": "eu-central-1",
        "method": "sso",
        "source": "corp",
        "expires": "2026-01-01T00:00:00Z",
        "login_ends": "2026-01-02T00:00:00Z",
        "login_renews": True,
    }
    assert run(["whoami", "-p", "work"]) == 0
    assert capsys.readouterr().out.splitlines()[:7] == [
        "account\t123456789012",
        "identity\trole dev, as ann",
        "region\teu-central-1",
        "profile\twork",
        "credentials from\tsso corp",
        "credentials until\t2026-01-01T00:00:00Z",
        "login until\t2026-01-02T00:00:00Z, and renews itself",
    ]
    assert daemon.requests[-1][1] == "identity?profile=work"
    daemon.routes["GET identity"] = (401, failure("login-needed", 4, hint="devboxctl login"))
    assert run(["whoami"]) == 4


def test_ping_without_an_answer_is_unreachable(daemon: FakeDaemon, capsys: Capture) -> None:
    daemon.routes["POST boxes/gpu/ping"] = {"box": "gpu", "round_trips": [0.0213], "session_start": 1.5}
    assert run(["ping", "gpu", "-c", "1"]) == 0
    assert capsys.readouterr() == ("gpu\t1\t21.3 ms\n", "session opened in 1500 ms\n")
    daemon.routes["POST boxes/gpu/ping"] = {"box": "gpu", "round_trips": []}
    assert run(["ping", "gpu"]) == 7


def test_events_come_line_by_line(daemon: FakeDaemon, capsys: Capture) -> None:
    event = {
        "sequence": 1,
        "time": "2026-01-01T00:00:00Z",
        "kind": "session.resumed",
        "text": "ok\n",
        "box": "gpu",
    }
    daemon.routes["GET events"] = [event, {**event, "sequence": 2, "text": "x" * 100_000}]
    assert run(["events", "--since", "0"]) == 0
    assert capsys.readouterr().out.splitlines()[0] == "2026-01-01T00:00:00Z\tsession.resumed\tgpu: ok "
    assert daemon.requests[-1][1] == "events?since=0"
    assert run(["events", "-f", "--json"]) == 0
    assert [json.loads(line)["sequence"] for line in capsys.readouterr().out.splitlines()] == [1, 2]


def test_doctor_fails_when_a_check_does(daemon: FakeDaemon, capsys: Capture) -> None:
    good = {"name": "clock", "result": "ok", "text": "fine", "hint": "not shown", "seconds": 0.1}
    bad = {"name": "agent", "result": "failed", "text": "silent", "hint": "reboot"}
    daemon.routes["POST doctor"] = {"checks": [good]}
    daemon.routes["POST boxes/gpu/doctor"] = {"checks": [good, bad]}
    assert run(["doctor"]) == 0
    assert run(["doctor", "-p", "work", "-r", "eu"]) == 0
    assert daemon.requests[-1][2] == {"profile": "work", "region": "eu"}
    assert run(["doctor", "gpu"]) == 1
    out = capsys.readouterr().out
    assert out.endswith("FAILED   agent: silent\n         hint: reboot\n")
    assert "not shown" not in out


def test_login_shows_the_way_and_reports_failure(daemon: FakeDaemon, capsys: Capture) -> None:
    open_step = {"state": "open", "url": "https://x.example/d", "code": "ABCD", "text": "Log in"}
    daemon.routes["POST login"] = [open_step, {"state": "waiting"}, {"state": "done", "text": "logged in"}]
    assert run(["login", "--no-browser"]) == 0
    assert capsys.readouterr().err == "Log in\nopen: https://x.example/d\ncode: ABCD\nlogged in\n"
    daemon.routes["POST login"] = [open_step, {"state": "failed", "failure": failure("login-needed", 4)}]
    assert run(["login", "--no-browser"]) == 4
    assert capsys.readouterr().err.endswith("error: it is login-needed\n")


KEYS = {"AWS_ACCESS_KEY_ID": "AKID", "AWS_SECRET_ACCESS_KEY": "s3cret", "AWS_SESSION_TOKEN": "t0ken"}


def test_a_shell_lends_its_credentials(
    daemon: FakeDaemon, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The daemon was started in another shell, or by systemd: it cannot see these."""
    daemon.routes["POST lend"] = {
        "account": "1",
        "arn": "a",
        "kind": "role",
        "name": "dev",
        "profile": "work",
    }
    for name in KEYS:
        monkeypatch.delenv(name, raising=False)
    assert run(["login", "--from-environment"]) == 2
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    assert run(["login", "--from-environment", "-p", "work"]) == 0
    assert daemon.requests[-1][2] == {
        "profile": "work",
        "access_key_id": "AKID",
        "secret_access_key": "s3cret",
        "session_token": "t0ken",
    }
    shown = "".join(capsys.readouterr())
    assert "role dev in account 1" in shown
    assert not any(value in shown for value in KEYS.values())


def test_whoever_has_credentials_is_told_that_they_can_be_lent(
    daemon: FakeDaemon, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon.routes["GET boxes"] = (401, failure("login-needed", 4, hint="devboxctl login"))
    monkeypatch.delenv("AWS_ACCESS_KEY_ID", raising=False)
    assert run(["ls"]) == 4
    assert "--from-environment" not in capsys.readouterr().err
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKID")
    assert run(["ls"]) == 4
    assert "hint: devboxctl login; or: this shell has credentials; lend them" in capsys.readouterr().err
    said = "renew them in your shell, then run there: devboxctl login --from-environment"
    daemon.routes["GET boxes"] = (401, failure("login-needed", 4, hint=said))
    assert run(["ls"]) == 4
    assert capsys.readouterr().err.count("--from-environment") == 1, "what is said already is not said again"
    daemon.routes["GET boxes"] = (403, failure("denied", 6, hint="ask"))
    assert run(["ls"]) == 6
    assert "--from-environment" not in capsys.readouterr().err


def test_config_show_path_and_edit(
    daemon: FakeDaemon, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon.routes["GET config"] = {"settings": [{"name": "ping", "value": [1, "a"], "origin": "default"}]}
    assert run(["config", "show", "--origin"]) == 0
    assert run(["config", "path"]) == 0
    config = f"{os.environ['XDG_CONFIG_HOME']}/devbox/config.toml"
    assert capsys.readouterr().out == f"ping\t[1, 'a']\tdefault\n{config}\n"
    assert run(["config", "edit"]) == 2
    error = {"code": "bad-config", "message": "line 1", "exit_status": 1}
    daemon.routes["GET config"] = {"settings": [], "error": error}
    with Tty(["config", "edit"], {**os.environ, "EDITOR": "sh -c 'echo a >> $0'"}) as tty:
        assert tty.wait() == 1
        assert tty.screen == b"error: line 1\r\n"
    assert Path(config).read_text().endswith("\na\n")


def test_config_ssh_goes_through_the_daemon(daemon: FakeDaemon, capsys: Capture) -> None:
    result = {
        "config_file": "/c",
        "user_config": "/u",
        "included": True,
        "current": True,
        "changed": ["/c", "/u"],
    }
    daemon.routes |= {"POST ssh-config": result, "GET ssh-config": {**result, "current": False}}
    daemon.routes["DELETE ssh-config"] = result
    assert run(["config-ssh"]) == 0
    assert capsys.readouterr().err == "wrote /c\nwrote /u\ntry: ssh BOX.devbox\n"
    assert run(["config-ssh", "--check"]) == 1
    assert run(["config-ssh", "--remove"]) == 0


def test_ssh_is_run_with_the_generated_configuration(daemon: FakeDaemon, home: Path) -> None:
    fake = home / "bin" / "ssh"
    fake.parent.mkdir()
    fake.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\nexit 9\n')
    fake.chmod(0o755)
    access = {
        "box": "gpu",
        "user": "me",
        "identity_file": "/i",
        "known_hosts_file": "/k",
        "config_file": "/c",
    }
    daemon.routes["POST boxes/gpu/ssh"] = {
        **access,
        "host_key_alias": "i-1.devbox",
        "problems": ["no host key"],
    }
    done = subprocess.run(
        [sys.executable, "-m", "devboxctl", "ssh", "gpu", "--", "-L", "1:h:2", "-v", "uname", "-a"],
        env={**os.environ, "PATH": f"{fake.parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 9
    assert done.stdout.split() == [
        "-F",
        "/c",
        "-l",
        "me",
        "-L",
        "1:h:2",
        "-v",
        *(
            *("-o", "HostKeyAlias=i-1.devbox"),
            *("gpu", "uname", "-a"),
        ),
    ]
    assert done.stderr == "warning: no host key\n"


def test_ssh_and_its_proxy_look_for_the_box_in_the_same_account(daemon: FakeDaemon, home: Path) -> None:
    """Two accounts may have a box of that name: the flags of ``devboxctl ssh`` hold for what ssh starts, too."""
    fake = home / "bin" / "ssh"
    fake.parent.mkdir()
    fake.write_text('#!/bin/sh\nprintf "%s " "$AWS_PROFILE" "$AWS_REGION"\n')
    fake.chmod(0o755)
    names = ("identity_file", "known_hosts_file", "config_file")
    daemon.routes["POST boxes/gpu/ssh"] = {"box": "gpu", "user": "me", **dict.fromkeys(names, "/x")}
    for words, expected, fresh in (
        (["-p", "b", "-r", "eu-b-1"], "b eu-b-1", None),
        (["-p", "b", "--no-fresh"], "b eu-a-1", False),
        ([], "a eu-a-1", None),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "devboxctl", "ssh", *words, "gpu"],
            env={
                **os.environ,
                "PATH": f"{fake.parent}:{os.environ['PATH']}",
                "AWS_PROFILE": "a",
                "AWS_REGION": "eu-a-1",
            },
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.stdout.strip() == expected, done.stderr
        assert daemon.requests[-1][2].get("fresh") is fresh


def test_an_answer_of_another_version_is_a_clear_error(daemon: FakeDaemon, capsys: Capture) -> None:
    daemon.routes["GET boxes"] = {"boxes": [{"name": 7}]}
    assert run(["ls"]) == 1
    assert "was not understood" in capsys.readouterr().err
    daemon.routes["GET boxes"] = (501, b"<html>")
    assert run(["ls"]) == 1
    assert "daemon restart" in capsys.readouterr().err


def test_a_closed_pipe_is_no_traceback(daemon: FakeDaemon) -> None:
    daemon.routes["GET boxes"] = {"boxes": [GPU] * 20000}
    line = [sys.executable, "-m", "devboxctl", "ls"]
    process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.read(3) == b"gpu"
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait(PATIENCE) == 141
    process.stderr.close()


def test_help_and_version_need_no_daemon(home: Path, capsys: Capture) -> None:
    assert run(["--version"]) == 0
    assert run(["version", "--json"]) == 0
    assert run(["forward", "--help"]) == 0
    assert "[LOCAL:][HOST:]PORT" in capsys.readouterr().out


def test_an_event_names_its_box_once(daemon: FakeDaemon, capsys: Capture) -> None:
    event = {"time": "2026-11-26T19:52:32Z", "kind": "agent", "box": "gpu"}
    texts = ["gpu: claude waits for you", "claude waits for you", "gpu-2: claude waits for you"]
    daemon.routes["GET events"] = [{**event, "sequence": at, "text": text} for at, text in enumerate(texts)]
    assert run(["events"]) == 0
    said = [line.split("\t")[2] for line in capsys.readouterr().out.splitlines()]
    assert said == ["gpu: claude waits for you"] * 2 + ["gpu: gpu-2: claude waits for you"]


def test_what_was_typed_says_how_many_lines_it_had(daemon: FakeDaemon, capsys: Capture) -> None:
    typed = {"box": "gpu", "mux": "tmux", "session": "main", "window": "0:bash", "keys": ["Enter"]}
    daemon.routes["POST boxes/gpu/pane"] = typed
    for text, said in (("one\ntwo", "'one two' (2 lines)"), ("one", "'one'")):
        assert run(["say", "gpu", text]) == 0
        assert capsys.readouterr().out == f"typed {said}, Enter into main (tmux, window 0:bash) of gpu\n"


@pytest.mark.parametrize(
    ("words", "error", "hint"),
    [
        ([], "either hours or --off", "devboxctl idle work shows what is set"),
        (["--stop", "7pm"], "--stop: '7pm' is no time of the day", "write it as 08:30"),
        (
            ["--start", "8:30", "--stop", "19:00"],
            "--start: '8:30' is no time of the day",
            "write it as 08:30",
        ),
        (["--start", "08:30"], "--stop is missing", "as --stop 19:00"),
    ],
)
def test_hours_are_refused_in_the_words_that_they_were_asked_in(
    daemon: FakeDaemon, capsys: Capture, words: list[str], error: str, hint: str
) -> None:
    """Not as the time of a week that nobody had written."""
    assert run(["schedule", "work", *words]) == 2
    said = capsys.readouterr().err
    assert error in said
    assert hint in said
    assert daemon.requests == []
