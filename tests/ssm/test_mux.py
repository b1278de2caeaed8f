"""smux version 1: recorded frames, every split, and a peer that misbehaves."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devboxd.ssm.handshake import needs_keepalive, speaks_mux
from devboxd.ssm.mux import Data, Event, Finished, Mux, MuxError, Nop, Opened
from tests.kit.muxserver import MuxServer
from tests.ssm.support import vectors

RECORDED = vectors("smux")
SENT = {vector["name"]: vector["wire_hex"] for vector in RECORDED["sent"]}


def text(events: list[Event], stream: int) -> bytes:
    return b"".join(event.data for event in events if isinstance(event, Data) and event.stream == stream)


def joined(events: list[Event]) -> list[Event]:
    """Data of one stream that follows itself is one event: cuts carry no meaning."""
    result: list[Event] = []
    for event in events:
        match result[-1:], event:
            case [Data(stream=before, data=head)], Data(stream=after, data=tail) if before == after:
                result[-1] = Data(after, head + tail)
            case _:
                result.append(event)
    return result


def test_item_39_what_we_send_is_what_the_real_library_sends() -> None:
    mux, server = Mux(limit=32768), MuxServer(limit=32768)
    assert mux.open() == (3, bytes.fromhex(SENT["open-first-stream"]))
    request = b"GET / HTTP/1.0\r\n\r\n"
    assert mux.data(3, request).hex() == SENT["data-on-stream-3"]
    assert mux.open() == (5, bytes.fromhex(SENT["open-second-stream"]))
    assert mux.data(3, b"").hex() == SENT["zero-length-write"]
    long = mux.data(5, bytes(number % 256 for number in range(70_000)))
    headers = [long[0:8], long[8 + 32768 :][:8], long[2 * (8 + 32768) :][:8]]
    assert "|".join(header.hex() for header in headers) == SENT["data-70000-frame-headers-only"]
    assert mux.finish(5).hex() == SENT["close-stream-5"]
    assert mux.nop().hex() == SENT["keepalive"]
    server.received(bytes.fromhex(SENT["open-first-stream"]))
    assert server.data(3, b"HTTP/1.0 200 OK\r\n").hex() == SENT["data-reply-on-stream-3"]
    assert server.finish(3).hex() == SENT["server-closes-stream-3"]
    assert mux.received(bytes.fromhex(SENT["server-opened-stream"])) == [], "the agent never opens streams"


def observed(events: list[Event]) -> list[str]:
    """Say what happened in the words of the recording."""
    lines: list[str] = []
    accepted = [event.stream for event in events if isinstance(event, Opened)]
    for stream in accepted:
        lines.append(f"accepted stream {stream}")
        data = text(events, stream)
        if data:
            lines.append(
                f"stream {stream} read {len(data)} bytes"
                if len(data) > 1000
                else f'stream {stream} read "{data.decode()}"'
            )
        if Finished(stream) in events:
            lines.append(f"stream {stream} read error: EOF")
    return lines


@pytest.mark.parametrize("vector", RECORDED["receive"], ids=lambda vector: vector["name"])
@pytest.mark.parametrize("step", [1, 7, 100_000])
def test_item_39_received_bytes_mean_what_they_mean_to_the_real_library(
    vector: dict[str, Any], step: int
) -> None:
    head, _, zeros = vector["bytes_in_hex"].partition("...(")
    data = bytes.fromhex(head) + bytes(int(zeros.split()[0]) if zeros else 0)
    server, events = MuxServer(), list[Event]()
    try:
        for start in range(0, len(data), step):
            events += server.received(data[start : start + step])
    except MuxError:
        assert vector["observed"] == ["accept error: invalid protocol"]
        with pytest.raises(MuxError):
            server.received(b"")  # dead for good
    else:
        assert observed(events) == vector["observed"]


def conversation() -> tuple[bytes, list[Event]]:
    """Bytes from a far end for streams 3 and 5, and what they mean."""
    server = MuxServer()
    server.received(bytes.fromhex("01000000030000000100000005000000"))
    parts = [
        server.nop(),
        server.data(3, b"hello"),
        server.data(5, bytes(range(256)) * 9),
        bytes.fromhex("0102000003000000"),  # no data
        bytes.fromhex("0102020007000000") + b"??",  # nobody's
        bytes.fromhex("0101000009000000"),  # nobody's either
        bytes.fromhex("0104080003000000") + bytes(8),  # version 2's window update
        bytes.fromhex("0104000003000000") + bytes(8),  # its size is fixed, whatever the header says
        server.finish(5),
        bytes.fromhex("0101000005000000"),  # once more
        server.data(3, b"bye"),
        server.finish(3),
        bytes.fromhex("0102020003000000") + b"!!",  # after the end
    ]
    meaning: list[Event] = [
        Nop(),
        Data(3, b"hello"),
        Data(5, bytes(range(256)) * 9),
        Finished(5),
        Data(3, b"bye"),
        Finished(3),
    ]
    return b"".join(parts), meaning


def client() -> Mux:
    mux = Mux()
    assert [mux.open()[0], mux.open()[0]] == [3, 5]
    return mux


def test_item_39_frames_may_be_cut_at_every_byte() -> None:
    wire, meaning = conversation()
    for cut in range(len(wire) + 1):
        mux = client()
        assert joined(mux.received(wire[:cut]) + mux.received(wire[cut:])) == meaning


@given(st.lists(st.integers(1, 300)))
def test_item_39_frames_may_be_cut_anywhere(cuts: list[int]) -> None:
    wire, meaning = conversation()
    mux, events, position = client(), list[Event](), 0
    for length in [*cuts, len(wire)]:
        events += mux.received(wire[position : position + length])
        position += length
    assert joined(events) == meaning


def test_item_39_ids_are_3_5_7_and_never_come_again() -> None:
    mux = Mux()
    ids = [mux.open()[0] for _ in range(4)]
    mux.finish(5)
    assert [*ids, mux.open()[0]] == [3, 5, 7, 9, 11]
    mux._last = 0xFFFFFFFD
    assert mux.open()[0] == 0xFFFFFFFF
    with pytest.raises(MuxError):
        mux.open()


def test_item_39_a_stream_is_finished_once_and_then_silent() -> None:
    mux, server = Mux(), MuxServer()
    stream, syn = mux.open()
    server.received(syn)
    assert mux.finish(stream)
    assert mux.finish(stream) == b""
    assert mux.data(stream, b"late") == b""
    assert mux.received(server.data(stream, b"late") + server.finish(stream)) == [], "we have closed it"


def test_item_39_after_the_far_ends_fin_we_may_still_send_and_must_answer() -> None:
    mux, server = Mux(), MuxServer()
    stream, syn = mux.open()
    server.received(syn)
    assert mux.received(server.finish(stream)) == [Finished(stream)]
    assert mux.data(stream, b"x")
    assert mux.finish(stream)


def test_item_39_a_frame_for_one_payload_fits_exactly() -> None:
    mux = Mux()
    stream, _ = mux.open()
    assert len(mux.data(stream, bytes(1016))) == 1024
    assert len(mux.data(stream, bytes(1017))) == 1024 + 9


def test_item_40_a_hundred_streams_do_not_mix() -> None:
    mux, server = Mux(), MuxServer()
    streams = [mux.open() for _ in range(100)]
    wire = b"".join(syn for _, syn in streams)
    for turn in range(5):
        wire += b"".join(mux.data(stream, f"{stream}:{turn};".encode()) for stream, _ in streams)
    events = server.received(wire)
    for stream, _ in streams:
        assert text(events, stream) == b"".join(f"{stream}:{turn};".encode() for turn in range(5))


def test_item_45_keepalives_are_wanted_by_old_far_ends_only() -> None:
    """Such a far end ends the session after 30 s of silence."""
    assert needs_keepalive("3.1.1511.0")
    assert needs_keepalive("3.0.222.0")
    assert needs_keepalive("")
    assert not needs_keepalive("3.1.1575.0")
    assert not needs_keepalive("3.3.987.0")
    assert Mux().received(MuxServer().nop()) == [Nop()]


def test_item_44_old_far_ends_and_ssh_sessions_have_no_mux() -> None:
    forward = {"type": "LocalPortForwarding", "portNumber": "80"}
    assert speaks_mux("3.0.222.0", forward)
    assert not speaks_mux("3.0.196.0", forward)
    assert not speaks_mux("2.3.722.0", forward)
    assert not speaks_mux("3.3", forward), "as the official client: what is not four numbers is old"
    assert not speaks_mux("3.3.987.0", {"portNumber": "22"})
    assert not speaks_mux("3.3.987.0", None)


@given(st.lists(st.binary(max_size=40), max_size=30))
def test_random_bytes_raise_nothing_but_a_mux_error_and_keep_nothing(chunks: list[bytes]) -> None:
    mux = client()
    try:
        for chunk in chunks:
            mux.received(chunk)
    except MuxError:
        pass
    assert len(mux._header) < 8
