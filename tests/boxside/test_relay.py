"""The relay: its reader against every damage, and the real program in a real terminal."""

from __future__ import annotations

import base64
import os
import random
import shutil
import signal
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devboxd.boxside import relay
from devboxd.boxside.relay import (
    RelayCredit,
    RelayError,
    RelayEvent,
    RelayExit,
    RelayOutput,
    RelayReader,
    RelayReady,
)
from tests.boxside.terminal import Terminal

NONCE = "0123456789abcdef"
GREETING = b"motd\r\n\r\n" + NONCE.encode() + b':r{"relay":"python"}\r\n'


class Box:
    """Makes the lines that the program would."""

    def __init__(self) -> None:
        self.last = 0
        self._deflate = {b"o": zlib.compressobj(), b"e": zlib.compressobj()}

    def output(self, data: bytes, kind: bytes = b"o") -> bytes:
        deflate = self._deflate[kind]
        packed = deflate.compress(data) + deflate.flush(zlib.Z_SYNC_FLUSH)
        return self.line(kind, base64.b64encode(packed))

    def line(self, kind: bytes, payload: bytes) -> bytes:
        self.last += 1
        head = b"%s%d" % (kind, self.last)
        return b"%s,%08x,%s\n" % (head, zlib.crc32(head + payload), payload)


def text_of(events: list[RelayEvent], *, error: bool = False) -> bytes:
    return b"".join(e.data for e in events if isinstance(e, RelayOutput) and e.error is error)


def test_every_split_means_the_same() -> None:
    """A terminal delivers whatever it likes."""
    box = Box()
    stream = (
        GREETING + box.output(b"out") + box.output(b"err", b"e") + box.line(b"c", b"7") + box.line(b"x", b"3")
    )
    expected = [
        RelayReady("python"),
        RelayOutput(b"out", False),
        RelayOutput(b"err", True),
        RelayCredit(7),
        RelayExit(3),
    ]
    for first in range(len(stream) + 1):
        reader = RelayReader(NONCE)
        reader.given = 7
        assert reader.feed(stream[:first]) + reader.feed(stream[first:]) == expected
    reader = RelayReader(NONCE)
    reader.given = 7
    assert [event for at in range(len(stream)) for event in reader.feed(stream[at : at + 1])] == expected
    assert reader.noise == b"motd\r\n\r\n"
    assert (reader.seen, reader.missing, reader.has_gap) == (4, [], False)


@settings(deadline=None)
@given(st.lists(st.integers(0, 19), max_size=60), st.randoms(use_true_random=False))
def test_whatever_is_lost_or_repeated_is_asked_for_and_then_whole(
    lost: list[int], order: random.Random
) -> None:
    """After ``skip_ahead`` lines are missing, and come again in any order."""
    box = Box()
    lines = [box.output(b"line %d;" % number) for number in range(20)]
    reader = RelayReader(NONCE)
    events = reader.feed(GREETING)
    for number, line in enumerate(lines):
        if number not in lost:
            events += reader.feed(line)
    rounds = 0
    while reader.seen < 20:
        wanted = reader.missing or [reader.seen + 1]
        order.shuffle(wanted)
        for number in wanted:
            events += reader.feed(lines[number - 1])
        rounds += 1
        assert rounds < 25
    for line in lines:
        events += reader.feed(line)  # once more: nothing is taken twice
    assert text_of(events) == b"".join(b"line %d;" % number for number in range(20))
    assert reader.missing == []


@settings(deadline=None)
@given(st.integers(0, 2000), st.integers(1, 255))
def test_a_damaged_line_is_never_taken(at: int, change: int) -> None:
    """Half a line glued to another one after a gap."""
    box = Box()
    good = box.output(b"first") + box.output(os.urandom(200)) + box.output(b"third")
    at %= len(good) - 1  # the very last line end is missed only by whoever waits for the next line
    bad = good[:at] + bytes([good[at] ^ change]) + good[at + 1 :]
    reader = RelayReader(NONCE)
    reader.feed(GREETING)
    try:
        taken = text_of(reader.feed(bad))
    except RelayError:
        return  # the kind was hit: it says so
    assert taken in (b"", b"first") or taken.startswith(b"first")
    assert reader.seen <= 3
    assert reader.seen == 3 or reader.has_gap


@pytest.mark.parametrize("number", [b"999999999999999999", b"100002", b"-5", b"0", b"1e9", b"9" * 5000])
def test_a_number_from_far_away_costs_no_memory(number: bytes) -> None:
    """A hostile box: ``missing`` must stay a short list."""
    reader = RelayReader(NONCE)
    reader.feed(GREETING)
    assert reader.feed(b"o%s,%08x,%s\n" % (number, zlib.crc32(b"o" + number + b"eA=="), b"eA==")) == []
    assert len(reader.missing) <= 1


def test_lines_ahead_are_bounded_by_their_size_not_by_their_history() -> None:
    """A lossy hour must not add up to an error."""
    box = Box()
    reader = RelayReader(NONCE)
    reader.feed(GREETING)
    held = box.output(os.urandom(6000))
    total = 0
    for _ in range(600):
        following = box.output(os.urandom(6000))
        total += len(text_of(reader.feed(following))) + len(text_of(reader.feed(held)))
        held = box.output(os.urandom(6000))
        after = box.output(os.urandom(6000))
        total += len(text_of(reader.feed(after)))
        total += len(text_of(reader.feed(held)))
        reader.taken(total)
        held = box.output(os.urandom(6000))
    assert total > 4 * relay.OUTPUT_WINDOW
    flood = b"".join(box.output(os.urandom(6000)) for _ in range(1000))
    with pytest.raises(RelayError, match="further ahead"):
        reader.feed(flood)


def test_a_zip_bomb_is_refused() -> None:
    """A kilobyte that unpacks to a gigabyte."""
    box = Box()
    reader = RelayReader(NONCE)
    reader.feed(GREETING)
    with pytest.raises(RelayError, match="unpacks"):
        reader.feed(box.output(bytes(300 << 20)))


def test_a_line_that_never_ends_is_refused() -> None:
    """Memory is bounded."""
    for greeting in (GREETING, NONCE.encode() + b":"):
        reader = RelayReader(NONCE)
        reader.feed(greeting)
        with pytest.raises(RelayError, match="never ends"):
            reader.feed(b"x" * (relay.LONGEST_LINE + 1))


def test_noise_before_the_greeting_may_be_long_and_only_its_end_is_kept() -> None:
    """A login banner of a megabyte is no reason to fail, and no reason to keep it."""
    reader = RelayReader(NONCE)
    for _ in range(40):
        reader.feed(b"welcome\n" * 5000)
        assert len(reader._buffer) <= relay.NOISE
    reader.feed(b"at last\n")
    assert reader.feed(GREETING[8:]) == [RelayReady("python")]
    assert reader.noise.endswith(b"welcome\nat last\n")


# What a hostile box can fill ------------------------------------------------------------------------


def test_a_box_that_packs_a_gigabyte_into_a_megabyte_is_stopped_at_the_bound() -> None:
    """In the protocol without numbers nothing may be packed at all; in the other the client's reading counts."""
    packed = zlib.compress(bytes(relay.LONGEST_PIECE), 9)
    simple = RelayReader(NONCE)
    simple.feed(NONCE.encode() + b':r{"relay":"sh"}\n')
    with pytest.raises(RelayError, match="unknown"):
        simple.feed(b"o" + base64.b64encode(packed) + b"\n")
    box, reader = Box(), RelayReader(NONCE)
    reader.feed(GREETING)
    lines = b"".join(box.output(bytes(relay.LONGEST_PIECE)) for _ in range(2000))  # 128 MiB
    with pytest.raises(RelayError, match="more output than it may"):
        reader.feed(lines)
    assert reader._unpacked <= relay.MOST_UNTAKEN + relay.LONGEST_PIECE


def test_output_that_nothing_can_slow_down_is_bounded_and_the_hint_says_what_to_do() -> None:
    """``exec`` into a pager that is left alone over night, on a box without Python."""
    reader = RelayReader(NONCE)
    reader.feed(NONCE.encode() + b':r{"relay":"sh"}\n')
    line = b"O" + base64.b64encode(bytes(30_000)) + b"\n"
    for _ in range(relay.MOST_UNREAD // 30_000):
        assert reader.feed(line)
    with pytest.raises(RelayError, match="was not read here") as failure:
        reader.feed(line)
    assert failure.value.hint is not None


def test_a_million_single_bytes_that_nobody_takes_are_too_many_lines() -> None:
    """Each costs a hundred bytes to remember."""
    box, reader = Box(), RelayReader(NONCE)
    reader.feed(GREETING)
    for _ in range(relay.MOST_AHEAD):
        reader.feed(box.line(b"O", b""))
    with pytest.raises(RelayError, match="more output than it may"):
        reader.feed(box.line(b"O", b""))
    assert len(reader._marks) <= relay.MOST_AHEAD


def test_lines_that_are_all_damaged_are_given_up() -> None:
    """Each takes time, and none is ever taken."""
    reader = RelayReader(NONCE)
    reader.feed(GREETING)
    with pytest.raises(RelayError, match="arrives damaged"):
        reader.feed(b"\n" * (relay.MOST_DAMAGED + 1))


def test_only_so_many_missing_lines_are_told_at_once() -> None:
    """A line far ahead must not make a list of a hundred thousand for every frame that comes."""
    box, reader = Box(), RelayReader(NONCE)
    reader.feed(GREETING)
    box.last = relay.MOST_AHEAD - 1
    reader.feed(box.output(b"far"))
    assert reader.missing == list(range(1, relay.MOST_MISSING + 1))


def test_credit_for_input_that_was_never_given_is_refused() -> None:
    """It would fill the client's window without bound."""
    box, reader = Box(), RelayReader(NONCE)
    reader.feed(GREETING)
    reader.given = 10
    assert reader.feed(box.line(b"c", b"10")) == [RelayCredit(10)]
    with pytest.raises(RelayError, match="more input than it was given"):
        reader.feed(box.line(b"c", b"1"))


@pytest.mark.parametrize(
    "line", [b"q1,00000000,", b"x", b"xabc", b"o!!!", b"f", b"f7 !", b"cx", b"oAAAA", b"r"]
)
def test_nonsense_in_the_simple_protocol_is_an_error_of_its_own(line: bytes) -> None:
    """Without numbers there is nothing to ask again for."""
    reader = RelayReader(NONCE)
    reader.feed(NONCE.encode() + b':r{"relay":"sh"}\n')
    with pytest.raises(RelayError):
        reader.feed(line + b"\n")


@pytest.mark.parametrize("greeting", [b":r{", b":r[]", b":r5"])
def test_a_greeting_that_is_none_is_an_error(greeting: bytes) -> None:
    """And not a crash."""
    with pytest.raises(RelayError):
        RelayReader(NONCE).feed(NONCE.encode() + greeting + b"\n")


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_no_bytes_at_all_crash_the_reader(data: bytes) -> None:
    """Only RelayError, whatever the box says."""
    for greeting in (b"", GREETING, NONCE.encode() + b':r{"relay":"sh"}\n'):
        reader = RelayReader(NONCE)
        reader.feed(greeting)
        try:
            reader.feed(data + b"\n")
        except RelayError:
            pass


# The program --------------------------------------------------------------------------------------------


class Run:
    """The real relay on a pty, spoken to as control does."""

    def __init__(self, env: dict[str, str], *, user: str | None = None, cwd: str | None = None) -> None:
        self.terminal = Terminal(relay.start_command(nonce=NONCE, user=user, cwd=cwd), env)
        self.reader = RelayReader(NONCE)
        self.reader.given = 1 << 40
        self.events: list[RelayEvent] = []
        self.confirms = True

    def ask(self, *argv: str, stdin: bool = True, env: dict[str, str] | None = None) -> None:
        self.until(lambda: self.reader.ready)
        self.terminal.type(relay.request(list(argv), env=env or {}, stdin=stdin))

    def step(self) -> None:
        before = self.reader.seen
        for event in self.reader.feed(self.terminal.read(0.1)):
            self.events.append(event)
        self.reader.taken(len(self.out) + len(text_of(self.events, error=True)))
        if self.confirms and self.reader.seen > before:
            self.terminal.type(relay.taken(self.reader.seen))

    def until(self, what: object, timeout: float = 20.0) -> None:
        assert callable(what)
        end = time.monotonic() + timeout
        while not what():
            assert time.monotonic() < end, (self.terminal.output[-500:], self.events[-3:])
            self.step()

    def end(self) -> RelayExit:
        self.until(lambda: any(isinstance(event, RelayExit) for event in self.events))
        if not self.reader.numbered:
            self.terminal.type(relay.taken(0))
        return next(event for event in self.events if isinstance(event, RelayExit))

    @property
    def out(self) -> bytes:
        return text_of(self.events)

    @property
    def err(self) -> bytes:
        return text_of(self.events, error=True)


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "DEVBOX_KEEP_HOME": "1",
        "TERM": "xterm",
        "LANG": "C.UTF-8",
    }


@pytest.fixture
def run(env: dict[str, str]) -> Iterator[Run]:
    one = Run(env)
    yield one
    one.terminal.close()


def test_both_streams_and_the_status_come_over(run: Run) -> None:
    """Byte-exact, also what is not UTF-8 and what a terminal would eat."""
    run.ask("sh", "-c", "printf 'a\\000\\377\\033[\\n'; printf 'e\\004\\n' >&2; exit 9", stdin=False)
    assert run.end().status == 9
    assert (run.out, run.err) == (b"a\x00\xff\x1b[\n", b"e\x04\n")


def test_input_goes_through_with_credit(run: Run) -> None:
    """Every byte value, more than a pipe holds; the credit adds up."""
    data = bytes(range(256)) * 1200
    run.ask("cat")
    sent = 0
    while sent < len(data):
        credit = sum(event.size for event in run.events if isinstance(event, RelayCredit))
        if sent - credit < relay.INPUT_WINDOW:
            run.terminal.type(relay.data(data[sent : sent + 8192]))
            sent += 8192
        run.step()
    run.terminal.type(relay.END_OF_INPUT)
    assert run.end().status == 0
    assert run.out == data
    assert sum(event.size for event in run.events if isinstance(event, RelayCredit)) == len(data)


def test_a_program_that_does_not_read_gives_no_credit(run: Run) -> None:
    """So the client stops; what it had sent is credited when the program ends."""
    run.ask("sleep", "0.5")
    run.terminal.type(relay.data(b"x" * 60_000))
    assert run.end().status == 0
    assert sum(event.size for event in run.events if isinstance(event, RelayCredit)) <= 60_000


def test_without_input_the_program_sees_its_end(run: Run) -> None:
    """``ssh -n``."""
    run.ask("cat", stdin=False)
    assert run.end().status == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_signals_reach_the_program_and_its_children(run: Run, number: int) -> None:
    """128 plus the signal, as shells say it."""
    # Its child says so: dash loses an interrupt that comes while it starts one.
    run.ask("sh", "-c", "(echo up; exec sleep 100); true", stdin=False)
    run.until(lambda: run.out == b"up\n")
    run.terminal.type(relay.signal(number))
    assert run.end().status == 128 + number


@pytest.mark.parametrize(("argv", "status"), [("/no/such", 127), ("/etc/passwd", 126)])
def test_what_cannot_be_started_is_told(run: Run, argv: str, status: int) -> None:
    """With the system's own words."""
    run.ask(argv, stdin=False)
    end = run.end()
    assert end.status == status
    assert end.problem


def test_unconfirmed_output_stops_the_program(run: Run) -> None:
    """A reader that stops here stops the command there: memory on the box is bounded."""
    run.confirms = False
    noise = "import os\nwhile 1: os.write(1, os.urandom(8192))"
    run.ask(shutil.which("python3") or "python3", "-c", noise, stdin=False)
    quiet = 0
    while quiet < 5:
        before = len(run.terminal.output)
        run.step()
        quiet = quiet + 1 if len(run.terminal.output) == before else 0
    assert relay.OUTPUT_WINDOW * 0.9 < len(run.terminal.output) < relay.OUTPUT_WINDOW * 1.3
    run.confirms = True
    run.terminal.type(relay.taken(run.reader.seen))
    held = len(run.terminal.output)
    run.until(lambda: len(run.terminal.output) > held + 100_000)


def test_lines_are_kept_until_they_are_taken_and_sent_again_when_asked(run: Run) -> None:
    """The one repair that the agent cannot do in time."""
    run.confirms = False
    run.ask("sh", "-c", "for i in 1 2 3 4 5; do echo $i; sleep 0.05; done", stdin=False)
    run.until(lambda: any(isinstance(event, RelayExit) for event in run.events))
    before = len(run.terminal.output)
    run.terminal.type(b"\n" + relay.again([2, 3]))
    run.until(lambda: len(run.terminal.output) > before + 20)
    run.step()
    again = run.terminal.output[before:].split()
    assert [line.partition(b",")[0].lower() for line in again] == [b"o2", b"o3"]
    assert run.out == b"1\n2\n3\n4\n5\n"
    run.terminal.type(relay.taken(run.reader.seen))
    run.terminal.wait()  # now it may leave


def test_a_terminal_that_is_hung_up_takes_the_program_along(run: Run, tmp_path: Path) -> None:
    """The agent ended the session: nothing must run on unseen."""
    mark = tmp_path / "gone"
    run.ask("sh", "-c", f"trap 'echo > {mark}; exit' HUP; echo up; sleep 100 & wait", stdin=False)
    run.until(lambda: run.out == b"up\n")
    run.terminal.close()
    end = time.monotonic() + 20
    while not mark.exists():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_environment_and_folder(env: dict[str, str], tmp_path: Path) -> None:
    """Names that no shell takes, values with everything in them."""
    (tmp_path / "a b").mkdir()
    one = Run(env, cwd=str(tmp_path / "a b"))
    one.ask("sh", "-c", 'printf "%s|" "$X" "$PWD"', stdin=False, env={"X": "q'\"$(id)`\n{{x}}"})
    assert one.end().status == 0
    assert one.out == f"q'\"$(id)`\n{{{{x}}}}|{tmp_path}/a b|".encode()
    one.terminal.close()


@pytest.mark.parametrize(
    ("more", "what"),
    [({"cwd": "/no/such/folder"}, "no such folder"), ({"user": "no-such-user"}, "no such user")],
)
def test_what_keeps_a_command_from_its_place_is_told(
    env: dict[str, str], more: dict[str, str], what: str
) -> None:
    """It must not run anywhere else, or as anybody else."""
    one = Run(env, **more)
    end = one.end()
    assert end.status == 125
    assert what in (end.problem or "")
    one.terminal.close()


def test_without_python_plain_sh_does_it(env: dict[str, str], tmp_path: Path) -> None:
    """A bare image: the same lines, output at the end."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in [
        "sh",
        "base64",
        "cat",
        "cut",
        "fold",
        "getent",
        "grep",
        "id",
        "mktemp",
        "printf",
        "rm",
        "stty",
        "tr",
        "wc",
        "env",
        "sleep",
    ]:
        if (found := shutil.which(name)) is not None:
            (tools / name).symlink_to(os.path.realpath(found) if name != "sh" else found)
    if Path("/usr/local/bin/python3").exists():
        pytest.skip("there is a python3 in /usr/local/bin, where the relay looks, too")
    one = Run(env | {"PATH": str(tools)})
    one.ask("sh", "-c", 'cat; echo "$V" >&2; exit 4', env={"V": "a 'b'"})
    data = bytes(range(256)) * 300
    one.terminal.type(relay.data(data) + relay.END_OF_INPUT)
    assert one.end().status == 4
    assert one.reader.kind == "sh"
    assert (one.out, one.err) == (data, b"a 'b'\n")
    assert sum(event.size for event in one.events if isinstance(event, RelayCredit)) == len(data)
    one.terminal.close()
