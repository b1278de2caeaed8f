"""The files of ssh on this machine, and only those that the user asked for."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from devboxd.control.base.memory import Memory
from devboxd.control.base.shared import Shared
from devboxd.errors import StateNotSaved
from devboxd.host.keys import LocalKeys
from devboxd.host.machine import new_owner
from devboxd.host.paths import Paths
from devboxd.host.ssh_config import command_in
from tests.control.fakes import LoopClock
from tests.control.kit import Nowhere


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    paths = Paths.from_environment({"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path / "run")})
    paths.prepare()
    return paths


async def test_only_config_ssh_touches_the_users_ssh_config(paths: Paths, tmp_path: Path) -> None:
    """``devboxctl ssh`` and the proxy write our own file at most, and keep the command in it."""
    program = tmp_path / "my tools" / "devboxctl"
    program.parent.mkdir()
    program.touch(0o755)
    keys = LocalKeys(paths, Memory(Shared.of(LoopClock()).news, Nowhere()))
    await keys.note_user("early", "root")
    assert not paths.ssh_config.exists(), "nobody asked for one yet"
    keys.paths()
    await keys.note_user("api", "ana")
    assert not paths.user_ssh_config.exists()
    await keys.write(str(program))
    assert "Include" in paths.user_ssh_config.read_text()
    paths.user_ssh_config.write_text("# the user took it out\n")
    await keys.note_user("api", "ben")
    keys.paths()
    assert paths.user_ssh_config.read_text() == "# the user took it out\n"
    written = paths.ssh_config.read_text()
    assert "User ben" in written
    assert command_in(written) == program
    program.unlink()
    keys.paths()
    assert command_in(paths.ssh_config.read_text()) != program, "one that is gone is not kept"


async def test_a_disk_that_takes_nothing_is_an_error_with_the_path(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not an internal error: ``config-ssh`` on a full disk."""
    keys = LocalKeys(paths, Memory(Shared.of(LoopClock()).news, Nowhere()))

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    await keys.public_key()
    monkeypatch.setattr(os, "fsync", full)
    for work in (keys.write(None), keys.pin(["api"], 22, [KEY])):
        with pytest.raises(StateNotSaved) as caught:
            await work
        assert str(paths.known_hosts) in caught.value.message
        assert caught.value.hint == "make room on that disk"
    paths.identity.unlink()
    with pytest.raises(StateNotSaved, match=paths.identity.name):
        await keys.public_key()


KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJJ6o0pFBS6Zt1T2o0pYyQ1M6mZ1Q0pH2b8o1kZr9mXq"


def test_a_user_without_a_name_has_a_mark_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a container no passwd entry may name the user, and the daemon starts all the same."""

    def nameless() -> str:
        raise KeyError("getpwuid(): uid not found: 4711")

    monkeypatch.setattr("getpass.getuser", nameless)
    assert new_owner().startswith("uid-")
    assert new_owner() != new_owner()
