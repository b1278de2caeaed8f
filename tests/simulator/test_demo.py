"""``make demo``: the tour runs through, checks itself and leaves nothing; the picture of it is true; on a terminal
it says what to try for as long as that is of use, and a second terminal gets in.
"""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pyte
import pytest

from tests.ctl.terminal import SHELL, Tty

ROOT = Path(__file__).parents[2]
PATIENCE = 60.0  # seconds; only a failing test waits that long


def folder_in(text: str) -> Path:
    """Where that demo lived; another one may be running on this machine."""
    found = re.search(r"/tmp/devbox-[^/\s]+", text)
    assert found is not None, text
    return Path(found[0])


async def output_of(*words: str) -> tuple[int | None, str]:
    """Run Python; returns its status and what it printed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, *words, cwd=ROOT,
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    try:
        async with asyncio.timeout(300):
            text, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode, text.decode()


@pytest.mark.skipif(find_spec("devboxd.__main__") is None, reason="there is no daemon to show yet")
async def test_the_tour_works_and_leaves_nothing() -> None:
    """What a fresh machine and CI see first; and the picture in the README shows it as it is."""
    tour, picture = await asyncio.gather(
        output_of("-m", "devboxd.simulator", "demo"), output_of("tools/picture.py", "--check")
    )
    status, shown = tour
    assert status == 0, shown
    for line in (
        "hello from /tmp/devbox-",
        "hello from box api",
        "every line exactly once",
        "has the file",
        "are gone",
    ):
        assert line in shown
    assert not folder_in(shown).exists()
    assert picture == (0, "the picture shows what the demo does\n")


def test_a_person_finds_what_to_try_in_the_box_and_a_second_terminal_gets_in() -> None:
    """Above the first prompt, where it stays; whatever the second terminal was set to before."""
    environ = {
        "PATH": f"{Path(sys.executable).parent}:{os.defpath}",
        "TERM": "xterm-256color",
        "LANG": "C.UTF-8",
    }
    screen = pyte.Screen(80, 24)
    stream = pyte.ByteStream(screen)
    words = [sys.executable, "-m", "devboxd.simulator", "demo"]
    with Tty(words, environ, run=SHELL, size=(80, 24)) as tty:

        def until(wanted: str) -> None:
            deadline = time.monotonic() + PATIENCE
            while not any(wanted in line for line in screen.display):
                assert time.monotonic() < deadline, "\n".join(screen.display)
                stream.feed(tty.read(0.1))

        until("[api]")
        shown = "\n".join(line.rstrip() for line in screen.display)
        assert shown.startswith('devbox demo. This is the box "api"'), shown
        exports = next(line.split()[1] for line in screen.display if line.startswith("  . /tmp/devbox-"))
        foreign = {
            "AWS_PROFILE": "nobody's",
            "DEVBOX_SOCKET": "/nowhere",
            "HTTPS_PROXY": "http://127.0.0.1:1",
        }
        done = subprocess.run(
            ["sh", "-euc", f". {exports}; devboxctl ls; devboxctl exec web -- echo from web; env"],
            env={"PATH": os.defpath, "HOME": "/nowhere"} | foreign,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert "data\trunning" in done.stdout
        assert "from web" in done.stdout
        assert not [name for name in foreign if f"\n{name}=" in done.stdout]
        tty.type(b"clear; devboxctl ls\r")
        until("devboxctl is for your own machine")
        tty.type(b"demo\r")
        until("This is the box")
        tty.type(b"exit\r")
        deadline = time.monotonic() + PATIENCE
        while tty.program.poll() is None:
            assert time.monotonic() < deadline
            try:
                tty.read(0.1)
            except OSError:
                break
        assert tty.program.wait(PATIENCE) == 0
    assert not folder_in(exports).exists()
