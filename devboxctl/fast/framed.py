"""The framed connection of ``attach`` and ``exec``: type, length, payload (``devboxd.api.wire``)."""

from __future__ import annotations

import socket

from devboxctl.fast import reply
from devboxd.api import client

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

# The numbers of wire.StreamType and its neighbours; tests/ctl/test_startup.py compares them.
INPUT, RESIZE, DETACH, END_OF_INPUT, SIGNAL, CREDIT_OUTPUT = 0x01, 0x02, 0x03, 0x04, 0x05, 0x06
OUTPUT, ERROR_OUTPUT, STATUS, EXIT, CREDIT, ANSWER = 0x81, 0x82, 0x83, 0x84, 0x85, 0x86
HEADER_SIZE = 5
STREAM_MAX = 1 << 20
INPUT_WINDOW = 65536
INPUT_FRAME = 16384  # input bytes per frame: small enough to be passed on while more is read


def frame(kind: int, payload: bytes = b"") -> bytes:
    """Build one frame."""
    return bytes((kind,)) + len(payload).to_bytes(4, "big") + payload


def take_frames(data: bytearray) -> list[tuple[int, bytes]]:
    """Take the complete frames off the front of ``data``. Raises DaemonLost for an impossible length."""
    frames = []
    at = 0
    while len(data) - at >= HEADER_SIZE:
        length = int.from_bytes(data[at + 1 : at + HEADER_SIZE], "big")
        if length > STREAM_MAX:
            raise client.DaemonLost(f"devboxd sent a frame of {length} bytes")
        end = at + HEADER_SIZE + length
        if len(data) < end:
            break
        frames.append((data[at], bytes(data[at + HEADER_SIZE : end])))
        at = end
    del data[:at]
    return frames


def frames_of(exchange: client.Exchange) -> Iterator[tuple[int, bytes]]:
    """Read frames as they come, for ever, blocking. Raises DaemonLost at the end of the connection."""
    received = bytearray(exchange.head.rest)
    while True:
        yield from take_frames(received)
        try:
            data = exchange.connection.recv(65536)
        except OSError as error:
            raise client.DaemonLost(f"lost the connection to devboxd: {error.strerror}") from None
        if not data:
            raise client.DaemonLost("devboxd went away")
        received += data


class Framed:
    """One connection that carries frames, never blocking. ``open`` once the daemon has answered 101."""

    def __init__(self, connection: socket.socket, path: str, request: bytes) -> None:
        connection.setblocking(False)
        self.socket = connection
        self.descriptor = connection.fileno()
        self.open = False
        self._is_answered = False
        self.sending = bytearray(client.request_bytes("POST", path, request, upgrade=True))
        self._received = bytearray()

    def send(self, kind: int, payload: bytes = b"") -> None:
        """Queue a frame. Nothing may be sent before ``open``."""
        self.sending += frame(kind, payload)

    def flush(self) -> None:
        """Send what goes now. Raises DaemonLost."""
        try:
            while self.sending:
                del self.sending[: self.socket.send(self.sending)]
        except (BlockingIOError, InterruptedError):
            pass
        except OSError as error:
            raise client.lost(error, answered=self._is_answered) from None

    def receive(self) -> list[tuple[int, bytes]]:
        """Read once. Raises DaemonLost at the end of the connection, Refused when the answer is not 101."""
        try:
            data = self.socket.recv(65536)
        except (BlockingIOError, InterruptedError):
            return []
        except OSError as error:
            raise client.lost(error, answered=self._is_answered) from None
        if not data:
            raise client.DaemonLost("devboxd went away")
        self._is_answered = True
        self._received += data
        if not self.open:
            head, data, waits = client.next_head(bytes(self._received))
            self._received = bytearray(data)
            if head is None:
                return [(STATUS, reply.encode({"state": "starting", "text": text})) for text in waits]
            if head.status != 101:
                self.socket.settimeout(5.0)
                raise client.Refused(head.status, client.Exchange(self.socket, head).body())
            self._received = bytearray(head.rest)
            self.open = True
        return take_frames(self._received)

    def close(self) -> None:
        """Close the connection."""
        self.socket.close()
