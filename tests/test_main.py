"""What only main does: files of ssh on this machine, and tasks that must not end."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from devboxd.control.base.memory import Memory
from devboxd.control.base.shared import Shared
from devboxd.host.keys import LocalKeys
from devboxd.host.paths import Paths
from devboxd.host.ssh_config import command_in
from devboxd.host.systemd import Notifier
from devboxd.main import _Listeners
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


def test_inherited_listeners_that_no_forward_took_are_closed_and_forgotten(tmp_path: Path) -> None:
    unstored: list[str] = []

    class Manager(Notifier):
        def unstore(self, name: str) -> bool:
            unstored.append(name)
            return True

    left, other = socket.create_server(("127.0.0.1", 0)), socket.create_server(("127.0.0.1", 0))
    listeners = _Listeners(Manager.from_environment({}), {"forward-1": [left], "else": [other]})
    listeners.drop_rest()
    assert (left.fileno(), unstored) == (-1, ["forward-1"])
    assert other.fileno() >= 0
    other.close()
