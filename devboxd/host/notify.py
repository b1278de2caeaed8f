"""A notice on the desktop, where there is one. Best effort: nobody waits for it, nothing fails by it."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sys
from collections.abc import Callable, Sequence
from typing import Final

from devboxd.model.notice import plain

PATIENCE: Final = 5.0  # seconds

# The texts are arguments of a script that is fixed: nothing in them is ever read as AppleScript.
_APPLE: Final = "on run argv\ndisplay notification (item 2 of argv) with title (item 1 of argv)\nend run"


async def notice(title: str, text: str, *, urgent: bool = False, platform: str = sys.platform) -> bool:
    """Show a notice; says whether a program for it was found and ended well."""
    command = _command(plain(title), plain(text), urgent, platform, shutil.which)
    if command is None:
        return False
    return await _run(command)


async def _run(command: Sequence[str]) -> bool:
    """Run a program that may neither talk nor hang."""
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
    except OSError:
        return False
    try:
        async with asyncio.timeout(PATIENCE):
            return await process.wait() == 0
    except TimeoutError:
        return False
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


async def tell(command: Sequence[str], title: str, text: str) -> bool:
    """Run a program of the user's with title and text behind its arguments; says whether it ended well.

    Best effort as ``notice``. The texts are arguments, never read by a shell, printable and short.
    """
    return await _run([*command, plain(title), plain(text)])


def _command(
    title: str, text: str, urgent: bool, platform: str, which: Callable[[str], str | None]
) -> Sequence[str] | None:
    if platform == "darwin":
        program = which("osascript")
        return [program, "-e", _APPLE, "--", title, text] if program else None
    program = which("notify-send")
    if program is None:
        return None
    urgency = "critical" if urgent else "normal"
    # After "--" nothing is an option; the body may hold markup, so what looks like it is defused.
    body = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return [program, "--app-name=devbox", f"--urgency={urgency}", "--", title, body]
