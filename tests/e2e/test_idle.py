"""Idle boxes with the installed daemon and command line, on a simulated box: the collector really travels there."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.kit import World, until

LONG = 120.0


@pytest.fixture
def world() -> Iterator[World]:
    """A world of its own: its EC2 begins empty."""
    with World() as made:
        yield made


def test_why_shows_what_was_seen_on_the_box_and_leases_reach_it(world: World) -> None:
    done = world.run("launch", "work", "--type", "t4g.small", "--instance-profile", "devbox", timeout=LONG)
    assert done.returncode == 0, done.stderr.decode() + world.log[-3000:]
    # The first looks may come before the agent.
    found = until(
        lambda: (told := world.json("why", "work")).get("verdict") and told, "it was looked at", LONG
    )
    assert found["verdict"] in ("active", "idle", "unknown"), (found, world.log[-3000:])
    assert {"input", "cpu", "net", "disk"} <= {row["signal"] for row in found["evidence"]}
    assert (found["watchdog"], found["policy"]["after"]) == (False, 1800.0)
    assert found["minutes"]

    kept = world.json("keep-alive", "work", "--while", "true", "--note", "demo")
    (lease,) = kept["leases"]
    found = world.json("why", "work")
    assert found["verdict"] == "active"
    assert {"signal": f"lease {lease['id']}", "seen": "demo", "counts": True} in found["evidence"]
    assert "is up because of" in world.ok("why", "work")
    world.ok("lease", "rm", "work", lease["id"])
    found = world.json("why", "work")
    assert not [row for row in found["evidence"] if row["signal"].startswith("lease")]

    assert world.json("extend", "work", "2h")["held"]
    changed = world.json(
        "idle", "work", "--after", "1h", "--then", "notify", "--never", "sat,sun 00:00-24:00"
    )
    assert (changed["policy"]["after"], changed["policy"]["then"]) == (3600.0, "notify")
    lid = world.json("idle", "work", "--lid", "15m", "--then", "warm")
    assert lid["policy"]["lid"] == 900.0
    found = world.json("why", "work")
    (laptop,) = found["laptops"]
    assert laptop["here"]
    assert "/" not in laptop["name"]
    assert found["lid_why"] == "the box has no watchdog, which would stop it"
    assert "it stays: the box has no watchdog" in world.ok("why", "work")
    assert "15 min after the last laptop has left" in world.ok("idle", "work")
    assert world.json("idle", "work", "--lid", "0")["policy"]["lid"] is None
    wrong = world.run("idle", "work", "--after", "1m")
    assert (wrong.returncode, b"at least 5m" in wrong.stderr) == (2, True), wrong.stderr
