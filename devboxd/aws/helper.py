"""Programs that give credentials (``credential_process``): one run at a time, for whoever asks.

Some open a page and wait for a person. Such a run goes on when those who asked have left, and what it gives is for
the next one who asks.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import shlex
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from typing import Final

from botocore.exceptions import BotoCoreError

HELPER_WITHIN: Final = 120.0  # seconds: some open a page and wait for a person
HELPER_REST: Final = 0.5  # seconds for what a helper that has ended left in its pipe
HELPER_MOST: Final = 1 << 20  # bytes of an answer; one has less than ten thousand
HELPER_KEPT: Final = 900.0  # seconds that an answer waits for somebody who asks
HELPER_TOLD: Final = 1.8  # seconds until whoever waits is told what for


class HelperFailed(BotoCoreError):
    """A ``credential_process`` gave no credentials. Asking it once more at once would change nothing."""

    fmt = "the credential_process of profile {profile!r} {what}"


class HelperRuns(HelperFailed):
    """It has not ended yet, and whoever asked can not wait for longer."""


def runs(profile: str) -> HelperRuns:
    """It goes on, and who asked is answered."""
    return HelperRuns(profile=profile, what="has not ended yet")


class Waits:
    """Which helpers those who use one profile wait for, by the profiles that name them."""

    def __init__(self) -> None:
        self._for: Counter[str] = Counter()

    def __iter__(self) -> Iterator[str]:
        return iter([profile for profile, count in self._for.items() if count > 0])

    @contextlib.contextmanager
    def on(self, profile: str) -> Iterator[None]:
        """One more waits for it in the block."""
        self._for[profile] += 1
        try:
            yield
        finally:
            self._for[profile] -= 1


class Helpers:
    """All runs of helpers, by profile and command line. Close it at the end."""

    def __init__(self) -> None:
        self._runs: dict[tuple[str, str], asyncio.Task[bytes]] = {}
        self._waiting: Counter[asyncio.Task[bytes]] = Counter()
        self._kept: dict[tuple[str, str], bytes] = {}  # what came when nobody waited

    def take(self, profile: str, command: str) -> bytes | None:
        """What a run gave when nobody waited for it any more, once; None where there is no such thing."""
        return self._kept.pop((profile, command), None)

    async def output(self, profile: str, command: str) -> bytes:
        """What it prints: of the run that goes on, or of a new one. Raises HelperFailed."""
        key = (profile, command)
        if (run := self._runs.get(key)) is None:
            # The mapping is the strong reference that the loop does not keep.
            run = asyncio.get_running_loop().create_task(_output(*key), name=f"helper: {profile}")
            self._runs[key] = run
            run.add_done_callback(lambda run: self._ended(key, run))
        self._waiting[run] += 1
        try:
            return await asyncio.shield(run)
        finally:
            self._waiting[run] -= 1

    def _ended(self, key: tuple[str, str], run: asyncio.Task[bytes]) -> None:
        del self._runs[key]
        had = self._waiting.pop(run, 0)
        # A failure that nobody has waited for is nobody's: the next one who asks gets a run of his own.
        if run.cancelled() or run.exception() is not None or had > 0:
            return
        self._kept[key] = kept = run.result()

        def drop() -> None:
            if self._kept.get(key) is kept:
                del self._kept[key]

        run.get_loop().call_later(HELPER_KEPT, drop)

    async def close(self) -> None:
        """End every run, with all that it started."""
        self._kept.clear()
        runs = list(self._runs.values())
        for run in runs:
            run.cancel()
        if runs:
            await asyncio.wait(runs)


async def _output(profile: str, command: str) -> bytes:
    """Run it: without a terminal, for a bounded time. Raises HelperFailed, without a word of the output."""

    def failed(what: str) -> HelperFailed:
        return HelperFailed(profile=profile, what=what)

    try:
        words = shlex.split(command)
    except ValueError:
        raise failed("has a quotation mark without its partner") from None
    if not words:
        raise failed("is empty")
    # A pipe of ours: asyncio's own tells that a process has ended only when nobody holds its output any more.
    ours, its = os.pipe()
    with io.FileIO(ours) as pipe:
        try:
            # A session of its own: it has no terminal to ask on, and can be ended with all that it starts.
            helper = await asyncio.create_subprocess_exec(
                *words,
                stdin=subprocess.DEVNULL,
                stdout=its,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or type(error).__name__
            raise failed(f"can not be started ({words[0]}: {why}; devboxd has its own PATH)") from None
        finally:
            os.close(its)
        try:
            async with asyncio.timeout(HELPER_WITHIN):
                output = await _all(pipe, helper)
                status = 0 if len(output) > HELPER_MOST else await helper.wait()
        except TimeoutError:
            raise failed(f"did not end within {HELPER_WITHIN:.0f} s") from None
        finally:
            if helper.returncode is None:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(helper.pid, signal.SIGKILL)
                await asyncio.shield(helper.wait())
    if status:
        raise failed(f"was ended by signal {-status}" if status < 0 else f"failed with exit status {status}")
    return output


async def _all(pipe: io.FileIO, helper: asyncio.subprocess.Process) -> bytes:
    """What it prints, as far as a piece over the bound.

    An agent that it has started, and leaves behind, may hold its output for ever: what counts is its own end.
    """
    reader = asyncio.StreamReader(limit=1 << 16)
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), pipe
    )
    pieces: list[bytes] = []

    async def read() -> None:
        size = 0
        while size <= HELPER_MOST and (piece := await reader.read(1 << 16)):
            pieces.append(piece)
            size += len(piece)

    try:
        async with asyncio.TaskGroup() as tasks:
            reading = tasks.create_task(read(), name="helper: output")
            ending = tasks.create_task(helper.wait(), name="helper: end")
            await asyncio.wait({reading, ending}, return_when=asyncio.FIRST_COMPLETED)
            if not reading.done():  # what it printed is in the pipe already
                await asyncio.wait({reading}, timeout=HELPER_REST)
            reading.cancel()
            ending.cancel()
        return b"".join(pieces)
    finally:
        transport.close()
