"""Serve an ssh-agent socket on the box and carry its connections over standard input and output.

Runs from ``-c`` on whatever Python 3 a box has (3.6 and later). Frames both ways: connection number u32, length
u32, bytes; a length of 0 closes. The path of the socket never changes, so panes of any age find whoever serves
it now. What travels is made of this text by ``make programs``.
"""

import os
import select
import socket
import struct
import sys

HEADER = struct.Struct(">II")
READ = 16384  # bytes of one frame


class Carrier:
    """Connections to the socket, by number, and the frames that carry them."""

    def __init__(self, listener: socket.socket) -> None:
        self.listener = listener
        self.connections = {}  # type: dict[int, socket.socket]
        self.last = 0
        self.received = b""

    def run(self) -> None:
        """Carry until standard input ends."""
        while True:
            waiting = {connection.fileno(): number for number, connection in self.connections.items()}
            ready = select.select([0, self.listener.fileno(), *waiting], [], [])[0]
            for descriptor in ready:
                if descriptor == 0:
                    data = os.read(0, 65536)
                    if not data:
                        return
                    self.received += data
                    self.deliver()
                elif descriptor == self.listener.fileno():
                    self.last += 1
                    self.connections[self.last] = self.listener.accept()[0]
                elif waiting[descriptor] in self.connections:
                    self.carry(waiting[descriptor])

    def deliver(self) -> None:
        """Give whole frames to their connections."""
        while len(self.received) >= HEADER.size:
            number, length = HEADER.unpack_from(self.received)
            end = HEADER.size + length
            if len(self.received) < end:
                return
            data, self.received = self.received[HEADER.size : end], self.received[end:]
            if number not in self.connections:
                continue
            if not length:
                self.connections.pop(number).close()
                continue
            try:
                self.connections[number].sendall(data)
            except OSError:
                self.drop(number)

    def carry(self, number: int) -> None:
        """Send what a connection has, or that it is closed."""
        try:
            data = self.connections[number].recv(READ)
        except OSError:
            data = b""
        if data:
            write(HEADER.pack(number, len(data)) + data)
        else:
            self.drop(number)

    def drop(self, number: int) -> None:
        """Close a connection, and say so."""
        self.connections.pop(number).close()
        write(HEADER.pack(number, 0))


def write(data: bytes) -> None:
    """Write all of it to standard output."""
    view = memoryview(data)
    while view:
        view = view[os.write(1, view) :]


def main() -> None:
    """Serve the socket at its path, from now on alone."""
    folder = os.path.join(os.path.expanduser("~"), ".devbox")
    os.makedirs(folder, 0o700, exist_ok=True)
    os.chmod(folder, 0o700)
    path = os.path.join(folder, "agent.sock")
    own = path + "." + str(os.getpid())
    os.umask(0o177)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(own)
    listener.listen(16)
    inode = os.stat(own).st_ino
    os.rename(own, path)
    write(b"ready")
    try:
        Carrier(listener).run()
    finally:
        # Only while it is still ours: another attach may serve the path by now.
        try:
            if os.stat(path).st_ino == inode:
                os.unlink(path)
        except OSError:
            pass
    sys.exit(0)


if __name__ == "__main__":
    main()
