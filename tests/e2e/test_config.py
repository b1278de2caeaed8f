"""A configuration that somebody broke never leads to another account or another box."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.kit import World, until

GOOD = '[link]\nframes_per_second = 0\n[boxes.mine]\ntarget = "web"\n'


@pytest.fixture
def file(world: World) -> Iterator[Path]:
    """The user's file; as it was, afterwards."""
    path = world.folder / "config" / "devbox" / "config.toml"
    before = path.read_text()
    path.write_text(GOOD)
    until(lambda: world.run("show", "mine").returncode == 0, "the file is in force")
    yield path
    path.write_text(before)
    world.stop_daemon()
    world.start_daemon()


@pytest.mark.parametrize("bad", ["[defaults\n", "[defaults]\nprofil = 1\n", "\xff\n"])
def test_a_daemon_that_finds_a_broken_file_uses_the_last_good_one(world: World, file: Path, bad: str) -> None:
    world.stop_daemon()
    file.write_text(bad + GOOD, encoding="latin-1")
    world.start_daemon()
    assert world.json("show", "mine")["id"] == world.boxes["web"]["id"]
    [condition] = until(lambda: world.json("status")["conditions"], "a condition is raised")
    assert condition["code"] == "config-invalid"
    assert "last good" in condition["text"]
    assert str(file) in condition["text"]


def test_without_a_good_one_what_touches_aws_is_refused(world: World, file: Path) -> None:
    world.stop_daemon()
    (world.folder / "state" / "devbox" / "config.last.json").unlink()
    file.write_text("[defaults\n" + GOOD)
    world.start_daemon()
    for words in (["show", "api"], ["ls"], ["ping", "api"], ["forward", "api", "0:80"], ["login"]):
        done = world.run(*words)
        assert (done.returncode, str(file).encode() in done.stderr) == (2, True), (words, done)
    done = world.run("exec", "api", "--", "true")
    assert done.returncode == 255
    assert str(file).encode() in done.stderr
    done = world.run("exec", world.boxes["api"]["id"], "--", "true")
    assert done.returncode == 255, "an id without its account may be a box of somebody else"
    until(lambda: world.json("status")["conditions"], "a condition is raised")
    file.write_text(GOOD)
    until(lambda: world.run("exec", "api", "--", "true").returncode == 0, "mended, it works again")


def test_edit_tells_what_the_edit_has_done(world: World, file: Path) -> None:
    """It told how things were before: that a broken file was fine, and a mended one broken."""
    for text, status in (("[defaults", 2), (GOOD, 0)) * 3:
        editor = world.folder / "editor"
        editor.write_text(f"#!/bin/sh\ncat > \"$1\" <<'END'\n{text}\nEND\n")
        editor.chmod(0o755)
        with world.terminal("config", "edit", env={"EDITOR": str(editor)}) as terminal:
            assert terminal.wait() == status
