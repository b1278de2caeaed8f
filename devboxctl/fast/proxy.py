"""``devboxctl proxy BOX PORT``: a byte pipe for ssh and friends; nothing but bytes on standard output.

With ``--fdpass`` (OpenSSH's ``ProxyUseFdpass``) the daemon's descriptor is handed to ssh and this process
ends. Otherwise it stays and copies, ignoring Ctrl-C: that belongs to the program that uses the pipe.
"""

from __future__ import annotations

import os
import select
import socket
import stat

from devboxctl.fast import reply, words
from devboxctl.fast.pipe import Output
from devboxd.api import client

WAIT = 120.0  # seconds for a box that is not connected yet
BOUND = 262144  # bytes on their way in one direction

OPTIONS = {
    **words.ACCOUNT,
    "--fdpass": ("fdpass", False),
    "--ssh-user": ("ssh_user", True),
    "--host": ("host", True),
    "--wait": ("wait", True),
}


def main(line: list[str]) -> int | None:
    """Run from the words after ``proxy``; None leaves them to the full parser."""
    given = words.parse(line, OPTIONS)
    if given is None or given.rest is not None or len(given.arguments) != 2:
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
    host: str | None = None,
    wait: float = WAIT,
    profile: str | None = None,
    region: str | None = None,
) -> int:
    """Connect and copy (or hand over). Returns the exit status, 255 for every failure, as ssh expects."""

    def run(name: str) -> int:
        request = reply.encode(
            {
                "box": name,
                "port": port,
                "host": host,
                "fd_pass": fdpass or None,
                "ssh_user": ssh_user,
                "wait": wait,
                "profile": profile,
                "region": region,
            }
        )
        if fdpass:
            return _hand_over(request, wait + 30)
        with client.Exchange.start("POST", "proxy", request, upgrade=True, timeout=wait + 30) as exchange:
            return _copy(exchange.connection, exchange.head.rest)

    return reply.with_prefix(box.removesuffix(".devbox"), profile, region, run, lost=255)


def _hand_over(request: bytes, timeout: float) -> int:
    """Receive the descriptor of the pipe and send it to ssh on standard output."""
    try:
        ours = os.fstat(1)
    except OSError:
        ours = None
    if ours is None or not stat.S_ISSOCK(ours.st_mode):
        raise reply.UsageError("--fdpass is for ssh (ProxyUseFdpass yes)", "leave it out to use a pipe")
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
            head = head or client.parse_head(data)
            if head is not None and head.status != 101:
                head.rest = data[data.find(b"\r\n\r\n") + 4 :]
                raise client.Refused(head.status, client.Exchange(connection, head).body())
            if not part:
                raise client.DaemonLost("devboxd closed the connection without an answer")
    except TimeoutError:
        raise client.DaemonLost(f"devboxd did not answer within {timeout:g} s") from None
    except OSError as error:
        raise client.DaemonLost(f"lost the connection to devboxd: {error.strerror or error}") from None
    finally:
        connection.close()
    with socket.socket(fileno=os.dup(1)) as ssh:
        ssh.sendmsg([b"\0"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, passed)])
    return 0


def _copy(connection: socket.socket, early: bytes) -> int:
    """Copy both ways until both are at their end; each end is passed on by itself (half-close)."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    connection.setblocking(False)
    far = connection.fileno()
    output = Output(1)
    output.put(early)
    upward = bytearray()
    reading, receiving, sending = True, True, True
    poll = select.poll()
    while sending or receiving or output.waiting:
        interest = {far: 0, 0: 0, 1: 0}
        if receiving and len(output.waiting) < BOUND:
            interest[far] |= select.POLLIN
        if upward and sending:
            interest[far] |= select.POLLOUT
        if reading and sending and len(upward) < BOUND:
            interest[0] |= select.POLLIN
        if output.waiting:
            interest[1] |= select.POLLOUT
        # Without wanted events only a hang-up is reported, again and again: ask for that where it is used.
        watched = {far: interest[far] or not receiving, 0: interest[0], 1: not output.broken}
        for descriptor, events in interest.items():
            if watched[descriptor]:
                poll.register(descriptor, events)
            else:
                _forget(poll, descriptor)
        ready = dict(poll.poll())
        if ready.get(0):
            chunk = os.read(0, 65536)
            upward += chunk
            reading = bool(chunk)
        events = ready.get(far, 0)
        if events & select.POLLIN or (events and interest[far] & select.POLLIN):
            try:
                chunk = connection.recv(65536)
            except BlockingIOError:
                pass
            except OSError:
                return 255
            else:
                output.put(chunk)
                receiving = bool(chunk)
        elif events & (select.POLLHUP | select.POLLERR) and not receiving:
            sending = False  # the daemon has closed both ways
        if ready.get(1, 0) & (select.POLLERR | select.POLLHUP | select.POLLNVAL) and not output.waiting:
            return 0  # whoever used the pipe is gone
        if output.waiting:
            output.flush()
        if not receiving and not output.waiting and not output.broken:
            _forget(poll, 1)
            output.close()
        if output.broken and receiving:
            return 0
        if upward and sending:
            try:
                del upward[: connection.send(upward)]
            except BlockingIOError:
                pass
            except OSError:
                sending, reading = False, False
        if not reading and not upward and sending:
            sending = False
            connection.shutdown(socket.SHUT_WR)
    return 0


def _forget(poll: select.poll, descriptor: int) -> None:
    try:
        poll.unregister(descriptor)
    except KeyError:
        pass
