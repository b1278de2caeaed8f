"""The user's hooks before a stop, run as the scripts of the daemon run them: by the user, one after the other."""

import os
import shutil
import signal
import subprocess
import time

HOOK_MOST = 60.0  # seconds for each
HOOKS_MOST = 16
TERM_WAIT = 2.0  # seconds that one may take to end when it is told to
HOOK_NAME_MOST = 60


def hooks_of(home: str, kind: str = "pre-stop.d") -> "list[str]":
    """Those that are there, in their order."""
    found = []
    for folder in ("/etc/devbox/" + kind, os.path.join(home, ".config/devbox", kind)):
        names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
        paths = [os.path.join(folder, name) for name in names]
        found += [path for path in paths if os.path.isfile(path) and os.access(path, os.X_OK)]
    return found[:HOOKS_MOST]


def run_hooks(home: str, user: str, seconds: float) -> "tuple[int, list[str]]":
    """Run them within so many seconds: how many were begun, and what is to be said of those that failed.

    Root runs them as ``user``, whose home that is; where it is empty, or we are not root, as ourselves.
    """
    end, begun, failed = time.monotonic() + seconds, 0, []
    for hook in hooks_of(home):
        name = os.path.basename(hook)[:HOOK_NAME_MOST]
        left = min(HOOK_MOST, end - time.monotonic())
        if left <= 0:
            failed.append(name + " was not begun")
            continue
        begun += 1
        problem = run_hook(hook, home, user, left)[1]
        if problem:
            failed.append(name + " " + problem)
    return begun, failed


def run_hook(hook: str, home: str, user: str, seconds: float) -> "tuple[int | None, str]":
    """Run one: its exit status, None where it has none, and what is to be said of it, where it failed."""
    argv, env = [hook], dict(os.environ, HOME=home)
    if os.getuid() == 0 and user not in ("", "root"):
        env.update(USER=user, LOGNAME=user)
        become = (
            ["runuser", "-u", user, "--"]
            if shutil.which("runuser")
            else ["sudo", "-n", "-E", "-u", user, "--"]
        )
        argv = become + argv
    try:
        status = ended(argv, seconds, home if os.path.isdir(home) else "/", env)
    except OSError as error:
        return None, "can not be run: " + os.strerror(error.errno or 0)
    if status is None:
        return None, "took longer than " + str(int(seconds)) + " s"
    return status, "exited with " + str(status) if status else ""


def ended(
    argv: "list[str]", seconds: float, folder: "str | None" = None, env: "dict[str, str] | None" = None
) -> "int | None":
    """Run a command: its exit status; None: it took longer, and was ended with what it had begun. Raises OSError."""
    null = subprocess.DEVNULL
    child = subprocess.Popen(
        argv, stdin=null, stdout=null, stderr=null, cwd=folder, env=env, start_new_session=True
    )
    try:
        return child.wait(seconds)
    except subprocess.TimeoutExpired:
        pass  # it has had its time
    for number, wait in ((signal.SIGTERM, TERM_WAIT), (signal.SIGKILL, TERM_WAIT)):
        try:
            os.killpg(child.pid, number)
            child.wait(wait)
            break
        except (OSError, subprocess.TimeoutExpired):
            continue
    return None
