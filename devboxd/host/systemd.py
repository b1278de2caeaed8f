"""Talk to systemd: sd_notify(3), the watchdog and the descriptor store. Does nothing elsewhere."""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Final, Self

from devboxd.text import printable

FORWARD: Final = "forward-"  # begins the names of what forwards store
PARCEL: Final = "parcel"  # what a daemon leaves to the next one: the name of its data,
CLIENT: Final = f"{FORWARD}client"  # and of connections; one that knows nothing of them closes what begins so
BATCH: Final = 200  # descriptors in one message; the system takes 253
SLOTS: Final = 256  # descriptors that the unit had systemd keep when it did not say so itself
BARRIER: Final = 3.0  # seconds that systemd has to take what was sent
NAME_MAX: Final = 255  # characters of FDNAME, sd_pid_notify_with_fds(3)


@dataclass(frozen=True, slots=True)
class Notifier:
    """Sends state to the service manager. Every method is a no-op without one, and never raises."""

    address: str | None = None
    watchdog: float | None = None  # seconds within which systemd wants a sign of life
    slots: int = 0  # descriptors that it keeps for us over a restart

    @classmethod
    def from_environment(cls, environment: MutableMapping[str, str]) -> Self:
        """Read NOTIFY_SOCKET and WATCHDOG_*, and clear them, so that no child speaks in our name."""
        address = environment.pop("NOTIFY_SOCKET", "")
        period = environment.pop("WATCHDOG_USEC", "")
        slots = environment.pop("FDSTORE", "")  # since systemd 254
        pid = environment.pop("WATCHDOG_PID", "") or str(os.getpid())
        ours = period.isdecimal() and int(period) > 0 and pid == str(os.getpid())
        return cls(
            address=address if address.startswith(("/", "@")) else None,
            watchdog=int(period) / 1e6 if ours else None,
            slots=0 if not address.startswith(("/", "@")) else int(slots) if slots.isdecimal() else SLOTS,
        )

    @property
    def interval(self) -> float | None:
        """Seconds between two calls of ``alive``: half of what is asked, as sd_watchdog_enabled(3) advises."""
        return self.watchdog / 2 if self.watchdog else None

    def ready(self, status: str = "") -> bool:
        """Start-up is done."""
        return self._send({"READY": "1", "STATUS": status})

    def stopping(self, status: str = "") -> bool:
        """The end has begun."""
        return self._send({"STOPPING": "1", "STATUS": status})

    def status(self, text: str) -> bool:
        """One line for ``systemctl status``."""
        return self._send({"STATUS": text})

    def alive(self) -> bool:
        """A sign of life for the watchdog. Call it from the event loop, so that a hung loop is noticed."""
        return self._send({"WATCHDOG": "1"})

    def store(self, name: str, descriptors: Sequence[int]) -> bool:
        """Let systemd keep sockets over a restart; they come back by ``net.unix.inherited_sockets``."""
        # Without FDPOLL=0 systemd drops a descriptor that shows an error or hang-up.
        return self._send({"FDSTORE": "1", "FDNAME": _fd_name(name), "FDPOLL": "0"}, descriptors)

    def unstore(self, name: str) -> bool:
        """Take them back out of the store."""
        return self._send({"FDSTOREREMOVE": "1", "FDNAME": _fd_name(name)})

    def leave(self, data: bytes, clients: Sequence[int], listeners: Mapping[str, Sequence[int]]) -> bool:
        """Leave to the next daemon what it is to go on with: see ``left``. Says whether systemd has taken it.

        The data goes into memory that has no name and that only systemd holds.
        """
        if self.address is None or not hasattr(os, "memfd_create"):
            return False
        self.forget_left()
        for name, descriptors in listeners.items():
            self.unstore(name)
            self.store(name, descriptors)
        parcel = -1
        try:
            parcel = os.memfd_create("devboxd")
            _write_all(parcel, data)
            sent = all(self.store(CLIENT, clients[at : at + BATCH]) for at in range(0, len(clients), BATCH))
            return self.store(PARCEL, [parcel]) and sent and self._barrier()
        except OSError:
            return False
        finally:
            if parcel >= 0:
                os.close(parcel)

    def forget_left(self) -> None:
        """Nobody shall be left again what was."""
        self.unstore(CLIENT)
        self.unstore(PARCEL)

    def _barrier(self) -> bool:
        """Wait until systemd has taken all that was sent: sd_notify_barrier(3)."""
        ours, theirs = os.pipe()
        try:
            try:
                sent = self._send({"BARRIER": "1"}, [theirs])
            finally:
                os.close(theirs)
            poll = select.poll()
            poll.register(ours, select.POLLHUP)
            return sent and bool(poll.poll(BARRIER * 1000))
        finally:
            os.close(ours)

    def _send(self, fields: Mapping[str, str], descriptors: Sequence[int] = ()) -> bool:
        """One datagram; says whether it went out. A manager that is gone must not stop us."""
        if self.address is None:
            return False
        text = "\n".join(f"{key}={printable(value)}" for key, value in fields.items() if value)
        address = "\0" + self.address[1:] if self.address.startswith("@") else self.address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
                out.setblocking(False)
                # Connected, because socket.send_fds takes an address and ignores it.
                out.connect(address)
                socket.send_fds(out, [text.encode()], list(descriptors))
        except OSError:
            return False
        return True


def left(
    files: Mapping[str, Sequence[int]], inherited: MutableMapping[str, list[socket.socket]]
) -> tuple[bytes, list[int]] | None:
    """What ``Notifier.leave`` left: the data, and the clients' descriptors in no order. None: nothing.

    Takes them out of ``inherited``; closes the ``files``.
    """
    clients = [one.detach() for one in inherited.pop(CLIENT, [])]
    data = None
    for name, descriptors in files.items():
        for descriptor in descriptors:
            if name == PARCEL and data is None:
                data = _read_all(descriptor)
            os.close(descriptor)
    if data is None:
        for client in clients:
            os.close(client)
        return None
    return data, clients


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _read_all(descriptor: int) -> bytes:
    parts = []
    at = 0
    try:
        while part := os.pread(descriptor, 1 << 20, at):
            parts.append(part)
            at += len(part)
    except OSError:
        return b""  # no file: it cannot be understood
    return b"".join(parts)


class DescriptorStore:
    """Listeners of forwards in systemd's descriptor store: a restart refuses no connection."""

    def __init__(self, notifier: Notifier, inherited: dict[str, list[socket.socket]]) -> None:
        self._notifier = notifier
        self._inherited = inherited

    def take(self, name: str) -> list[socket.socket]:
        """What an earlier daemon stored under this name."""
        return self._inherited.pop(name, [])

    def keep(self, name: str, descriptors: Sequence[int]) -> None:
        """Store them under this name, in place of what is there."""
        self._notifier.unstore(name)  # a name holds as many as were ever stored under it
        self._notifier.store(name, descriptors)

    def drop(self, name: str) -> None:
        """Forget what is stored under this name."""
        self._notifier.unstore(name)

    def drop_rest(self) -> None:
        """Close and forget the forwards that nobody took."""
        for name in [name for name in self._inherited if name.startswith(FORWARD)]:
            for one in self._inherited.pop(name):
                one.close()
            self._notifier.unstore(name)


def _fd_name(name: str) -> str:
    """FDNAME allows printable ASCII without colons."""
    return "".join(c if " " < c < "\x7f" and c != ":" else "-" for c in name)[:NAME_MAX]
