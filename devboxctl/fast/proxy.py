"""``devboxctl proxy BOX PORT``: a byte pipe for ssh and friends; nothing but bytes on standard output.

With ``--fdpass`` (OpenSSH's ``ProxyUseFdpass``) the daemon's descriptor is handed to ssh and this process
ends. Otherwise it stays and copies, ignoring Ctrl-C: that belongs to the program that uses the pipe.

Many clients read OpenSSH's configuration and know nothing of descriptors: they run the ``ProxyCommand`` and
talk to it. Those are told by their standard output, and get a copy.
"""

from __future__ import annotations

import os
import select
import socket
import sys

from devboxctl.fast import reply, words
from devboxctl.fast.loop import GONE, IN, OUT, Loop
from devboxctl.fast.pipe import Output
from devboxd.api import client
from devboxd.text import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

WAIT = 120.0  # seconds for a box that is not connected yet
SOON = 5.0  # seconds within which an end without a byte may be a refusal
BOUND = 262144  # bytes on their way in one direction


def main(line: list[str]) -> int | None:
    """Run from the words after ``proxy``; None leaves them to the full parser."""
    given = words.parse(line, "proxy")
    if given is None or len(given.arguments) != 2:
        return None
    box, port = given.arguments
    try:
        number, wait = int(port), float(given.options.get("wait", WAIT))
    except ValueError:
        return None
    if not 0 < number < 65536:
        return None
    options = given.options
    return proxy(
        box,
        number,
        fdpass="fdpass" in given.flags,
        ssh_user=options.get("ssh_user"),
        ssh_host=options.get("ssh_host"),
        fresh="fresh" in given.flags,
        host=options.get("host"),
        wait=wait,
        profile=options.get("profile"),
        region=options.get("region"),
    )


def proxy(
    box: str,
    port: int,
    *,
    fdpass: bool = False,
    ssh_user: str | None = None,
    ssh_host: str | None = None,
    fresh: bool = False,
    host: str | None = None,
    wait: float = WAIT,
    profile: str | None = None,
    region: str | None = None,
) -> int:
    """Connect and copy (or hand over). Returns the exit status, 255 for every failure, as ssh expects."""
    told = "" if ssh_user else f"port {port} of {host or box}"

    def run() -> int:
        passes = fdpass and _is_unix_socket(1)
        request = reply.encode(
            {
                "box": ssh_host if box == "%n" and ssh_host else box,
                "port": port,
                "host": host,
                "fd_pass": passes or None,
                "ssh_user": ssh_user,
                "fresh": fresh or None,
                "wait": wait,
                "profile": profile,
                "region": region,
            }
        )
        if passes:
            return _hand_over(request, wait + 30, told)
        # Nothing goes over it before the answer: while it is being opened, a restart of the daemon is none of its business.
        with client.Exchange.start(
            "POST", "proxy", request, upgrade=True, timeout=wait + 30, is_harmless=True
        ) as exchange:
            _say_notes(exchange.head)
            return _copy(exchange.connection, exchange.head, told)

    return reply.reported(run, lost=255)


def _is_unix_socket(descriptor: int) -> bool:
    """Say whether a descriptor could be sent over this one."""
    try:
        with socket.socket(fileno=os.dup(descriptor)) as found:
            return found.family == socket.AF_UNIX
    except OSError:  # closed, or no socket
        return False


def _talks(descriptor: int) -> bool:
    """Say whether somebody has written to us already. ssh never does where it waits for a descriptor."""
    waiting = select.poll()
    waiting.register(descriptor, select.POLLIN)
    if not waiting.poll(0):
        return False
    with socket.socket(fileno=os.dup(descriptor)) as found:
        try:
            return bool(found.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
        except OSError:
            return False


def _hand_over(request: bytes, timeout: float, told: str) -> int:
    """Receive the descriptor of the pipe and send it to ssh on standard output.

    Clients made with libssh have a unix socket there, too, and have sent their greeting by now: they get a copy.
    """
    tries = client.TRIES
    while True:
        try:
            head, passed = _passed(request, timeout)
            break
        except client.DaemonLost as error:
            tries -= 1
            if not (error.may_ask_again(is_harmless=True) and tries):
                raise
    _say_notes(head)
    if _talks(1):
        with socket.socket(fileno=int.from_bytes(passed, sys.byteorder)) as far:
            head.rest = b""  # the byte that came with the descriptor
            return _copy(far, head, told)
    with socket.socket(fileno=os.dup(1)) as ssh:
        ssh.sendmsg([b"\0"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, passed)])
    return 0


def _passed(request: bytes, timeout: float) -> tuple[client.Head, bytes]:
    """Ask once; returns the head of the answer and the descriptor that came with it, as the kernel spells it."""
    connection = client.connect_or_start(timeout=timeout)
    data, passed, head = b"", b"", None
    try:
        connection.sendall(client.request_bytes("POST", "proxy", request, upgrade=True))
        # recvmsg from the first byte on: a plain recv would throw a descriptor away that came early.
        while head is None or not passed:
            part, ancillary, _, _ = connection.recvmsg(4096, socket.CMSG_SPACE(4))
            for level, kind, content in ancillary:
                if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                    passed = content[:4]
            data += part
            if head is None:
                head, data, waits = client.next_head(data)
                client.tell_waits(waits)
            if head is not None and head.status != 101:
                head.rest = data[data.find(b"\r\n\r\n") + 4 :]
                raise client.Refused(head.status, client.Exchange(connection, head).body())
            if not part:
                failure = client.DaemonLost("devboxd closed the connection without an answer")
                failure.is_unanswered = not data
                raise failure
    except TimeoutError:
        raise client.DaemonLost(f"devboxd did not answer within {timeout:g} s") from None
    except OSError as error:
        raise client.lost(error, answered=bool(data)) from None
    finally:
        connection.close()
    return head, passed


def _say_notes(head: client.Head) -> None:
    """Tell whoever runs ssh what it would not say itself."""
    text = head.headers.get("devbox-notes", "").encode("latin-1").decode("utf-8", "replace")
    for note in text.split("\t") if text else ():
        reply.say(f"devbox: {printable(note)}\n")


def _copy(connection: socket.socket, head: client.Head, told: str) -> int:
    """Copy both ways until both are at their end; each end is passed on by itself (half-close).

    A person at a terminal is not waited for once the far end has ended: nothing would say that there is nobody.

    ``told``: what it leads to, for a sentence where it may lead nowhere; empty where the daemon has looked.
    """
    import signal
    import time

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    copy, began = Copy(connection, head.rest), time.monotonic()
    copy.run()
    is_known = not told or "devbox-answered" in head.headers
    if copy.is_silent and not is_known and time.monotonic() - began < SOON:
        reply.say(f"devbox: {printable(told)} closed at once, without a byte: does anything listen there?\n")
    return copy.status


class Copy(Loop):
    """Standard input to the daemon, the daemon to standard output."""

    def __init__(self, connection: socket.socket, early: bytes) -> None:
        super().__init__()
        connection.setblocking(False)
        self.status = 0
        self._connection = connection
        self._far = connection.fileno()
        self._output = Output(1)
        self._output.put(early)
        self._upward = bytearray()
        self._reading = True  # standard input
        self._receiving = True  # from the daemon
        self._sending = True  # to the daemon
        self._reader_gone = False
        self._heard = bool(early)
        self._is_typed = os.isatty(0)

    @property
    def is_silent(self) -> bool:
        """Whether the far end has left without a byte."""
        return not self._heard and bool(self.status or not self._receiving)

    def is_over(self) -> bool:
        if self._output.waiting:
            self._output.flush()
        if not self._receiving and not self._output.waiting and not self._output.broken:
            self.forget(1)
            self._output.close()
            self._sending = self._sending and not self._is_typed
        if self._output.failure is not None:
            raise reply.cannot_write("standard output", self._output.failure)
        if self._reader_gone or self.status or (self._output.broken and self._receiving):
            return True
        self._send()
        return not (self._sending or self._receiving or self._output.waiting)

    def _send(self) -> None:
        if self._upward and self._sending:
            try:
                del self._upward[: self._connection.send(self._upward)]
            except BlockingIOError:
                pass
            except OSError:
                self._sending = self._reading = False
        if not self._reading and not self._upward and self._sending:
            self._sending = False
            try:
                self._connection.shutdown(socket.SHUT_WR)
            except OSError:
                pass  # gone, which reading will tell, too

    def wants(self, now: float) -> dict[int, int]:
        far = IN if self._receiving and len(self._output.waiting) < BOUND else 0
        far |= OUT if self._upward and self._sending else 0
        interest = {}
        if far or not self._receiving:  # for nothing but a hang-up it would be reported again and again
            interest[self._far] = far
        if self._reading and self._sending and len(self._upward) < BOUND:
            interest[0] = IN
        if not self._output.broken:
            interest[1] = OUT if self._output.waiting else 0
        return interest

    def act(self, ready: Mapping[int, int]) -> None:
        if ready.get(0):
            try:
                chunk = os.read(0, 65536)
            except OSError:  # EIO: the terminal is gone; EBADF: there never was an input
                chunk = b""
            self._upward += chunk
            self._reading = bool(chunk)
        events = ready.get(self._far, 0)
        if events & ~OUT and self._receiving and len(self._output.waiting) < BOUND:
            self._receive()
        elif events & GONE and not self._receiving:
            self._sending = False  # the daemon has closed both ways
        if ready.get(1, 0) & GONE and not self._output.waiting:
            self._reader_gone = True  # whoever used the pipe

    def _receive(self) -> None:
        try:
            chunk = self._connection.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            self.status = 255
            return
        self._output.put(chunk)
        self._heard = self._heard or bool(chunk)
        self._receiving = bool(chunk)
