"""devboxctl in surroundings that are not made for it: full disks, closed descriptors, other people's modules."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.ctl.conftest import ROOT
from tests.ctl.fake_daemon import OUTPUT, FakeDaemon, Peer
from tests.ctl.terminal import Tty

GPU = {"name": "büro", "id": "i-0a", "state": "running"}
RUN = [sys.executable, "-c", "from devboxctl.entry import main; main()"]


def boxes(daemon: FakeDaemon) -> None:
    def speaks(peer: Peer, _: FakeDaemon) -> None:
        peer.upgrade()
        peer.send(OUTPUT, b"output\n")
        peer.exit(status=0)

    daemon.streams["exec"] = speaks
    daemon.routes["GET boxes"] = {"boxes": [GPU]}
    daemon.routes["GET boxes/gpu"] = GPU


# Where it goes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        "ls",
        "ls --json",
        "show gpu",
        "exec gpu cat",
        "help",
        "--help",
        "version",
        "completion bash",
        "config path",
    ],
)
def test_a_full_disk_is_one_sentence_and_a_status(daemon: FakeDaemon, words: str) -> None:
    """A script that believes status 0 goes on with half a file."""
    boxes(daemon)
    done = subprocess.run(
        ["sh", "-c", '"$@" > /dev/full', "sh", *RUN, *words.split()],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.stderr == (
        '{"code": "output-failed", "message": "cannot write to standard output: No space left on device", '
        '"hint": null, "retryable": false, "version": 1}\n'
        if "--json" in words
        else "error: cannot write to standard output: No space left on device\n"
    )
    assert done.returncode == (255 if words.startswith("exec") else 1)


@pytest.mark.parametrize("words", ["ls", "ls --json", "show gpu", "exec gpu cat", "help", "version"])
def test_a_closed_output_is_one_sentence_and_a_status(daemon: FakeDaemon, words: str) -> None:
    """And what was to be printed must not go to the daemon, whose connection would get the number."""
    boxes(daemon)
    done = subprocess.run(
        ["sh", "-c", '"$@" >&-', "sh", *RUN, *words.split()],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert "standard output is closed" in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.returncode == (255 if words.startswith("exec") else 1)


def test_what_prints_nothing_needs_no_output(daemon: FakeDaemon) -> None:
    def silent(peer: Peer, _: FakeDaemon) -> None:
        peer.upgrade()
        peer.exit(status=3)

    daemon.streams["exec"] = silent
    done = subprocess.run(
        ["sh", "-c", '"$@" >&-', "sh", *RUN, "exec", "gpu", "true"], capture_output=True, check=False
    )
    assert (done.returncode, done.stderr) == (3, b"")


@pytest.mark.parametrize("closed", ["<&-", "2>&-", "<&- 2>&-", "<&- >/dev/null 2>&-"])
@pytest.mark.parametrize("words", ["ls", "exec gpu cat"])
def test_other_descriptors_may_be_closed(daemon: FakeDaemon, closed: str, words: str) -> None:
    """As cron and some editors start programs."""
    boxes(daemon)
    done = subprocess.run(
        ["sh", "-c", f'"$@" {closed}', "sh", *RUN, *words.split()],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    if ">" not in closed.replace("2>", ""):
        assert done.stdout


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "ascii:strict", "cp1252"])
@pytest.mark.parametrize("words", ["ls", "ls --json", "show gpu", "help"])
def test_an_output_that_cannot_spell_a_name_gets_the_rest(
    daemon: FakeDaemon, encoding: str, words: str
) -> None:
    daemon.routes["GET boxes"] = {"boxes": [GPU, {**GPU, "name": "会社"}]}
    daemon.routes["GET boxes/gpu"] = GPU
    done = subprocess.run(
        [*RUN, *words.split()],
        capture_output=True,
        check=False,
        env={**os.environ, "PYTHONIOENCODING": encoding},
    )
    assert (done.returncode, done.stderr) == (0, b"")
    text = done.stdout.decode(encoding.partition(":")[0])
    if words == "ls --json":
        assert [box["name"] for box in json.loads(text)["boxes"]] == ["büro", "会社"]
    elif words != "help":
        assert "ro\t" in text or "ro\n" in text


def test_a_locale_without_unicode_is_enough(daemon: FakeDaemon) -> None:
    boxes(daemon)
    done = subprocess.run(
        [*RUN, "ls"], capture_output=True, check=False, env={**os.environ, "LC_ALL": "POSIX"}
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"i-0a" in done.stdout


# What comes in ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ("cat", True),
        ("bash -l", True),
        ("/usr/bin/python3", True),
        ("touch x", False),
        ("wc -l", True),
        ("wc -l x", False),
        ("sh -c true", False),
        ("tr a b", True),
    ],
)
def test_a_command_that_would_read_the_terminal_is_explained(
    daemon: FakeDaemon, argv: str, said: bool
) -> None:
    """Without -t a terminal is not passed on: `exec gpu cat` ends at once, and one wonders."""

    def ends(peer: Peer, _: FakeDaemon) -> None:
        assert peer.request["stdin"] is False
        peer.upgrade()
        peer.exit(status=0)

    daemon.streams["exec"] = ends
    for flags, expected in ((["-n"], False), ([], said)):
        with Tty(["exec", *flags, "gpu", *argv.split()], os.environ) as tty:
            assert tty.wait() == 0
            assert (b"devboxctl exec -t" in tty.screen) is expected


# Whose Python -----------------------------------------------------------------------------------------

STRAY = (
    *("socket", "signal", "select", "json", "typing", "typer", "msgspec", "errno", "shlex", "enum", "re"),
    *("devboxd/__init__", "devboxctl/__init__", "rich/__init__", "subprocess", "stat"),
)


@pytest.fixture
def stray(tmp_path: Path) -> Path:
    """A project whose modules have the names of other people's."""
    folder = tmp_path / "src"
    for name in STRAY:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.py").write_text("raise SystemExit('a stray module was imported')\n")
    return folder


@pytest.mark.parametrize(
    "words", ["ls", "show gpu", "exec gpu cat", "version", "_complete bash 1 devboxctl l"]
)
@pytest.mark.parametrize(
    "more", [{}, {"PYTHONWARNINGS": "error"}, {"PYTHONOPTIMIZE": "2"}, {"PYTHONINSPECT": ""}]
)
def test_modules_of_a_project_are_not_ours(
    daemon: FakeDaemon, stray: Path, words: str, more: dict[str, str]
) -> None:
    """PYTHONPATH is set in many a project; its socket.py must not become the way to the daemon."""
    boxes(daemon)
    # As the console script does it: nothing of ours is on the path but site-packages, and the script's own folder.
    code = f"import sys; sys.path.append({str(ROOT)!r}); sys.path.insert(0, {str(stray)!r}); "
    code += f"import importlib.util as u; s = u.spec_from_file_location('e', {str(ROOT / 'devboxctl' / 'entry.py')!r}); "
    code += "m = u.module_from_spec(s); s.loader.exec_module(m); m.main()"
    path = {"PYTHONPATH": os.pathsep.join([str(stray), str(stray.parent)])}
    # enum, re and their like are imported by importlib.util before us; leave those that Python itself needs.
    for name in ("enum", "re", "typing", "errno", "stat"):
        (stray / f"{name}.py").unlink()
    done = subprocess.run(
        [sys.executable, "-c", code, *words.split()],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        cwd=stray,
        env={**os.environ, **path, **more},
    )
    assert "stray" not in done.stderr
    assert done.returncode == 0, done.stderr
    assert done.stdout


GONE = ["sh", "-c", 'rmdir "$1"; shift; exec "$@"', "sh"]


def in_a_folder_that_is_gone(tmp_path: Path, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    folder = tmp_path / "gone"
    folder.mkdir()
    run = [sys.executable, "-P", "-c", f"import sys; sys.path[:0] = [{str(ROOT)!r}, 'lib']; {RUN[2]}"]
    return subprocess.run(
        [*GONE, str(folder), *run, *words],
        capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, cwd=folder,
        env={**os.environ, **more},
    )  # fmt: skip


@pytest.mark.parametrize("words", ["ls", "show gpu", "exec gpu cat", "version", "forward ls"])
def test_a_current_folder_that_was_removed_does_not_hinder(
    daemon: FakeDaemon, tmp_path: Path, words: str
) -> None:
    boxes(daemon)
    daemon.routes["GET forwards"] = {"forwards": []}
    done = in_a_folder_that_is_gone(tmp_path, *words.split())
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr


@pytest.mark.parametrize("words", ["forward gpu ./a.sock:80", "forward gpu -R 80:./a.sock"])
def test_what_is_relative_to_a_folder_that_was_removed_is_one_sentence(
    daemon: FakeDaemon, tmp_path: Path, words: str
) -> None:
    boxes(daemon)
    done = in_a_folder_that_is_gone(tmp_path, *words.split())
    assert done.returncode == 2
    assert done.stderr.startswith("error: the current folder no longer exists\n")


def test_a_relative_socket_is_found_from_no_folder_that_was_removed(
    daemon: FakeDaemon, tmp_path: Path
) -> None:
    done = in_a_folder_that_is_gone(tmp_path, "ls", DEVBOX_SOCKET="run/devboxd.sock")
    assert "DEVBOX_SOCKET is relative to a folder that no longer exists" in done.stderr
    assert "Traceback" not in done.stderr
