"""What runs on a box: on an old Python, without a library, and short enough to travel."""

from __future__ import annotations

import ast
import base64
import hashlib
import os
import shutil
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

from devboxd.boxside import relay
from devboxd.boxside.relay import RelayExit, RelayOutput, RelayReader
from devboxd.boxside.script import digest, load, load_program, packed

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "devboxd" / "boxside" / "programs"
NAMES = sorted(path.stem for path in FOLDER.glob("*.py"))
OLDEST = (3, 6)  # RHEL 8 and Amazon Linux's neighbours of that age

# Every name of the standard library that a program may use, all of them in 3.6 (its documentation says since when).
KNOWN = {
    "base64": {"b64decode", "b64encode"},
    "shlex": {"quote"},
    "shutil": {"rmtree", "which"},
    "collections": {"deque"},
    "glob": {"glob"},
    "errno": {
        "EPIPE",
        *(
            "EAGAIN",
            "EDQUOT",
            "EEXIST",
            "EHOSTUNREACH",
            "EINPROGRESS",
            "EIO",
            "ELOOP",
            "EMFILE",
            "EMLINK",
            "ENFILE",
            "ENOBUFS",
            "ENOENT",
            "ENOMEM",
            "ENOSPC",
            "ENOTDIR",
            "ENOTSUP",
            "ENXIO",
            "EPERM",
            "EXDEV",
        ),
        "errorcode",
    },
    "fcntl": {"LOCK_EX", "LOCK_NB", "LOCK_SH", "flock", "ioctl"},
    "hashlib": {"sha256"},
    "hmac": {"compare_digest", "new"},
    "json": {"dump", "dumps", "load", "loads"},
    "os": {
        *(
            "O_NOCTTY",
            "O_NONBLOCK",
            "O_RDONLY",
            "O_RDWR",
            "O_WRONLY",
            "X_OK",
            "access",
            "listdir",
            "readlink",
            "sysconf",
            "_exit",
            "chmod",
            "close",
            "devnull",
            "dup2",
            "environ",
            "execv",
            "fork",
            "getpid",
            "getuid",
        ),
        *(
            "O_CREAT",
            "WEXITSTATUS",
            "WIFEXITED",
            "WNOHANG",
            "WTERMSIG",
            "chdir",
            "getpgrp",
            "getsid",
            "isatty",
        ),
        *("PRIO_PROCESS", "setpriority"),
        *("getppid", "mkdir", "pathsep", "rmdir"),
        *("SEEK_DATA", "SEEK_HOLE", "fsencode", "lseek"),
        *("O_NOFOLLOW", "O_TRUNC", "SEEK_CUR", "chown", "execvp", "fdopen", "getxattr", "kill", "link"),
        *("O_DIRECTORY", "O_EXCL", "O_PATH", "dup", "fstat", "geteuid"),  # O_PATH: 3.4, the others older
        *("listxattr", "major", "minor", "mkfifo", "setxattr", "stat_result", "symlink", "sync", "utime"),
        *("killpg", "lstat", "makedirs", "open", "openpty", "path", "pipe", "read", "rename", "set_blocking"),
        *("setsid", "stat", "strerror", "tcgetpgrp", "umask", "unlink", "urandom", "waitpid", "write"),
    },
    "re": {"compile", "sub"},
    "resource": {"RLIMIT_NOFILE", "getrlimit", "setrlimit"},
    "select": {"select", "epoll", "EPOLLERR", "EPOLLHUP"},  # the latter three on Linux only: it asks
    "selectors": {"DefaultSelector", "EVENT_READ", "EVENT_WRITE"},
    "signal": {
        *("SIGCHLD", "SIGCONT", "SIGHUP", "SIGINT", "SIGPIPE", "SIGQUIT", "SIGTERM", "SIG_DFL", "SIG_IGN"),
        *("SIGKILL", "SIGWINCH", "set_wakeup_fd", "signal"),
    },
    "socket": {
        *(
            "AF_INET",
            "AF_INET6",
            "AF_UNIX",
            "IPPROTO_TCP",
            "SHUT_WR",
            "SOCK_STREAM",
            "SOL_SOCKET",
            "SO_ERROR",
        ),
        *(
            "SO_KEEPALIVE",
            "SOL_SOCKET",
            "AI_NUMERICHOST",
            "SO_LINGER",
            "SO_REUSEADDR",
            "TCP_NODELAY",
            "getaddrinfo",
            "inet_aton",
            "socket",
            "timeout",
        ),
    },
    "stat": {
        *("S_IFDIR", "S_IFIFO", "S_IFLNK", "S_IFMT", "S_IFREG", "S_IFSOCK", "S_IMODE", "S_ISDIR", "S_ISLNK"),
        "S_ISREG",
    },
    "struct": {"Struct", "pack", "unpack"},
    "subprocess": {"DEVNULL", "PIPE", "Popen", "STDOUT", "TimeoutExpired", "run"},
    "sys": {"argv", "executable", "exit", "stdin", "stdout"},
    "termios": {
        *(
            "ECHO",
            "ICANON",
            "ICRNL",
            "IEXTEN",
            "ISIG",
            "IXON",
            "TCSADRAIN",
            "TCSANOW",
            "TIOCGWINSZ",
            "TIOCSCTTY",
            "TIOCSWINSZ",
        ),
        *("tcgetattr", "tcsetattr"),
    },
    "threading": {"Thread"},
    "time": {"monotonic", "process_time", "sleep", "strftime", "time"},
    "tty": {"setraw"},
    "zlib": {"Z_SYNC_FLUSH", "compressobj", "crc32", "decompress"},
}
FROM = {"bisect", "collections", "collections.abc", "typing"}  # whose names are all old
# Bytes of what travels: these two go packed, on their own; the others share a document parameter with a command.
# That of jobs shares it with a command of 4,000 characters at most, that of panes with nothing: its request is its input,
# and that of rebase with a script and a short request.
LONGEST = {
    "bridgehead": 41_000,
    "activity": 40_000,
    "reclaim": 12_000,
    "jobs": 8_000,
    "panes": 7_000,
    "agents": 7_000,
    "agent_hook": 7_000,
    "rebase": 26_000,
}
NEW_BUILTINS = {"aiter", "anext", "ExceptionGroup", "BaseExceptionGroup", "EncodingWarning", "breakpoint"}


def parts(path: Path, seen: list[Path] | None = None) -> list[Path]:
    """A program, and all of ours that travels with it."""
    seen = [] if seen is None else seen
    if path not in seen:
        seen.append(path)
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("devboxd."):
                parts(ROOT / f"{str(node.module).replace('.', '/')}.py", seen)
    return seen


def source(name: str) -> str:
    return "\n".join(
        path.read_text("utf-8") for path in parts(FOLDER / f"{name}.py") if FOLDER in path.parents
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_program_travels_in_old_syntax(name: str) -> None:
    """A box is not asked whether it has a new Python; exec would end with a syntax error on its screen."""
    for text in (source(name), load_program(name)):
        tree = ast.parse(text, feature_version=OLDEST)
        imports = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert {one for one in imports if one and not one.startswith("devboxd.")} <= FROM
        # Formatted strings are old, but what may stand in them has changed since: no string inside a string.
        for node in ast.walk(tree):
            if isinstance(node, ast.FormattedValue):
                inside = [one for one in ast.walk(node.value) if isinstance(one, ast.Constant)]
                assert not any(isinstance(one.value, str) for one in inside)


@pytest.mark.parametrize("name", NAMES)
def test_a_program_needs_nothing_that_an_old_box_has_not(name: str) -> None:
    text = source(name)
    tree = ast.parse(text)
    modules = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    used = {
        (node.value.id, node.attr)
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules
    }
    assert {module for module, _ in used} == modules
    assert [one for one in sorted(used) if one[1] not in KNOWN.get(one[0], ())] == []
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    assert names & NEW_BUILTINS == set()
    assert "removeprefix" not in text


def test_what_travels_is_made_of_what_is_written() -> None:
    pytest.importorskip("python_minifier", reason="comes with the lint tools")
    line = [sys.executable, str(ROOT / "tools" / "programs.py"), "--check"]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", NAMES)
def test_the_parts_of_a_program_have_no_name_twice(name: str) -> None:
    """They travel as one text: the later of two functions of one name would take the place of the other."""
    defined = [
        node.name
        for path in parts(FOLDER / f"{name}.py")
        for node in ast.parse(path.read_text("utf-8")).body
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
    ]
    assert sorted(defined) == sorted(set(defined))


@pytest.mark.parametrize("name", NAMES)
def test_a_program_travels_with_each_import_once(name: str) -> None:
    """Each of its parts has its own."""
    found = [
        alias.name
        for node in ast.parse(load_program(name)).body
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    ]
    assert sorted(found) == sorted(set(found))
    assert "TYPE_CHECKING" not in found


@pytest.mark.parametrize("name", NAMES)
def test_what_travels_is_short(name: str) -> None:
    """It is seen in ps, and shares a document parameter with the command."""
    assert len(load_program(name)) < LONGEST.get(name, 4500)
    assert '"""' not in load_program(name)
    assert "#" not in load_program(name).replace("'#'", "").replace("#{", "")  # the latter is tmux's


def interpreters() -> list[str]:
    """Old Pythons that this machine happens to have."""
    found = [shutil.which(f"python3.{minor}") for minor in range(6, 11)]
    found += [str(path) for path in Path.home().glob(".pyenv/versions/3.[6-9].*/bin/python3")]
    return [path for path in found if path and works(path)]


def works(path: str) -> bool:
    return subprocess.run([path, "-c", ""], capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize("python", [sys.executable, *interpreters()], ids=lambda path: str(path))
def test_the_relay_runs_a_command_on_each_python(python: str) -> None:
    """Output, errors, input and status, on the oldest Python that is here as on ours."""
    argv = ["sh", "-c", "cat; echo bad >&2; exit 7"]
    done = subprocess.Popen(
        [python, "-I", "-S", "-c", load_program("relay_program"), "nonce"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "LC_ALL": "C"},
    )
    assert done.stdin is not None
    assert done.stdout is not None
    done.stdin.write(
        relay.request(argv, env={"A": "1"}, stdin=True) + relay.data(b"in\xff\n") + relay.END_OF_INPUT
    )
    done.stdin.flush()
    reader = RelayReader("nonce")
    reader.given = 1 << 20
    events: list[relay.RelayEvent] = []
    while not any(isinstance(event, RelayExit) for event in events):
        data = os.read(done.stdout.fileno(), 65536)
        assert data, events
        events += reader.feed(data)
    done.stdin.write(relay.taken(reader.seen))
    done.stdin.close()
    done.stdout.close()
    assert done.wait(10) == 0
    output = [event for event in events if isinstance(event, RelayOutput)]
    assert b"".join(event.data for event in output if not event.error) == b"in\xff\n"
    assert b"".join(event.data for event in output if event.error) == b"bad\n"
    assert RelayExit(7) in events


def test_scripts_are_found_with_what_they_share() -> None:
    assert load("relay.sh").startswith(load("common.sh", common=False))


@pytest.mark.parametrize("name", ["activity", "bridgehead"])
def test_a_program_travels_whole_and_is_packed_once(name: str) -> None:
    text = zlib.decompress(base64.b64decode(packed(name)))
    assert text.decode() == load_program(name)
    assert digest(name) == hashlib.sha256(text).hexdigest()
    assert packed(name) is packed(name)
    assert digest(name) is digest(name)
