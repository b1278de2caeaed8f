"""idle, keep-alive, extend, lease, why, schedule: when an idle box goes, and what keeps it."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from devboxctl import ask, grammar, show, zone
from devboxctl.commands.project import Name
from devboxctl.fast.reply import UsageError, shell_word
from devboxctl.options import settings
from devboxd.api import routes, wire
from devboxd.text import parse_span

LOOK = 60.0  # seconds for a look at the box
SHOWN = 20  # decisions of a person's table

Span = Annotated[str | None, typer.Option("--for", metavar="SPAN", help="For so long: 45m, 2h, 1d.")]


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    for name, function, examples in (
        (
            "idle",
            idle,
            [
                "devboxctl idle api",
                "devboxctl idle api --after 1h --then cold",
                "devboxctl idle api --never 'mon-fri 22:00-07:00 Europe/Berlin'",
                "devboxctl idle api --lid 15m",
                "devboxctl idle api --delete 90d",
                "devboxctl idle api --reset",
            ],
        ),
        (
            "keep-alive",
            keep_alive,
            [
                "devboxctl keep-alive api --for 3h",
                "devboxctl keep-alive api --until 22:00",
                "devboxctl keep-alive api --until '18:30 Europe/Berlin'",
                "devboxctl keep-alive api --while 'pgrep -f train.py'",
                "devboxctl keep-alive api --pid 4711 --note backup",
            ],
        ),
        ("extend", extend, ["devboxctl extend api", "devboxctl extend api 2h"]),
        ("why", why, ["devboxctl why api", "devboxctl why --json api"]),
        (
            "schedule",
            schedule,
            [
                "devboxctl schedule api --start 08:30 --stop 19:00 --tz Europe/Berlin --days mon-fri",
                "devboxctl schedule api --off",
            ],
        ),
    ):
        grammar.add(app, name, function, section=grammar.PROJECTS, examples=examples)
    group = grammar.add_group(
        app, "lease", "What keeps a box up although it is idle.", section=grammar.PROJECTS
    )
    grammar.add(group, "ls", leases, examples=["devboxctl lease ls api"])
    grammar.add(group, "rm", remove, examples=["devboxctl lease rm api x7k2"])


def idle(
    project: Name,
    after: Annotated[
        str | None, typer.Option("--after", metavar="SPAN", help="Stop after so long without work: 30m, 2h.")
    ] = None,
    warn: Annotated[str | None, typer.Option("--warn", metavar="SPAN", help="Warn so long before.")] = None,
    then: Annotated[
        str | None, typer.Option("--then", metavar="warm|cold|notify", help="What becomes of it.")
    ] = None,
    never: Annotated[
        list[str] | None,
        typer.Option(
            "--never",
            metavar="WINDOW",
            help="Not in this time of the week, by this machine's clock unless it names a zone; may repeat; '' takes all away.",
        ),
    ] = None,
    max_run: Annotated[
        str | None,
        typer.Option("--max-run", metavar="SPAN", help="The longest time that it may run; 0: no limit."),
    ] = None,
    lid: Annotated[
        str | None,
        typer.Option(
            "--lid",
            metavar="SPAN",
            help="Without work, stop so long after the last laptop has left; 0: they do not matter.",
        ),
    ] = None,
    delete: Annotated[
        str | None,
        typer.Option(
            "--delete",
            metavar="SPAN",
            help="Delete the project when it was archived and not used for so long; 0: never.",
        ),
    ] = None,
    reset: Annotated[bool, typer.Option("--reset", help="As the configuration says.")] = False,
) -> None:
    """Show or change when the box of a project goes for being idle.

    warm: saved and kept stopped for a while; cold: saved and gone; notify: only said. Before anything is deleted you
    are told 14, 7 and 1 days ahead.
    """
    is_changed = not (after is warn is then is max_run is lid is delete is None and never is None)
    if reset and is_changed:
        hint = f"devboxctl idle {project} --reset first, then what is to be different"
        raise UsageError("--reset leaves nothing as you say", hint)
    if not reset and not is_changed:
        _print(ask.ask(routes.SHOW_IDLE, wire.ProjectName(project)))
        return
    request = wire.IdleChange(
        project,
        after=_seconds(after) if after is not None else None,
        warn=_seconds(warn) if warn is not None else None,
        then=then,
        never=[zone.window(one) for one in never if one] if never is not None else None,
        max_run=_seconds_or_none(max_run),
        lid=_seconds_or_none(lid),
        delete=_seconds_or_none(delete),
        reset=reset,
    )
    _print(ask.ask(routes.CHANGE_IDLE, request))


def keep_alive(
    project: Name,
    for_: Span = None,
    until: Annotated[
        str | None,
        typer.Option(
            "--until",
            metavar="TIME",
            help="Until 18:30 or a date by this machine's clock, or '18:30 Europe/Berlin'.",
        ),
    ] = None,
    while_: Annotated[
        str | None, typer.Option("--while", metavar="CMD", help="While this command succeeds on the box.")
    ] = None,
    pid: Annotated[
        int | None, typer.Option("--pid", metavar="N", help="While this process of the box is there.")
    ] = None,
    note: Annotated[str, typer.Option("--note", metavar="TEXT", help="What it is for.")] = "",
) -> None:
    """Keep a box up though it is idle, for 72 hours at most.

    An archived project that would be deleted for not being used is kept by it, too: its time begins anew.
    """
    if for_ is not None and until is not None:
        raise UsageError("--for and --until can not be together")
    request = wire.LeaseRequest(
        project,
        seconds=_seconds(for_) if for_ is not None else None,
        until=zone.moment(until) if until is not None else None,
        command=while_,
        pid=pid,
        note=note,
    )
    found = ask.ask(routes.KEEP_ALIVE, request)
    if settings.json or found.leases or not found.deletes:
        _print_leases(found)
    else:
        show.say(
            f"{shell_word(found.project)} is kept: it is not deleted before {show.minute(found.deletes)}"
        )
    if found.leases and show.is_terminal():
        name, last = shell_word(found.project), max(one.until for one in found.leases)
        by = f" {found_zone}" if (found_zone := zone.here()) else ""
        show.say(
            f"{name} stays up until {show.minute(last)}{by} at least; devboxctl lease rm {name} LEASE ends a lease"
        )


def extend(
    project: Name,
    span: Annotated[str, typer.Argument(metavar="[SPAN]", help="By how much; 1h unless said.")] = "1h",
) -> None:
    """Move the time at which an idle box goes.

    Or begin the time anew after which an archived project is deleted for not being used (idle --delete).
    """
    _print(ask.ask(routes.EXTEND, wire.ExtendRequest(project, _seconds(span))))


def leases(project: Name) -> None:
    """List what keeps a box up."""
    _print_leases(ask.ask(routes.LIST_LEASES, wire.ProjectName(project)))


def remove(
    project: Name,
    lease: Annotated[str, typer.Argument(metavar="LEASE", help="Its id; see devboxctl lease ls.")],
) -> None:
    """End a lease."""
    _print_leases(ask.ask(routes.DROP_LEASE, wire.LeaseDrop(project, lease)))


def why(project: Name) -> None:
    """Tell why a box is up, when it goes, or why it was stopped.

    Looks at the box, and shows every signal: what was seen, and whether it counts as work.
    """
    found = ask.ask(routes.WHY, wire.ProjectName(project), timeout=LOOK)
    if settings.json:
        show.print_json(found)
        return
    show.write_line(_sentence(found))
    if found.policy.lid is not None and found.policy.then != "notify" and found.verdict is not None:
        show.write_line(_lid(found))
    if found.spot:
        show.write_line(f"a spot box: {found.spot}")
    if found.evidence:
        show.write("\n")
        rows = [(one.signal, one.seen, "yes" if one.counts else "no") for one in found.evidence]
        show.print_table(("signal", "seen", "counts"), rows)
    if found.decisions:
        show.write("\n")
        last = found.decisions[-SHOWN:]
        show.print_table(("when", "what", "why"), [(show.minute(one.at), one.did, one.why) for one in last])
        stopped = next((one for one in reversed(last) if one.did in ("stopped", "watchdog")), None)
        if stopped is not None and found.phase != "running" and stopped.evidence:
            show.write(f"\nwhat was seen when it was stopped, {show.cell(show.minute(stopped.at))}:\n")
            rows = [(one.signal, one.seen, "yes" if one.counts else "no") for one in stopped.evidence]
            show.print_table(("signal", "seen", "counts"), rows)


def schedule(
    project: Name,
    start: Annotated[
        str | None, typer.Option("--start", metavar="HH:MM", help="When the box is brought up.")
    ] = None,
    stop: Annotated[
        str | None,
        typer.Option("--stop", metavar="HH:MM", help="From when on it goes as soon as it is idle."),
    ] = None,
    tz: Annotated[
        str | None,
        typer.Option("--tz", metavar="ZONE", help="Time zone, as Europe/Berlin; this machine's unless said."),
    ] = None,
    days: Annotated[str, typer.Option("--days", metavar="DAYS", help="As mon-fri, or mon,wed.")] = "mon-fri",
    off: Annotated[bool, typer.Option("--off", help="No hours any more.")] = False,
) -> None:
    """Bring a box up when its hours begin, and stop it after.

    After the end nothing is stopped that works: it goes when it was idle for the time of the warning.
    """
    if off == (start is not None or stop is not None):
        word = shell_word(project)
        hint = (
            f"devboxctl schedule {word} --start 08:30 --stop 19:00; devboxctl idle {word} shows what is set"
        )
        raise UsageError("either hours or --off", hint)
    if not off and stop is None:
        raise UsageError("when do the hours end? --stop is missing", "as --stop 19:00")
    for option, given in (("--start", start), ("--stop", stop)):
        if given is not None and not zone.CLOCK.match(given):
            raise UsageError(f"{option}: {given!r} is no time of the day", "write it as 08:30")
    tz = tz or ("" if off else zone.needed("name one: --tz Europe/Berlin"))
    hours = "" if off else f"{days} {start or '00:00'}-{stop} {tz}"
    request = wire.IdleChange(project, hours=hours, starts=start is not None)
    _print(ask.ask(routes.CHANGE_IDLE, request))


# ------------------------------------------------------------------------------------------------------------


def _seconds(text: str) -> float:
    """Read ``1h30m``; the daemon says what is too long."""
    seconds = parse_span(text)
    if seconds is None:
        raise UsageError(f"{text!r} is no time span", "write it as 45m, 1h30m or 2d")
    return seconds


def _seconds_or_none(text: str | None) -> float | None:
    """The same; 0 takes a limit away, None leaves it."""
    if text is None:
        return None
    return 0.0 if text == "0" else _seconds(text)


def _span(seconds: float) -> str:
    minutes = round(seconds / 60)
    days, hours, rest = minutes // 1440, minutes % 1440 // 60, minutes % 60
    parts = [f"{count} {unit}" for count, unit in ((days, "d"), (hours, "h"), (rest, "min")) if count]
    return " ".join(parts) or f"{round(seconds)} s"


_DOWN: Final = {
    "absent": "it has no box, and nothing is saved of it",
    "ready": "its work is saved, and its box is gone (devboxctl up brings it back)",
    "warm": "it is saved, and kept stopped for a while (devboxctl up starts it)",
    "saving": "its work is being saved",
    "launching": "it is being launched",
    "starting": "it is being started",
}


def _sentence(found: wire.Idle) -> str:
    """What matters most, in one line."""
    if found.phase != "running":
        stopped = [one for one in found.decisions if one.did in ("stopped", "watchdog")]
        last = f"; it was stopped {show.minute(stopped[-1].at)}: {stopped[-1].why}" if stopped else ""
        return f"{found.project} does not run: {_DOWN.get(found.phase, f'it is {found.phase}')}{last}{_end(found)}"
    if found.problem:
        return f"{found.project} is up: it can not be seen whether it is idle ({found.problem})"
    if found.verdict is None:
        return f"{found.project} is up, and was not looked at yet"
    counts = ", ".join(f"{one.signal} ({one.seen})" for one in found.evidence if one.counts)
    if counts:
        return f"{found.project} is up because of {counts}"
    text = f"{found.project} is up and {found.verdict}: {found.why}"
    if found.stops is None:
        return text
    verb = "you are told" if found.policy.then == "notify" else "it stops"
    return (
        f"{text}; {verb} {show.minute(found.stops)} (devboxctl extend {found.project} 1h, or any key in it)"
    )


def _of_lid(policy: wire.IdlePolicy) -> str:
    if policy.then == "notify":
        return f"{_span(policy.lid or 0.0)}, but it is only told when it is idle"
    return f"{_span(policy.lid or 0.0)} after the last laptop has left"


def _lid(found: wire.Idle) -> str:
    """What happens when the lid is closed."""
    here = ", ".join(one.name for one in found.laptops if one.here) or "none"
    what = f"it stops {show.minute(found.lid_stops)}" if found.lid_stops else f"it stays: {found.lid_why}"
    return f"laptops that are here: {here}; if all of them go now, {what}"


def _end(found: wire.Idle) -> str:
    """When an archived project is deleted."""
    if found.deletes:
        name = shell_word(found.project)
        return f"; it is deleted {show.minute(found.deletes)} at the earliest, for not being used (devboxctl extend {name} keeps it)"
    return f"; it is not deleted: {found.delete_why}" if found.delete_why else ""


def _print(found: wire.Idle) -> None:
    if settings.json:
        show.print_json(found)
        return
    policy = found.policy
    show.print_fields(
        [
            ("project", found.project),
            ("phase", found.phase),
            ("verdict", found.verdict),
            ("why", found.why or found.problem),
            ("idle since", show.minute(found.idle_since) if found.idle_since else None),
            ("stops", show.minute(found.stops) if found.stops else None),
            ("not before", show.minute(found.held) if found.held else None),
            ("watchdog", found.watchdog or None),
            ("policy", "of the project" if policy.own else "as configured"),
            ("after", _span(policy.after)),
            ("warn", _span(policy.warn)),
            ("then", policy.then),
            ("never", ", ".join(policy.never)),
            ("lid", _of_lid(policy) if policy.lid else None),
            ("laptops", ", ".join(one.name for one in found.laptops if one.here) if policy.lid else None),
            ("if all laptops go", show.minute(found.lid_stops) if found.lid_stops else found.lid_why),
            (
                "delete",
                f"when it was archived and not used for {_span(policy.delete)}" if policy.delete else None,
            ),
            ("deleted", f"{show.minute(found.deletes)} at the earliest" if found.deletes else None),
            ("not deleted", found.delete_why),
            ("longest run", _span(policy.max_run) if policy.max_run else None),
            ("hours", policy.hours),
            ("starts", policy.starts or None),
            ("leases", ", ".join(f"{one.id} ({one.why})" for one in found.leases)),
        ]
    )


def _print_leases(found: wire.LeaseList) -> None:
    if settings.json:
        show.print_json(found)
        return
    name = shell_word(found.project)
    if not found.leases and show.is_terminal():
        show.say(f"no lease keeps {name} up; devboxctl keep-alive {name} --for 3h takes one")
        return
    rows = [(one.id, show.minute(one.until), one.why, one.who) for one in found.leases]
    show.print_table(("lease", "until", "why", "who"), rows, dispensable=("who",))
