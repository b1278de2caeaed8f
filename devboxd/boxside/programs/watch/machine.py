"""The machine: processes, terminals, which instance it is, and commands that may not hang."""

import os
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TERMINALS_MOST = 64
ANSWER_MOST = 64 << 10  # bytes of a command's output
ASSET_TAG = "/sys/devices/virtual/dmi/id/board_asset_tag"  # on Nitro: the id of the instance
CLOUD_ID = "/var/lib/cloud/data/instance-id"
TICK = os.sysconf("SC_CLK_TCK")

# What holds a person's terminal: the parent of the first program on it.
HUMAN = (
    "sshd",
    "sshd-session",
    "ssm-session-wor",
    "tmux: server",
    "zellij",
    "screen",
    "SCREEN",
    "mosh-server",
    "login",
    "code-server",
    *("openvscode-serv", "zed-remote-serv", "jupyter-lab", "jupyter-server", "jupyter-noteboo", "jupyterhub-sing", "rsession", "ttyd", "gotty"),
    *("etterminal", "dropbear", "tailscaled", "cockpit-bridge", "gnome-terminal-", "konsole", "xterm", "xfce4-terminal", "mate-terminal"),
    *("lxterminal", "kitty", "alacritty", "foot", "tilix", "ptyxis-agent", "wezterm-gui", "wezterm-mux-ser"),
)  # fmt: skip
# The same, in the command lines of interpreters: the terminals of VS Code and its kin, of JetBrains, of notebooks, in a browser; a box
# of the simulator; our own terminals in a bridge.
HOLDERS = (
    "ptyHost", "code-server", ".cache/JetBrains", "jupyter-lab", "jupyterlab", "jupyter-server", "jupyter_server", "wetty",
    "devboxd.simulator", "bridgehead-",
)  # fmt: skip
MUX_CLIENT = ("tmux: client", "zellij", "screen", "tmux")


def read(path: str, most: int = 64 << 10) -> str:
    """The text of a file, or nothing."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # what a user puts there may be a pipe
    except OSError:
        return ""
    try:
        parts = []
        while most > 0:
            part = os.read(descriptor, most)
            if not part:
                break
            parts.append(part)
            most -= len(part)
        return b"".join(parts).decode("utf-8", "replace")
    except OSError:
        return ""
    finally:
        os.close(descriptor)


def uptime() -> float:
    """Seconds since the boot; 0 where it can not be read."""
    return float((read("/proc/uptime").split() or ["0"])[0])


def said(command: "list[str]", seconds: float = 5.0) -> "str | None":
    """What a command prints; None where it is not there, fails, or takes too long."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=seconds,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout[:ANSWER_MOST].decode("utf-8", "replace").strip() if done.returncode == 0 else None


def is_instance(name: str) -> bool:
    """Whether this machine is that EC2 instance, and no other."""
    return bool(name) and name in (read(ASSET_TAG).strip(), read(CLOUD_ID).strip())


class Process:
    """One line of /proc."""

    def __init__(self, pid: int, stat: str) -> None:
        name, _, rest = stat.partition("(")[2].rpartition(")")
        fields = rest.split()
        self.pid = pid
        self.name = name
        self.state = fields[0]
        self.parent = int(fields[1])
        self.group = int(fields[2])
        self.session = int(fields[3])
        self.tty = int(fields[4])
        self.foreground = int(fields[5])
        self.ticks = int(fields[11]) + int(fields[12])
        self.reaped = int(fields[13]) + int(fields[14])
        self.started = int(fields[19])
        self.user = -1
        self.argv = []  # type: list[str]
        self.cgroup = ""
        self.io = None  # type: tuple[int, int] | None
        self.children = []  # type: list[Process]

    @property
    def id(self) -> str:
        """A name that no other process of this boot has."""
        return f"{self.pid}-{self.started}"

    @property
    def pts(self) -> "int | None":
        """The number of its pseudo-terminal (Unix98: majors 136 to 143)."""
        major = (self.tty >> 8) & 0xFFF
        return (
            (major - 136) * 256 + ((self.tty & 0xFF) | ((self.tty >> 12) & 0xFFF00))
            if 136 <= major <= 143
            else None
        )


def processes() -> "dict[int, Process]":
    """All that run, but threads of the kernel."""
    found = {}
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        stat = read("/proc/" + name + "/stat")
        try:
            one = Process(int(name), stat)
            one.user = os.stat("/proc/" + name).st_uid
        except (OSError, ValueError, IndexError):
            continue  # it has ended
        if one.pid != 2 and one.parent != 2 and one.state not in ("Z", "X"):
            found[one.pid] = one
    for one in found.values():
        if one.parent in found and one.parent != one.pid:
            found[one.parent].children.append(one)
    return found


def below(one: Process, apart: "Callable[[Process], bool] | None" = None) -> "Iterator[Process]":
    """A process and all below it, but for those that stand ``apart``, and what is below them."""
    waiting, seen = [one], set()  # type: list[Process], set[int]
    while waiting:
        at = waiting.pop()
        if at.pid not in seen and (at is one or apart is None or not apart(at)):
            seen.add(at.pid)
            waiting += at.children
            yield at


def _at_a_terminal(known: "dict[int, Process]") -> "Iterator[Process]":
    """The first program of each pseudo-terminal at which a person types: not of those that a program drives, and not of the
    outer one of a multiplexer.
    """
    for one in known.values():
        if one.pts is None or one.session != one.pid or not _is_human(known.get(one.parent)):
            continue
        # A terminal answers questions of the multiplexer at each reconnect: that is nobody's input.
        if not any(each.name in MUX_CLIENT for each in below(one)):
            yield one


def terminals(known: "dict[int, Process]") -> "list[int]":
    """Those of the machine itself. In those of a container, which may be made of anything, nobody but itself should write."""
    found = set()
    for one in _at_a_terminal(known):
        try:
            if os.stat(os.path.join(f"/proc/{one.pid}/root", "dev/pts")).st_dev != os.stat("/dev/pts").st_dev:
                continue
        except OSError:
            pass  # who may not look there sees the machine's own
        if one.pts is not None:
            found.add(one.pts)
    return sorted(found)[:TERMINALS_MOST]


def typed(known: "dict[int, Process]") -> "list[float]":
    """When somebody last typed at each terminal, also of containers."""
    found = [terminal(one) for one in _at_a_terminal(known)]
    return [one.st_atime for one in found if one is not None]


def terminal(one: Process) -> "os.stat_result | None":
    """What the system says of the terminal of a program; a container has its own, by numbers of its own."""
    for root in (f"/proc/{one.pid}/root", ""):
        try:
            return os.stat(f"{root}/dev/pts/{one.pts}")
        except OSError:
            continue
    return None


def _is_human(holder: "Process | None") -> bool:
    if holder is None or holder.pid == 1 or holder.name in HUMAN or holder.name.startswith("tmux"):
        return True
    words = read(f"/proc/{holder.pid}/cmdline").replace("\0", " ")
    return "ipykernel" not in words and any(word in words for word in HOLDERS)


def tell(numbers: "list[int]", text: str) -> int:
    """Write a line to terminals; returns how many took it."""
    line = ("\r\n*** devbox: " + "".join(c for c in text if " " <= c <= "~") + "\a\r\n").encode("ascii")
    told = 0
    for number in numbers:
        try:
            descriptor = os.open(f"/dev/pts/{number}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
        except OSError:
            continue
        try:
            told += os.write(descriptor, line) > 0
        except OSError:
            pass  # it takes nothing now
        finally:
            os.close(descriptor)
    return told
