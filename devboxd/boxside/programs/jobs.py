"""Commands that go on without us, in a window of tmux where there is tmux: begun, listed, read, waited for.

Python 3.6 and the standard library only. Arguments: this text itself, and a request (JSON); one line of JSON comes out.
As a file of its own it supervises a job (``FILE supervise ID``): the command has a terminal of its own, whose output goes to
the log and to the window. A job is a folder ``~/.devbox/jobs/ID``: ``job.json``, ``log.N``, ``lock`` (held while it is
supervised), ``status.json`` at its end, ``told`` when somebody was told of that. A note in ``~/.devbox/leases`` keeps the
box up while it runs.
"""

import base64
import fcntl
import hashlib
import json
import os
import select
import shlex
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
from typing import TYPE_CHECKING

from devboxd.boxside.programs.parts.lock import is_held
from devboxd.boxside.programs.parts.mux import call, find
from devboxd.boxside.programs.parts.note import load, save
from devboxd.boxside.programs.parts.terminal import show, some, take

if TYPE_CHECKING:
    from typing import Any

CHUNK = 2 << 20  # bytes of a part of a log; the last two parts are kept
KEPT = 50  # jobs that have ended
RUNNING_MOST = 16
LEASE = 72 * 3600.0  # seconds that a job may hold the box
READ_MOST = 32 << 10  # bytes of a log in one answer
FILE_MOST = 64 << 10  # bytes of a note of ours that are read
WAIT_MOST = 600.0  # seconds
POLL = 0.5
SHOWN = 120  # characters of a command that are told
BEGINS_WITHIN = 10.0  # seconds
POSIX = ("sh", "bash", "dash", "ksh", "zsh")
HOME = os.path.expanduser("~")
JOBS = os.path.join(HOME, ".devbox", "jobs")
LEASES = os.path.join(HOME, ".devbox", "leases")


class Refused(Exception):
    """It can not be done; the sentence says why."""


# A job ------------------------------------------------------------------------------------------------------


def supervise(name: str) -> None:
    """Run the command of a job to its end, in a terminal of its own."""
    folder = os.path.join(JOBS, name)
    lock = os.open(os.path.join(folder, "lock"), os.O_WRONLY | os.O_CREAT, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    job = load(os.path.join(folder, "job.json"), FILE_MOST)
    lease, now = os.path.join(LEASES, "job-" + name + ".json"), time.time()
    why = "job: " + " ".join(job["command"])[:100]
    with open("/proc/sys/kernel/random/boot_id") as file:
        boot = file.read().strip()[:8]
    save(lease, {"id": "job-" + name, "until": now + LEASE, "why": why, "pid": os.getpid(), "boot": boot})
    for each in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
        signal.signal(each, signal.SIG_IGN)  # a window that is closed ends no job by itself
    master, slave = os.openpty()
    if os.isatty(0):
        fcntl.ioctl(slave, termios.TIOCSWINSZ, fcntl.ioctl(0, termios.TIOCGWINSZ, b"\0" * 8))
    else:
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        os.environ["TERM"] = "dumb"
    child = os.fork()
    if child == 0:
        begin(slave, job["command"])
    os.close(slave)
    status = carry(master, child, folder)
    save(os.path.join(folder, "status.json"), {"status": status, "at": time.time()})
    os.unlink(lease)


def begin(slave: int, command: "list[str]") -> None:
    """In the child: become the command, on its own terminal. A login shell gives it the user's environment."""
    for each in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
        signal.signal(each, signal.SIG_DFL)
    take(slave)
    os.chdir(HOME)
    shell = os.environ.get("SHELL") or "/bin/sh"
    if os.path.basename(shell) not in POSIX or not os.access(shell, os.X_OK):
        shell = "/bin/sh"
    words = "exec " + " ".join(shlex.quote(word) for word in command)
    try:
        os.execv(shell, [shell, "-l", "-c", words])
    except OSError:
        os._exit(127)


def carry(master: int, child: int, folder: str) -> int:
    """Copy between the window and the command until it ends; its exit status."""
    attrs = termios.tcgetattr(0) if os.isatty(0) else None
    if attrs is not None:
        raw = termios.tcgetattr(0)
        raw[0] &= ~(termios.ICRNL | termios.IXON)
        raw[3] &= ~(termios.ECHO | termios.ICANON | termios.ISIG | termios.IEXTEN)
        termios.tcsetattr(0, termios.TCSANOW, raw)
    sources, written, ended = [master] + ([0] if attrs is not None else []), 0, None
    while True:
        ready = select.select(sources, [], [], 0.2)[0]
        if 0 in ready:
            keys = some(0)
            if not keys:
                sources.remove(0)  # the window is gone
            elif ended is None and select.select([], [master], [], 0)[1]:
                os.write(master, keys)  # a command that reads nothing loses keys, as on any terminal
        if master in ready:
            data = some(master)
            if data:
                written = log(folder, written, data)
                show(data)
            else:
                sources.remove(master)
        if ended is None:
            pid, found = os.waitpid(child, 0 if master not in sources else os.WNOHANG)
            ended = found if pid else None
        if ended is not None and master not in ready:
            break
    return os.WEXITSTATUS(ended) if os.WIFEXITED(ended) else 128 + os.WTERMSIG(ended)


def log(folder: str, written: int, data: bytes) -> int:
    """Add to the log: byte N of the output is in part N // CHUNK. Returns how much there is now."""
    while data:
        part = written // CHUNK
        piece = data[: (part + 1) * CHUNK - written]
        with open(os.path.join(folder, f"log.{part}"), "ab") as file:
            file.write(piece)
        written, data = written + len(piece), data[len(piece) :]
        old = os.path.join(folder, f"log.{part - 2}")
        if os.path.exists(old):
            os.unlink(old)
    return written


# What is asked ----------------------------------------------------------------------------------------------


def names() -> "list[str]":
    """Ids of all jobs, oldest first. What has no note has never begun."""
    found = []
    for name in os.listdir(JOBS):
        since = load(os.path.join(JOBS, name, "job.json"), FILE_MOST).get("since")
        if since is not None:
            found.append((since, name))
    return [name for _, name in sorted(found)]


def runs(name: str) -> bool:
    """Whether somebody supervises it."""
    return is_held(os.path.join(JOBS, name, "lock"))


def extent(name: str) -> "tuple[int, int]":
    """First byte of the output that is kept, and how many there were."""
    parts = {}
    for file in os.listdir(os.path.join(JOBS, name)):
        try:
            if file.startswith("log."):
                parts[int(file[4:])] = os.stat(os.path.join(JOBS, name, file)).st_size
        except FileNotFoundError:
            continue  # the supervisor has just taken it away
    if not parts:
        return 0, 0
    return min(parts) * CHUNK, max(parts) * CHUNK + parts[max(parts)]


def facts(name: str) -> "dict[str, Any]":
    """What is known of a job."""
    folder = os.path.join(JOBS, name)
    alive = runs(name)  # before its status: what ends in between has one
    job, end = (
        load(os.path.join(folder, "job.json"), FILE_MOST),
        load(os.path.join(folder, "status.json"), FILE_MOST),
    )
    return {
        "id": name,
        "command": " ".join(shlex.quote(str(word)) for word in job.get("command") or ())[:SHOWN],
        "since": job.get("since"),
        "window": job.get("window"),
        "runs": alive,
        "status": end.get("status"),
        "at": end.get("at"),
        "size": extent(name)[1],
    }


def run(asked: "dict[str, Any]", text: str) -> "dict[str, Any]":
    """Begin a job."""
    known = names()
    going = [name for name in known if runs(name)]
    if len(going) >= RUNNING_MOST:
        raise Refused(f"{len(going)} jobs run already")
    for name in [name for name in known if name not in going][:-KEPT]:
        shutil.rmtree(os.path.join(JOBS, name), ignore_errors=True)
    program = os.path.join(JOBS, "program-" + hashlib.sha256(text.encode()).hexdigest()[:16] + ".py")
    if not os.path.exists(program):
        with open(program + ".new", "w") as file:
            file.write(text)
        os.rename(program + ".new", program)
    name, path = asked["id"], find("tmux")
    folder = os.path.join(JOBS, name)
    os.mkdir(folder)
    window = asked["session"] + ":job-" + name if path else None
    try:
        save(
            os.path.join(folder, "job.json"),
            {"command": asked["command"], "since": time.time(), "window": window},
        )
        argv = [sys.executable, "-I", program, "supervise", name]
        if path:
            begin_window(path, asked["session"], "job-" + name, argv)
        else:
            null = subprocess.DEVNULL
            subprocess.Popen(argv, stdin=null, stdout=null, stderr=null, start_new_session=True)
        end = time.time() + BEGINS_WITHIN
        while not runs(name) and not os.path.exists(os.path.join(folder, "status.json")):
            if time.time() > end:
                raise Refused("the job did not begin")
            time.sleep(0.02)
    except (Refused, OSError):
        shutil.rmtree(
            folder, ignore_errors=True
        )  # or it is told as one that has ended; a late window ends itself
        raise
    return {"job": facts(name)}


def begin_window(path: str, session: str, name: str, argv: "list[str]") -> None:
    """A new window behind the others; a session where there is none."""
    if call([path, "has-session", "-t", "=" + session])[0] == 0:
        status, said = call([path, "new-window", "-d", "-t", "=" + session + ":", "-n", name, *argv])
    else:
        status, said = call([path, "-u", "new-session", "-d", "-s", session, "-n", name, *argv])
    if status:
        raise Refused("tmux: " + said.strip()[:200])


def read_log(asked: "dict[str, Any]") -> "dict[str, Any]":
    """A piece of the output: from ``offset``, or the last of it; waits until there is some, or the job has ended."""
    name = asked["id"]
    if name not in names():
        return {"missing": True}
    end = time.time() + min(float(asked.get("wait") or 0), WAIT_MOST)
    most, offset = min(int(asked["most"]), READ_MOST), asked.get("offset")
    while True:
        known = facts(name)
        first, size = extent(name)
        if offset is None or size > offset or not known["runs"] or time.time() >= end:
            break
        time.sleep(0.1)
    at = max(first, size - most) if offset is None else min(max(first, offset), size)
    data, begun = b"", at
    while at < size and len(data) < most:
        try:
            with open(os.path.join(JOBS, name, f"log.{at // CHUNK}"), "rb") as file:
                file.seek(at % CHUNK)
                piece = file.read(min(most - len(data), CHUNK - at % CHUNK))
        except OSError:
            piece = b""
        if not piece:
            break
        data, at = data + piece, at + len(piece)
    return {"job": known, "begun": begun, "next": at, "data": base64.b64encode(data).decode()}


def wait(asked: "dict[str, Any]") -> "dict[str, Any]":
    """Wait until a job has ended that nobody was told of, or nothing runs. ``told``: those that somebody was told of."""
    if os.getpid() != os.getsid(0) and os.getpgrp() != os.getpid():
        os.setsid()  # away from the terminal: nobody works here
    for name in asked.get("told") or ():
        if os.path.isdir(os.path.join(JOBS, name)):
            open(os.path.join(JOBS, name, "told"), "w").close()
    end = time.time() + min(float(asked.get("seconds") or 0), WAIT_MOST)
    while True:
        fresh = [name for name in names() if not os.path.exists(os.path.join(JOBS, name, "told"))]
        going = [name for name in fresh if runs(name)]
        ended = [name for name in fresh if name not in going]
        if ended or not going or time.time() >= end:
            return {"ended": [facts(name) for name in ended], "running": len(going)}
        time.sleep(POLL)


def main() -> None:
    """Answer a request, or supervise."""
    os.umask(0o077)
    if sys.argv[1] == "supervise":
        supervise(sys.argv[2])
        return
    asked = json.loads(sys.argv[2])
    for folder in (JOBS, LEASES):
        os.makedirs(folder, exist_ok=True)
    try:
        if asked["verb"] == "run":
            answer = run(asked, sys.argv[1])
        elif asked["verb"] == "jobs":
            answer = {"jobs": [facts(name) for name in names()]}
        elif asked["verb"] == "log":
            answer = read_log(asked)
        else:
            answer = wait(asked)
    except (Refused, OSError) as error:
        answer = {"problem": str(error)[:300]}
    line = json.dumps(answer, ensure_ascii=False).encode("utf-8", "replace")
    sys.stdout.buffer.write(line + b"\n")


main()
