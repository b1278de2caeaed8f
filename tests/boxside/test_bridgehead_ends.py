"""How connections end at the bridgehead: each direction by itself, and a reset as a reset."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from devboxd.boxside import bridgehead
from tests.boxside.test_bridgehead import Near, near, program

__all__ = ["near", "program"]

UPLOAD = os.urandom(16 << 20)
RESET = struct.pack("ii", 1, 0)
GREETING = b"hello, and that is all"

Connect = Callable[[], tuple[int, socket.socket]]


@pytest.fixture(params=["tcp", "unix"])
def connect(request: pytest.FixtureRequest, near: Near, tmp_path: Path) -> Iterator[Connect]:
    """Opens a stream to a server on the box; gives its number and the server's end."""
    near.lane()
    with contextlib.ExitStack() as held:
        if request.param == "tcp":
            server = held.enter_context(socket.create_server(("127.0.0.1", 0)))
            purpose = bridgehead.tcp("127.0.0.1", server.getsockname()[1])
        else:
            server = held.enter_context(socket.socket(socket.AF_UNIX))
            server.bind(str(tmp_path / "served"))
            server.listen()
            purpose = bridgehead.unix(str(tmp_path / "served"))

        def connect() -> tuple[int, socket.socket]:
            number = near.bridge.open(purpose)
            near.until(lambda: select.select([server], [], [], 0)[0])
            return number, held.enter_context(server.accept()[0])

        yield connect


def greeted(near: Near, number: int, there: socket.socket) -> None:
    """The server says what it has to say, and that this was all."""
    there.sendall(GREETING)
    there.shutdown(socket.SHUT_WR)
    near.until(lambda: number in near.ended)
    assert bytes(near.got[number]) == GREETING


def filled(near: Near, number: int) -> bytes:
    """Send all that the box takes while its server reads nothing: some of it waits in the bridgehead."""
    stream, sent, still = near.bridge._streams.by_number[number], 0, 0
    while still < 20:
        credit = stream.credit_out - stream.out_next - len(stream.waiting)
        sent += near.bridge.write(number, UPLOAD[sent : sent + credit])
        still = 0 if credit else still + 1
        near.step()
    assert 256 << 10 < sent < len(UPLOAD)
    return UPLOAD[:sent]


def taken(near: Near, there: socket.socket, size: int) -> bytes:
    """What the server gets, to the end or as far as it wants to read."""
    got = bytearray()
    there.setblocking(False)

    def more() -> bool:
        while len(got) < size:
            try:
                part = there.recv(1 << 16)
            except BlockingIOError:
                return False
            if not part:
                return True
            got.extend(part)
        return True

    near.until(more)
    return bytes(got)


def reset(there: socket.socket) -> None:
    if there.family != socket.AF_UNIX:
        there.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    there.close()


def test_who_ended_first_still_gets_all_that_is_sent(near: Near, connect: Connect) -> None:
    """A greeting, an end, and an upload: its server reads late, when all streams are over for a long time."""
    number, there = connect()
    greeted(near, number, there)
    sent = filled(near, number)
    near.bridge.finish(number)
    near.until(lambda: number not in near.bridge.streams)
    assert near.run("true")[0] == 0  # it has had time to forget it
    assert taken(near, there, len(UPLOAD)) == sent
    assert number not in near.resets


def test_a_long_upload_after_the_far_end_has_ended(near: Near, connect: Connect) -> None:
    number, there = connect()
    greeted(near, number, there)
    upload, got = UPLOAD[: 3 << 20], bytearray()
    there.setblocking(False)
    sent = 0
    while len(got) < len(upload):
        sent += near.bridge.write(number, upload[sent : sent + (1 << 18)])
        near.step()
        with contextlib.suppress(BlockingIOError):
            got += there.recv(1 << 20)
    assert got == upload
    near.bridge.finish(number)
    assert taken(near, there, 1) == b""
    near.until(lambda: number not in near.bridge.streams)


def test_who_said_everything_and_left_is_heard_to_the_end(near: Near, connect: Connect) -> None:
    """``close`` after the last byte is no reset, and what the box has not read by then is not thrown away."""
    number, there = connect()
    sent = filled(near, number)
    near.bridge.finish(number)
    near.until(lambda: near.bridge.has_arrived(number))
    near.bridge.reset(number, "closed")
    near.until(lambda: not near.bridge._streams.by_number)
    assert near.run("true")[0] == 0  # it has had time to forget it
    assert taken(near, there, len(UPLOAD)) == sent
    with pytest.raises(ConnectionError):  # and nobody is there
        near.until(lambda: not there.send(b"an answer"))


def test_a_reset_from_here_is_one_there(near: Near, connect: Connect) -> None:
    for is_first in (False, True):
        number, there = connect()
        if is_first:
            greeted(near, number, there)
        near.send(number, b"part of an")
        assert taken(near, there, 10) == b"part of an"
        near.bridge.reset(number, "closed")
        if there.family == socket.AF_UNIX:  # those know nothing else
            assert taken(near, there, 1) == b""
        else:
            with pytest.raises(ConnectionError):
                taken(near, there, 1)


def test_a_reset_there_is_one_here(near: Near, connect: Connect) -> None:
    number, there = connect()
    near.send(number, b"nobody reads this")
    near.until(lambda: select.select([there], [], [], 0)[0])
    reset(there)
    near.until(lambda: number in near.resets)
    assert near.resets[number].startswith("ECONNRESET")
    assert number not in near.ended


@pytest.mark.skipif(not hasattr(select, "epoll"), reason="elsewhere the next write tells")
def test_a_reset_after_the_end_is_one_although_nobody_writes(near: Near, connect: Connect) -> None:
    number, there = connect()
    near.send(number, b"nobody reads this")
    near.until(lambda: select.select([there], [], [], 0)[0])
    greeted(near, number, there)
    reset(there)
    near.until(lambda: number in near.resets)
    assert near.resets[number].split()[0] in ("ECONNRESET", "EPIPE")


def test_who_writes_to_a_server_that_is_gone_is_reset(near: Near, connect: Connect) -> None:
    number, there = connect()
    greeted(near, number, there)
    there.close()
    if there.family == socket.AF_UNIX and hasattr(select, "epoll"):  # the system tells at once
        near.until(lambda: number in near.resets)
        assert near.resets[number].split()[0] == bridgehead.GONE
        return
    end = time.monotonic() + 20
    while number not in near.resets:
        assert time.monotonic() < end
        near.bridge.write(number, b"anybody?")
        near.step()
    assert near.resets[number].split()[0] in ("ECONNRESET", "EPIPE")


def test_what_was_said_before_the_end_arrives_before_the_reset_does(near: Near, connect: Connect) -> None:
    """A server that answers in the middle of an upload, and goes: the answer is the point."""
    number, there = connect()
    near.send(number, b"part of an upload")
    assert taken(near, there, 17) == b"part of an upload"
    answer = UPLOAD[: 200 << 10]  # none of it travels before the server is gone: there is no lane
    near.cut(near.bridge.order()[0])
    there.setblocking(True)
    there.sendall(answer)
    there.close()
    near.lane()
    end = time.monotonic() + 20
    while number not in near.resets:
        assert time.monotonic() < end
        near.bridge.write(number, b"more of it")
        near.step()
    assert bytes(near.got[number]) == answer
    assert number in near.ended


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_peer_that_ended_is_asked_now_and_then_whether_it_is_there(near: Near) -> None:
    """One that goes without a word (a machine that is switched off) would hold its stream for ever."""
    near.lane()
    with socket.create_server(("127.0.0.1", 0)) as server:
        number = near.bridge.open(bridgehead.tcp("127.0.0.1", server.getsockname()[1]))
        near.until(lambda: select.select([server], [], [], 0)[0])
        with server.accept()[0] as there:
            _, port = there.getpeername()

            def timer() -> str:
                lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()]
                return next(line[5][:2] for line in lines if line[1].endswith(f":{port:04X}"))

            assert timer() == "00"
            greeted(near, number, there)
            near.until(lambda: timer() == "02")  # that of keepalive


def test_streams_that_are_over_leave_no_descriptor_behind(near: Near, connect: Connect) -> None:
    folder = Path(f"/proc/{near.note['pid']}/fd")
    if not folder.is_dir():
        pytest.skip("no /proc")
    before: set[str] = set()
    for turn in range(6):
        number, there = connect()
        match turn % 3:
            case 0:
                greeted(near, number, there)
                near.bridge.finish(number)
            case 1:
                greeted(near, number, there)
                reset(there)
                near.bridge.write(number, b"anybody?")
                near.until(lambda: number in near.resets)  # noqa: B023 - at once
            case 2:
                near.send(number, b"last words")
                near.bridge.finish(number)
                near.until(lambda: near.bridge.has_arrived(number))  # noqa: B023 - at once
                near.bridge.reset(number, "closed")
                assert taken(near, there, 100) == b"last words"
        there.close()
        near.until(lambda: not near.bridge._streams.by_number)
        if turn == 2:
            before = {one.name for one in folder.iterdir()}
    near.until(lambda: len({one.name for one in folder.iterdir()}) <= len(before))
