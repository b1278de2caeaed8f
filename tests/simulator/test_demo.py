"""``make demo`` without a terminal: the scripted tour runs through, checks itself, and leaves nothing."""

from __future__ import annotations

import asyncio
import re
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest


@pytest.mark.skipif(find_spec("devboxd.__main__") is None, reason="there is no daemon to show yet")
async def test_the_tour_works_and_leaves_nothing() -> None:
    """What a fresh machine and CI see first."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "devboxd.simulator", "demo",
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    try:
        async with asyncio.timeout(300):
            text, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    shown = text.decode()
    assert process.returncode == 0, shown
    for line in (
        "hello from /tmp/devbox-",
        "hello from box api",
        "every line exactly once",
        "has the file",
        "are gone",
    ):
        assert line in shown
    folders = set(re.findall(r"/tmp/devbox-[\w-]+", shown))
    assert len(folders) == 1
    assert not Path(folders.pop()).exists()
