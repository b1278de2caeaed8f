"""bridge: what carries connections to boxes, and removing it from one."""

from __future__ import annotations

import typer

from devboxctl import ask, grammar, options, show
from devboxctl.options import settings
from devboxd.api import routes, wire

HEADERS = ("box", "user", "sessions", "streams", "round trip", "down", "up", "packs", "without, because")


def add_to(app: typer.Typer) -> None:
    """Add the group."""
    group = grammar.add_group(
        app,
        "bridge",
        "What carries connections to boxes, and removing it.",
        section=grammar.LOOK,
    )
    grammar.add(group, "ls", list_, examples=["devboxctl bridge ls"])
    grammar.add(group, "rm", remove, examples=["devboxctl bridge rm api"])


def list_(wide: options.Wide = False) -> None:
    """List the bridges, and why a box has none."""
    found = ask.ask(routes.STATUS).bridges
    if settings.json:
        show.print_json({"bridges": show.plain(found)})
        return
    print_bridges(found, wide=wide)


def print_bridges(found: list[wire.Bridge], *, wide: bool = False) -> None:
    """Print a table."""
    show.print_table(
        HEADERS,
        [
            (
                *(one.box, one.user, len(one.lanes), one.streams),
                "" if (trip := round_trip(one)) is None else f"{trip * 1000:.0f} ms",
                *(f"{show.size(int(one.rate_down))}/s", f"{show.size(int(one.rate_up))}/s"),
                "" if one.packs is None else f"{one.packs:.1f}",
                one.without,
            )
            for one in found
        ],
        dispensable=("packs", "up", "down", "user", "round trip"),
        wide=wide,
    )


def round_trip(one: wire.Bridge) -> float | None:
    """The best of its lanes, in seconds."""
    return min((lane.round_trip for lane in one.lanes if lane.round_trip is not None), default=None)


def said(one: wire.Bridge) -> str:
    """A bridge in a few words."""
    if one.without is not None:
        return f"none: {one.without}"
    trip = round_trip(one)
    words = [f"{show.count(len(one.lanes), 'session')}, {show.count(one.streams, 'stream')}"]
    if trip is not None:
        words.append(f"round trip {trip * 1000:.0f} ms")
    if one.packs is not None:
        words.append(f"packed to 1/{one.packs:.1f}")
    return ", ".join(words)


def remove(
    box: options.Box = None,
    profile: options.Profile = None,
    region: options.Region = None,
) -> None:
    """Take away what the bridge to a box runs and keeps there.

    What goes over it is cut. The next connection starts it again, unless the configuration says
    bridge.use = "never".
    """
    removed = ask.ask(
        routes.REMOVE_BRIDGE,
        wire.Target(box=ask.chosen(box), profile=settings.profile, region=settings.region),
    )
    if settings.json:
        show.print_json(removed)
        return
    for line in removed.done:
        show.write(show.cell(line) + "\n")
    show.say(
        f"{show.count(removed.streams, 'stream')} cut"
        if removed.done
        else f"there was nothing on {removed.box}"
    )
