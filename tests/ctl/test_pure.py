"""Small decisions of the fast path, without a terminal."""

from __future__ import annotations

import json
import re
import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devboxctl import spec
from devboxctl.fast import complete, framed, reply, screen, words
from devboxctl.fast.escape import LEAVE, SUSPEND, Escapes, escape_character
from devboxctl.fast.reply import UsageError
from devboxd.api import client, wire


@given(st.text())
def test_any_text_is_encoded_as_json_encodes_it(text: str) -> None:
    if any("\ud800" <= c <= "\udfff" for c in text):
        return
    values: dict[str, reply.Value] = {
        "a": text,
        "b": [text],
        "c": {text: text},
        "d": True,
        "e": None,
        "f": 1.5,
    }
    assert json.loads(reply.encode(values)) == {k: v for k, v in values.items() if v is not None}


def test_bytes_that_are_no_text_are_refused() -> None:
    with pytest.raises(reply.UsageError):
        reply.encode({"a": b"\xff".decode("utf-8", "surrogateescape")})


@given(st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=300))), st.data())
def test_frames_survive_every_cut(frames: list[tuple[int, bytes]], data: st.DataObject) -> None:
    sent = b"".join(framed.frame(kind, payload) for kind, payload in frames)
    buffer, got = bytearray(), []
    while sent:
        cut = data.draw(st.integers(1, len(sent)))
        buffer += sent[:cut]
        sent = sent[cut:]
        got += framed.take_frames(buffer)
    assert got == frames
    assert not buffer


def test_an_impossible_frame_is_refused() -> None:
    with pytest.raises(client.DaemonLost):
        framed.take_frames(bytearray(b"\x81\xff\xff\xff\xff"))


@given(st.binary(max_size=200), st.data())
def test_what_is_typed_without_escapes_arrives_unchanged(typed: bytes, data: st.DataObject) -> None:
    typed = typed.replace(b"~", b"")
    escapes, got = Escapes(ord("~")), b""
    while typed:
        cut = data.draw(st.integers(1, len(typed)))
        got += b"".join(part for part in escapes.feed(typed[:cut]) if isinstance(part, bytes))
        typed = typed[cut:]
    assert not [1 for part in escapes.feed(b"") if part]


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ([b"~."], [LEAVE]),
        ([b"~", b"."], [LEAVE]),
        ([b"ls\r~."], [b"ls\r", LEAVE]),
        ([b"ls~."], [b"ls~."]),
        ([b"~", b"x"], [b"~x"]),
        ([b"~~."], [b"~."]),
        ([b"\r~\x1aq"], [b"\r", SUSPEND, b"q"]),
        ([b"\x1b[200~\r~.\x1b[201~"], [b"\x1b[200~\r~.\x1b[201~"]),
        (
            [b"\x1b[200~a", b"\r~.", b"\x1b[201~", b"\r~."],
            [b"\x1b[200~a", b"\r~.", b"\x1b[201~", b"\r", LEAVE],
        ),
    ],
)
def test_escapes(typed: list[bytes], expected: list[bytes | str]) -> None:
    escapes = Escapes(ord("~"))
    assert [part for data in typed for part in escapes.feed(data)] == expected


def test_without_an_escape_character_everything_passes() -> None:
    assert Escapes(None).feed(b"\r~.") == [b"\r~."]


@pytest.mark.parametrize(("text", "code"), [("~", 126), ("^]", 29), ("^a", 1), ("none", None)])
def test_escape_characters(text: str, code: int | None) -> None:
    assert escape_character(text) == code


@pytest.mark.parametrize("text", ["", "ab", "^", "^^^", "ü", "^1"])
def test_wrong_escape_characters(text: str) -> None:
    if text == "^":
        assert escape_character(text) == ord("^")
        return
    with pytest.raises(ValueError, match=re.escape(text) or "^$"):
        escape_character(text)


MODES_ON = b"text\x1b[?1049;1002h\x1b[31mx\x1b[?25l\x1b[>5u\x1b=\x1b[?1h\x1b[>4;2m\x1b[<u\x1b[>1u"


@given(st.lists(st.integers(0, len(MODES_ON)), max_size=5))
def test_modes_are_found_whatever_the_cuts(cuts: list[int]) -> None:
    modes, last = screen.Modes(), 0
    for cut in [*sorted(cuts), len(MODES_ON)]:
        modes.watch(MODES_ON[last:cut])
        last = cut
    expected = b"\x1b[?1l\x1b[?1002l\x1b[?1049l\x1b[?25h\x1b[<1u\x1b>\x1b[0m"
    assert modes.undo() == expected
    assert modes.undo() == b""


@given(st.binary(max_size=500))
def test_any_output_can_be_watched(data: bytes) -> None:
    modes = screen.Modes()
    modes.watch(data)
    modes.watch(data)
    modes.undo()


def test_modes_that_were_switched_off_are_left_alone() -> None:
    modes = screen.Modes()
    modes.watch(b"\x1b[?1049h\x1b[?25l\x1b[?2004h\x1b[?2004l\x1b[?25h\x1b[?1049l\x1b=\x1b>")
    assert modes.undo() == b""


@pytest.mark.parametrize("line", [["--help"], ["-x"], ["--user"], ["--raw=1"], ["a", "--"], ["-Au", "x"]])
def test_the_small_parser_leaves_what_it_does_not_know(line: list[str]) -> None:
    assert words.parse(line, "attach") is None


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("gpu", "gpu"),
        ("web/prod", "web/prod"),
        ("My Dev Box", "'My Dev Box'"),
        ("büro", "'büro'"),
        ("a'b", "'a'\"'\"'b'"),
        ("", "''"),
        ("$(x)", "'$(x)'"),
    ],
)
def test_a_name_in_a_line_to_copy_is_one_word(text: str, word: str) -> None:
    """``attach again with: …`` is pasted into a shell."""
    assert reply.shell_word(text) == word
    assert shlex.split(word) == [text]


@pytest.mark.parametrize(
    ("boxes", "offered"),
    [
        ([{"name": "gpu", "id": "i-1", "ref": "gpu", "host": "gpu.devbox"}], ["gpu"]),
        ([{"name": "ann@corp", "id": "i-1", "ref": "ann@corp", "host": "ann-corp.devbox"}], ["ann@corp"]),
        ([{"name": "büro", "id": "i-1", "ref": "büro", "host": "buro.devbox"}], ["büro"]),
        (
            [{"name": "My Dev Box", "id": "i-1", "ref": "My Dev Box", "host": "my-dev-box.devbox"}],
            ["my-dev-box"],
        ),
        ([{"name": "web/prod", "id": "i-1", "ref": "web/prod", "host": "web-prod.devbox"}], ["web-prod"]),
        ([{"name": "-x", "id": "i-1", "ref": "-x", "host": "x.devbox"}], ["x"]),
        ([{"name": "web", "id": "i-1", "ref": "i-1", "host": "i-1.devbox"}], ["i-1"]),
        ([{"name": "a;b", "id": "i-1"}], ["i-1"]),
    ],
)
def test_completion_offers_what_every_command_takes_and_no_shell_expands(
    boxes: list[dict[str, str]], offered: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name with a space is offered as its host name: the same box, and nothing to quote."""
    monkeypatch.setattr(client, "call", lambda *_, **__: json.dumps({"boxes": boxes}).encode())
    assert complete.candidates(["devboxctl", "show", ""], 2) == offered


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("8080:/run/app.sock", wire.ForwardSpec(path="/run/app.sock", local_port=8080)),
        ("0:~/app.sock", wire.ForwardSpec(path="~/app.sock", local_port=0)),
        ("/tmp/here.sock:/run/app.sock", wire.ForwardSpec(path="/run/app.sock", local_path="/tmp/here.sock")),
    ],
)
def test_a_socket_of_the_box_is_read(text: str, wanted: wire.ForwardSpec) -> None:
    assert spec.read(text) == [wanted]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("3000", wire.ForwardSpec(reverse=True, port=3000, local_port=3000)),
        ("8080:3000", wire.ForwardSpec(reverse=True, port=8080, local_port=3000)),
        ("8080:db.lan:5432", wire.ForwardSpec(reverse=True, port=8080, local_port=5432, bind="db.lan")),
        ("~/a.sock:3000", wire.ForwardSpec(reverse=True, path="~/a.sock", local_port=3000)),
        ("8080:/tmp/a.sock", wire.ForwardSpec(reverse=True, port=8080, local_path="/tmp/a.sock")),
        ("/a.sock:/tmp/b.sock", wire.ForwardSpec(reverse=True, path="/a.sock", local_path="/tmp/b.sock")),
    ],
)
def test_a_reverse_spec_is_read_as_ssh_reads_it(text: str, wanted: wire.ForwardSpec) -> None:
    assert spec.read_reverse(text) == wanted


@pytest.mark.parametrize("text", ["", "x", "~/a.sock", "0:3000", "8080:", "1:2:3:4", "70000", "8000-8010"])
def test_what_is_no_reverse_spec_is_said_to_be_none(text: str) -> None:
    with pytest.raises(UsageError):
        spec.read_reverse(text)


@pytest.mark.parametrize(
    "text", ["8000", "9000:8000", "db.internal:5432", "8000-8010", "./db.sock:5432", "0:8000"]
)
def test_a_spec_is_a_spec(text: str) -> None:
    assert spec.looks_like_spec(text)


@pytest.mark.parametrize(
    "text", ["api", "My Dev Box", "web/prod", "ann@corp", "env:prod", "8000.devbox", "a-b", "1a"]
)
def test_a_name_is_no_spec(text: str) -> None:
    """``devboxctl forward env:prod 8000``: the first word is the box."""
    assert not spec.looks_like_spec(text)
