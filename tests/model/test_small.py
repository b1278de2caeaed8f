"""Names, scripts, forwards, back-off and what follows the end of a session: tables."""

from __future__ import annotations

import random
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devboxd.boxside.script import load, squeeze, wrap
from devboxd.errors import BadRequest
from devboxd.model.forward import Spec, bracket, check, mirrored
from devboxd.model.retry import CALM, LONGEST, Backoff


@settings(deadline=None, max_examples=40)
@given(st.lists(st.text(st.characters(blacklist_characters="\0", codec="utf-8")), max_size=5))
def test_arguments_survive_the_way_to_the_box(arguments: list[str]) -> None:
    """Quotes, braces, newlines: nothing on the way may change them, or run them."""
    text = wrap('for a in "$@"; do printf "%s\\001" "$a"; done', *arguments)
    assert "{{" not in text
    assert all(32 <= ord(c) < 127 for c in text)
    out = subprocess.run(["sh", "-c", text], capture_output=True, check=True).stdout
    assert out == b"".join(argument.encode() + b"\x01" for argument in arguments)


def test_a_command_that_does_not_fit_is_refused() -> None:
    """The API would, with less clear words."""
    with pytest.raises(BadRequest, match="too long"):
        wrap("true", "x" * 60_000)


@pytest.mark.parametrize("name", ["attach.sh", "relay.sh"])
def test_the_scripts_leave_room_for_a_command(name: str) -> None:
    """Of the 65,535 characters that a parameter may have."""
    assert len(wrap(load(name), "1")) < 16_000


@pytest.mark.parametrize("name", ["attach.sh", "relay.sh", "listening.sh", "prepare_ssh.sh"])
def test_squeezing_changes_no_meaning(name: str) -> None:
    """At least every shell still parses it."""
    text = squeeze(load(name))
    assert subprocess.run(["sh", "-n", "-c", text], capture_output=True).stderr == b""
    assert not any(line.startswith("#") for line in text.splitlines())


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (Spec(), "either a port"),
        (Spec(port=80, dynamic=True), "either a port"),
        (Spec(port=65536), "no port"),
        (Spec(port=-1), "no port"),
        (Spec(port=80, local_port=70_000), "no local port"),
        (Spec(port=80, local_port=-1), "no local port"),
        (Spec(port=80, local_path="/" + "x" * 120), "too long"),
        (Spec(port=80, host=""), "no host"),
        (Spec(port=80, host="a b"), "no host"),
    ],
)
def test_forwards_that_cannot_be_are_refused(spec: Spec, message: str) -> None:
    """Before anything is bound."""
    with pytest.raises(BadRequest, match=message):
        check(spec)


def test_forwards_are_named_as_people_write_them() -> None:
    """``forward ls``."""
    assert check(Spec(port=5432, host="db")).remote == "db:5432"
    assert check(Spec(port=5432, host="fd00::1")).remote == "[fd00::1]:5432"
    assert check(Spec(port=8080)).remote == "8080"
    assert check(Spec(dynamic=True)).remote == "socks5"


@pytest.mark.parametrize(
    ("host", "hint"),
    [
        ("~nobodyx/x", "begins with / or ~/"),
        ("a/b", "begins with / or ~/"),
        ("http://db", "leave out http://"),
        ("me@db", "a name or an address"),
        ("db?x", "a name or an address"),
        ("db#x", "a name or an address"),
        ("a\\b", "a name or an address"),
        ("a b", "a name or an address"),
        ("db\n", "a name or an address"),
    ],
)
def test_what_is_no_host_is_refused_and_told_what_was_meant(host: str, hint: str) -> None:
    with pytest.raises(BadRequest, match="is no host") as bad:
        check(Spec(port=80, host=host))
    assert hint in (bad.value.hint or "")
    with pytest.raises(BadRequest, match="no address to listen on"):
        check(Spec(port=80, bind=host))
    assert bracket("::1") == "[::1]"


@settings(deadline=None)
@given(st.sets(st.integers(1, 65535)), st.sets(st.integers(1, 65535)))
def test_an_auto_forward_ends_up_with_what_listens(listening: set[int], known: set[int]) -> None:
    """No system port is mirrored unasked; nothing is added twice."""
    added, dropped = mirrored(listening, known)
    assert not added & known
    assert dropped <= known
    after = (known - dropped) | added
    assert after <= listening
    assert all(port >= 1024 for port in added)
    assert mirrored(listening, after) == (set(), set())


@settings(deadline=None)
@given(st.integers(0, 2**32))
def test_the_back_off_grows_to_its_bound_and_never_is_zero(seed: int) -> None:
    """Zero would be a busy loop, equal waits a stampede."""
    delays = Backoff(random.Random(seed).random)
    waits = [delays.wait() for _ in range(60)]
    assert all(0 < wait <= LONGEST for wait in waits)
    assert all(wait >= LONGEST / 10 for wait in waits[10:])


def test_the_back_off_begins_again_after_a_try_that_worked() -> None:
    """Five short ones in a month are none in a row."""
    delays = Backoff(lambda: 0.5, first=1.0)
    first, second, third = (delays.wait_after(CALM) for _ in range(3))
    assert (second, third) == (2 * first, 4 * first)
    assert delays.wait_after(CALM + 1) == first
    assert delays.wait() == second
    delays.begin_again()
    assert delays.wait() == first
