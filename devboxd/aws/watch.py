"""See logins that somebody makes elsewhere: the files that AWS tools keep credentials in."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, suppress
from pathlib import Path
from typing import Final

from watchfiles import awatch

from devboxd.aws.files import config_file, console_logins, credentials_file, expanded, sso_logins

LOOK_EVERY: Final = 1000  # milliseconds between two looks of watchfiles at what it has noticed
DEBOUNCE: Final = 500  # milliseconds in which many changes are one

Stamps = frozenset[tuple[str, int, int]]


def stamps(environment: Mapping[str, str]) -> Stamps:
    """The state of all files that credentials and their settings may come from."""
    found = set()
    for path in _files(environment):
        with suppress(OSError):
            status = path.stat()
            found.add((str(path), status.st_mtime_ns, status.st_size))
    return frozenset(found)


def folders(environment: Mapping[str, str]) -> list[Path]:
    """The folders to watch: those of these files, or where one is not there yet, the nearest that is."""
    named = _named(environment)
    # ~/.aws/config is a link into a folder of dotfiles for many: there it is that an editor writes.
    wanted = (
        {path.parent for path in named}
        | {Path(os.path.realpath(path)).parent for path in named}
        | set(_caches())
    )
    found = set()
    for folder in wanted:
        while not folder.is_dir() and folder != folder.parent:
            folder = folder.parent
        found.add(folder)
    return sorted(found)


async def changes(environment: Mapping[str, str]) -> AsyncGenerator[None, None]:
    """Yield whenever one of these files was changed, made or removed."""
    before = stamps(environment)
    while True:
        watched = folders(environment)
        # Every few seconds it yields without a change, too: not every file system tells of one.
        looking = awatch(*watched, debounce=DEBOUNCE, step=LOOK_EVERY, recursive=False, yield_on_timeout=True)
        async with aclosing(looking):
            async for _ in looking:
                # Others keep files in these folders, too.
                if (now := stamps(environment)) != before:
                    before = now
                    yield
                if folders(environment) != watched:
                    break


def _named(environment: Mapping[str, str]) -> list[Path]:
    names = [
        config_file(environment),
        credentials_file(environment),
        environment.get("AWS_WEB_IDENTITY_TOKEN_FILE"),
    ]
    return [expanded(name) for name in names if name]


def _caches() -> list[Path]:
    return [sso_logins(), console_logins()]


def _files(environment: Mapping[str, str]) -> list[Path]:
    found = _named(environment)
    for folder in _caches():
        with suppress(OSError):
            found += sorted(folder.glob("*.json"))
    return found
