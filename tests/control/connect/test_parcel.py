"""What one daemon leaves to the next, as a value: it comes as it was, or not at all; nobody's descriptor is left open."""

from __future__ import annotations

import hashlib
import json
import os
import socket
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from devboxd.control.base.handing import Handing, Kind, Offer
from devboxd.control.connect.execute import ExecSpec
from devboxd.control.connect.handing import by_inode, from_link
from devboxd.control.connect.parcel import (
    FORM,
    HEAD,
    MAGIC,
    Client,
    Command,
    Connection,
    OverBridge,
    Parcel,
    Piece,
    Rest,
    Unreadable,
    decoded,
    encoded,
)
from devboxd.model.attach import AttachSpec
from devboxd.model.box import Account, BoxRef

BOX = BoxRef("api", "i-0123", Account("dev", "eu-west-1"))


def parcel(inodes: list[int], listeners: dict[str, int] | None = None) -> Parcel:
    command = Command(
        client=Client(1, b"\x01\x00", b"\xff"),
        stream=OverBridge(0, 4, b"part of a record"),
        control=OverBridge(0, 6, b""),
        spec=ExecSpec(box=BOX, argv=["sh", "-c", "x"], env={"A": "b"}, wait=None),
        tty=(24, 80),
        untaken=5,
        status=None,
        tail=b"{",
        record=(b"\x01", 1, 7),
        rest=b"more",
        owed=16384,
        attach=AttachSpec(box=BOX, command="x"),
    )
    pieces: list[Piece] = [
        Connection(Client(0, b"", b""), OverBridge(0, 2, b""), "f00"),
        command,
        Rest(Client(2, b"", b"end")),
    ]
    return Parcel([], pieces, listeners or {}, inodes)


def test_it_comes_as_it_was() -> None:
    assert decoded(encoded(parcel([1, 2, 3], {"forward-1": 2}))) == parcel([1, 2, 3], {"forward-1": 2})


@given(at=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_one_that_is_damaged_is_never_taken_for_another(at: int, bit: int) -> None:
    data = bytearray(encoded(parcel([1, 2, 3])))
    data[at % len(data)] ^= 1 << bit
    try:
        found = decoded(bytes(data))
    except Unreadable:
        return
    assert HEAD.unpack_from(bytes(data))[2] != 3, "only how many pieces it says to hold was changed"
    assert found == parcel([1, 2, 3])


@given(size=st.integers(0, 10_000))
def test_one_that_broke_off_is_unreadable(size: int) -> None:
    data = encoded(parcel([1, 2, 3]))
    with pytest.raises(Unreadable):
        decoded(data[: size % len(data)])


def test_one_of_another_version_says_so_and_how_much_it_holds() -> None:
    magic, form, *rest = HEAD.unpack_from(data := encoded(parcel([1, 2, 3])))
    other = HEAD.pack(magic, form + 1, *rest) + data[HEAD.size :]
    with pytest.raises(
        Unreadable, match=f"another version of devboxd made it .form {FORM + 1}, not {FORM}"
    ) as raised:
        decoded(other)
    assert raised.value.pieces == 3


def test_one_with_a_text_that_is_none_is_unreadable() -> None:
    """As every other that cannot be understood: it must not end the daemon that was to go on with it."""
    body = msgspec.msgpack.encode(parcel([1, 2, 3])).replace(b"i-0123", b"i-012\xff")
    head = HEAD.pack(MAGIC, FORM, 3, len(body), hashlib.sha256(body).digest())
    with pytest.raises(Unreadable, match="cannot be understood") as raised:
        decoded(head + body)
    assert raised.value.pieces == 3


def structs(kind: Any, found: dict[str, dict[str, str]]) -> dict[str, dict[str, str]]:
    """All structs that a type is made of: their fields as they are written."""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct) and kind.__name__ not in found:
        fields = msgspec.structs.fields(kind)
        found[kind.__name__] = {field.name: kind.__annotations__[field.name] for field in fields}
        for field in fields:
            structs(field.type, found)
    for part in get_args(kind):
        structs(part, found)
    return found


def test_another_form_has_another_number() -> None:
    """A new daemon must not take an old one's parcel for its own. Changed it? Raise ``FORM``, and write both here."""
    found = structs(Parcel, {})
    assert {"Parcel", "HeldOver", "FrozenStream", "Command", "ExecSpec", "BoxRef", "Marks"} <= found.keys()
    made = json.dumps(found, sort_keys=True)
    assert (FORM, hashlib.sha256(made.encode()).hexdigest()[:16]) == (2, "d6cb6148606bcce8")


def pairs(count: int) -> list[tuple[socket.socket, socket.socket]]:
    return [socket.socketpair() for _ in range(count)]


def is_closed(peer: socket.socket) -> bool:
    with peer:
        peer.settimeout(5)
        return peer.recv(1) == b""


def test_what_cannot_be_read_is_cut_and_counted() -> None:
    made = pairs(3)
    data = encoded(parcel([1, 2, 3]))
    inherited: dict[str, list[socket.socket]] = {}
    found = from_link(data[:-1], [one.detach() for one, _ in made], inherited)
    assert (found.parcel, found.cut, found.why, inherited) == (None, 3, "it is damaged", {})
    assert {is_closed(peer) for _, peer in made} == {True}
    made = pairs(2)
    found = by_inode(data[:-1], [one.detach() for one, _ in made])
    assert (found.parcel, found.cut) == (None, 3)
    assert {is_closed(peer) for _, peer in made} == {True}


def test_listeners_come_behind_the_clients() -> None:
    made = pairs(3)
    listening = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
    ports = [one.getsockname()[1] for one in listening]
    given = parcel([os.fstat(one.fileno()).st_ino for one, _ in made], {"forward-1": 2, "forward-2": 1})
    inherited: dict[str, list[socket.socket]] = {}
    clients = [one.detach() for one, _ in made]
    found = from_link(encoded(given), [*clients, *(one.detach() for one in listening)], inherited)
    assert found.descriptors == clients
    assert [one.getsockname()[1] for one in inherited["forward-1"] + inherited["forward-2"]] == ports
    assert len(inherited["forward-1"]) == 2
    for one in inherited["forward-1"] + inherited["forward-2"]:
        one.close()
    for client in clients:
        os.close(client)
    assert {is_closed(peer) for _, peer in made} == {True}


def test_who_forgets_the_order_or_a_descriptor_mixes_up_nobody() -> None:
    made = pairs(4)
    numbers = [one.detach() for one, _ in made]
    given = parcel([os.fstat(number).st_ino for number in numbers[:3]])
    stranger, lost = numbers[3], numbers[1]
    os.close(lost)
    found = by_inode(encoded(given), [stranger, numbers[2], numbers[0]])
    assert found.descriptors == [numbers[0], None, numbers[2]]
    assert is_closed(made[3][1]), "nobody knows whose it is"
    os.close(numbers[0])
    os.close(numbers[2])
    assert {is_closed(peer) for _, peer in made[:3]} == {True}


def test_no_more_is_offered_than_can_be_handed_over() -> None:
    handing = Handing()
    ready = [True, True, False, True]
    offers = [Offer(Kind.COMMAND, lambda _: None, lambda at=at: ready[at]) for at in range(4)]  # type: ignore[misc]
    with (
        handing.offered(offers[0]),
        handing.offered(offers[1]),
        handing.offered(offers[2]),
        handing.offered(offers[3]),
    ):
        assert handing.ready() == []
        handing.most = 2
        assert handing.ready() == offers[:2]
        assert handing.counts() == {Kind.COMMAND: 2}
        handing.most = 100
        assert handing.ready() == [offers[0], offers[1], offers[3]]
    assert handing.ready() == []
