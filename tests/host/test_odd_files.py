"""What stands where our files belong: pipes, devices, folders, and far too much."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from devboxd.errors import Denied, StateNotSaved
from devboxd.host import files
from devboxd.host.bridge_key import bridge_secrets
from devboxd.host.config import ConfigFiles
from devboxd.host.journal import Journal
from devboxd.host.lock import Lock
from devboxd.host.paths import Paths
from devboxd.host.prices import PriceFiles
from devboxd.host.ssh_config import SshFiles


def _linked_pipe(path: Path) -> None:
    os.mkfifo(f"{path}.pipe")
    path.symlink_to(f"{path}.pipe")


def _too_much(path: Path) -> None:
    path.touch(0o600)
    os.truncate(path, 1 << 30)


STANDS: dict[str, Callable[[Path], None]] = {
    "a pipe": lambda path: os.mkfifo(path, 0o600),
    "a link to a pipe": _linked_pipe,
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "another device": lambda path: path.symlink_to("/dev/full"),
    "a folder": lambda path: path.mkdir(0o700),
    "a link to itself": lambda path: path.symlink_to(path.name),
    "too much": _too_much,
}


@pytest.fixture(params=STANDS)
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / "file"
    STANDS[request.param](path)
    return path


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    paths = Paths.from_environment({"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path / "run")})
    paths.prepare()
    return paths


async def test_the_journal_is_set_aside_and_written_anew(path: Path) -> None:
    """The daemon starts, and at once."""
    journal = Journal(path)
    assert journal.read() == {}
    assert journal.problem
    await journal.save({"owner": "x"})
    assert Journal(path).read() == {"owner": "x"}


def test_a_bridge_key_is_refused_and_named(path: Path) -> None:
    """Bridges that stand depend on it: it is not made anew unasked."""
    with pytest.raises(Denied, match=str(path)) as refused:
        bridge_secrets(path)("a bridge")
    assert refused.value.hint == f"remove it: rm {path}"


@pytest.mark.parametrize("what", STANDS)
def test_a_configuration_is_invalid_and_named(paths: Paths, what: str) -> None:
    """As one that is no TOML."""
    STANDS[what](paths.config_file)
    if not paths.config_file.exists():
        pytest.skip("a link that leads nowhere is no file")
    loaded = ConfigFiles(paths, {}).load()
    assert loaded.error is not None
    assert str(paths.config_file) in loaded.error.message


@pytest.mark.parametrize("what", STANDS)
def test_the_copy_of_the_configuration_is_not_waited_for(paths: Paths, what: str) -> None:
    """It is a second parachute, and never a reason to hang."""
    STANDS[what](paths.config_copy)
    assert ConfigFiles(paths, {}).load().error is None


def test_no_configuration_is_said_by_the_null_device(paths: Paths) -> None:
    """``DEVBOX_CONFIG=/dev/null``."""
    assert ConfigFiles(paths, {"DEVBOX_CONFIG": os.devnull}).load().error is None


@pytest.mark.parametrize("what", STANDS)
def test_prices_are_fetched_anew(tmp_path: Path, what: str) -> None:
    """As where there are none."""
    STANDS[what](tmp_path / "us-east-1.json")
    assert PriceFiles(tmp_path).read("us-east-1") is None


@pytest.mark.parametrize("what", ["a folder", "a link to itself"])
def test_a_lock_that_cannot_be_is_an_error_with_the_path(tmp_path: Path, what: str) -> None:
    """Of the daemon's start no more than a warning comes of it."""
    path = tmp_path / "projects.lock"
    STANDS[what](path)
    with pytest.raises(StateNotSaved, match=str(path)):
        Lock(path).take()


def test_the_users_ssh_config_is_refused(path: Path, tmp_path: Path) -> None:
    """Not waited for, and not written over."""
    before = path.lstat()
    with pytest.raises((Denied, StateNotSaved)):
        SshFiles(tmp_path / "include", path).write("text")
    assert path.lstat().st_ino == before.st_ino


def test_a_device_behind_a_link_is_never_replaced(tmp_path: Path) -> None:
    """As root, that would take ``/dev/null`` from everybody."""
    device = tmp_path / "null"
    try:
        os.mknod(device, 0o666 | stat.S_IFCHR, os.stat(os.devnull).st_rdev)
    except OSError:
        os.mkfifo(device)  # what a user can make is no file either
    link = tmp_path / "known_hosts"
    link.symlink_to(device)
    for write in (files.replace_file, files.replace_if_changed):
        with pytest.raises(files.NoFile):
            write(link, b"data")
    assert not stat.S_ISREG(device.lstat().st_mode)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["known_hosts", "null"], "nothing half written"


def test_a_folder_in_the_place_of_a_file_costs_no_descriptor(tmp_path: Path) -> None:
    """The configuration is read again at every change."""
    before = len(os.listdir("/dev/fd"))
    for _ in range(8):
        with pytest.raises(files.NoFile):
            files.read_file(tmp_path, 10)
    assert len(os.listdir("/dev/fd")) == before
