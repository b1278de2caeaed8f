"""Ask a program on a box one question, on its standard input: what is asked stands in no list of processes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from devboxd.control.connect.audience import Capture
from devboxd.control.connect.execute import ExecSpec
from devboxd.control.connect.terminal import Terminal
from devboxd.errors import Unreachable
from devboxd.model.answer import BoxSaysNo
from devboxd.model.box import BoxRef
from devboxd.model.terminal import Leaving
from devboxd.text import one_line

LIMIT: Final = 40.0  # seconds for the box to answer
WAIT: Final = 15.0  # seconds for a box that is not connected yet: nobody who asks waits for a boot

Execute = Callable[[ExecSpec, Terminal], Awaitable[Leaving]]


async def ask(execute: Execute, box: BoxRef, argv: list[str], request: bytes, user: str | None) -> bytes:
    """What the program prints, bounded.

    Raises:
        BoxSaysNo: it fails.
        DevboxError: the box could not be reached, or does not answer.
    """
    terminal = Capture(request)
    spec = ExecSpec(box=box, argv=argv, user=user, wait=WAIT)
    try:
        status = await status_of(execute, spec, terminal, LIMIT)
    except TimeoutError:
        raise Unreachable(f"{box.name} did not answer within {LIMIT:.0f} s") from None
    if status != 0:
        said = one_line(bytes(terminal.stderr[-1000:]).decode("utf-8", "replace"), 200)
        raise BoxSaysNo(f"a program of devbox failed on {box.name}: {said or status}")
    return bytes(terminal.stdout)


async def status_of(execute: Execute, spec: ExecSpec, terminal: Terminal, limit: float) -> int:
    """Run a command to its end, for ``limit`` seconds at most: its exit status.

    Raises:
        TimeoutError: it took longer.
        DevboxError: the box could not be reached, or the command was cut off.
    """
    async with asyncio.timeout(limit):
        leaving = await execute(spec, terminal)
    if leaving.error is not None:
        raise leaving.error
    if leaving.status is None:
        raise Unreachable(f"what ran on {spec.box.name} was cut off: {leaving.reason}")
    return leaving.status
