"""A spot box that is taken back: the real programs against a metadata service that tells it, or that is hostile."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from devboxd.boxside.programs.parts.hooks import hooks_of, run_hooks
from devboxd.boxside.programs.parts.imds import ELSEWHERE, METADATA_LIMIT, Metadata
from devboxd.boxside.reclaim import argv, read_line, said_of
from devboxd.boxside.script import load_program
from tests.kit.processes import is_alive

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")
LIFE, NOTICE, RISK = "instance-life-cycle", "spot/instance-action", "events/recommendations/rebalance"
STOP = '{"action": "stop", "time": "soon"}'
LONG = 60.0
SLACK = 3.0  # seconds that a slow machine may take beyond a limit


def until(holds: Callable[[], Any], what: str) -> Any:
    end = time.monotonic() + LONG
    while not (found := holds()):
        assert time.monotonic() < end, f"never happened: {what}"
        time.sleep(0.02)
    return found


def ok(text: str, status: str = "200 OK") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(text)}\r\nServer: EC2ws\r\n\r\n{text}".encode()


class Service:
    """Plays the metadata service: ``says`` maps a path to a text, and ``raw`` answers in its place."""

    def __init__(self) -> None:
        self.says: dict[str, str] = {LIFE: "spot"}
        self.raw: Callable[[socket.socket, str], bool] | None = None
        self.asked: list[str] = []
        self.tokens = {"first"}
        self.token = "first"
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        threading.Thread(target=self._serve, daemon=True).start()

    @property
    def place(self) -> str:
        return f"127.0.0.1:{self._socket.getsockname()[1]}/box"

    def _serve(self) -> None:
        while True:
            try:
                link, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(link,), daemon=True).start()

    def _answer(self, link: socket.socket) -> None:
        try:
            with link:
                data = b""
                while b"\r\n\r\n" not in data:
                    part = link.recv(4096)
                    if not part:
                        return
                    data += part
                line, *headers = data.decode().split("\r\n")
                verb, path, _ = line.split(" ")
                self.asked.append(path.partition("/latest/meta-data/")[2] or verb)
                if self.raw is not None and self.raw(link, path):
                    return
                link.sendall(self._say(verb, path, headers))
        except OSError:
            return  # the other end has had enough

    def _say(self, verb: str, path: str, headers: list[str]) -> bytes:
        assert path.startswith("/box/latest/")
        if verb == "PUT":
            assert any(one.startswith("X-aws-ec2-metadata-token-ttl-seconds: ") for one in headers)
            return ok(self.token)
        token = next(one for one in headers if one.startswith("X-aws-ec2-metadata-token: "))
        if token.partition(": ")[2] not in self.tokens:
            return ok("", "401 Unauthorized")
        found = self.says.get(path.partition("/latest/meta-data/")[2])
        return ok("no such thing", "404 Not Found") if found is None else ok(found)

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    one = Service()
    monkeypatch.setenv(ELSEWHERE, one.place)
    # Nothing of the environment may lead these questions anywhere else.
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    try:
        yield one
    finally:
        one.close()


class Home:
    """The home of a user of a box, with a hook, and programs that run there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.hooks = folder / ".config" / "devbox" / "pre-stop.d"
        self.hooks.mkdir(parents=True)
        self.started: list[subprocess.Popen[bytes]] = []

    def hook(self, name: str, text: str) -> None:
        path = self.hooks / name
        path.write_text("#!/bin/sh\n" + text)
        path.chmod(0o755)

    def start(self, name: str, *words: str, text: str | None = None) -> subprocess.Popen[bytes]:
        line = [sys.executable, "-I", "-c", text or load_program(name), *words]
        env = {**os.environ, "HOME": str(self.folder)}
        self.started.append(
            subprocess.Popen(
                line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env, start_new_session=True
            )
        )
        return self.started[-1]

    def follow(self, text: str | None = None) -> subprocess.Popen[bytes]:
        return self.start("reclaim", "devbox-reclaim", text=text)


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    one = Home(tmp_path)
    try:
        yield one
    finally:
        for program in one.started:
            program.kill()
            program.communicate()


def line(program: subprocess.Popen[bytes]) -> Any:
    assert program.stdout is not None
    text = program.stdout.readline()
    assert read_line(text) is not None, (text, program.poll())
    return read_line(text)


# The metadata service ---------------------------------------------------------------------------------------


def test_each_question_has_a_token_and_no_proxy(service: Service) -> None:
    metadata = Metadata()
    assert metadata.look(LIFE, NOTICE) == [(200, "spot"), (404, "no such thing")]
    assert metadata.look(NOTICE) == [(404, "no such thing")]
    assert service.asked == ["PUT", LIFE, NOTICE, NOTICE], "a token is asked for once"
    service.tokens, service.token = {"second"}, "second"
    assert metadata.look(LIFE) == [(200, "spot")], "it is not taken any more"


def test_only_loopback_is_taken_for_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ELSEWHERE, "10.0.0.1:80/box")
    assert Metadata().address == ("169.254.169.254", 80)


def _drip(link: socket.socket, path: str) -> bool:
    for one in ok("x" * 1000):
        link.sendall(bytes([one]))
        time.sleep(0.05)
    return True


def _flood(link: socket.socket, path: str) -> bool:
    link.sendall(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * (10 << 20))
    return True


def _silence(link: socket.socket, path: str) -> bool:
    time.sleep(METADATA_LIMIT + 5 * SLACK)
    return True


def _says(data: bytes) -> Callable[[socket.socket, str], bool]:
    def answer(link: socket.socket, path: str) -> bool:
        link.sendall(data)
        return True

    return answer


@pytest.mark.parametrize(
    "raw",
    [
        _drip,
        _flood,
        _silence,
        _says(b""),
        _says(b"\x00" * 5000),
        _says(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nshort"),
        _says(b"HTTP/1.1 OK 200\r\n\r\nspot"),
        _says(b"HTTP/1.1 " + b"2" * 5000 + b"\r\n\r\nspot"),
        _says(b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 100_000),
        _says(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nto\r\nken!"),
        _says(ok("", "405 Method Not Allowed")),
    ],
)
def test_a_hostile_service_costs_little_time_and_says_nothing(
    service: Service, raw: Callable[[socket.socket, str], bool]
) -> None:
    service.raw = raw
    began = time.monotonic()
    (found,) = Metadata().look(LIFE)
    assert found[0] in (None, 405)
    assert time.monotonic() - began < METADATA_LIMIT + SLACK


def test_nobody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setenv(ELSEWHERE, f"127.0.0.1:{taken.getsockname()[1]}")
    assert Metadata().look(LIFE, NOTICE) == [(None, ""), (None, "")]


# Hooks ------------------------------------------------------------------------------------------------------


def test_hooks_run_in_their_order_and_what_fails_is_told(home: Home, tmp_path: Path) -> None:
    home.hook("1-first", "pwd >> ~/ran")
    home.hook("2-fails", "exit 3")
    home.hook("3-last", 'echo "$HOME" >> ~/ran')
    (home.hooks / "4-data").write_text("no program")
    (home.hooks / "5-folder").mkdir()
    (home.hooks / "6-broken").write_text("\x00\x01")
    (home.hooks / "6-broken").chmod(0o755)
    own = [path for path in hooks_of(str(home.folder)) if path.startswith(str(home.folder))]
    assert [Path(path).name for path in own] == ["1-first", "2-fails", "3-last", "6-broken"]
    begun, failed = run_hooks(str(home.folder), "", 60.0)
    assert begun == len(hooks_of(str(home.folder)))
    assert failed[0] == "2-fails exited with 3"
    assert failed[1].startswith("6-broken can not be run: ")
    assert (home.folder / "ran").read_text() == f"{home.folder}\n{home.folder}\n"


def test_a_hook_that_takes_too_long_is_ended_with_all_that_it_began_and_the_next_is_not_begun(
    home: Home,
) -> None:
    home.hook("1-slow", "sleep 1000 & echo $! > ~/child; wait")
    home.hook("2-next", "touch ~/next")
    begun, failed = run_hooks(str(home.folder), "", 1.0)
    assert begun == 1
    assert failed[0].startswith("1-slow took longer than ")
    assert failed[1] == "2-next was not begun"
    child = int((home.folder / "child").read_text())
    until(lambda: not is_alive(child), "its child has ended")
    assert not (home.folder / "next").exists()


# Programs ---------------------------------------------------------------------------------------------------


def test_a_notice_is_told_and_the_hook_runs_once(service: Service, home: Home) -> None:
    home.hook("save", "echo saved >> ~/saved")
    first = home.follow()
    assert line(first).is_spot
    second = home.follow()
    assert line(second).is_spot
    service.says[RISK] = '{"noticeTime": "2026-01-01T00:00:00Z"}'
    assert line(first).rebalance is not None
    service.says[NOTICE] = STOP
    found = line(first)
    assert (found.notice.action, found.notice.time, found.did) == ("stop", None, None)
    found = line(first)
    assert (found.did.hooks, found.did.failed) == (1, [])
    assert said_of(found.did) == "its pre-stop hooks have run"
    del service.says[NOTICE]
    assert line(first).notice is None, "withdrawn"
    while line(second).did is None:
        pass
    while line(second).notice is not None:
        pass
    assert (home.folder / "saved").read_text() == "saved\n", "two laptops look, and one of them acts"
    # What was withdrawn may come again, and is another notice then.
    service.says[NOTICE] = STOP
    while line(first).did is None:
        pass
    assert (home.folder / "saved").read_text() == "saved\nsaved\n"


def test_a_laptop_that_leaves_takes_no_hook_with_it(service: Service, home: Home) -> None:
    home.hook("save", "touch ~/begun; while [ ! -e ~/go ]; do sleep 0.05; done; touch ~/saved")
    service.says[NOTICE] = STOP
    program = home.follow()
    until((home.folder / "begun").exists, "the hook has begun")
    assert program.stdout is not None
    program.stdout.close()
    os.killpg(program.pid, signal.SIGHUP)  # as the bridgehead does when a stream is closed
    (home.folder / "go").touch()
    until((home.folder / "saved").exists, "the hook has ended")
    until(lambda: _note(home.folder / ".devbox" / "idle").get("did"), "and it was written down")
    assert program.wait(LONG) == -signal.SIGHUP, "then it ends"
    # The next one knows that all was done.
    (home.folder / "saved").unlink()
    assert line(home.follow()).did.hooks == 1
    assert not (home.folder / "saved").exists()


def test_a_full_disk_keeps_no_hook_from_running(service: Service, home: Home) -> None:
    home.hook("save", "touch ~/saved")
    (home.folder / ".devbox" / "idle" / "reclaim.json.new").mkdir(
        parents=True
    )  # nothing can be written there
    service.says[NOTICE] = STOP
    program = home.follow()
    until((home.folder / "saved").exists, "the hook has run")
    while line(program).did is None:
        pass


def _note(folder: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads((folder / "reclaim.json").read_text())
        return found
    except OSError:
        return {}


@contextlib.contextmanager
def terminal(folder: Path) -> Iterator[Callable[[], str]]:
    """A person's, in this environment; yields what shows it."""
    mux = ["tmux", "-S", str(folder / "tmux")]
    folder.mkdir(exist_ok=True)
    subprocess.run([*mux, "-f", "/dev/null", "new-session", "-d", "-x", "200", "-y", "24", "sh"], check=True)
    try:
        yield (
            lambda: (
                subprocess.run(
                    [*mux, "capture-pane", "-p"], capture_output=True, text=True, check=True
                ).stdout
            )
        )
    finally:
        subprocess.run([*mux, "kill-server"], check=True)


@pytest.mark.skipif(shutil.which("tmux") is None, reason="needs tmux")
def test_terminals_are_told(service: Service, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the box; where it is played, none of its host: nobody is to be told that their own machine is taken away."""
    played = os.environ["DEVBOX_IMDS"]
    monkeypatch.setenv("DEVBOX_IMDS", "127.0.0.1:1/another-box")
    with terminal(home.folder / "other") as other:
        monkeypatch.setenv("DEVBOX_IMDS", played)
        with terminal(home.folder) as shown:
            service.says[NOTICE] = STOP
            home.follow()
            until(lambda: "*** devbox: EC2 takes this spot box back at " in shown(), "the terminal shows it")
        assert "devbox" not in other()


def test_a_box_of_another_kind_is_asked_once_and_left_alone(service: Service, home: Home) -> None:
    service.says = {LIFE: "on-demand", NOTICE: STOP}
    program = home.follow()
    assert not line(program).is_spot
    assert program.wait(LONG) == 0
    assert service.asked == ["PUT", LIFE]
    for _ in range(2):
        assert home.start("activity", str(home.folder / ".devbox" / "idle"), "minute").wait(LONG) == 0
    assert service.asked == ["PUT", LIFE], "the collector finds what is known"


def test_a_box_without_a_metadata_service_says_so_and_its_collector_goes_on(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setenv(ELSEWHERE, f"127.0.0.1:{taken.getsockname()[1]}")
    found = line(home.follow())
    assert (found.life, found.problem) == (None, "the metadata service does not say what kind of box this is")
    assert home.start("activity", str(home.folder / "state"), "minute").wait(LONG) == 0


def test_the_collector_acts_without_any_daemon_and_tells_the_next_look(service: Service, home: Home) -> None:
    home.hook("save", "echo saved >> ~/saved")
    folder = home.folder / ".devbox" / "idle"
    rules = {"after": 1800.0, "warn": 600.0, "then": "warm", "never": [], "hours": [], "leases": []}
    given = json.dumps({**rules, "home": str(home.folder), "user": "", "instance": "i-none"})
    looked = home.start("activity", str(folder), "look", given)
    assert json.loads(looked.communicate(timeout=LONG)[0])["reclaim"] is None, "a look asks nobody"
    home.start("activity", str(folder), "loop")
    until(lambda: _note(folder).get("life"), "the collector looks for notices")
    service.says[NOTICE] = STOP
    until(lambda: _note(folder).get("did"), "it has acted")
    assert (home.folder / "saved").read_text() == "saved\n"
    # A daemon that comes now is told, and does nothing again.
    found = line(home.follow())
    assert (found.notice.action, found.did.hooks) == ("stop", 1)
    looked = home.start("activity", str(folder), "look", given)
    assert json.loads(looked.communicate(timeout=LONG)[0])["reclaim"]["did"]["hooks"] == 1
    assert (home.folder / "saved").read_text() == "saved\n"


@pytest.mark.skipif(os.getuid() != 0, reason="only root can play root's collector")
def test_where_root_looks_its_note_is_told_and_nobody_else_looks(service: Service, home: Home) -> None:
    home.hook("save", "touch ~/saved")
    roots = home.folder / "roots.json"
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip() + service.place
    known = {"life": "spot", "notice": None, "rebalance": None, "did": None, "missing": 0, "problem": ""}

    def write(**changed: object) -> None:
        new = home.folder / "new"
        new.write_text(json.dumps({**known, "boot": boot, "until": time.monotonic() + 500.0, **changed}))
        new.rename(roots)

    write()
    program = home.follow(load_program("reclaim").replace("/run/devbox/reclaim.json", str(roots)))
    assert line(program).is_spot
    service.says[NOTICE] = STOP
    notice = {"action": "stop", "time": None, "since": 1.0}
    write(notice=notice)
    assert line(program).notice.since == 1.0
    write(notice=notice, did={"at": 2.0, "hooks": 7, "failed": []})
    assert line(program).did.hooks == 7
    assert service.asked == []
    # Root's collector is gone; what it did is not done again.
    write(notice=notice, did={"at": 2.0, "hooks": 7, "failed": []}, until=time.monotonic() - 1.0)
    until(lambda: NOTICE in service.asked[2:], "the user's own program looks now")
    assert not (home.folder / "saved").exists()


@pytest.mark.parametrize(
    "text",
    [b"", b"null", b"[]", b"[" * 5000, b"{}" * 2, b'{"notice": 7}', b'{"notice": {"action": "stop", "since": -1}}', b'{"life": "' + b"x" * 99 + b'"}'],
)  # fmt: skip
def test_what_a_box_tells_is_not_believed_where_it_can_not_be(text: bytes) -> None:
    found = read_line(text)
    assert found is None or found.notice is None


def test_the_command_fits_into_the_purpose_of_a_stream() -> None:
    assert sum(map(len, argv())) < 24 << 10
