"""A connection that ssh will use: greeted before ssh sees it, and watched to its end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from devboxd.control.base.time import Time
from devboxd.control.connect.stream import ConnectionRefused, Duplex, StreamReset
from devboxd.errors import DevboxError
from devboxd.model.ssh import Ended, Handshake, greeting_problem, wait_again

GREETING: Final = 5.0  # seconds for the first bytes; sshd speaks first, and at once


class SshStream:
    """A ``Duplex`` that says at its end how long it was and how much it carried."""

    def __init__(self, stream: Duplex, time: Time, ended: Callable[[Ended], None]) -> None:
        self.carried = stream
        self._stream = stream
        self._time = time
        self._ended = ended
        self._began = time.monotonic()
        self._first = b""
        self._sent = 0
        self._handshake = Handshake()
        self._is_over = False

    async def greeting(self, port: int, box: str) -> str | None:
        """Wait for the first bytes, which ``read`` gives then; returns what is odd about them.

        Raises:
            ConnectionRefused: nothing listens there.
            StreamReset: it hung up without a word.
            DevboxError: the connection was cut.
        """
        try:
            async with asyncio.timeout(GREETING):
                self._first = await self._stream.read()
        except TimeoutError:
            return greeting_problem(b"", port, box)
        except ConnectionRefused as error:
            raise without_sshd(port, box) from error
        if not self._first:
            silent = StreamReset(f"port {port} of {box} hung up without a greeting")
            silent.hint = f"sshd may be too busy, or forbid this; look there with: devboxctl attach {box}"
            raise silent
        return greeting_problem(self._first, port, box)

    async def answered(self) -> bool:
        """Wait until it stands at the far end. Errors as those of ``Duplex.answered``."""
        return bool(self._first) or await self._stream.answered()

    @property
    def greeted(self) -> bytes:
        """The first bytes, while nobody has read them."""
        return self._first

    async def read(self) -> bytes:
        """The next bytes; empty at the far end's close."""
        if first := self._first:
            self._first = b""
            return first
        return await self._stream.read()

    async def write(self, data: bytes) -> None:
        """Send bytes."""
        self._sent += len(data)
        self._handshake.feed(data)
        await self._stream.write(data)

    def finish(self) -> bool:
        """Send no more: ssh has hung up, even if the far end takes its time to."""
        self._over()
        return self._stream.finish()

    @property
    def half_closes(self) -> bool:
        """Whether each direction ends by itself."""
        return self._stream.half_closes

    async def lost(self) -> bool:
        """Wait until nobody is there to be written to."""
        return await self._stream.lost()

    async def part(self) -> None:
        """Wait until all that was written has arrived."""
        self._over()
        await self._stream.part()

    def reset(self) -> None:
        """Cut both directions."""
        self._stream.reset()
        self._over()

    def close(self) -> None:
        """Close both directions."""
        self._stream.close()
        self._over()

    def _over(self) -> None:
        """Say how it was; once, and before the next ssh comes."""
        if not self._is_over:
            self._is_over = True
            seconds = self._time.monotonic() - self._began
            is_refused = self._handshake.is_refused
            self._ended(Ended(seconds, self._sent, self._stream.received, is_refused))

    @property
    def received(self) -> int:
        """Bytes that the far end has ever sent."""
        return self._stream.received

    @property
    def is_online(self) -> bool:
        """Whether it is carried now."""
        return self._stream.is_online

    @property
    def finished(self) -> bool:
        """The far end has closed."""
        return self._stream.finished


async def greeted(
    connect: Callable[[], Awaitable[Duplex]], time: Time, ended: Callable[[Ended], None], port: int, box: str
) -> tuple[SshStream, str | None]:
    """Connect, again where sshd has too many others for now; returns the stream, and what is odd about its greeting.

    Errors as those of ``connect`` and of ``SshStream.greeting``; nothing is open then.
    """
    tries = 0
    while True:
        connected = await connect()
        stream = SshStream(connected, time, ended)
        try:
            note = await stream.greeting(port, box)
        except BaseException:
            stream.close()
            raise
        pause = wait_again(stream.greeted, tries, time.dice())
        if pause is None:
            return stream, note
        connected.close()  # not the stream: that one more was too many says nothing about keys
        await asyncio.sleep(pause)
        tries += 1


def without_sshd(port: int, box: str) -> DevboxError:
    """No sshd on a box: ssh itself would only speak of its banner."""
    return ConnectionRefused(
        f"nothing listens on port {port} of {box}: ssh needs sshd there",
        hint=f"start it or name its port (-p); without sshd there are devboxctl attach and exec {box}",
    )
