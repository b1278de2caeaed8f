"""The collector against real processes of this machine: a multiplexer, a build, a sleeping program, an agent, leases."""

from __future__ import annotations

import json
import os
import pty
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from devboxd.boxside import activity, relay
from devboxd.boxside.programs.parts.imds import ELSEWHERE
from devboxd.boxside.programs.parts.keeper import keeper
from devboxd.boxside.programs.watch import look, machine
from devboxd.boxside.programs.watch.machine import Process, processes, tell, terminals
from devboxd.boxside.programs.watch.names import kind_of
from devboxd.boxside.script import digest, load, load_program, load_with_python, packed, wrap
from devboxd.host.clock import Clock
from devboxd.model.idle import empty, judge

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux") or shutil.which("tmux") is None, reason="needs Linux and tmux"
)
CLOCK = Clock()
RULES: dict[str, Any] = {
    "after": 1800.0,
    "warn": 600.0,
    "then": "warm",
    "never": [],
    "hours": [],
    "leases": [],
}


class Box:
    """A tmux of our own, and the collector with a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / "home"
        (self.home / ".devbox").mkdir(parents=True)
        self.state = folder / "state"
        self.socket = str(folder / "tmux")
        self.tmux("-f", "/dev/null", "new-session", "-d", "-x", "80", "-y", "24", "sh")

    def tmux(self, *words: str) -> str:
        done = subprocess.run(
            ["tmux", "-S", self.socket, *words], capture_output=True, text=True, check=False
        )
        return done.stdout.strip()

    def type(self, line: str) -> None:
        self.tmux("send-keys", "-l", line)
        self.tmux("send-keys", "Enter")

    def look(self, python: str = sys.executable, **rules: Any) -> dict[str, Any]:
        given = json.dumps({**RULES, "home": str(self.home), **rules})
        program = load_program("activity")
        line = [python, "-I", "-c", program, str(self.state), "look", given]
        done = subprocess.run(line, capture_output=True, text=True, timeout=60, check=True)
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def tools(self, seconds: float = 2.0) -> dict[str, dict[str, Any]]:
        """What is seen between two looks, by name."""
        self.look()
        time.sleep(seconds)
        self.sample = self.look()["sample"]
        here = {one.id for one in self.own()}
        return {tool["name"]: tool for tool in self.sample["tools"] if tool["id"] in here}

    def own(self) -> list[Process]:
        """What runs on our terminal, and does not only carry the name of its parent until its exec."""
        known, pane = processes(), self.pane()
        ours = [one for one in known.values() if one.pts == pane]
        return [one for one in ours if one.parent not in known or known[one.parent].name != one.name]

    def runs(self, name: str) -> list[int]:
        """Who is called so there: others on this machine may run the like."""
        return [one.pid for one in self.own() if one.name == name]

    def program(self, name: str, text: str) -> str:
        path = self.folder / name
        path.write_text(text)
        path.chmod(0o755)
        return str(path)

    def pane(self) -> int:
        return int(self.tmux("display-message", "-p", "#{pane_tty}").rpartition("/")[2])


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    one = Box(tmp_path)
    try:
        yield one
    finally:
        one.tmux("kill-server")


def until(holds: Callable[[], object], seconds: float = 15.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)


# Terminals -------------------------------------------------------------------------------------------------


def test_a_pane_is_a_persons_terminal_and_the_client_around_it_is_not(box: Box) -> None:
    """A reconnect makes the outer terminal answer questions: that would be input without anybody."""
    child, master = pty.fork()
    if child == 0:
        os.environ["TERM"] = "xterm"
        os.execvp("tmux", ["tmux", "-S", box.socket, "attach"])
    outer = -1
    try:
        until(lambda: box.tmux("list-clients"))
        outer = int(box.tmux("list-clients", "-F", "#{client_tty}").rpartition("/")[2])
        found = terminals(processes())
        assert box.pane() in found
        assert outer not in found
        # What is typed into the client arrives in the pane.
        before = os.stat(f"/dev/pts/{box.pane()}").st_atime
        os.utime(f"/dev/pts/{box.pane()}", (before - 3600, before))
        os.write(master, b"x\r")  # a plain sh reads a line at a time
        until(lambda: os.stat(f"/dev/pts/{box.pane()}").st_atime > before - 60)
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)
        os.close(master)


def test_a_terminal_that_a_program_drives_is_nobodys(box: Box) -> None:
    """Agents and test suites type into terminals of their own."""
    child, master = pty.fork()
    if child == 0:
        os.execvp("sleep", ["sleep", "60"])
    try:
        until(lambda: child in processes() and processes()[child].pts is not None)
        assert processes()[child].pts not in terminals(processes())
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)
        os.close(master)


@pytest.mark.parametrize(
    ("name", "line", "is_human"),
    [
        ("java", "/home/u/.cache/JetBrains/RemoteDev/dist/x/jbr/bin/java -cp a com.intellij.idea.Main", True),
        ("java", "java -jar app.jar", False),
        ("jupyter-lab", "python /usr/bin/jupyter-lab", True),
        ("python3", "python3 -m jupyterlab --no-browser", True),
        ("python3", "python3 -m ipykernel_launcher -f /home/u/.local/share/jupyter-lab/kernel-1.json", False),
        ("rsession", "/usr/lib/rstudio-server/bin/rsession", True),
        ("ttyd", "ttyd bash", True),
        ("node", "node /usr/lib/node_modules/wetty/build/main.js", True),
        ("node", "node /usr/bin/gemini", False),
        ("etterminal", "etterminal", True),
        ("gnome-terminal-", "/usr/libexec/gnome-terminal-server", True),
        ("expect", "expect -f drive.exp", False),
        ("pexpect", "python3 drive.py", False),
    ],
)
def test_who_holds_a_persons_terminal(
    monkeypatch: pytest.MonkeyPatch, name: str, line: str, is_human: bool
) -> None:
    holder = Process(700, f"700 ({name}) S 1 700 700 0 -1 0 1 2 3 4 5 6 7 8 20 0 1 0 9 1")
    shell = Process(701, "701 (bash) S 700 701 701 34817 -1 0 1 2 3 4 5 6 7 8 20 0 1 0 9 1")
    monkeypatch.setattr(machine, "read", lambda path, most=0: line.replace(" ", "\0"))
    assert bool(terminals({700: holder, 701: shell})) is is_human


@pytest.mark.skipif(os.getuid() != 0, reason="terminals of its own need root")
def test_a_terminal_of_a_container_is_looked_up_where_it_is(tmp_path: Path) -> None:
    """Its numbers begin anew: those of the machine are others' terminals. Nothing is written to it."""
    holder = tmp_path / "ptyHost.py"
    holder.write_text(
        "import os, pty, time\nchild, master = pty.fork()\n"
        "if child == 0: os.execvp('sleep', ['sleep', '100'])\nprint(child, flush=True)\ntime.sleep(100)\n"
    )
    mount = (
        "mount -t devpts -o newinstance,ptmxmode=0666 none /dev/pts && mount --bind /dev/pts/ptmx /dev/ptmx"
    )
    line = ["unshare", "-m", "sh", "-c", f"{mount} || exit; exec {sys.executable} {holder}"]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as outer:
        assert outer.stdout is not None
        said = outer.stdout.readline()
        if not said:
            pytest.skip("no mounts here")
        child = int(said)
        try:
            until(lambda: processes()[child].name == "sleep")
            one = processes()[child]
            long_ago = CLOCK.wall() - 5e8
            os.utime(os.path.join(f"/proc/{child}/root", f"dev/pts/{one.pts}"), (long_ago, long_ago))
            known = {pid: process for pid, process in processes().items() if pid in (child, outer.pid)}
            assert machine.typed(known) == [pytest.approx(long_ago, abs=1.0)]
            assert terminals(known) == []
        finally:
            outer.kill()
            os.kill(child, 9)


def test_a_warning_is_written_to_the_pane(box: Box) -> None:
    assert tell([box.pane(), 9999], "stops in 10 min\x1b[2J") == 1
    until(lambda: "*** devbox: stops in 10 min[2J" in box.tmux("capture-pane", "-p"))


# Programs --------------------------------------------------------------------------------------------------


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_a_build_is_seen_with_its_processor_time(box: Box) -> None:
    (box.folder / "Makefile").write_text(f"all:\n\t{sys.executable} -c 'while 1: pass'\n")
    box.type(f"make -C {box.folder}")
    until(lambda: box.runs("make"))
    tool = box.tools()["make"]
    assert tool["kind"] == "finite"
    assert tool["cpu"] > 0.1
    box.tmux("send-keys", "C-c")


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_a_build_without_a_terminal_is_seen_too(box: Box) -> None:
    """Started by a service, at boot, or by a program of this test."""
    (box.folder / "Makefile").write_text(f"all:\n\t{sys.executable} -c 'while 1: pass'\n")
    # Not below this test run, which is a test run itself.
    subprocess.run(["setsid", "-f", "make", "-C", str(box.folder)], stdout=subprocess.DEVNULL, check=True)

    def build() -> list[Process]:
        path = str(box.folder)
        return [
            one
            for one in processes().values()
            if one.name == "make" and path in machine.read(f"/proc/{one.pid}/cmdline")
        ]

    until(build)
    (one,) = build()
    try:
        box.look()
        time.sleep(2.0)
        found = [tool for tool in box.look()["sample"]["tools"] if tool["id"] == one.id]
        assert [(tool["name"], tool["kind"]) for tool in found] == [("make", "finite")]
        assert found[0]["cpu"] > 0.1
    finally:
        os.killpg(one.group, 9)


def test_a_sleeping_test_run_is_there_and_counts(box: Box) -> None:
    box.program("pytest", f"#!{sys.executable}\nimport time\ntime.sleep(100)\n")
    box.type(str(box.folder / "pytest"))
    until(lambda: box.runs("pytest"))
    found = box.tools()["pytest"]
    assert (found["kind"], found["child"]) == ("finite", False)
    assert found["cpu"] < 0.05
    evidence = box.look()["state"]["evidence"]
    assert {row[2] for row in evidence if row[0] == "pytest"} == {True}


def test_a_script_that_sleeps_and_looks_again_shows_signs_of_life(box: Box) -> None:
    path = box.program("poll.sh", "#!/bin/sh\nwhile :; do sleep 0.3; done\n")
    box.type(path)
    until(lambda: box.runs("poll.sh"))
    tool = box.tools()["poll.sh"]
    assert (tool["kind"], tool["child"]) == ("job", True)


@pytest.mark.parametrize("wrapper", ["./ci.sh", "timeout 900 ./pytest"])
def test_a_test_run_below_a_script_or_a_wrapper_is_still_one(box: Box, wrapper: str) -> None:
    """It listens, too, as one that tests a server does: the script is no server for that."""
    text = "import socket, time; s = socket.socket(); s.listen(); time.sleep(100)"
    box.program("pytest", f"#!{sys.executable}\n{text}\n")
    box.program("ci.sh", "#!/bin/sh\n./pytest\necho done\n")
    box.type(f"cd {box.folder} && {wrapper}")
    until(lambda: box.runs("pytest"))
    outer = wrapper.partition(" ")[0].removeprefix("./")
    tools = box.tools(0.5)
    assert {name: tool["kind"] for name, tool in tools.items()} == {"pytest": "finite", outer: "job"}


def test_what_a_dev_server_has_for_itself_is_no_build(box: Box) -> None:
    box.program("esbuild", f"#!{sys.executable}\nimport time; time.sleep(100)\n")
    serve = "import socket, subprocess; s = socket.socket(); s.listen(); subprocess.run(['./esbuild', '--service=0.21.5'])"
    box.program("dev.py", f"#!{sys.executable}\n{serve}\n")
    box.type(f"cd {box.folder} && ./dev.py")
    until(lambda: box.runs("esbuild"))
    assert {name: tool["kind"] for name, tool in box.tools(0.5).items()} == {
        "dev.py": "server",
        "esbuild": "server",
    }


def test_an_agent_of_any_name_below_a_wrapper_says_how_it_is(box: Box) -> None:
    """As ``agent-hook.py run`` does it: the note is of what it has started."""
    box.program("my-agent", f"#!{sys.executable}\nimport time; time.sleep(100)\n")
    box.type(f"timeout 900 {box.folder}/my-agent")
    until(lambda: box.runs("my-agent"))
    (pid,) = box.runs("my-agent")
    notes = box.home / ".devbox" / "agents"
    notes.mkdir()
    note = {"pid": pid, "name": "my-agent", "since": CLOCK.wall() - 60}
    (notes / "a.json").write_text(json.dumps({**note, "state": "working"}))
    tools = box.tools(0.5)
    assert {name: (tool["kind"], tool["state"]) for name, tool in tools.items()} == {
        "my-agent": ("agent", "working"),
        "timeout": ("job", None),
    }
    rows = {row[0]: row for row in box.look()["state"]["evidence"]}
    assert rows["my-agent"][1:] == ["works, since 1 min", True]


def test_a_server_that_serves_nobody_is_no_work(box: Box) -> None:
    box.type(f"{sys.executable} -m http.server --bind 127.0.0.1 0")
    until(lambda: "Serving" in box.tmux("capture-pane", "-p"))
    tools = box.tools()
    (server,) = [tool for tool in tools.values() if tool["kind"] == "server" and "http" in tool["name"]]
    assert server["cpu"] < 0.05


def test_an_editor_a_pager_and_an_idle_shell_are_no_work(box: Box) -> None:
    box.type("less /etc/passwd")
    until(lambda: box.runs("less"))
    assert not {"less", "sh", "tmux"} & set(box.tools(0.5))


def test_an_agent_says_how_it_is_through_its_hooks(box: Box) -> None:
    """And without: it is known by its name, with the signs of life that it shows."""
    shutil.copy(shutil.which("sleep") or "/bin/sleep", box.folder / "claude")
    box.type(f"{box.folder}/claude 100")
    until(lambda: box.runs("claude"))
    (pid,) = box.runs("claude")
    assert box.tools(0.5)["claude"]["state"] is None
    notes = box.home / ".devbox" / "agents"
    notes.mkdir()
    (notes / "a.json").write_text(json.dumps({"pid": pid, "state": "waiting", "since": CLOCK.wall() - 60}))
    (notes / "b.json").write_text("[" * 4000)
    (notes / "b2.json").write_text('{"pid": 1e999, "state": "done", "since": 1}')
    (notes / "b3.json").write_text('{"pid": 1, "state": "done", "since": NaN}')
    os.mkfifo(notes / "c.json")  # nothing that lies there may stop the collector
    tool = box.tools(0.5)["claude"]
    assert (tool["kind"], tool["state"]) == ("agent", "waiting")
    rows = {row[0]: row for row in box.look()["state"]["evidence"]}
    assert rows["claude"][1:] == ["waits for you, since 1 min", False]
    emoji = "\N{PILE OF POO}" * 300
    asks = {"pid": pid, "state": "working", "since": CLOCK.wall(), "text": emoji, "doing": emoji}
    (notes / "a.json").write_text(json.dumps(asks))
    (agent,) = box.look()["sample"]["agents"]
    assert (agent["name"], agent["alive"], agent["text"]) == ("claude", True, emoji)
    (notes / "a.json").write_text(json.dumps({**asks, "id": f"{pid}-1"}))
    (agent,) = box.look()["sample"]["agents"]
    assert not agent["alive"], "another process has its number"


# Without a terminal ----------------------------------------------------------------------------------------

RELAY = "python3 -I -S -c text nonce"
BRIDGEHEAD = "/usr/bin/python3 -I /home/u/.devbox/bridgehead-0123.py start /home/u/.devbox"
SSM = "0::/system.slice/amazon-ssm-agent.service"
SCOPE = "0::/user.slice/user-1000.slice/session-3.scope"
UP = 10_000.0  # seconds


@dataclass(frozen=True)
class Seen:
    """A process: ``age`` in seconds, ``leader`` of its session; the one above it in a list is its parent unless said."""

    argv: str
    name: str = ""
    pts: int | None = None
    leader: bool = False
    user: int = 1000
    cgroup: str = SCOPE
    age: float = 300.0
    listens: bool = False
    stdin: str = "/dev/pts/3"


def kinds(monkeypatch: pytest.MonkeyPatch, line: Sequence[Seen]) -> dict[str, str]:
    """What kind each of a line of processes is, of which each has started the next; the first is a child of init."""
    found, files = dict[int, Process](), dict[str, str]()
    pid = 1
    for pid, one in enumerate(line, 100):
        name = one.name or os.path.basename(one.argv.split()[0])
        tty = 0 if one.pts is None else 136 * 256 + one.pts
        session = pid if one.leader else 99
        start = int((UP - one.age) * machine.TICK)
        parent = 1 if pid == 100 else pid - 1
        rest = f"S {parent} {pid} {session} {tty} -1 0 1 2 3 4 5 6 7 8 20 0 1 0 {start} 1"
        found[pid] = Process(pid, f"{pid} ({name}) {rest}")
        found[pid].user = one.user
        files[f"/proc/{pid}/cmdline"] = one.argv.replace(" ", "\0") + "\0"
        files[f"/proc/{pid}/cgroup"] = one.cgroup
        if parent in found:
            found[parent].children.append(found[pid])
    listen = {pid for pid, one in enumerate(line, 100) if one.listens}
    monkeypatch.setattr(look.Look, "_listens", lambda self, tree: any(one.pid in listen for one in tree))
    monkeypatch.setattr(os, "readlink", lambda path: line[int(path.split("/")[2]) - 100].stdin)
    monkeypatch.setattr(look, "processes", lambda: found)
    monkeypatch.setattr(look, "uptime", lambda: UP)
    monkeypatch.setattr(look, "read", lambda path, most=0: files.get(path, ""))
    return {tool["name"]: tool["kind"] for tool in look.Look({}, RULES, CLOCK.wall()).sample()["tools"]}


SHELL = Seen("-bash", "bash", pts=3, leader=True)
QUIET = Seen("/bin/sh ./quiet.sh", "quiet.sh")
ROOTS = Seen("/bin/sh ./quiet.sh", "quiet.sh", user=0)
ON_PTS = Seen("/bin/sh ./quiet.sh", "quiet.sh", pts=3)
PERSON = Seen("sshd: u@pts/3", "sshd", user=0), SHELL
CRON = Seen("/usr/sbin/CRON -f", "cron", user=0, cgroup="0::/system.slice/cron.service")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ([*PERSON, ON_PTS], {"quiet.sh": "job"}),
        # sudo gives it a terminal of its own, or not.
        ([*PERSON, Seen("sudo ./quiet.sh", pts=3, user=0), ON_PTS], {"quiet.sh": "job"}),
        (
            [
                *PERSON,
                Seen("sudo ./quiet.sh", pts=3, user=0),
                Seen("sudo ./quiet.sh", pts=4, user=0, leader=True),
                Seen("bash ./quiet.sh", "bash", pts=4, user=0),
            ],
            {"quiet.sh": "job"},
        ),
        ([*PERSON, Seen("su - other", pts=3, user=0), Seen("-bash", "bash", pts=3)], {}),
        # Left behind by its shell, with and without its terminal, also by a session of Session Manager, as root.
        ([QUIET], {"quiet.sh": "background"}),
        ([ON_PTS], {"quiet.sh": "background"}),
        ([Seen("/bin/sh ./quiet.sh", "quiet.sh", user=0, cgroup=SSM)], {"quiet.sh": "background"}),
        ([Seen("sudo ./quiet.sh", user=0), ROOTS], {"quiet.sh": "background"}),
        # Given to systemd.
        ([Seen(QUIET.argv, "quiet.sh", user=0, cgroup="0::/system.slice/run-u7.service")], {"quiet.sh": "background"}),
        (
            [
                Seen("/lib/systemd/systemd --user", "systemd"),
                Seen(QUIET.argv, "quiet.sh", cgroup="0::/user.slice/user@1000.service/app.slice/run-u7.service"),
            ],
            {"quiet.sh": "background"},
        ),
        # Daemons of the user, and services with a user of their own.
        ([Seen("/usr/bin/gpg-agent --daemon")], {}),
        ([Seen("pipewire", cgroup="0::/user.slice/user@1000.service/session.slice/pipewire.service")], {}),
        (
            [
                Seen("/lib/systemd/systemd --user", "systemd"),
                Seen("dirmngr", cgroup="0::/user.slice/user@1000.service/app.slice/dirmngr.service"),
            ],
            {},
        ),
        ([Seen("./app", cgroup="0::/system.slice/app.service")], {}),
        ([Seen("./app", user=0, cgroup="0::/system.slice/app.service")], {}),
        ([Seen("./app", user=0, cgroup="0::/init.scope")], {}),
        ([Seen("node /home/u/.vscode-server/server-main.js", "node")], {"server-main.js": "editor"}),
        # By ssh without a terminal; what VS Code starts its server from is a shell that reads.
        ([Seen("sshd: u@notty", "sshd", cgroup="0::/"), QUIET], {"quiet.sh": "background"}),
        ([Seen("sshd: u@notty", "sshd"), Seen("bash"), Seen("sleep 180")], {}),
        # By a clock: not what is over at once.
        ([CRON, QUIET], {"quiet.sh": "background"}),
        ([CRON, Seen(QUIET.argv, "quiet.sh", age=40.0)], {}),
        ([CRON, Seen("/bin/sh -c ./a;./quiet.sh", "sh"), QUIET], {"quiet.sh": "background"}),
        ([Seen("atd", user=0, cgroup="0::/system.slice/atd.service"), Seen("sh"), QUIET], {"quiet.sh": "background"}),
        # By exec: over the bridge, or over a session of Session Manager, for another user.
        ([Seen(BRIDGEHEAD, "python3", cgroup=SSM), QUIET], {"quiet.sh": "exec"}),
        ([Seen(BRIDGEHEAD, "python3"), Seen("pytest -x")], {"pytest": "finite"}),
        ([Seen(BRIDGEHEAD, "python3"), Seen("tail -f log")], {}),
        ([Seen(BRIDGEHEAD, "python3"), Seen("-bash", "bash", pts=7, leader=True)], {}),
        ([Seen(BRIDGEHEAD, "python3"), Seen(QUIET.argv, "quiet.sh", pts=7, leader=True)], {"quiet.sh": "job"}),
        (
            [
                Seen("ssm-session-worker", "ssm-session-wor", user=0, cgroup=SSM),
                Seen("sh -c relay relay", "sh", pts=5, leader=True, cgroup=SSM),
                Seen("sudo -n -u u sh -c relay", "sudo", pts=5, user=0, cgroup=SSM),
                Seen("sh -c relay relay", "sh", pts=5, cgroup=SSM),
                Seen(RELAY, "python3", pts=5, cgroup=SSM),
                Seen(QUIET.argv, "quiet.sh", cgroup=SSM),
            ],
            {"quiet.sh": "exec"},
        ),
        # Our own, in both.
        ([Seen(BRIDGEHEAD, "python3"), Seen("sh -c script devbox x", "sh"), QUIET], {}),
        ([Seen(BRIDGEHEAD, "python3"), Seen("python3 -I -c text  {}", "python3")], {}),
        ([Seen("python3 -I /home/u/.devbox/idle/activity-01.py /home/u/.devbox/idle loop", "python3")], {}),
    ],
)  # fmt: skip
def test_what_is_not_known_by_name_counts_by_what_has_started_it(
    monkeypatch: pytest.MonkeyPatch, line: list[Seen], expected: dict[str, str]
) -> None:
    assert kinds(monkeypatch, line) == expected


GIT = Seen("git log", pts=3)
VITE = Seen("node /w/node_modules/.bin/vite", "node", pts=3, listens=True)
APP = Seen("./app", pts=3, listens=True)


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        # In a pager, an editor or a shell it waits for a person.
        ([GIT, Seen("less", pts=3)], "job"),
        ([GIT, Seen("pager", pts=3)], "job"),
        ([GIT, Seen("delta", pts=3), Seen("less", pts=3)], "job"),
        ([Seen("git commit", pts=3), Seen("vim .git/COMMIT_EDITMSG", pts=3)], "job"),
        ([Seen("git commit", pts=3), Seen("/bin/sh -c editor", "sh", pts=3), Seen("editor x", pts=3)], "job"),
        ([Seen("python3 /usr/bin/poetry shell", "poetry", pts=3), Seen("bash -i", pts=4, leader=True)], "job"),
        ([Seen("python3 /usr/bin/poetry shell", "poetry", pts=3), Seen("bash", pts=4), Seen("./x", pts=4)], "finite"),
        ([Seen("make", pts=3), Seen("sh", pts=3, stdin="pipe:[1]")], "finite"),
        ([GIT, Seen("less", pts=3), Seen("./filter", pts=3)], "finite"),
        ([GIT], "finite"),
        ([Seen("git log"), Seen("less")], "finite"),
        # What only runs a server is one.
        ([Seen("uv run app", pts=3), APP], "server"),
        ([Seen("poetry run app", pts=3), APP], "server"),
        ([Seen("go run .", pts=3), APP], "server"),
        ([Seen("cargo run", pts=3), APP], "server"),
        ([Seen("make run", pts=3), APP], "server"),
        ([Seen("yarn vite", pts=3), VITE], "server"),
        ([Seen("pnpm vite", pts=3), Seen("sh -c vite", "sh", pts=3), VITE], "server"),
        ([Seen("pnpm vite", pts=3), VITE, Seen("esbuild --service=0.21.5", pts=3)], "server"),
        ([Seen("ruby /usr/bin/bundle exec puma", "bundle", pts=3), Seen("puma 6.4.2", pts=3, listens=True)], "server"),
        ([Seen("mix phx.server", pts=3)], "server"),
        ([Seen("mvn spring-boot:run", pts=3)], "server"),
        ([Seen("dotnet run", pts=3), APP], "server"),
        ([Seen("uv run make run", pts=3), Seen("make run", pts=3), APP], "server"),
        # A test run that listens stays one, and so does a build, and what trains.
        ([Seen("uv run pytest", pts=3), Seen("python -m pytest", "python", pts=3, listens=True)], "finite"),
        ([Seen("uv run x.py", pts=3), Seen("python -m pytest", "python", pts=3, listens=True)], "finite"),
        ([Seen("npm run e2e", pts=3), VITE], "finite"),
        ([Seen("npm run all", pts=3), Seen("node --test", pts=3, listens=True)], "finite"),
        ([Seen("cargo test", pts=3), APP], "finite"),
        ([Seen("go test ./...", pts=3), APP], "finite"),
        ([Seen("make", pts=3), APP], "finite"),
        ([Seen("mvn verify", pts=3), APP], "finite"),
        ([Seen("uv run train.py", pts=3), APP], "finite"),
        ([Seen("npm run all", pts=3), Seen("tsc -p .", pts=3), APP], "finite"),
        ([Seen("torchrun a.py", pts=3), APP], "finite"),
        ([Seen("uv run app", pts=3), Seen("./app", pts=3)], "finite"),
    ],
)  # fmt: skip
def test_what_ends_by_itself_counts_by_what_it_waits_for(
    monkeypatch: pytest.MonkeyPatch, line: list[Seen], kind: str
) -> None:
    found = kinds(monkeypatch, [*PERSON, *line])
    outer = {"python3": "poetry", "ruby": "bundle"}.get(line[0].argv.split()[0], line[0].argv.split()[0])
    assert found[outer] == kind


def test_what_runs_below_a_runner_is_looked_at_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernels of a notebook, and an agent, which says how it is."""
    jupyter = Seen("python /w/.venv/bin/jupyter-lab", "jupyter-lab", pts=3, listens=True)
    kernel = Seen("python -m ipykernel_launcher -f x.json", "python")
    found = kinds(monkeypatch, [*PERSON, Seen("uv run jupyter lab", pts=3), jupyter, kernel])
    assert found == {"uv": "server", "ipykernel_launcher": "kernel"}
    agent = Seen("node /usr/bin/codex", "node", pts=3)
    found = kinds(monkeypatch, [*PERSON, Seen("npm exec @openai/codex", pts=3), agent])
    assert found == {"npm": "job", "codex": "agent"}


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_a_log_that_was_left_in_its_pager_is_no_work(box: Box) -> None:
    box.type(
        f"cd {box.folder}; git init -q . && git -c user.name=a -c user.email=a@b commit -q --allow-empty -m x"
    )
    box.type("GIT_PAGER='less -+F' git log")
    until(lambda: box.runs("less"))
    assert {name: tool["kind"] for name, tool in box.tools(0.5).items()} == {"git": "job"}


def test_silent_programs_without_a_terminal_take_the_place_of_no_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """There is a limit of what is told."""
    many = [Seen(f"./daemon-{number}", pts=9) for number in range(2 * look.NOTES_MOST)]
    line = [Seen("sshd: u@notty", "sshd"), *many, Seen("pytest")]
    monkeypatch.setattr(look.Look, "_unknown", lambda self, one: "background")
    monkeypatch.setattr(look, "below", lambda one, apart=None: [one])
    found = kinds(monkeypatch, line)
    assert len(found) == look.NOTES_MOST
    assert found["pytest"] == "finite"


@pytest.mark.skipif(os.getuid() != 0, reason="another user needs root")
def test_a_quiet_script_that_has_left_its_terminal_is_seen(box: Box) -> None:
    path = box.program("left.sh", "#!/bin/sh\nwhile :; do sleep 0.3; done\n")
    box.folder.chmod(0o755)
    for folder in box.folder.parents[:3]:
        folder.chmod(folder.stat().st_mode | 0o055)
    start = f"import os; os.setuid(1000); os.execv({path!r}, [{path!r}])"
    box.type(f"(nohup setsid {sys.executable} -c {shlex.quote(start)} >/dev/null 2>&1 &)")

    def left() -> list[Process]:
        # A child of it is called so, too, until its exec.
        named = [one for one in processes().values() if one.name == "left.sh" and one.pid == one.group]
        return [one for one in named if path in machine.read(f"/proc/{one.pid}/cmdline")]

    until(left)
    (one,) = left()
    try:
        if one.parent != 1 or "service" in machine.read(f"/proc/{one.pid}/cgroup"):
            pytest.skip("what is left behind here is another's, or this test is a service")
        box.look()
        time.sleep(1.0)
        found = box.look()
        assert [tool["kind"] for tool in found["sample"]["tools"] if tool["id"] == one.id] == ["background"]
        assert ["left.sh", "runs something", True] in found["state"]["evidence"]
    finally:
        os.killpg(one.group, 9)


def test_a_command_of_exec_is_seen_below_the_relay_that_carries_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """As ``relay.sh`` starts it. What carries it is no work by itself."""
    assert '"$p" -I -S -c "$5" "$2"' in load("relay.sh")
    line = [sys.executable, "-I", "-S", "-c", load_program("relay_program"), "nonce"]
    with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as carrier:
        assert carrier.stdin is not None
        carrier.stdin.write(relay.request(["sleep", "100"], env={}, stdin=False))
        carrier.stdin.flush()
        until(lambda: [one.name for one in processes()[carrier.pid].children] == ["sleep"])
        known = processes()
        (child,) = known[carrier.pid].children
        known = {one.pid: one for one in (known[carrier.pid], child)}  # nobody else's on this machine
        try:
            known[carrier.pid].user = child.user = 1000
            monkeypatch.setattr(look, "processes", lambda: known)
            found = {tool["id"]: tool for tool in look.Look({}, RULES, CLOCK.wall()).sample()["tools"]}
            assert (found[child.id]["kind"], known[carrier.pid].id in found) == ("exec", False)
            assert abs(found[child.id]["since"] - CLOCK.wall()) < 60
        finally:
            os.kill(child.pid, 9)
            carrier.kill()


# Containers and cards --------------------------------------------------------------------------------------

ONE, TWO = "0123456789ab" + "c" * 52, "0123456789ab" + "d" * 52
LIBPOD = "0::/machine.slice/libpod-{}.scope/container"
POD = "0::/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod0d_1_2_3_123456789012.slice/cri-containerd-{}.scope"


@pytest.mark.parametrize(
    ("cgroup", "key"),
    [
        (f"0::/system.slice/docker-{ONE}.scope", ONE),
        (f"4:memory:/docker/{ONE}\n0::/docker/{ONE}", ONE),
        (f"0::/docker/{ONE}/system.slice/cron.service", ONE),
        (f"0::/docker/{ONE}/docker/{TWO}", TWO),
        (LIBPOD.format(ONE), ONE),
        (POD.format(ONE), ONE),
        (f"0::/system.slice/nerdctl-{ONE}.scope", ONE),
        (f"0::/user.slice/user-1000.slice/user@1000.service/user.slice/docker-{ONE}.scope", ONE),
        ("0::/lxc.payload.web/system.slice/cron.service", "web"),
        ("4:memory:/lxc/web", "web"),
        ("0::/docker/buildkit/xyz9", "xyz9"),
        ("0::/system.slice/docker.service", ""),
        ("0::/system.slice/containerd.service", ""),
        ("0::/user.slice/user-1000.slice/user@1000.service/app.slice/docker.service", ""),
        ("0::/system.slice/cron.service", ""),
    ],
)
def test_a_container_is_told_from_others_and_from_its_engine(cgroup: str, key: str) -> None:
    assert look._container(cgroup) == key


def test_containers_have_the_names_that_docker_gives_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read once for each. A name that two have, and what can not be read, is a number."""
    three, reads = "e" * 64, list[str]()
    texts = {ONE: '{"Name": "/db"}', TWO: '{"Name": "/db"}', three: "[" * 5000}

    def read(path: str, most: int = 0) -> str:
        reads.append(path)
        return texts.get(path.split("/")[-2], "")

    one = look.Look({}, RULES, CLOCK.wall())
    monkeypatch.setattr(look, "read", read)
    shares = {ONE: 0.9, TWO: 0.8, three: 0.1, "web": 0.04, **{f"idle{number}": 0.0 for number in range(90)}}
    found = one._named(shares)
    assert list(found.items())[:4] == [("db", 0.9), (TWO[:40], 0.8), ("e" * 12, 0.1), ("web", 0.04)]
    assert len(found) == look.NOTES_MOST
    assert one.counters["names"] == {ONE: "db", TWO: "db"}
    one.before = dict(one.counters)
    reads.clear()
    assert one._named({ONE: 0.9}) == {"db": 0.9}
    assert reads == []


@pytest.mark.parametrize(
    ("cards", "moved"), [({"ens5"}, 300), (set(), 6300)], ids=["on the instance", "in a container"]
)
def test_only_what_leaves_the_box_is_traffic(
    monkeypatch: pytest.MonkeyPatch, cards: set[str], moved: int
) -> None:
    sizes = {
        "lo": (9, 9),
        "ens5": (100, 200),
        "cni0": (1000, 2000),
        "lxdbr0": (1000, 2000),
        "docker0": (9, 9),
    }
    lines = [f"  {name}: {got} 1 0 0 0 0 0 0 {sent} 1 0 0 0 0 0 0" for name, (got, sent) in sizes.items()]
    one = look.Look({}, RULES, CLOCK.wall())
    one.fresh, one.before, one.processes = True, {"net": {"all": 0}}, {}
    monkeypatch.setattr(
        look, "read", lambda path, most=0: "\n".join(["", "", *lines]) if path == "/proc/net/dev" else ""
    )
    monkeypatch.setattr(os.path, "exists", lambda path: path.split("/")[4] in cards)
    assert one._net() == moved


def test_a_box_that_does_not_say_how_long_it_is_up_is_not_known_to_be_idle(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(machine, "read", lambda path, most=0: "")
    monkeypatch.setattr(look, "processes", dict)
    assert "uptime: /proc/uptime can not be read" in look.Look({}, RULES, CLOCK.wall()).sample()["missing"]


SILENT_GPU = "gpu: one that does not say how busy it is may be in use"


@pytest.mark.parametrize(
    ("use", "modes", "programs", "busy", "missing"),
    [
        ("0\n37", None, None, 37.0, []),
        ("[N/A]\n37", None, None, 37.0, []),
        ("[N/A]\n0", "Enabled\nDisabled", "", 0.0, []),
        ("[N/A]", "Enabled", "4711", 0.0, [SILENT_GPU]),
        ("[N/A]", "Enabled", None, 0.0, [SILENT_GPU]),
        ("[N/A]", None, "", 0.0, [SILENT_GPU]),
        ("[N/A]\n[N/A]", "Enabled", "", 0.0, [SILENT_GPU]),
        ("[Not Supported]", "[N/A]", "", 0.0, [SILENT_GPU]),
        ("[GPU is lost]", "Disabled", "", 0.0, [SILENT_GPU]),
        ("", None, None, None, ["gpu: nvidia-smi did not answer"]),
        (None, None, None, None, ["gpu: nvidia-smi did not answer"]),
    ],
)
def test_a_gpu_in_parts_that_no_program_has_opened_is_quiet(
    monkeypatch: pytest.MonkeyPatch,
    use: str | None,
    modes: str | None,
    programs: str | None,
    busy: float | None,
    missing: list[str],
) -> None:
    """With MIG, nvidia-smi says of a whole GPU that its utilization is not available."""
    one = look.Look({}, RULES, CLOCK.wall())
    answers = {"utilization.gpu": use, "mig.mode.current": modes, "pid": programs}
    monkeypatch.setattr(look, "said", lambda line, seconds=5.0: answers[line[1].partition("=")[2]])
    monkeypatch.setattr(os.path, "isdir", lambda path: True)
    monkeypatch.setattr(os, "listdir", lambda path: ["0000:00:1e.0"])
    assert one._gpu() == busy
    assert one.missing == missing


# Leases ----------------------------------------------------------------------------------------------------


def test_leases_hold_while_what_they_watch_is_so(box: Box) -> None:
    later, mark = CLOCK.wall() + 3600, box.folder / "mark"
    mark.touch()
    gone = subprocess.Popen(["true"])
    gone.wait()
    leases: list[dict[str, Any]] = [
        {"id": "plain", "why": "demo", "until": later},
        {"id": "over", "why": "demo", "until": CLOCK.wall() - 1},
        {"id": "endless", "why": "demo", "until": CLOCK.wall() + 1e9},
        {"id": "pid", "why": "p", "until": later, "pid": os.getpid()},
        {"id": "no-pid", "why": "p", "until": later, "pid": gone.pid},
        {"id": "while", "why": "w", "until": later, "command": f"test -e {mark}"},
        {"id": "hangs", "why": "w", "until": later, "command": "sleep 60"},
        {"id": "broken"},
    ]
    (box.home / ".devbox" / "leases").mkdir()
    own = {"id": "run-1", "why": "make", "until": later, "pid": os.getpid()}
    (box.home / ".devbox" / "leases" / "1.json").write_text(json.dumps(own))
    # A process of another life of the machine: its number may be anybody's now.
    old = own | {"id": "run-2", "boot": "00000000"}
    (box.home / ".devbox" / "leases" / "2.json").write_text(json.dumps(old))
    found = [one["id"] for one in box.look(leases=leases)["sample"]["leases"]]
    assert found == ["plain", "pid", "while", "hangs", "run-1"]
    mark.unlink()
    found = [one["id"] for one in box.look(leases=leases[:6])["sample"]["leases"]]
    assert found == ["plain", "pid", "run-1"]


def test_a_command_of_a_lease_that_hangs_is_ended_with_what_it_has_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is run once a minute."""
    monkeypatch.setattr(look, "COMMAND_LIMIT", 0.5)
    begun = tmp_path / "pid"
    assert look.Look({}, RULES, CLOCK.wall())._succeeds(f"sleep 1000 & echo $! >{begun}; wait")
    pid = int(begun.read_text())
    until(lambda: pid not in processes())


# The file --------------------------------------------------------------------------------------------------


def interpreters() -> list[str]:
    """Old Pythons that this machine happens to have."""
    found = [str(path) for path in Path.home().glob(".pyenv/versions/3.[6-9].*/bin/python3")]
    return [path for path in found if not subprocess.run([path, "-c", ""], check=False).returncode]


@pytest.mark.parametrize("python", [sys.executable, *interpreters()])
def test_looks_follow_each_other_on_each_python_and_cost_little(box: Box, python: str) -> None:
    first = box.look(python)
    assert first["state"]["verdict"] == "unknown" or first["state"]["evidence"][0][2]
    assert "no look in the time before" in [row[1] for row in first["state"]["evidence"]]
    time.sleep(1.0)
    second = box.look(python)
    assert "no look in the time before" not in [row[1] for row in second["state"]["evidence"]]
    assert 0.5 < second["sample"]["span"] < 30
    assert second["cost"] < 0.5  # seconds of processor time, on a loaded machine
    # The same sample means the same to the daemon.
    assert judge(first["state"], second["sample"])["verdict"] == second["state"]["verdict"]
    assert len(json.dumps(second)) < 64_000


def test_the_file_is_private_whole_and_made_anew_when_it_is_damaged(box: Box) -> None:
    box.look()
    path = box.state / "idle.json"
    assert path.stat().st_mode & 0o777 == 0o600
    for text in ("{", "[]", ""):
        path.write_text(text)
        assert box.look()["state"]["minutes"] in ("a", "u")
    assert not (box.state / "idle.json.new").exists()


@pytest.mark.skipif(os.getuid() != 0, reason="a machine of its own needs root")
def test_an_idle_machine_is_warned_and_nothing_is_powered_off_that_is_not_the_instance(box: Box) -> None:
    """In namespaces of its own nothing else runs: idle, a warning on the pane, and then the watchdog that is not allowed."""
    if subprocess.run(
        ["unshare", "-pfn", "--mount-proc", "true"], capture_output=True, check=False
    ).returncode:
        pytest.skip("no namespaces here")
    stub = box.folder / "bin"
    stub.mkdir()
    (stub / "systemctl").write_text(f"#!/bin/sh\necho $* >>{box.folder}/called\n")
    (stub / "systemctl").chmod(0o755)
    program = box.folder / "activity-x.py"
    program.write_text(load_program("activity"))
    rules = json.dumps({**RULES, "after": 2.0, "warn": 1.0, "instance": "i-0", "home": str(box.home)})
    script = f"""
    export PATH={stub}:$PATH
    tmux -S {box.folder}/inner -f /dev/null new-session -d sh
    pts=$(tmux -S {box.folder}/inner display-message -p '#{{pane_tty}}')
    touch -a -d '1 hour ago' $pts
    sleep 0.3
    run() {{ {sys.executable} -I {program} {box.folder}/inner-state "$@"; }}
    for n in 1 2 3 4 5 6; do run look '{rules}'; sleep 1.2; done
    run minute
    tmux -S {box.folder}/inner capture-pane -p
    tmux -S {box.folder}/inner kill-server
    """
    done = subprocess.run(
        ["unshare", "-pfn", "--mount-proc", "sh", "-c", script],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    looks = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert [look["state"]["verdict"] for look in looks[1:]] == ["idle"] * 5, done.stderr
    assert "stop" in [look["decision"]["do"] for look in looks]
    assert "this box stops in" in done.stdout
    called = (box.folder / "called").read_text() if (box.folder / "called").exists() else ""
    assert "poweroff" not in called


# Delivery --------------------------------------------------------------------------------------------------


def deliver(home: Path, *arguments: str) -> str:
    """As it arrives over a session."""
    line = ["sh", "-c", wrap(load_with_python("watch.sh"), *arguments)]
    environment = {"HOME": str(home), "PATH": os.environ["PATH"]}
    done = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=60, check=False)
    return done.stdout.strip()


def test_what_a_process_reads_and_writes_is_read_once_in_a_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """A box may run thousands of them, and the look counts as little as it can."""
    paths = list[str]()

    def read(path: str, most: int = 64 << 10) -> str:
        paths.append(path)
        return machine.read(path, most)

    monkeypatch.setattr(look, "read", read)
    sleeper = subprocess.Popen(["make", "-f", "-", "wait"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    try:
        assert sleeper.stdin is not None
        sleeper.stdin.write(b"wait:\n\t@sleep 60\n")
        sleeper.stdin.close()
        children: list[Any] = []
        while [one.name for one in children] != ["sleep"]:  # between its fork and its exec it is another make
            time.sleep(0.01)
            children = processes()[sleeper.pid].children
        found = look.Look({}, RULES, CLOCK.wall()).sample()
        # It is a tool, or below one: what runs these tests may be one itself.
        known, line = processes(), [sleeper.pid]
        while (parent := known.get(known[line[-1]].parent)) is not None:
            line.append(parent.pid)
        assert set(line) & {int(tool["id"].partition("-")[0]) for tool in found["tools"]}
        times = Counter(path for path in paths if path.endswith("/io"))
        assert [times[f"/proc/{pid}/io"] for pid in (sleeper.pid, children[0].pid)] == [1, 1]
    finally:
        for pid in (*(one.pid for one in children), sleeper.pid):
            os.kill(pid, 9)
        sleeper.wait()


def test_the_program_travels_once_and_a_machine_that_is_not_the_box_keeps_no_timer(tmp_path: Path) -> None:
    """A simulated box is somebody's laptop: nothing outlives the look there."""
    kept, text, rules = digest(activity.PROGRAM), packed(activity.PROGRAM), json.dumps(RULES)
    assert deliver(tmp_path, kept, "i-0123", rules, "") == "need"
    found = json.loads(deliver(tmp_path, kept, "i-0123", rules, text))
    assert found["state"]["verdict"] in ("unknown", "active")
    again = json.loads(deliver(tmp_path, kept, "i-0123", rules, ""))
    assert again["sample"]["span"] > 0
    assert sorted(path.name for path in (tmp_path / ".devbox" / "idle").iterdir()) == [
        f"activity-{kept[:16]}.py",
        "idle.json",
        "idle.lock",
    ]
    assert deliver(tmp_path, "0" * 64, "i-0123", rules, "") == "need"
    assert "problem" in deliver(tmp_path, kept, "i-0123", "{", "")


@pytest.mark.skipif(os.getuid() != 0, reason="a machine of its own needs root")
@pytest.mark.parametrize("has_systemd", [True, False])
def test_on_the_instance_a_timer_or_a_loop_looks_every_minute(tmp_path: Path, has_systemd: bool) -> None:
    if subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode:
        pytest.skip("no namespaces here")
    stub, log, kept = tmp_path / "bin", tmp_path / "log", tmp_path / "kept"
    stub.mkdir()
    kept.mkdir()
    (stub / "systemctl").write_text(f'#!/bin/sh\necho "$*" >>{log}\n[ "$1" != is-active ]\n')
    (stub / "systemctl").chmod(0o755)
    before = f"""
    mount -t tmpfs none /var/lib; mkdir -p /var/lib/cloud/data /etc/systemd/system; echo i-0123 >/var/lib/cloud/data/instance-id
    mount --bind {kept} /etc/systemd/system; mount -t tmpfs none /run; {"mkdir -p /run/systemd/system" if has_systemd else ""}
    trap 'cp -r /var/lib/devbox {tmp_path}/state' EXIT
    """
    path = f"{stub}:{os.environ['PATH']}"
    shell = before + '\n"$@"; exit'
    line = [
        "sh",
        "-c",
        wrap(
            load_with_python("watch.sh"),
            digest(activity.PROGRAM),
            "i-0123",
            json.dumps(RULES),
            packed(activity.PROGRAM),
        ),
    ]
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", shell, "sh", *line],
        env={"HOME": str(tmp_path), "PATH": path},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert json.loads(done.stdout)["state"], done.stderr
    if has_systemd:
        unit = (kept / "devbox-idle.service").read_text()
        assert f"/var/lib/devbox/activity-{digest(activity.PROGRAM)[:16]}.py /var/lib/devbox minute" in unit
        assert "enable --now --quiet devbox-idle.timer" in log.read_text()
        return
    pid = int((tmp_path / "state" / "loop.pid").read_text())
    try:
        assert "loop" in Path(f"/proc/{pid}/cmdline").read_text()
    finally:
        os.kill(pid, 9)


def watched(
    folder: Path, instance: str, given: dict[str, Any], aged: str, last: str = "idle"
) -> list[dict[str, Any]]:
    """What a machine that does nothing says, which looks, has its state aged, and is looked at by its watchdog.

    ``aged``: what is done to ``state``; ``last``: the verdict after that. What the watchdog has called is in the file ``kept``, with what follows in ``called``.
    """
    alone = ["unshare", "-pfnm", "--mount-proc"]
    if subprocess.run([*alone, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no namespaces here")
    stub, rules = folder / "bin", json.dumps(given)
    stub.mkdir()
    (stub / "systemctl").write_text(f"#!/bin/sh\necho systemctl $* >>{folder}/called\n")
    (stub / "systemctl").chmod(0o755)
    (folder / "program.py").write_text(load_program("activity"))
    age = (
        "import json, sys; path = sys.argv[1]; known = json.load(open(path)); state = known['state'];"
        f"{aged}; json.dump(known, open(path, 'w'))"
    )
    script = f"""
    export PATH={stub}:$PATH
    mount -t tmpfs none /var/lib; mkdir -p /var/lib/cloud/data; echo {instance} >/var/lib/cloud/data/instance-id
    run() {{ {sys.executable} -I {folder}/program.py {folder}/state "$@"; }}
    run look '{rules}'; sleep 1; run look '{rules}'
    {sys.executable} -c "{age}" {folder}/state/idle.json
    rm -f {folder}/called
    run minute
    cp {folder}/called {folder}/kept 2>/dev/null
    run look '{rules}'
    """
    done = subprocess.run(
        [*alone, "sh", "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    looks = [json.loads(line) for line in done.stdout.splitlines()]
    assert [look["state"]["verdict"] for look in looks[1:]] == ["idle", last], done.stderr
    return looks


DUE = {**RULES, "after": 300.0, "warn": 60.0, "instance": "i-0123"}
AGED = "state['idle_since'] -= 1200; state['warned'] = [state['at'] - 1000, 'idle']"


def hook(home: Path, name: str, text: str) -> None:
    path = home / ".config" / "devbox" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


@pytest.mark.skipif(os.getuid() != 0, reason="a machine of its own needs root")
@pytest.mark.parametrize("instance", ["i-0123", "i-9999"])
def test_the_watchdog_powers_off_the_instance_it_was_installed_for_and_no_other(
    tmp_path: Path, instance: str
) -> None:
    """Ten minutes after the deadline, with the user's hooks before it; the reason is kept for the next daemon."""
    hook(tmp_path, "pre-stop.d/10-save", f"echo hook >>{tmp_path}/called")
    looks = watched(tmp_path, instance, {**DUE, "home": str(tmp_path)}, AGED)
    called = (tmp_path / "called").read_text().splitlines() if (tmp_path / "called").exists() else []
    if instance == "i-0123":
        assert called[:2] == ["hook", "systemctl poweroff"]
        assert looks[-1]["stopped"]["why"].startswith("idle since 20 min")
    else:
        assert "systemctl poweroff" not in called
        assert looks[-1]["stopped"] is None


@pytest.mark.skipif(os.getuid() != 0, reason="only root can stop a box")
def test_a_watchdog_that_has_not_looked_is_none(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its timer may be active while each of its looks fails."""
    monkeypatch.setenv(ELSEWHERE, "127.0.0.1:9")
    stub = Path(box.program("systemctl", "#!/bin/sh\necho active\n")).parent
    monkeypatch.setenv("PATH", f"{stub}:{os.environ['PATH']}")
    has_begun = float(Path("/proc/uptime").read_text().split()[0]) < 200.0
    assert box.look()["timer"] is has_begun
    line = [sys.executable, "-I", "-c", load_program("activity"), str(box.state), "minute"]
    subprocess.run(line, timeout=60, check=True)
    assert box.look()["timer"]
    path = box.state / "idle.json"
    for moved, is_there in ((-100.0, True), (-160.0, has_begun), (60.0, has_begun)):
        known = json.loads(path.read_text())
        path.write_text(json.dumps(known | {"looped": CLOCK.wall() + moved}))
        assert box.look()["timer"] is is_there


@pytest.mark.skipif(os.getuid() != 0, reason="a machine of its own needs root")
@pytest.mark.parametrize("times", [0, 7, 8])
def test_the_watchdog_asks_the_hooks_that_may_keep_the_box(tmp_path: Path, times: int) -> None:
    """For half an hour, eight times in a row; nothing else is run for a box that stays."""
    hook(tmp_path, "may-stop.d/10-free", "exit 1")
    hook(tmp_path, "may-stop.d/20-queue", f"echo asked >>{tmp_path}/called; exit 75")
    hook(tmp_path, "pre-stop.d/10-save", f"echo hook >>{tmp_path}/called")
    kept = {"by": "x", "until": 1.0, "times": times}
    old = f"known['kept'] = dict({kept}, boot=state['boot']) if {times} else None"
    watched(tmp_path, "i-0123", {**DUE, "home": str(tmp_path)}, f"{AGED}; {old}")
    called = [line for line in (tmp_path / "kept").read_text().splitlines() if "is-active" not in line]
    known = json.loads((tmp_path / "state" / "idle.json").read_text())
    if times == 8:
        assert called == ["hook", "systemctl poweroff"]
        return
    assert called == ["asked"]
    assert (known["kept"]["by"], known["kept"]["times"]) == ("20-queue", times + 1)
    assert 1700.0 < known["kept"]["until"] - CLOCK.wall() <= 1800.0
    assert known["decision"]["at"] == known["kept"]["until"]
    assert known["decision"]["why"].endswith("; held by a hook")


@pytest.mark.skipif(os.getuid() != 0, reason="a machine of its own needs root")
@pytest.mark.parametrize(
    ("does", "last", "goes"),
    [
        ("until['state']['at'] -= 900", "idle", True),
        ("lease = {'id': 'l', 'why': 'w', 'until': time.time() + 900}", "active", False),
    ],
    ids=["its hooks took long", "a lease was taken meanwhile"],
)
def test_the_watchdog_looks_once_more_after_the_hooks(
    tmp_path: Path, does: str, last: str, goes: bool
) -> None:
    leases, idle = tmp_path / ".devbox" / "leases", tmp_path / "state" / "idle.json"
    leases.mkdir(parents=True)
    text = f"""
import json, time
lease, until = {{}}, json.load(open("{idle}"))
{does}
json.dump(until, open("{idle}", "w"))
json.dump(lease, open("{leases}/l.json", "w"))
"""
    (tmp_path / "hook.py").write_text(text)
    hook(
        tmp_path,
        "pre-stop.d/10-save",
        f"{sys.executable} {tmp_path}/hook.py && echo hook >>{tmp_path}/called",
    )
    watched(tmp_path, "i-0123", {**DUE, "home": str(tmp_path)}, AGED, last)
    called = [line for line in (tmp_path / "kept").read_text().splitlines() if "is-active" not in line]
    assert called == ["hook", *["systemctl poweroff"] * goes]


@pytest.mark.skipif(
    os.getuid() != 0 or shutil.which("runuser") is None, reason="only root can be somebody else"
)
def test_a_hook_that_may_keep_the_box_is_asked_as_the_user_whose_it_is() -> None:
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        home.chmod(0o755)
        hook(home, "may-stop.d/10-slow", "sleep 1000")
        hook(home, "may-stop.d/20-mine", f'[ "$(id -un) $PWD" != "nobody {home}" ] || exit 75')
        assert keeper(str(home), "nobody", 1.0) == ""  # nothing is left for the second
        (home / ".config/devbox/may-stop.d/10-slow").unlink()
        assert keeper(str(home), "nobody", 60.0) == "20-mine"
        assert keeper(str(home), "root", 60.0) == ""


@pytest.mark.skipif(os.getuid() != 0, reason="a machine of its own needs root")
@pytest.mark.parametrize("is_here", [True, False])
def test_the_watchdog_follows_the_lid_without_a_margin(tmp_path: Path, is_here: bool) -> None:
    """The laptop said that it is here, a quarter of an hour ago or just now."""
    rules = {**RULES, "after": 36000.0, "lid": 900.0, "instance": "i-0123", "home": str(tmp_path)}
    aged = (
        "state['idle_since'] -= 1200; state['warned'] = [state['at'] - 460, 'lid'];"
        "assert 'here' not in known['rules'];"
        f"state['here'] = {{name: [a - {0 if is_here else 905}, b - {0 if is_here else 905}]"
        " for name, (a, b) in state['here'].items()}"
    )
    looks = watched(tmp_path, "i-0123", rules | {"here": ["me@laptop/1", 450.0]}, aged)
    assert list(looks[-1]["state"]["here"]) == ["me@laptop/1"]
    called = (tmp_path / "kept").read_text() if (tmp_path / "kept").exists() else ""
    assert ("systemctl poweroff" in called) is not is_here
    if not is_here:
        assert looks[-1]["stopped"]["why"].startswith("no laptop was here for 15 min")


# Names -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("claude --continue", "agent"),
        ("node /usr/lib/node_modules/.bin/codex exec", "agent"),
        ("python3 -m pytest -x", "finite"),
        ("/usr/bin/python3 /home/u/.local/bin/pytest", "finite"),
        ("cargo build --release", "finite"),
        ("npm run dev", "server"),
        ("yarn test server", "finite"),
        ("node /w/node_modules/.bin/jest --watchAll", "server"),
        ("node /w/node_modules/.bin/jest", "finite"),
        ("tsc -w", "server"),
        ("node_modules/.bin/jest -w 4", "finite"),
        ("gcc -w -c a.c", "finite"),
        ("pytest server", "finite"),
        ("git push origin dev", "finite"),
        ("cargo test server", "finite"),
        ("cargo watch -x run", "server"),
        ("make serve", "server"),
        ("git fsmonitor--daemon run --detach", "server"),
        ("/w/node_modules/@esbuild/linux-x64/bin/esbuild --service=0.21.5 --ping", "server"),
        ("esbuild --bundle a.ts", "finite"),
        ("python -X dev -m pytest", "finite"),
        ("python -W error -W ignore -m pytest", "finite"),
        ("python3 -X importtime -W error -X dev -W ignore -X utf8 -m unittest", "finite"),
        ("python -X dev -c pytest", None),
        ("python3 /usr/bin/coverage run -m pytest", "finite"),
        ("python3 -m coverage run manage.py runserver", "server"),
        ("node --require ts-node/register /w/node_modules/.bin/mocha", "finite"),
        ("node -r x /usr/bin/codex", "agent"),
        ("bash -o pipefail ./gradlew build", "finite"),
        ("java -Xmx64m -classpath /w/gradle-wrapper.jar org.gradle.wrapper.GradleWrapperMain test", "finite"),
        ("java -Xmx64m -jar /w/gradle/wrapper/gradle-wrapper.jar build", "finite"),
        ("java -cp /m.jar org.codehaus.plexus.classworlds.launcher.Launcher install", "finite"),
        ("java -jar app.jar", None),
        ("/usr/lib/R/bin/exec/R --no-echo --no-restore --file=fit.R", "finite"),
        ("/usr/lib/R/bin/exec/R", None),
        ("bazel test //...", "finite"),
        ("buck2 build :x", "finite"),
        ("just all", "finite"),
        ("python3 /usr/bin/pre-commit run -a", "finite"),
        ("q chat", "agent"),
        ("kiro-cli chat", "agent"),
        ("scp -t /tmp", "transfer"),
        ("/usr/lib/openssh/sftp-server", "transfer"),
        ("python -m ipykernel_launcher -f x.json", "kernel"),
        ("python -m pdb a.py", "debugger"),
        ("gdb ./a.out", "debugger"),
        ("./a.out", None),
        ("python a.py", None),
        ("python -c pytest", None),
        ("", None),
    ],
)
def test_programs_are_known_by_name(line: str, kind: str | None) -> None:
    assert kind_of(line.split(), "x") == kind


def test_npm_writes_its_title_over_its_arguments() -> None:
    assert kind_of(["npm run dev"], "npm run dev") == "server"
    assert kind_of(["npm test"], "npm test") == "finite"


def test_a_line_of_proc_is_read_whatever_the_program_is_called() -> None:
    """Its name may hold blanks and brackets; numbers as in proc(5)."""
    one = Process(7, "7 (a) R 1 (x) S 3 7 7 34817 7 4194304 1 2 3 4 50 60 7 8 20 0 1 0 999 1 1")
    assert (one.name, one.parent, one.ticks, one.reaped, one.started, one.pts) == (
        "a) R 1 (x",
        3,
        110,
        15,
        999,
        1,
    )
    assert Process(7, "7 (a) S 3 7 7 0 -1 0 1 2 3 4 5 6 7 8 20 0 1 0 9 1 1").pts is None


@pytest.mark.parametrize(("word", "seen"), [("devbox-jobs", False), ("other", True)])
def test_our_own_question_for_the_end_of_a_job_is_no_work(box: Box, word: str, seen: bool) -> None:
    """It waits as long as the job runs, and others may have left it behind."""
    box.type(f"{sys.executable} -I -c 'import sys; exec(sys.argv[1])' 'while True: pass' x {word}")
    until(
        lambda: any(one.pts == box.pane() and one.name.startswith("python") for one in processes().values())
    )
    assert bool(box.tools()) is seen


@pytest.mark.parametrize(
    "known",
    [{"idle_since": 9e11}, {"at": 9e11}, {"here": {"me@laptop/1": [9e11, 9e11]}}, {"here": {"x": [1.0]}}],
)
def test_a_time_that_is_no_date_is_no_answer(known: dict[str, object]) -> None:
    """What is shown of it is written as a date, which ends with the year 9999."""
    fine = {**empty(), "verdict": "idle", "idle_since": 1.0, "at": 2.0, "here": {"me@laptop/1": [1.0, 2.0]}}
    assert activity.read(json.dumps({"state": fine})) is not None
    with pytest.raises(activity.CollectorFailed, match="does not say"):
        activity.read(json.dumps({"state": fine | known}))
