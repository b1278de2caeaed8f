"""The scripts of the lifecycle, on this machine: hooks before a stop, the report of unsaved work, a larger disk."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from devboxd.boxside.script import load, load_with_python, wrap
from devboxd.model.unsaved import Unsaved, reported


def run(script: str, *arguments: str, home: Path, path: str | None = None) -> tuple[int, str]:
    """As it runs on a box: wrapped, by ``sh``."""
    done = subprocess.run(
        ["sh", "-c", wrap(load(script, common=False), *arguments)],
        env={"HOME": str(home), "PATH": path or os.environ["PATH"], "GIT_CONFIG_GLOBAL": "/dev/null"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout


def hook(home: Path, name: str, text: str, *, mode: int = 0o755) -> None:
    folder = home / ".config" / "devbox" / "pre-stop.d"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(mode)


# Before a stop


def test_hooks_run_in_order_and_one_that_fails_does_not_keep_the_others_from_running(tmp_path: Path) -> None:
    """Its name and status are what the user sees."""
    hook(tmp_path, "10-first", f"echo one >>{tmp_path}/log")
    hook(tmp_path, "20-fails", f"echo two >>{tmp_path}/log; exit 3")
    hook(tmp_path, "30-last", f"echo three >>{tmp_path}/log")
    hook(tmp_path, "40-no-program", f"echo four >>{tmp_path}/log", mode=0o644)
    status, said = run("before_stop.sh", "5", home=tmp_path)
    assert (tmp_path / "log").read_text().split() == ["one", "two", "three"]
    assert (status, said) == (3, "20-fails exited with 3\n")


def test_hooks_for_an_image_of_what_runs_are_others(tmp_path: Path) -> None:
    """What gets a box ready to stop may end what nobody starts again."""
    hook(tmp_path, "10-stop", f"echo stop >>{tmp_path}/log")
    live = tmp_path / ".config/devbox/pre-snapshot.d/10-live"
    live.parent.mkdir()
    live.write_text(f"#!/bin/sh\necho live >>{tmp_path}/log\n")
    live.chmod(0o755)
    assert run("before_stop.sh", "5", "pre-snapshot.d", home=tmp_path) == (0, "")
    assert (tmp_path / "log").read_text().split() == ["live"]
    assert run("before_stop.sh", "5", home=tmp_path) == (0, "")
    assert (tmp_path / "log").read_text().split() == ["live", "stop"]


def test_a_hook_has_its_time_and_no_more(tmp_path: Path) -> None:
    """A hanging hook must not keep a box running for ever."""
    hook(tmp_path, "10-hangs", "sleep 30")
    status, said = run("before_stop.sh", "1", home=tmp_path)
    assert (status, said) == (124, "10-hangs took longer than 1 s\n")


def test_a_box_without_hooks_is_ready_at_once(tmp_path: Path) -> None:
    assert run("before_stop.sh", "5", home=tmp_path) == (0, "")


# Unsaved work


def git(folder: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=u", "-c", "user.email=u@example.org", "-c", "init.defaultBranch=main"]
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


def repository(folder: Path, *, commits: int = 1) -> Path:
    folder.mkdir(parents=True)
    git(folder, "init")
    for number in range(commits):
        (folder / "file").write_text(str(number))
        git(folder, "add", ".")
        git(folder, "commit", "-m", str(number))
    return folder


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_work_that_is_nowhere_else_is_reported_and_nothing_else(tmp_path: Path) -> None:
    """Uncommitted files, commits on no remote, stashes; a clean clone is not worth a line."""
    origin = repository(tmp_path / "origin-elsewhere" / "deep" / "too" / "deep" / "for" / "us")
    git(tmp_path, "clone", str(origin), "clean")
    git(tmp_path, "clone", str(origin), "src/my work")
    work = tmp_path / "src" / "my work"
    (work / "new file").write_text("x")
    (work / "file").write_text("y")
    git(work, "commit", "-a", "-m", "mine")
    repository(tmp_path / "local", commits=2)
    (tmp_path / "clean" / "file").write_text("z")
    git(tmp_path / "clean", "stash")
    status, said = run("unsaved.sh", "100", home=tmp_path)
    assert status == 0
    assert sorted(reported(said), key=lambda one: one.path) == [
        Unsaved(str(tmp_path / "clean"), 0, 0, 1),
        Unsaved(str(tmp_path / "local"), 0, 2, 0),
        Unsaved(str(work), 1, 1, 0),
    ]
    assert str(reported(said)[0])


def test_a_box_without_git_has_nothing_to_report(tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("sh", "base64", "printf"):
        if found := shutil.which(name):
            (tools / name).symlink_to(found)
    assert run("unsaved.sh", "100", home=tmp_path, path=str(tools)) == (0, "")


def test_what_a_box_prints_besides_is_not_taken_for_a_report() -> None:
    """Its shell may greet, and it may be hostile."""
    text = "Welcome!\n/a\t1\t2\n/b\tx\t0\t0\n/c\x1b[31m\t1\t0\t0\n/d\t99999999999999\t0\t0\n"
    assert reported(text) == [Unsaved("/c [31m", 1, 0, 0)]


# A larger disk


def tools(folder: Path, **programs: str) -> str:
    """A PATH of programs that write down how they are called."""
    folder.mkdir()
    for name in ("sh", "base64", "printf", "head", "cat", "echo"):
        if found := shutil.which(name):
            (folder / name).symlink_to(found)
    for name, text in {"id": "echo 0", **programs}.items():
        (folder / name).write_text(f'#!/bin/sh\necho "{name} $*" >>{folder}/log\n{text}\n')
        (folder / name).chmod(stat.S_IRWXU)
    return str(folder)


@pytest.mark.parametrize(
    ("type_", "grows"),
    [("ext4", "resize2fs /dev/root1"), ("xfs", "xfs_growfs /"), ("btrfs", "btrfs filesystem resize max /")],
)
def test_the_file_system_grows_by_its_own_tool(tmp_path: Path, type_: str, grows: str) -> None:
    path = tools(
        tmp_path / "bin",
        findmnt=f'case "$*" in *FSTYPE*) echo {type_} ;; *) echo "/dev/root1[/@]" ;; esac',
        lsblk="echo",
        resize2fs=":",
        xfs_growfs=":",
        btrfs=":",
    )
    status, said = run("grow.sh", home=tmp_path, path=path)
    assert (status, said) == (0, "")
    assert grows in (tmp_path / "bin" / "log").read_text()


def test_what_can_not_grow_says_why(tmp_path: Path) -> None:
    path = tools(
        tmp_path / "bin",
        findmnt='case "$*" in *FSTYPE*) echo zfs ;; *) echo rpool ;; esac',
        lsblk="echo",
    )
    assert run("grow.sh", home=tmp_path, path=path) == (1, "a file system of type zfs can not be grown\n")


@pytest.mark.parametrize("name", ["run_python.sh", "jobs.sh", "watch.sh"])
@pytest.mark.parametrize(
    ("pythons", "said"),
    [
        ([], "python3 is not on the box"),
        (["exit 1"], "python3 on the box is older than 3.6, or does not run"),
        (["exit 1", "echo ran; exit 0"], "ran"),
    ],
)
def test_a_python_that_is_too_old_is_not_called_missing(
    tmp_path: Path, name: str, pythons: list[str], said: str
) -> None:
    paths = [tmp_path / f"python{number}" for number in range(len(pythons))]
    for path, text in zip(paths, pythons, strict=True):
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
    script = re.sub(
        r"for p in (?:[^;\\]|\\\n)*;", f"for p in {' '.join(map(str, paths))};", load_with_python(name)
    )
    assert "/usr/bin/python3" not in script
    done = subprocess.run(
        ["sh", "-c", script, "devbox", "program", "", "{}", ""],
        capture_output=True, text=True, check=False, env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
    )  # fmt: skip
    assert said in done.stdout, done.stderr
