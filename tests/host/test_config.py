"""Configuration files: which are read, and what happens when they change."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from devboxd.host.config import ConfigFiles, Loaded
from devboxd.host.paths import Paths
from devboxd.model.config import ConfigInvalid


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    paths = Paths.from_environment({"HOME": str(tmp_path)})
    paths.config_parts.mkdir(parents=True)
    paths.state.mkdir(parents=True)
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
    ]
    (paths.config_parts / "ignored.txt").write_text("[nonsense")
    for path, name in sources:
        path.write_text(f'[defaults]\nprofile = "{name}"\n')
        loaded = ConfigFiles(paths, {}).load()
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


BAD = [b"[defaults", b"\xff", b"defaults = 5\n", b'[defaults]\nprofil = "x"\n']


@pytest.mark.parametrize("bad", BAD, ids=["unclosed table", "not text", "wrong type", "typo"])
@pytest.mark.parametrize("part", [False, True], ids=["config.toml", "config.d"])
def test_a_bad_file_at_the_start_leaves_what_the_last_daemon_had_in_force(
    paths: Paths, bad: bytes, part: bool
) -> None:
    """The command ran in the default profile's account, on another box, without a word."""
    paths.config_file.write_text('[defaults]\nprofile = "good"\nuser = "ana"\n')
    assert profile(ConfigFiles(paths, {}).load()) == "good"
    (paths.config_parts / "10.toml" if part else paths.config_file).write_bytes(bad)
    files = ConfigFiles(paths, {"DEVBOX_USER": "ben"})
    for loaded in (files.load(), files.load()):
        assert profile(loaded) == "good"
        assert loaded.config.defaults.user == "ben", "this daemon's own environment still wins"
        assert loaded.error is not None
        assert loaded.is_whole
        assert loaded.merged.origins["defaults.profile"] == str(paths.config_file)


def test_without_a_good_one_from_before_nobody_knows_what_was_set(paths: Paths, tmp_path: Path) -> None:
    """Then it says so: what is built in could be another account."""
    paths.config_file.write_text("[nonsense")
    loaded = ConfigFiles(paths, {"DEVBOX_PROFILE": "e"}).load()
    assert loaded.error is not None
    assert not loaded.is_whole
    other = tmp_path / "other.toml"
    other.write_text('[defaults]\nprofile = "other"\n')
    assert ConfigFiles(paths, {"DEVBOX_CONFIG": str(other)}).load().is_whole
    assert not ConfigFiles(paths, {}).load().is_whole, "what was good is another file"


def test_a_bad_environment_is_no_good_configuration(paths: Paths) -> None:
    """Without it, DEVBOX_PROFILE would be left out, too."""
    paths.config_file.write_text('[defaults]\nprofile = "good"\n')
    assert ConfigFiles(paths, {}).load().is_whole
    loaded = ConfigFiles(paths, {"DEVBOX_PROFILE": "e", "DEVBOX_MUX": "screen"}).load()
    assert loaded.error is not None
    assert not loaded.is_whole


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"main": 5}'])
def test_a_copy_that_makes_no_sense_is_none(paths: Paths, content: bytes) -> None:
    paths.config_copy.write_bytes(content)
    paths.config_file.write_text("[nonsense")
    assert not ConfigFiles(paths, {}).load().is_whole


def test_a_byte_order_mark_is_no_error(paths: Paths) -> None:
    """Notepad, and PowerShell's redirection, put one in front."""
    paths.config_file.write_text('[defaults]\nprofile = "good"\n', encoding="utf-8-sig")
    loaded = ConfigFiles(paths, {}).load()
    assert (profile(loaded), loaded.error) == ("good", None)


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


async def test_a_change_that_nobody_told_of_is_seen_all_the_same(paths: Paths) -> None:
    """It came before the watch began, or the home folder is on another machine."""
    files, stop = ConfigFiles(paths, {}), asyncio.Event()
    files.load()
    paths.config_file.write_text('[defaults]\nprofile = "before"\n')
    async with asyncio.timeout(15):
        async for loaded in files.watch(stop):
            assert profile(loaded) == "before"
            break


def test_settings_are_added_beside_what_was_added_before(paths: Paths) -> None:
    """In a file of its own: what somebody wrote by hand keeps its comments and its order."""
    paths.config_file.write_text("# mine\n[projects]\ntype = 't4g.small'\n")
    files = ConfigFiles(paths, {})
    odd = 'quo"te \\ ü \u2028 \U0001f600 \x7f'
    assert files.add({"projects": {"instance_profile": "a"}}) == paths.config_parts / "50-init-user.toml"
    files.add({"projects": {"base": odd}, "store": {"engine": "dynamodb"}})
    loaded = files.load()
    assert loaded.error is None
    found = loaded.config.projects
    assert (found.type, found.instance_profile, found.base) == ("t4g.small", "a", odd)
    assert loaded.config.store.engine == "dynamodb"
    assert paths.config_file.read_text().startswith("# mine")
    assert ConfigFiles(paths, {"DEVBOX_CONFIG": "/elsewhere"}).add({"defaults": {"profile": "x"}}) is None


@pytest.mark.parametrize(
    "theirs",
    ["[boxes.api]\nuser = 'x'\n", "top = 1\n", "[store]\nsince = 2026-01-01\n", "['a b']\nc = 'd'\n"],
)
def test_what_somebody_wrote_into_that_file_is_not_lost(paths: Paths, theirs: str) -> None:
    """Written anew, it would come back as something else, or as no configuration at all."""
    paths.config_parts.mkdir(parents=True, exist_ok=True)
    file = paths.config_parts / "50-init-user.toml"
    file.write_text(theirs)
    with pytest.raises(ConfigInvalid, match="more in it than devboxctl init user"):
        ConfigFiles(paths, {}).add({"defaults": {"profile": "x"}})
    assert file.read_text() == theirs
