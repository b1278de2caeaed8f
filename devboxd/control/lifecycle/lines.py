"""Reports of a box: lines of a stream, of which each says all that there is, so that only the newest one matters."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol


class Stream(Protocol):
    """What the bridge carries."""

    async def read(self) -> bytes:
        """Some bytes; none at its end. Raises DevboxError."""

    def close(self) -> None: ...


async def newest(stream: Stream, most: int) -> AsyncIterator[bytes]:
    """The newest line whenever one has come, without its end; empty where it is longer than ``most`` bytes.

    Ends with the stream, or when a line is longer and does not end. Raises what reading does.
    """
    buffer = bytearray()
    while data := await stream.read():
        buffer += data
        end = buffer.rfind(b"\n", len(buffer) - len(data))
        if end >= 0:
            begin = buffer.rfind(b"\n", 0, end) + 1
            line = bytes(buffer[begin:end]) if end - begin <= most else b""
            del buffer[: end + 1]
            yield line
        elif len(buffer) > most:
            return
