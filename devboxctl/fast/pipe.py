"""Writing without ever blocking, and without changing file descriptors that other programs share.

``O_NONBLOCK`` belongs to the open file, not to the descriptor: setting it on standard output would also set
it for the shell that started us. So the file is opened a second time where that is possible.
"""

from __future__ import annotations

import errno
import os
import socket
import stat

SAFE_WRITE = 4096  # a pipe that polls writable takes this much at once (PIPE_BUF on Linux; 512 elsewhere)
CHUNK = 65536
GONE = (errno.EPIPE, errno.EIO, errno.ECONNRESET)  # nobody reads any more: no failure of ours


class Output:
    """A descriptor with a queue. ``broken`` once it takes nothing more; what is queued then is dropped.

    ``failure`` says why, if it is for another reason than that its reader has gone.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.waiting = bytearray()
        self.broken = False
        self.failure: OSError | None = None
        self._socket: socket.socket | None = None
        self._chunk = SAFE_WRITE
        try:
            mode = os.fstat(descriptor).st_mode
            os.write(descriptor, b"")
        except OSError:
            return  # closed, or cannot be written to: told when there is something to write
        if stat.S_ISSOCK(mode):
            self._socket = socket.socket(fileno=os.dup(descriptor))
            self._chunk = CHUNK
        elif stat.S_ISFIFO(mode) or stat.S_ISCHR(mode):
            self._reopen(mode)
        else:
            self._chunk = CHUNK

    def _reopen(self, mode: int) -> None:
        """Put a second, non-blocking open file under the same number."""
        paths = [f"/proc/self/fd/{self.descriptor}"]
        try:
            paths.append(os.ttyname(self.descriptor))
        except OSError:
            pass
        for path in paths:
            try:
                again = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
            except OSError:
                continue  # a terminal of another user (su, sudo): small writes have to do
            os.dup2(again, self.descriptor)
            os.close(again)
            self._chunk = CHUNK
            return
        if stat.S_ISCHR(mode):
            self._chunk = 256

    def put(self, data: bytes) -> None:
        """Queue bytes. The caller bounds the queue by looking at ``waiting``."""
        if not self.broken:
            self.waiting += data

    def flush(self) -> int:
        """Write what can be written now; returns the number of bytes."""
        if not self.waiting:
            return 0
        data = bytes(self.waiting[: self._chunk])
        try:
            if self._socket is not None:
                done = self._socket.send(data, socket.MSG_DONTWAIT)
            else:
                done = os.write(self.descriptor, data)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError as error:
            self.broken = True
            self.waiting.clear()
            if error.errno not in GONE:
                self.failure = error
            return 0
        del self.waiting[:done]
        return done

    def close(self) -> None:
        """Let the reader see the end."""
        self.broken = True
        if self._socket is not None:
            self._socket.close()
        try:
            os.close(self.descriptor)
        except OSError:
            pass
