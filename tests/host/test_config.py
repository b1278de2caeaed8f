"""Configuration files: which are read, and what happens when they change."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from devboxd.host.config import ConfigFiles, Loaded, find_project_file
from devboxd.host.paths import Paths


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    paths = Paths.from_environment({"HOME": str(tmp_path)})
    paths.config_parts.mkdir(parents=True)
    return paths


def profile(loaded: Loaded) -> str | None:
    return loaded.config.defaults.profile


def test_no_file_at_all_is_fine(tmp_path: Path) -> None:
    loaded = ConfigFiles(Paths.from_environment({"HOME": str(tmp_path)}), {}).load()
    assert loaded.files == ()
    assert loaded.error is None


def test_each_source_stands_above_the_one_before(paths: Paths, tmp_path: Path) -> None:
    sources = [
        (paths.config_file, "main"),
        (paths.config_parts / "10-a.toml", "part a"),
        (paths.config_parts / "20-b.toml", "part b"),
        (tmp_path / "devbox.toml", "project"),
    ]
    (paths.config_parts / "ignored.txt").write_text("[nonsense")
    for path, name in sources:
        path.write_text(f'[defaults]\nprofile = "{name}"\n')
        loaded = ConfigFiles(paths, {}, project=tmp_path / "devbox.toml").load()
        assert profile(loaded) == name
        assert loaded.merged.origins["defaults.profile"] == str(path)
    environment = {"DEVBOX_PROFILE": "environment"}
    assert profile(ConfigFiles(paths, environment).load()) == "environment"
    flags = {"defaults": {"profile": "flag"}}
    assert profile(ConfigFiles(paths, environment, flags=flags).load()) == "flag"


def test_devbox_config_names_the_one_file(paths: Paths, tmp_path: Path) -> None:
    paths.config_file.write_text('[defaults]\nprofile = "main"\n')
    (tmp_path / "other.toml").write_text('[defaults]\nprofile = "other"\n')
    assert profile(ConfigFiles(paths, {"DEVBOX_CONFIG": str(tmp_path / "other.toml")}).load()) == "other"


@pytest.mark.parametrize(
    "bad",
    [b"[defaults", b"\xff", b"defaults = 5\n", b'[defaults]\nprofil = "x"\n', b"#" * (1 << 21)],
    ids=["torn", "not text", "wrong type", "unknown key", "huge"],
)
def test_a_bad_file_leaves_the_last_good_configuration_in_force(paths: Paths, bad: bytes) -> None:
    """A typing error while editing must not drop anybody's sessions."""
    files = ConfigFiles(paths, {})
    paths.config_file.write_text('[defaults]\nprofile = "good"\n')
    assert profile(files.load()) == "good"
    paths.config_file.write_bytes(bad)
    loaded = files.load()
    assert profile(loaded) == "good"
    assert loaded.error is not None
    assert str(paths.config_file) in str(loaded.error)
    paths.config_file.write_text('[defaults]\nprofile = "better"\n')
    assert (profile(files.load()), files.load().error) == ("better", None)


def test_a_bad_file_at_the_start_leaves_the_environment_in_force(paths: Paths) -> None:
    paths.config_file.write_text("[nonsense")
    loaded = ConfigFiles(paths, {"DEVBOX_PROFILE": "e"}).load()
    assert profile(loaded) == "e"
    assert loaded.error is not None
    assert profile(ConfigFiles(paths, {"DEVBOX_PROFILE": "e", "DEVBOX_MUX": "screen"}).load()) is None


async def test_changes_are_seen_also_behind_a_link(paths: Paths, tmp_path: Path) -> None:
    dotfiles = tmp_path / "dotfiles"
    dotfiles.mkdir()
    (dotfiles / "devbox.toml").write_text('[defaults]\nprofile = "1"\n')
    paths.config_file.symlink_to(dotfiles / "devbox.toml")
    files, stop, seen = ConfigFiles(paths, {}), asyncio.Event(), asyncio.Queue[Loaded]()
    assert profile(files.load()) == "1"

    async def watch() -> None:
        async for loaded in files.watch(stop):
            seen.put_nowait(loaded)

    async def until(expected: str, write: Path) -> None:
        """Write until the watcher, which starts in a thread, has seen it."""
        async with asyncio.timeout(10):
            while True:
                write.write_text(f'[defaults]\nprofile = "{expected}"\n')
                try:
                    loaded = await asyncio.wait_for(seen.get(), 1)
                except TimeoutError:
                    continue
                if profile(loaded) == expected:
                    return

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(watch())
        await until("2", dotfiles / "devbox.toml")
        await until("3", paths.config_parts / "10.toml")
        stop.set()


def test_a_project_file_is_found_upward(tmp_path: Path) -> None:
    deep = tmp_path / "home" / "src" / "project" / "deep"
    deep.mkdir(parents=True)
    home = tmp_path / "home"
    assert find_project_file(deep, home) is None
    (tmp_path / "devbox.toml").write_text("")
    assert find_project_file(deep, home) is None, "above the home folder it is somebody else's"
    (home / "src" / "devbox.toml").write_text("")
    assert find_project_file(deep, home) == home / "src" / "devbox.toml"
    (deep / "devbox.toml").write_text("")
    assert find_project_file(deep, home) == deep / "devbox.toml"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_project_file_in_a_strangers_folder_is_not_read(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    (shared / "mine").mkdir(parents=True)
    (shared / "devbox.toml").write_text("")
    os.chown(shared, 12345, 12345)
    assert find_project_file(shared / "mine", tmp_path) is None
