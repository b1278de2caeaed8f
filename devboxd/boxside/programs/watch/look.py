"""One look at the machine: a sample as ``devboxd/model/idle.py`` takes it."""

import json
import os
import re
from typing import TYPE_CHECKING

from devboxd.boxside.programs.parts.agent_note import is_alive, notes_in
from devboxd.boxside.programs.parts.agent_told import told_of
from devboxd.boxside.programs.parts.hooks import ended
from devboxd.boxside.programs.watch.machine import (
    TICK,
    Process,
    below,
    processes,
    read,
    said,
    terminal,
    typed,
    uptime,
)
from devboxd.boxside.programs.watch.names import (
    EDITORS,
    IDES,
    NEVER,
    PAGERS,
    SHELLS,
    UPDATES,
    is_runner,
    kind_of,
    tests,
)
from devboxd.model.idle import GPU_LEAST

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

GRAIN = 8.0  # seconds: the times of terminals are rounded so
OLDEST = 72 * 3600.0  # seconds that a note of a program may claim
NOTES_MOST = 64
AGENTS_MOST = 16  # of which the answer tells all that they say
COMMAND_LIMIT = 5.0  # seconds that the command of a lease may take
CONTAINERS = ("docker", "containerd", "libpod", "kubepods", "lxc", "nerdctl")
NUMBER = re.compile("[0-9a-f]{12,64}")
LXC = re.compile(r"/lxc(?:\.payload\.|/)([^/]+)")
DOCKER = "/var/lib/docker/containers"
OURS = (["devbox-jobs"], ["devbox-reclaim"])  # last words of programs of the daemon
SESSIONS = ("user.slice", "amazon-ssm-agent", "session-", "user@", "/run-")  # the last: what systemd-run runs
CARRIES = ("sudo", "su")  # what is between a shell and what it runs
CLOCKS = ("cron", "crond", "atd")
SETTLED = 60.0  # seconds after which what a clock has started is more than a short look at something


class Look:
    """``counters`` are those of the look before, and then of this one."""

    def __init__(self, counters: "dict[str, Any]", rules: "dict[str, Any]", now: float) -> None:
        self.before, self.rules, self.now = counters, rules, now
        self.boot = read("/proc/sys/kernel/random/boot_id").strip()[:8]
        self.fresh = counters.get("boot") == self.boot and counters.get("at", now) < now
        self.span = now - counters["at"] if self.fresh else 0.0
        self.missing = []  # type: list[str]
        self.processes = processes()
        self.own = set(self._own())
        self.hosts, self.carriers = self._hosts()
        self.up = uptime()
        if not self.up:
            self.missing.append("uptime: /proc/uptime can not be read")
        self.listening = None  # type: set[str] | None
        self.agents = None  # type: list[dict[str, Any]] | None
        self.notes = self._agents()
        self.counters = {"at": now, "boot": self.boot, "told": counters.get("told") if self.fresh else None}  # type: dict[str, Any]

    def sample(self) -> "dict[str, Any]":
        """All of it. What can not be seen is named in ``missing``."""
        ours = [one for one in self.processes.values() if self._is_user(one)]
        disk = {one.id: self._io(one)[0] for one in ours}
        self.counters["ticks"] = {one.id: one.ticks + one.reaped for one in ours}
        self.counters["io"] = disk
        tools, taken = self._tools(ours)
        containers = {}  # type: dict[str, float]
        cpu = 0.0
        for one in ours:
            if one.pid in taken or self._is_never(one):
                continue
            name = _container(one.cgroup)
            if name:
                containers[name] = containers.get(name, 0.0) + self._cpu(one)
            else:
                cpu += self._cpu(one)
        return {
            "at": self.now,
            "span": self.span,
            "boot": self.boot,
            "input": self._input(),
            "cpu": round(cpu, 4),
            "system": round(self._system(ours), 4),
            "gpu": self._gpu(),
            "net": self._net(),
            "disk": sum(self._delta("io", key, size) for key, size in disk.items()),
            "tools": tools,
            "containers": self._named(containers),
            "leases": self._leases(),
            "inhibitors": self._inhibitors(),
            "agents": self.agents,
            "missing": self.missing,
        }  # fmt: skip

    def _named(self, containers: "dict[str, float]") -> "dict[str, float]":
        """The shares of containers by the names that docker knows, or the first digits of their numbers; the busiest."""
        known, found = self.before.get("names") or {}, {}  # type: dict[str, str], dict[str, float]
        names = {}  # type: dict[str, str]
        self.counters["names"] = names
        for key, share in sorted(containers.items(), key=lambda one: -one[1])[:NOTES_MOST]:
            try:
                name = known.get(key) or json.loads(read(f"{DOCKER}/{key}/config.v2.json", 1 << 20))["Name"]
                names[key] = name = str(name).lstrip("/")[:40]
            except (ValueError, KeyError, TypeError, RecursionError):
                name = key[:12] if NUMBER.match(key) else key[:40]
            found[name if name not in found else key[:40]] = round(share, 4)
        return found

    # Processes

    def _is_user(self, one: Process) -> bool:
        """Whether it is there because a person wanted it: nothing of the system, and not ourselves."""
        if one.pid in self.own or (one.name.startswith("python") and _argv(one)[-1:] in OURS):
            return False
        one.cgroup = read(f"/proc/{one.pid}/cgroup", 4096)
        if one.pid in self.notes or 1000 <= one.user < 65534 or _container(one.cgroup):
            pass
        elif one.pts is None and not any(word in one.cgroup for word in SESSIONS):
            # A service, or what was started at boot: a build is one all the same, if it is not the system's own.
            one.argv = _argv(one)
            return kind_of(one.argv, one.name) is not None and not self._is_system(one)
        one.argv = _argv(one)
        return True

    def _is_system(self, one: Process) -> bool:
        """Whether an update of the system, or its housekeeping, has started it."""
        at, seen = one, set()  # type: Process | None, set[int]
        while at is not None and at.pid not in seen:
            if at.name in UPDATES:
                return True
            seen.add(at.pid)
            at = self.processes.get(at.parent)
        return False

    def _system(self, ours: "list[Process]") -> float:
        """Share of a core that all other services take, but the system's own housekeeping."""
        known = {one.pid for one in ours} | self.own
        rest = [one for one in self.processes.values() if one.pid not in known and one.pid != 1]
        self.counters["system"] = {one.id: one.ticks for one in rest}
        took = sum(self._delta("system", one.id, one.ticks) for one in rest if not self._is_system(one))
        return took / TICK / self.span if self.span else 0.0

    def _own(self) -> "Iterator[int]":
        """Ourselves, and what the daemon started us with."""
        at = self.processes.get(os.getpid())
        while at is not None and at.pid > 1:
            words = read(f"/proc/{at.pid}/cmdline", 4096)
            if at.pid != os.getpid() and "activity-" not in words and at.name not in ("sudo", "timeout"):
                return
            yield at.pid
            at = self.processes.get(at.parent)

    def _hosts(self) -> "tuple[set[int], set[int]]":
        """Our own programs below which the commands of ``exec`` run, and what has started those."""
        hosts, carriers = set(), set()  # type: set[int], set[int]
        for one in self.processes.values():
            words = _argv(one) if one.name.startswith("python") else []
            if words[1:4] == ["-I", "-S", "-c"] or any("/bridgehead-" in word for word in words[1:4]):
                hosts.add(one.pid)
                at = one  # type: Process | None
                while at is not None and at.pid not in carriers:
                    carriers.add(at.pid)
                    at = self.processes.get(at.parent)
                    if at is not None and at.name not in SHELLS + CARRIES + ("runuser",):
                        break
        return hosts, carriers

    def _is_never(self, one: Process) -> bool:
        if one.pid in self.carriers or one.pid in self.own:
            return True
        return one.name in NEVER or _is_shell(one) or _is_editor(one)

    def _delta(self, table: str, key: str, value: int) -> int:
        """What was added since the last look; all of it for what is new."""
        if not self.fresh:
            return 0
        return max(0, value - int((self.before.get(table) or {}).get(key, 0)))

    def _cpu(self, one: Process) -> float:
        return self._delta("ticks", one.id, one.ticks + one.reaped) / TICK / self.span if self.span else 0.0

    def _io(self, one: Process) -> "tuple[int, int]":
        """Bytes from and to disks, and those of system calls: sockets and pipes, too. Read once in a look."""
        if one.io is None:
            found = {}
            for line in read(f"/proc/{one.pid}/io", 512).splitlines():
                name, _, value = line.partition(": ")
                if name in ("read_bytes", "write_bytes", "rchar", "wchar"):
                    found[name] = int(value)
            disk = found.get("read_bytes", 0) + found.get("write_bytes", 0)
            one.io = disk, found.get("rchar", 0) + found.get("wchar", 0)
        return one.io

    def _tools(self, ours: "list[Process]") -> "tuple[list[dict[str, Any]], set[int]]":
        """Programs known by name and jobs of terminals, each with what is below it; and the ids of all those processes."""
        found, taken = [], set()  # type: list[dict[str, Any]], set[int]
        self.counters["talk"] = {}
        editors = [one for one in ours if _is_editor(one) and one.name not in EDITORS]
        if editors:
            found.append(self._tool(editors[0], "editor", editors))
        for one in sorted(ours, key=lambda one: one.started):
            if self._is_never(one) and one.pid not in self.notes:
                continue
            kind = self._kind(one)
            if kind is None or (one.pid in taken and kind not in ("agent", "kernel", "transfer")):
                continue
            if kind == "finite":
                kind = self._finite(one, list(below(one)))
            # What a script has started is looked at by itself where it is known: a build of its own is a build.
            tree = list(below(one, self._is_known if kind in ("job", "exec", "background") else None))
            if kind in ("job", "exec", "background") and self._listens(tree):
                if kind != "job":
                    continue
                kind = "server"
            found.append(self._tool(one, kind, tree))
            if kind not in ("exec", "background"):  # whose processor time counts with that of all others, too
                # What an agent runs is looked at by itself, too; its signs of life are the agent's.
                taken.update(each.pid for each in ([one] if kind == "agent" else tree))
        # The silent ones that hold a box for a few minutes at most go first where there are too many.
        found.sort(key=lambda tool: (tool["kind"] in ("server", "background"), -tool["cpu"]))
        return found[:NOTES_MOST], taken

    def _kind(self, one: Process) -> "str | None":
        if one.pid in self.notes:
            return "agent"  # whatever it is called
        kind = kind_of(one.argv, one.name)
        if one.state == "t" and kind not in ("finite", "transfer"):
            return "debugger"
        return kind or self._unknown(one)

    def _unknown(self, one: Process) -> "str | None":
        """What a program that is not known by name is there for; None: it is part of something else, or serves the system.

        ``job``: a shell or a session of a terminal has started it; ``exec``: somebody waits for it; ``background``: it has
        no terminal, or has left it.
        """
        above = self.processes.get(one.parent)
        while above is not None and above.name in CARRIES:
            above = self.processes.get(above.parent)
        if one.pts is not None and (one.session == one.pid or (above is not None and _is_shell(above))):
            return "job"
        if above is not None and above.pid in self.hosts:
            return None if _is_ours(one) else "exec"
        if above is not None and _is_shell(above):
            above = self.processes.get(above.parent)  # atd gives its job to a shell
            if above is None or above.name != "atd":
                return None
        if above is None or above.pid == 1 or (above.name == "systemd" and "/run-" in one.cgroup):
            is_apart = one.pid == 1 or _is_service(one.cgroup) or _is_ours(one) or self._is_system(one)
            return None if is_apart else "background"
        settled = above.name in CLOCKS and self.up - one.started / TICK >= SETTLED
        return "background" if settled or above.name in ("sshd", "sshd-session") else None

    def _finite(self, one: Process, tree: "list[Process]") -> str:
        """What a program that ends by itself is for now, by what runs below it.

        ``job``: it waits for a person in a pager, an editor or a shell, or for an agent; ``server``: it only runs one.
        """
        if one.pts is not None and all(_waits(each) for each in tree if not each.children):
            return "job"
        rest = [each for each in tree if each is not one]
        found = [kind_of(each.argv, each.name) for each in rest if not is_runner(each.argv, each.name)]
        if not is_runner(one.argv, one.name) or "finite" in found or any(tests(each.argv) for each in rest):
            return "finite"
        if self._listens(tree):
            return "server"
        return "job" if "agent" in found or any(each.pid in self.notes for each in rest) else "finite"

    def _is_known(self, one: Process) -> bool:
        return one.pid in self.notes or kind_of(one.argv, one.name) is not None

    def _tool(self, one: Process, kind: str, tree: "list[Process]") -> "dict[str, Any]":
        cpu = sum(self._cpu(each) for each in tree)
        talked = sum(self._io(each)[1] for each in tree)  # since each began
        self.counters["talk"][one.id] = talked
        was = (self.before.get("talk") or {}).get(one.id)
        born = self.up - self.span
        youngest = max([each.started for each in tree if each is not one] or [0])
        state = self.notes.get(one.pid) or {}
        return {
            "id": one.id,
            "name": os.path.basename(_word(one))[:40],
            "kind": kind,
            "cpu": round(cpu, 4),
            "io": max(0, talked - was) if was is not None and self.fresh else 0,
            "tty": self._prints(one),
            "child": any(each is not one and each.started / TICK > born for each in tree) and bool(self.span),
            "state": state.get("state"),
            "since": self.now - self.up + one.started / TICK if kind == "exec" else state.get("since"),
            "born": self.now - self.up + youngest / TICK if youngest else None,
        }

    def _prints(self, one: Process) -> bool:
        """Whether something was written to its terminal while it was in front, and not by us."""
        if one.pts is None or one.foreground != one.group or not self.span:
            return False
        found = terminal(one)
        if found is None:
            return False
        told = self.counters["told"]
        written = found.st_mtime
        return written > self.now - self.span and not (told is not None and abs(written - told) <= GRAIN)

    def _listens(self, tree: "list[Process]") -> bool:
        if self.listening is None:
            self.listening = set()
            for table in ("/proc/net/tcp", "/proc/net/tcp6"):
                for line in read(table, 1 << 20).splitlines()[1:]:
                    fields = line.split()
                    if len(fields) > 9 and fields[3] == "0A":
                        self.listening.add(f"socket:[{fields[9]}]")
        for one in tree:
            folder = f"/proc/{one.pid}/fd"
            try:
                for name in os.listdir(folder):
                    if os.readlink(folder + "/" + name) in self.listening:
                        return True
            except OSError:
                continue
        return False

    # The rest

    def _input(self) -> "float | None":
        ages = [self.now - at for at in typed(self.processes)]
        return max(0.0, min(ages)) if ages else None

    def _gpu(self) -> "float | None":
        if not os.path.isdir("/proc/driver/nvidia/gpus") or not os.listdir("/proc/driver/nvidia/gpus"):
            return None
        lines = _nvidia("--query-gpu=utilization.gpu", "nounits")
        if not lines:
            self.missing.append("gpu: nvidia-smi did not answer")
            return None
        busy = max([float(line) for line in lines if line.isdecimal()] or [0.0])
        if busy < GPU_LEAST and not all(line.isdecimal() for line in lines):
            # One in parts (MIG) does not tell how busy it is; nothing works on it where no program has opened it.
            modes = _nvidia("--query-gpu=mig.mode.current") or []
            told = [line.isdecimal() or mode == "Enabled" for line, mode in zip(lines, modes)]
            if len(told) != len(lines) or not all(told) or _nvidia("--query-compute-apps=pid") != []:
                self.missing.append("gpu: one that does not say how busy it is may be in use")
        return busy

    def _net(self) -> int:
        lines = read("/proc/net/dev").splitlines()[2:]
        if not lines:
            self.missing.append("net: /proc/net/dev can not be read")
        moved = {}  # type: dict[str, int]
        for line in lines:
            name, _, numbers = line.partition(":")
            fields = numbers.split()
            moved[name.strip()] = int(fields[0]) + int(fields[8])
        # What goes between containers goes over no card; a box that has none is in a container itself.
        cards = [name for name in moved if os.path.exists(f"/sys/class/net/{name}/device")]
        others = [name for name in moved if not name.startswith(("lo", "veth", "br-", "docker", "virbr"))]
        total = sum(moved[name] for name in cards or others)
        self.counters["net"] = {"all": total}
        updates = [
            one
            for one in self.processes.values()
            if one.name in UPDATES and one.user == 0 and one.pts is None
        ]
        moving = {one.id: one.ticks + one.reaped for one in updates}
        self.counters["updates"] = moving
        if any(self._delta("updates", key, ticks) > TICK // 10 for key, ticks in moving.items()):
            return 0  # what an update of the system fetches is nobody's work
        return self._delta("net", "all", total)

    def _leases(self) -> "list[dict[str, Any]]":
        """Those of the daemon, and those of programs on the box; one that watches something only while that is so."""
        found = []
        for lease in list(self.rules.get("leases") or ()) + list(self._notes("leases")):
            try:
                until = float(lease["until"])
                if not self.now < until <= self.now + OLDEST + 60.0:
                    continue
                if lease.get("boot") not in (None, self.boot):
                    continue  # its process was of another life of the machine
                if lease.get("pid") is not None and not os.path.isdir("/proc/" + str(int(lease["pid"]))):
                    continue
            except (KeyError, TypeError, ValueError, OverflowError):
                continue
            if lease.get("command") is not None and not self._succeeds(str(lease["command"])):
                continue
            found.append(
                {"id": str(lease.get("id"))[:40], "why": str(lease.get("why"))[:120], "until": until}
            )
        return found[:NOTES_MOST]

    def _succeeds(self, command: str) -> bool:
        """Run the command of a lease as the box's user; one that does not end counts as one that holds."""
        argv = ["sh", "-c", command]
        user = str(self.rules.get("user") or "")
        if os.getuid() == 0 and user not in ("", "root"):
            argv = ["sudo", "-n", "-u", user, "--", *argv]
        try:
            return not ended(argv, COMMAND_LIMIT)
        except OSError:
            return False

    def _agents(self) -> "dict[int, dict[str, Any]]":
        """What the hooks of coding agents have written, by process."""
        found = {}
        for home in self._homes():
            if os.path.isdir(os.path.join(home, ".devbox", "agents")):
                self.agents = []
        for note in self._notes("agents"):
            told = told_of(note)
            if told is None:
                continue
            one = self.processes.get(told["pid"])
            name = told["name"] or (one.name if one is not None else "agent")
            known = dict(told, name=name, alive=is_alive(note))
            if self.agents is not None and len(self.agents) < AGENTS_MOST:
                self.agents.append(known)
            if known["alive"]:
                found[known["pid"]] = known
        return found

    def _notes(self, folder: str) -> "Iterator[dict[str, Any]]":
        """Small JSON files of programs in their users' ~/.devbox."""
        for home in self._homes():
            for _, note in notes_in(os.path.join(home, ".devbox", folder), NOTES_MOST):
                yield note

    def _homes(self) -> "set[str]":
        """Where programs leave notes."""
        return {home for home in (str(self.rules.get("home") or ""), os.path.expanduser("~")) if home}

    def _inhibitors(self) -> "list[str]":
        found = []
        folder = "/run/systemd/inhibit"
        for name in sorted(os.listdir(folder))[:NOTES_MOST] if os.path.isdir(folder) else ():
            fields = dict(
                line.partition("=")[::2] for line in read(os.path.join(folder, name), 2048).splitlines()
            )
            what = fields.get("WHAT", "").split(":")
            if fields.get("MODE") == "block" and ("shutdown" in what or "idle" in what):
                found.append((fields.get("WHO", "?") + ": " + fields.get("WHY", "?"))[:120])
        return found


def _nvidia(query: str, form: str = "") -> "list[str] | None":
    """The lines of an answer of nvidia-smi; None: there was none."""
    answer = said(["nvidia-smi", query, "--format=csv,noheader" + (form and "," + form)])
    return None if answer is None else [line.strip() for line in answer.splitlines()]


def _argv(one: Process) -> "list[str]":
    return [word for word in read(f"/proc/{one.pid}/cmdline", 4096).split("\0") if word]


def _is_ours(one: Process) -> bool:
    """Whether it is a program or a script of devbox itself."""
    words = read(f"/proc/{one.pid}/cmdline", 1 << 20).split("\0")
    return (
        words[3:4] == ["devbox"]
        or words[1:3] == ["-I", "-c"]
        or any("/activity-" in word for word in words[1:4])
    )


def _is_service(cgroup: str) -> bool:
    """Whether systemd runs it as a service, for a user or the system; not what a session or cron has left behind."""
    for line in cgroup.splitlines():
        unit = line.rpartition("/")[2]
        if unit.endswith(".service") and not unit.startswith("run-"):
            return not any(word in unit for word in ("ssm-agent", "ssh", "cron", "atd."))
    return False


def _word(one: Process) -> str:
    """What a person would call it: the script behind an interpreter."""
    base = os.path.basename(one.argv[0]) if one.argv else one.name
    if base.startswith(("python", "node", "ruby", "perl", "java")) or base in ("sh", "bash", "env"):
        rest = [word for word in one.argv[1:] if not word.startswith("-")]
        return rest[0] if rest else base
    return base or one.name


def _is_shell(one: Process) -> bool:
    """Whether a person could type into it: a shell that runs a script is a program as any other."""
    if one.name not in SHELLS:
        return False
    words = one.argv or _argv(one)
    return all(word.startswith("-") and not word.startswith("-c") for word in words[1:])


def _waits(one: Process) -> bool:
    """Whether a program of a terminal waits for what a person types."""
    if one.pts is None or not _is_shell(one):
        return one.name in PAGERS or one.name in EDITORS
    try:
        return os.readlink(f"/proc/{one.pid}/fd/0").startswith("/dev/pts/")
    except OSError:
        return False


def _is_editor(one: Process) -> bool:
    words = " ".join(one.argv[:4])
    return one.name in EDITORS or any(word in words for word in IDES)


def _container(cgroup: str) -> str:
    """The key of the container that a process is in: the name or number in its path. The engine itself is in none."""
    for line in cgroup.splitlines():
        path = line.rpartition(":")[2]
        if any(word in path for word in CONTAINERS):
            named, last = LXC.search(path), path.rpartition("/")[2]
            if named is not None:
                return named.group(1)
            numbers = NUMBER.findall(path)
            if numbers or not last.endswith(".service"):
                return str(numbers[-1]) if numbers else last or "?"
    return ""
