"""What a lane says first, and what it proves."""

import hmac
import os
import selectors
import socket
import struct
import time
from typing import TYPE_CHECKING

from devboxd.boxside.programs.head.reach import READ_SIZE

if TYPE_CHECKING:
    from devboxd.boxside.programs.head.loop import Head


GREETING = struct.Struct(">4s16sI32s")  # magic, the life of the daemon's end, number of the lane, nonce
MAGIC = b"DBX1"
ANSWER = struct.Struct(">32s32s")  # nonce, proof
PROOF_SIZE = 32
LANE_BUFFER = 256 << 10  # bytes that a lane may be behind with sending
STRANGERS_MOST = 32  # connections that have not shown who they are
STRANGER_TIME = 5.0  # seconds that one has for it


class LaneSocket:
    """A connection that carries part of the bridge, or a stranger that has yet to show who it is."""

    def __init__(self, head: "Head", sock: socket.socket) -> None:
        self.head = head
        self.sock = sock
        self.number: int | None = None
        self.greeting = b""
        self.nonce = b""
        self.seen = b""
        self.out = bytearray()
        self.since = time.monotonic()
        head.watch(sock, selectors.EVENT_READ, self)

    def ready(self, mask: int) -> None:
        """Something can be read or written."""
        if mask & selectors.EVENT_WRITE:
            self.flush()
        if mask & selectors.EVENT_READ:
            try:
                data = self.sock.recv(READ_SIZE)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self.head.lane_lost(self)
            elif self.number is None:
                self.introduce(data)
            else:
                self.head.lane_says(self, data)

    def introduce(self, data: bytes) -> None:
        """Take a stranger's greeting, answer it, and take its proof."""
        self.seen += data
        if not self.greeting and len(self.seen) >= GREETING.size:
            self.greeting, self.seen = self.seen[: GREETING.size], self.seen[GREETING.size :]
            if not self.greeting.startswith(MAGIC):
                self.head.lane_lost(self)
                return
            self.nonce = os.urandom(32)
            self.out += ANSWER.pack(self.nonce, self.head.proof(b"far", self.greeting, self.nonce))
            self.flush()
        if self.greeting and len(self.seen) >= PROOF_SIZE:
            proof, rest = self.seen[:PROOF_SIZE], self.seen[PROOF_SIZE:]
            self.seen = b""
            if not hmac.compare_digest(proof, self.head.proof(b"near", self.greeting, self.nonce)):
                self.head.lane_lost(self)
                return
            self.head.lane_known(self)
            if rest:
                self.head.lane_says(self, rest)
        elif len(self.seen) > GREETING.size + PROOF_SIZE:
            self.head.lane_lost(self)

    @property
    def room(self) -> int:
        """Bytes that it takes now."""
        return max(0, LANE_BUFFER - len(self.out))

    def flush(self) -> None:
        """Send what waits, as far as it goes."""
        while self.out:
            try:
                sent = self.sock.send(memoryview(self.out)[:READ_SIZE])
            except BlockingIOError:
                break
            except OSError:
                self.head.lane_lost(self)
                return
            del self.out[:sent]
        self.head.watch(self.sock, selectors.EVENT_READ | (selectors.EVENT_WRITE if self.out else 0), self)
