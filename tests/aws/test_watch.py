"""Logins that are made elsewhere are seen, and nothing else is taken for one."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from devboxd.aws import watch
from devboxd.aws.watch import changes, folders, stamps


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "LOOK_EVERY", 50)
    monkeypatch.setattr(watch, "DEBOUNCE", 50)


@asynccontextmanager
async def seen(environment: dict[str, str]) -> AsyncIterator[asyncio.Event]:
    """Set when a change was seen."""
    event = asyncio.Event()

    async def follow() -> None:
        async for _ in changes(environment):
            event.set()

    async with asyncio.TaskGroup() as tasks:
        following = tasks.create_task(follow())
        await asyncio.sleep(0.3)  # the watcher starts in a thread
        yield event
        following.cancel()


def test_what_is_not_there_yet_is_watched_from_above(home: Path) -> None:
    (home / ".aws").rmdir()
    assert folders({}) == [home]
    (home / ".aws" / "sso" / "cache").mkdir(parents=True)
    elsewhere = home / "secrets" / "token"
    elsewhere.parent.mkdir()
    found = folders({"AWS_WEB_IDENTITY_TOKEN_FILE": str(elsewhere), "AWS_CONFIG_FILE": "~/c"})
    assert found == sorted([home, home / ".aws", home / ".aws" / "sso" / "cache", home / "secrets"])


def test_a_settings_file_that_is_a_link_is_watched_where_it_is_written(home: Path) -> None:
    """Dotfiles: without this an edit is seen seconds later, and names lead to the former account until then."""
    dotfiles = home / "dotfiles"
    dotfiles.mkdir()
    (dotfiles / "config").write_text("")
    (home / ".aws" / "config").symlink_to(dotfiles / "config")
    assert dotfiles in folders({})


def test_files_that_lead_in_a_circle_stop_nothing(home: Path) -> None:
    """Whoever is at work on the dotfiles makes such links for a moment."""
    (home / ".aws" / "config").symlink_to(home / ".aws" / "credentials")
    (home / ".aws" / "credentials").symlink_to(home / ".aws" / "config")
    assert home / ".aws" in folders({})


def test_files_are_watched_where_botocore_reads_them(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It knows variables in their names, and a folder of its own for console logins."""
    for name in ("settings", "logins"):
        (home / name).mkdir()
    (home / "logins" / "0123.json").write_text("{}")
    monkeypatch.setenv("PLACE", str(home / "settings"))
    monkeypatch.setenv("AWS_LOGIN_CACHE_DIRECTORY", "$PLACE/../logins")
    environment = {"AWS_CONFIG_FILE": "$PLACE/config", "AWS_SHARED_CREDENTIALS_FILE": "${PLACE}/credentials"}
    (home / "settings" / "config").write_text("")
    assert home / "settings" in folders(environment)
    assert {Path(name).name for name, *_ in stamps(environment)} == {"config", "0123.json"}


@pytest.mark.parametrize("place", ["keys", "config", "sso", "sso, first of all", "elsewhere", "token"])
async def test_a_login_elsewhere_is_seen(home: Path, place: str) -> None:
    """aws sso login, a tool that writes keys, an editor, a mounted token."""
    cache, other = home / ".aws" / "sso" / "cache", home / "other"
    other.mkdir()
    environment = {}
    if place == "sso, first of all":
        (home / ".aws").rmdir()
    else:
        cache.mkdir(parents=True)
    match place:
        case "keys":
            file = home / ".aws" / "credentials"
        case "config":
            file = home / ".aws" / "config"
        case "elsewhere":
            file = other / "credentials"
            environment["AWS_SHARED_CREDENTIALS_FILE"] = str(file)
        case "token":
            file = other / "token"
            environment["AWS_WEB_IDENTITY_TOKEN_FILE"] = str(file)
        case _:
            file = cache / "0123.json"
    async with seen(environment) as event, asyncio.timeout(20):
        file.parent.mkdir(parents=True, exist_ok=True)
        number = 0
        while not event.is_set():
            # A replaced file, as all of these tools leave it; again, for the folders come one after another.
            number += 1
            new = file.with_name("new.tmp")
            new.write_text(f"{number}" * number)
            os.replace(new, file)
            try:
                await asyncio.wait_for(event.wait(), 1.0)
            except TimeoutError:
                continue


async def test_other_files_beside_them_are_no_login(home: Path) -> None:
    """In a home folder files change all the time, and each login costs all clients."""
    async with seen({"AWS_CONFIG_FILE": str(home / "aws-config")}) as event:
        (home / ".bash_history").write_text("x")
        (home / ".aws" / "notes.txt").write_text("x")
        await asyncio.sleep(1.0)
        assert not event.is_set()
