"""How long a key takes to come back: attach, all the way to a box, and a bare terminal in a terminal."""

from __future__ import annotations

import os
import select
import sys
import time
from contextlib import ExitStack
from typing import Final

import pytest

from tests.bench.kit import ROOT, Settled, in_turns, percentile, show
from tests.ctl.terminal import SHELL, Tty
from tests.e2e.kit import CTL

pytestmark = pytest.mark.bench

ROUNDS: Final = 10
KEYS: Final = 100  # of one round
PAUSE: Final = 0.004  # seconds between an answer and the next key: nobody types into a busy loop
FLOOD: Final = "trap : INT; printf ready; yes; stty -echo; printf do; printf ne; sleep 9"
FLOOD_SECONDS: Final = 3.0
ECHO: Final = "stty raw -echo; printf ready; exec cat"


def press(tty: Tty, keys: int) -> list[float]:
    """Type keys one by one; returns the seconds until each was on the screen."""
    found = []
    for number in range(keys):
        key = b"%c" % (97 + number % 26)
        began = time.perf_counter()
        os.write(tty.master, key)
        while True:
            assert select.select([tty.master], [], [], 10)[0], "no answer"
            if key in os.read(tty.master, 4096):
                break
        found.append(time.perf_counter() - began)
        time.sleep(PAUSE)
    return found


def test_keys_through_attach_and_through_a_bare_terminal() -> None:
    with ExitStack() as stack:
        world = stack.enter_context(Settled())
        careful = stack.enter_context(Settled(""))
        relay = [sys.executable, "-m", "tests.bench.peers", "terminal", "sh", "-c", ECHO]
        attach = [CTL, "attach", "api", "keys", "--mux", "none", "--command", ECHO]
        ttys = {
            "attach": Tty(attach, world.env, run=SHELL),
            "attach, 900 frames/s": Tty(attach, careful.env, run=SHELL),
            "bare terminal relay": Tty(relay, {**os.environ, "PYTHONPATH": str(ROOT)}, run=SHELL),
        }
        found: dict[str, list[float]] = {name: [] for name in ttys}
        for tty in ttys.values():
            stack.enter_context(tty)
            tty.wait_for(b"ready")
            press(tty, 20)
        for _ in range(ROUNDS):
            for name, tty in ttys.items():
                found[name] += press(tty, KEYS)
    bare = found["bare terminal relay"]
    rows = []
    for name, seconds in found.items():
        p50, p99 = percentile(seconds, 0.5), percentile(seconds, 0.99)
        rows.append(
            [
                name,
                f"{p50 * 1e3:.2f} ms",
                f"{p99 * 1e3:.2f} ms",
                f"{p50 / percentile(bare, 0.5):.1f}",
                f"+{(p50 - percentile(bare, 0.5)) * 1e3:.2f} ms",
            ]
        )
    show(
        "one key and its echo (attach: terminal, CLI, daemon, gateway, agent, terminal and back)",
        ["", "p50", "p99", "ratio p50", "more"],
        rows,
    )


def interrupt(tty: Tty) -> float:
    """Let it flood the screen for a while, then press Ctrl-C; returns the seconds until it has stopped."""
    tty.wait_for(b"ready")
    until = time.monotonic() + FLOOD_SECONDS
    while time.monotonic() < until:
        if select.select([tty.master], [], [], 0.1)[0]:
            os.read(tty.master, 65536)
    began, tail = time.perf_counter(), b""
    os.write(tty.master, b"\x03")
    while b"done" not in tail:
        assert select.select([tty.master], [], [], 60)[0], "it never stopped"
        tail = (tail + os.read(tty.master, 65536))[-100:]
    return time.perf_counter() - began


def test_an_interrupt_during_a_flood() -> None:
    relay = [sys.executable, "-m", "tests.bench.peers", "terminal", "sh", "-c", FLOOD]
    with Settled() as world, Settled("") as careful:

        def through(of: Settled | None) -> float:
            attach = [CTL, "attach", "api", "flood", "--mux", "none", "--command", FLOOD]
            env = {**os.environ, "PYTHONPATH": str(ROOT)} if of is None else of.env
            with Tty(relay if of is None else attach, env, run=SHELL) as tty:
                return interrupt(tty)

        seconds = in_turns(
            3,
            {
                "attach": lambda: through(world),
                "attach, 900 frames/s": lambda: through(careful),
                "bare terminal relay": lambda: through(None),
            },
        )
    bare = seconds["bare terminal relay"]
    show(
        f"Ctrl-C after {FLOOD_SECONDS:.0f} s of output at full speed, until the program has stopped",
        ["", "takes", "ratio"],
        [[name, f"{value * 1e3:.0f} ms", f"{value / bare:.1f}"] for name, value in seconds.items()],
    )
