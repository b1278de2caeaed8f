"""Names as people give them, through every command that takes a box."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.kit import World, until

NAMES = ["My Dev Box", "web/prod", "büro", "ann@corp", "開発", "env:prod", "..", "#1", "it's"]


@pytest.fixture(scope="module")
def named(shared_world: World) -> Iterator[World]:
    """A world in which the box ``api`` is called by all of these names."""
    shared_world.ensure_daemon()
    file: Path = shared_world.folder / "config" / "devbox" / "config.d" / "names.toml"
    file.write_text(
        "".join(f'[boxes."{name}"]\ntarget = "{shared_world.boxes["api"]["id"]}"\n' for name in NAMES),
        "utf-8",
    )
    until(lambda: shared_world.run("exec", NAMES[-1], "true").returncode == 0, "the configuration is read")
    yield shared_world
    file.unlink()


@pytest.mark.parametrize("name", NAMES)
def test_every_command_takes_every_name(named: World, name: str) -> None:
    """What ``ls`` shows must not be refused by the next command."""
    assert named.ok("exec", name, "echo", "there") == "there\n"
    shown = named.json("show", name)
    assert (shown["name"], shown["id"]) == (name, named.boxes["api"]["id"])
    assert named.json("ping", "-c", "1", name)["box"] == name
    assert named.ok("exec", shown["host"], "echo", "again") == "again\n"
    [forward] = named.json("forward", name, "0:7")["forwards"]
    assert forward["box"] == name
    named.ok("forward", "rm", forward["id"])
    with named.terminal("exec", "-t", name, "echo", "on a terminal") as terminal:
        terminal.until("on a terminal")
    assert {check["name"] for check in named.json("doctor", name)["checks"]} >= {"instance", "session"}
