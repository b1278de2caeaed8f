"""Somebody who swaps folders and files while root copies homes gets nothing read or written elsewhere.

Each call of the system is a moment to do so: the copying is run once for each of them, and each time one thing is
swapped right before one call.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from devboxd.boxside.programs.moving import copy as moving
from devboxd.boxside.programs.moving.copy import BESIDE, Copy
from devboxd.boxside.programs.moving.folders import CHANGED, opened
from devboxd.boxside.programs.moving.oldroot import old_lines
from devboxd.boxside.programs.moving.system import System
from devboxd.boxside.rebase import program

ROOT_ONLY = pytest.mark.skipif(os.getuid() != 0, reason="only root may give files away")
ANN = 1234 if os.getuid() == 0 else os.getuid()
CALLS = (
    *("open", "stat", "mkdir", "makedirs", "mkfifo", "symlink", "link", "rename", "unlink"),
    *(
        "chown",
        "chmod",
        "utime",
        "setxattr",
        "getxattr",
        "listxattr",
        "listdir",
        "readlink",
        "close",
        "lseek",
    ),
)
OLD = 10**18
FAR = 4e9  # seconds: nothing is newer


class Same:
    """Users that have the same ids here and there."""

    uids: dict[int, int] = {}  # noqa: RUF012
    gids: dict[int, int] = {}  # noqa: RUF012


class World:
    """A system, an old root, and what is none of the user's business, with the same names in it."""

    def __init__(self, folder: Path, victim: Path) -> None:
        self.root, self.old, self.victim = folder / "new", folder / "old", victim
        self.home, self.source = self.root / "home/me", self.old / "home/me"

    def make(self) -> World:
        (self.root / "var/lib/devbox/rebase").mkdir(parents=True)
        for each in (self.source, self.home):
            (each / "a/b/c").mkdir(parents=True)
            (each / "a/same").write_text("alike")
        fill(self.source / "a", "of the old root")
        for name in ("b/file", "b/c/file"):
            (self.source / "a" / name).write_text("of the old root")
        os.link(self.source / "a/file", self.source / "a/b/again")
        (self.source / "kind").mkdir()
        (self.home / "kind").write_text("in the way")
        (self.home / "a/b/file").write_text("in the way, too")
        give(self.source)
        give(self.home)
        return self

    def copy(self, first: float = 0.0) -> Copy:
        system, kept = System(str(self.root)), str(self.root / "var/lib/devbox/rebase/replaced-t")
        return Copy(system, Same(), str(self.old), kept, lambda files, count: None, first)  # type: ignore[arg-type]


def fill(folder: Path, text: str) -> None:
    (folder / "file").write_text(text)
    os.utime(folder / "file", ns=(OLD, OLD))
    (folder / "link").symlink_to("nowhere")
    os.mkfifo(folder / "pipe")
    folder.chmod(0o751)


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """Whoever is led here finds the names that he looks for."""
    top = tmp_path / "victim"
    for name in ("a/b/c", "b/c", "c", "kind", "me/a"):
        (top / name).mkdir(parents=True)
    for folder in (top, top / "a", top / "b", top / "a/b", top / "me"):
        fill(folder, "a secret")
        (folder / "same").write_text("alike")
    return top


def give(folder: Path) -> None:
    for top, folders, files in os.walk(folder):
        for name in (*folders, *files, ""):
            os.chown(
                os.path.join(top, name), ANN, ANN if os.getuid() == 0 else os.getgid(), follow_symlinks=False
            )


def told(folder: Path) -> dict[str, tuple[Any, ...]]:
    """All of a tree that may not be changed, times of access and what is told by links that others make apart."""
    found = {}
    for top, folders, files in os.walk(folder):
        for name in (".", *folders, *files):
            path = os.path.join(top, name)
            at = os.lstat(path)
            text = b""
            if stat.S_ISREG(at.st_mode):
                text = Path(path).read_bytes()
            elif stat.S_ISLNK(at.st_mode):
                text = os.fsencode(os.readlink(path))
            found[path] = (at.st_mode, at.st_uid, at.st_gid, at.st_mtime_ns, at.st_ino, text)
    return found


def leaked(folder: Path, victim: dict[str, tuple[Any, ...]]) -> list[str]:
    """What has the text of the victim in it, and is not a name of the victim's own that the user made."""
    inodes = {entry[4] for entry in victim.values()}
    return [path for path, entry in told(folder).items() if b"secret" in entry[5] and entry[4] not in inodes]


def swap_folder(folder: Path, to: Path) -> Callable[[], None] | None:
    """A link takes the place of a folder, or of one that is not there yet. Returns how to undo it."""
    away = folder.with_name(folder.name + "-away")
    if not folder.parent.is_dir() or folder.is_symlink():
        return None
    was_there = os.path.lexists(folder)
    if was_there:
        os.rename(folder, away)
    folder.symlink_to(to)

    def undo() -> None:
        folder.unlink()
        if was_there:
            os.rename(away, folder)

    return undo


def swap_files(folder: Path, to: Path, *names: str, hard: bool = False) -> None:
    """Links of either kind take the place of files."""
    for name in names:
        file = folder / name
        if not file.parent.is_dir() or file.is_symlink():
            continue
        if os.path.lexists(file):
            os.rename(file, file.with_name(file.name + "-away"))
        if hard:
            os.link(to / file.name, file, follow_symlinks=False)
        else:
            file.symlink_to(to / "file")


def lift(folder: Path, to: Path) -> None:
    """A folder goes elsewhere, with whoever is in it."""
    if folder.is_dir() and not folder.is_symlink():
        os.rename(folder, to / "lifted")


class Moments:
    """Counts the calls of the system, and does something before one of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count, self.at = 0, -1
        self.act: Callable[[], object] = lambda: None
        self.names: frozenset[str] = frozenset()
        self._named: list[int] = []
        self._is_ours = False
        for name in CALLS:
            monkeypatch.setattr(os, name, partial(self._call, getattr(os, name)))

    def _call(self, real: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if not self._is_ours and self.at >= 0:
            self.count += 1
            if any(isinstance(each, str) and each in self.names for each in args):
                self._named.append(self.count)
            if self.count == self.at:
                with self:
                    self.act()
        return real(*args, **kwargs)

    def of(self, world: World, first: int, *names: str) -> list[int]:
        """Which of the calls of a copying that nobody disturbs are tried: those that have one of the names, and some."""
        self.names, self._named = frozenset(names), []
        with self:
            world.make()
        self.count, self.at, self.act = 0, 1 << 30, lambda: None
        copy = world.copy()
        copy.home("/home/me")
        copy.compare("/home/me", FAR)
        calls, self.at = self.count, -1
        assert copy.failed == {}
        assert calls > 200
        shutil.rmtree(world.root.parent)
        return sorted({*self._named, *range(1 + first, calls + 1, EVERY)})

    def __enter__(self) -> None:
        self._is_ours = True

    def __exit__(self, *_: object) -> None:
        self._is_ours = False


@pytest.fixture
def moments(monkeypatch: pytest.MonkeyPatch) -> Moments:
    return Moments(monkeypatch)


def swaps(world: World) -> dict[str, Callable[[], object]]:
    home, source, victim = world.home, world.source, world.victim
    files = ("a/file", "a/same", "a/pipe", "a/link", "a/b/again")
    return {
        "a folder here": partial(swap_folder, home / "a", victim / "a"),
        "a folder further down": partial(swap_folder, home / "a/b", victim),
        "the last folder": partial(swap_folder, home / "a/b/c", victim),
        "a folder that was none": partial(swap_folder, home / "kind", victim / "kind"),
        "files, for links": partial(swap_files, home, victim, *files[:2], "a/pipe", "a/b/file"),
        "files, for files": partial(
            swap_files, home, victim, "a/file", "a/same", "a/pipe", "a/b/file", hard=True
        ),
        "links and pipes": partial(swap_files, home / "a", victim, "link", "pipe", hard=True),
        "a file in the making": partial(swap_files, home, victim, "a/b/file" + BESIDE, "a/file" + BESIDE),
        "where a folder is": partial(lift, home / "a/b", home),
        "a folder there": partial(swap_folder, source / "a", victim / "a"),
        "a folder further down there": partial(swap_folder, source / "a/b", victim),
        "the home there": partial(swap_folder, source, victim),
        "the folder of homes there": partial(swap_folder, source.parent, victim),
        "files there": partial(swap_files, source, victim, *files),
    }


EVERY = 12
NAMED = {  # what else is tried each time: the calls with the name of what is swapped
    "a folder here": ["a"],
    "a folder further down": ["b"],
    "the last folder": ["c"],
    "a folder that was none": ["kind"],
    "files, for files": ["same"],
    "links and pipes": ["link", "pipe"],
    "a file in the making": ["file" + BESIDE],
    "a folder there": ["a"],
    "the home there": ["me"],
    "the folder of homes there": ["home"],
    "files there": ["link"],
}


@pytest.mark.parametrize("first", [0, *(pytest.param(n, marks=pytest.mark.heavy) for n in range(1, EVERY))])
@pytest.mark.parametrize(("number", "what"), list(enumerate(swaps(World(Path(), Path())))))
def test_whatever_is_swapped_at_any_moment_nothing_elsewhere_is_read_or_changed(
    tmp_path: Path,
    victim: Path,
    monkeypatch: pytest.MonkeyPatch,
    moments: Moments,
    number: int,
    what: str,
    first: int,
) -> None:
    """Before each call of the system, and before every twelfth where there is no time for more."""
    monkeypatch.setattr(moving, "HELD_MOST", 1 + number % 2 * 39)
    before = told(victim)
    for at in moments.of(World(tmp_path / "w", victim), (number + first) % EVERY, *NAMED.get(what, ())):
        with moments:
            world = World(tmp_path / "w", victim).make()
        moments.count, moments.at, moments.act = 0, at, swaps(world)[what]
        copy = world.copy()
        copy.home("/home/me")
        copy.compare("/home/me", FAR)
        moments.at = -1
        assert told(victim) == before, f"before call {at}"
        assert leaked(world.root, before) == [], f"before call {at}"
        shutil.rmtree(tmp_path / "w")


@pytest.mark.parametrize(("name", "held"), [("a", 1), ("a/b", 40), ("a/b/c", 1), ("kind", 40)])
def test_what_is_swapped_and_put_back_is_copied_or_said_not_to_be(
    tmp_path: Path, victim: Path, monkeypatch: pytest.MonkeyPatch, moments: Moments, name: str, held: int
) -> None:
    """Between a look at a folder and what is done in it."""
    monkeypatch.setattr(moving, "HELD_MOST", held)
    before = told(victim)
    whole = 0
    for at in moments.of(World(tmp_path / "w", victim), 0, os.path.basename(name)):
        with moments:
            world = World(tmp_path / "w", victim).make()
        undone: list[Callable[[], None]] = []

        def act(world: World = world, undone: list[Callable[[], None]] = undone) -> None:
            if undone:
                undone.pop()()
                return
            undo = swap_folder(world.home / name, victim)
            if undo is not None:
                undone.append(undo)
                moments.at += 1 + moments.count % 3

        moments.count, moments.at, moments.act = 0, at, act
        copy = world.copy()
        copy.home("/home/me")
        copy.compare("/home/me", FAR)
        moments.at = -1
        assert told(victim) == before, f"before call {at}"
        if not copy.failed and not undone:
            whole += 1
            for path in world.source.rglob("file"):
                there = world.home / path.relative_to(world.source)
                assert there.read_bytes() == path.read_bytes(), f"before call {at}"
        shutil.rmtree(tmp_path / "w")
    assert whole > 5


# One by one -------------------------------------------------------------------------------------------------


@pytest.fixture
def world(tmp_path: Path, victim: Path) -> World:
    return World(tmp_path / "w", victim).make()


def test_a_folder_that_was_moved_is_not_left_for_the_one_that_it_is_in_now(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Folders far above are found again from below, and that is somewhere else by now."""
    monkeypatch.setattr(moving, "HELD_MOST", 1)
    (world.source / "a/z").write_text("comes after b")
    elsewhere = world.root / "elsewhere"
    elsewhere.mkdir()
    real = os.listdir

    def listdir(at: int) -> list[str]:
        if (world.home / "a/b/c").exists() and os.fstat(at).st_ino == (world.source / "a/b/c").stat().st_ino:
            os.rename(world.home / "a/b", elsewhere / "b")
        return real(at)

    monkeypatch.setattr(os, "listdir", listdir)
    copy = world.copy()
    copy.home("/home/me")
    assert copy.failed == {f"{world.home}/a/b": CHANGED}
    assert real(elsewhere) == ["b"]


def test_a_folder_that_was_moved_is_left_by_the_way_it_was_entered(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody is at work meanwhile: the rest is copied all the same."""
    real = os.listdir

    def listdir(at: int) -> list[str]:
        if (world.home / "a/b/c").exists() and os.fstat(at).st_ino == (world.source / "a/b/c").stat().st_ino:
            os.rename(world.home / "a/b", world.root / "b")
        return real(at)

    monkeypatch.setattr(os, "listdir", listdir)
    copy = world.copy()
    copy.home("/home/me")
    assert copy.failed == {}
    assert (world.home / "a/file").read_text() == "of the old root"
    copy.compare("/home/me", FAR)
    assert copy.failed == {f"{world.home}/a/b": "it is not there"}


@ROOT_ONLY
@pytest.mark.parametrize("mode", [0o4755, 0o644])
def test_what_only_looks_like_a_file_of_root_is_not_made_one(world: World, mode: int) -> None:
    """Size and time are easily made so. What is in it would be run by others as what root has put there."""
    for file in (world.source / "tool", world.home / "tool"):
        file.write_text("the tool" if file.parent == world.source else "my trick")
        os.chmod(file, mode)
        os.utime(file, ns=(OLD, OLD))
    os.chown(world.home / "tool", ANN, ANN)
    os.chown(world.source / "tool", 0, 0)
    os.chmod(world.source / "tool", mode)
    copy = world.copy()
    copy.home("/home/me")
    here = (world.home / "tool").stat()
    assert (copy.failed, (world.home / "tool").read_text()) == ({}, "the tool")
    assert (here.st_uid, stat.S_IMODE(here.st_mode)) == (0, mode)
    kept = world.root / "var/lib/devbox/rebase/replaced-t/home/me/tool"
    assert (kept.read_text(), kept.stat().st_uid) == ("my trick", ANN)


@ROOT_ONLY
def test_a_link_is_followed_only_where_nobody_but_root_can_have_put_it(world: World, victim: Path) -> None:
    """An image may have its homes elsewhere; and the home of one user may be in that of another."""
    os.rename(world.root / "home", world.root / "var/home")
    (world.root / "home").symlink_to("var/home")
    copy = world.copy()
    copy.home("/home/me")
    assert copy.failed == {}
    assert (world.root / "var/home/me/a/file").read_text() == "of the old root"
    os.chown(world.root / "var/home/me", ANN, ANN)
    (world.source / "inner/file").mkdir(parents=True)
    (world.root / "home/me/inner").symlink_to(victim)
    before = told(victim)
    for owner in (ANN, 0):
        os.chown(world.root / "home/me/inner", owner, owner, follow_symlinks=False)
        copy = world.copy()
        copy.home("/home/me/inner/file")
        assert copy.failed == {f"{world.home}/inner/file": "a link in the way of it is not followed"}
    (world.root / "home/me/inner").unlink()
    (world.root / "home/me/inner").symlink_to("/../../../..")
    os.chown(world.root / "var/home/me", 0, 0)
    at, is_safe = opened(str(world.root), "/home/me/inner")
    assert (os.fstat(at).st_ino, is_safe) == (world.root.stat().st_ino, True)
    os.close(at)
    assert told(victim) == before


@ROOT_ONLY
def test_what_is_put_aside_goes_through_no_folder_of_a_user(world: World, victim: Path) -> None:
    """A folder that was put aside is still its owner's, who may have a link in it."""
    kept = world.root / "var/lib/devbox/rebase/replaced-t"
    (kept / "home/me/a").mkdir(parents=True)
    (kept / "home/me/a/b").symlink_to(victim)
    give(kept / "home/me/a")
    before = told(victim)
    copy = world.copy()
    copy.home("/home/me")
    assert copy.failed == {}
    assert told(victim) == before
    assert (kept / "home/me/a.1/b/file").read_text() == "in the way, too"
    assert copy.aside == {str(kept)}


def test_on_another_file_system_it_is_put_aside_beside_the_homes(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is copied and deleted for that: others would see to what."""
    real, own = os.rename, (world.root / "var").stat().st_ino

    def rename(name: str, to: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
        path = os.readlink(f"/proc/self/fd/{dst_dir_fd}")
        if "/var/lib/" in path:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        real(name, to, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

    monkeypatch.setattr(os, "rename", rename)
    copy = world.copy()
    copy.home("/home/me")
    aside = world.root / "home/.devbox-replaced-t"
    assert (copy.failed, copy.aside) == ({}, {str(aside)})
    assert (aside / "home/me/kind").read_text() == "in the way"
    assert (aside / "home/me/a/b/file").read_text() == "in the way, too"
    assert own == (world.root / "var").stat().st_ino


def test_another_file_in_the_place_of_one_of_several_names_is_not_taken_for_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its second name comes later."""
    real = os.listdir

    def listdir(at: int) -> list[str]:
        again = world.home / "a/b/again"
        if again.exists():
            again.rename(world.home / "away")
            again.write_text("of somebody else")
        return real(at)

    monkeypatch.setattr(os, "listdir", listdir)
    copy = world.copy()
    copy.home("/home/me")
    assert copy.failed == {}
    assert (world.home / "a/file").read_text() == "of the old root"
    assert (world.home / "a/b/again").read_text() == "of somebody else"


def test_what_a_try_that_was_killed_has_left_beside_a_file_is_not_written_through(world: World) -> None:
    """It may have been another name of the file already."""
    (world.home / "a/b/c/file").write_text("made here")
    os.link(world.home / "a/b/c/file", world.home / ("a/b/c/file" + BESIDE))
    copy = world.copy()
    copy.home("/home/me")
    assert copy.failed == {}
    assert (world.home / "a/b/c/file").read_text() == "of the old root"
    kept = world.root / "var/lib/devbox/rebase/replaced-t/home/me/a/b/c/file"
    assert kept.read_text() == "made here"
    assert not (world.home / ("a/b/c/file" + BESIDE)).exists()


def test_a_file_that_somebody_made_in_the_last_moment_is_not_written_over(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.link

    def link(source: str, name: str, **more: Any) -> None:
        if name == "file" and not (world.home / "a/b/c/file").exists():
            (world.home / "a/b/c/file").write_text("work of this moment")
        real(source, name, **more)

    monkeypatch.setattr(os, "link", link)
    copy = world.copy()
    copy.home("/home/me")
    assert copy.failed == {f"{world.home}/a/b/c/file": "File exists"}
    assert (world.home / "a/b/c/file").read_text() == "work of this moment"


def test_the_tables_of_the_old_root_are_read_through_no_link(world: World, victim: Path) -> None:
    (world.old / "etc").symlink_to(victim)
    assert old_lines(str(world.old), "etc/file") == []
    (world.old / "etc").unlink()
    (world.old / "etc").mkdir()
    (world.old / "etc/passwd").write_text("root\n")
    assert old_lines(str(world.old), "etc/passwd") == ["root"]


LEVELS = 3000
OF_ONE = b"d\xff\n"


@pytest.fixture
def deep(tmp_path: Path) -> Iterator[Path]:
    """A folder of tests that is deeper than a path may be long; pytest can not delete it."""
    yield tmp_path
    subprocess.run(["rm", "-rf", "--", str(tmp_path / "new")], check=True, timeout=60)


def bottom(top: Path, *, make: bool = False) -> int:
    at = os.open(top, os.O_RDONLY)
    for _ in range(LEVELS):
        if make:
            os.mkdir(OF_ONE, dir_fd=at)
        inner = os.open(OF_ONE, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=at)
        os.close(at)
        at = inner
    return at


def test_a_tree_that_is_deeper_than_a_path_may_be_long_comes_over_with_few_descriptors(deep: Path) -> None:
    root = deep / "new"
    line = f"root:x:{os.getuid()}:{os.getgid()}:Ann:/home/me:/bin/sh\n"
    for folder in ("etc", "home/me", "mnt/sdp/etc", "mnt/sdp/home/me", "var/lib/devbox/rebase"):
        (root / folder).mkdir(parents=True)
    for each in (root, root / "mnt/sdp"):
        (each / "etc/passwd").write_text(line)
        (each / "etc/group").write_text(f"root:x:{os.getgid()}:\n")
    at = bottom(root / "mnt/sdp/home/me", make=True)
    names = [b"file \xfe", b"again \xfe"]
    with open(os.open(names[0], os.O_WRONLY | os.O_CREAT, dir_fd=at), "wb") as file:
        file.write(b"deep down")
    os.link(names[0], names[1], src_dir_fd=at, dst_dir_fd=at)
    os.close(at)
    (root / "mnt/sdp/home/me/z").write_text("after it")
    asked = '{"verb": "copy", "volume": "vol-1", "device": "/dev/sdp", "token": "t"}'
    worker = root / "var/lib/devbox/rebase/program.py"
    worker.write_text(program())
    argv = ["sh", "-c", 'ulimit -n 128 && exec "$@"', "sh", sys.executable, "-I", str(worker), "work", asked]
    subprocess.run([*argv, str(root)], check=True, timeout=120)
    state = json.loads((root / "var/lib/devbox/rebase/state.json").read_text())
    assert state.get("problem") is None
    assert (state["done"], state["files"]) == (True, 2)
    at = bottom(root / "home/me")
    found = [os.stat(name, dir_fd=at) for name in names]
    with open(os.open(names[1], os.O_RDONLY, dir_fd=at), "rb") as file:
        assert file.read() == b"deep down"
    os.close(at)
    assert found[0].st_ino == found[1].st_ino
    assert (root / "home/me/z").read_text() == "after it"


@ROOT_ONLY
@pytest.mark.skipif(
    not all(map(shutil.which, ("losetup", "mkfs.ext4", "unshare"))), reason="wants programs for disks"
)
def test_no_volume_is_mounted_over_what_a_link_of_a_user_leads_to(
    world: World, victim: Path, tmp_path: Path
) -> None:
    """The folder is swapped when it was looked at, and before it is mounted."""
    image = tmp_path / "disk"
    with open(image, "wb") as file:
        file.truncate(16 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", str(image)], check=True, timeout=60)
    made = subprocess.run(
        ["losetup", "-f", "--show", str(image)], capture_output=True, text=True, timeout=60, check=False
    )
    if made.returncode:
        pytest.skip(f"no loop device: {made.stderr.strip()}")
    loop = made.stdout.strip()
    text = f"""
import os, sys
from devboxd.boxside.programs.moving import mounts
from devboxd.boxside.programs.moving.system import System, call
def swapped(*argv, **more):
    os.rename({str(world.home / "data")!r}, {str(world.home / "away")!r})
    os.symlink({str(victim)!r}, {str(world.home / "data")!r})
    return call(*argv, **more)
mounts.call = swapped
print(repr(mounts.mounting(System(""), {loop!r}, {str(world.home / "data")!r}, "ext4", "noatime,nofail")))
print([line.split()[1] for line in open("/proc/self/mounts") if line.split()[0] == {loop!r}])
"""
    own = 'mount --make-rprivate / || exit 77; exec "$@"'
    try:
        found = subprocess.run(
            ["unshare", "-m", "sh", "-c", own, "sh", sys.executable, "-c", text],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
    finally:
        subprocess.run(["losetup", "-d", loop], check=False, timeout=60)
    if found.returncode == 77 or "unshare" in found.stderr:
        pytest.skip(f"no mounts: {found.stderr.strip()[:200]}")
    assert found.stdout.splitlines() == ["''", str([str(world.home / "away")])], found.stderr
