"""ls, show, status, ping, events, doctor, login: ask and print."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from devboxctl import ask, grammar, options, show
from devboxctl.commands import bridge, logins, sessions
from devboxctl.fast.boxes import COLUMNS, Wanted, field
from devboxctl.options import default_box, settings
from devboxd import __version__
from devboxd.api import client, routes, wire

DOCTOR = 180.0  # seconds for all checks


TIMES = ("launched", "since", "saved", "deletes")  # of a box


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    look, account = grammar.LOOK, grammar.ACCOUNT
    grammar.add(
        app,
        "ls",
        list_boxes,
        section=look,
        examples=[
            "devboxctl ls",
            "devboxctl ls --state running 'web-*'",
            "devboxctl ls --tag team=search --json",
        ],
    )
    grammar.add(app, "show", show_box, section=look, examples=["devboxctl show api"])
    grammar.add(app, "status", status, section=look, examples=["devboxctl status"])
    grammar.add(app, "ping", ping, section=look, examples=["devboxctl ping api", "devboxctl ping -c 10 api"])
    grammar.add(app, "events", events, section=look, examples=["devboxctl events", "devboxctl events -f"])
    grammar.add(app, "doctor", doctor, section=look, examples=["devboxctl doctor", "devboxctl doctor api"])
    grammar.add(
        app, "whoami", whoami, section=account, examples=["devboxctl whoami", "devboxctl whoami -p work"]
    )
    grammar.add(
        app,
        "login",
        login,
        section=account,
        examples=["devboxctl login -p work", "devboxctl login --from-environment"],
    )


def list_boxes(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[BOX]...", help="Names, beginnings of names, patterns like 'web-*', ids."),
    ] = None,
    tag: Annotated[
        list[str] | None,
        typer.Option("--tag", metavar="KEY[=VALUE]", help="Only those with this tag; may repeat."),
    ] = None,
    state: Annotated[
        list[str] | None,
        typer.Option("--state", metavar="STATE", help="Only those in this state, as running; may repeat."),
    ] = None,
    all_owners: Annotated[
        bool, typer.Option("--all-owners", help="Those too that others have launched with devbox.")
    ] = False,
    wide: options.Wide = False,
    profile: options.Profile = None,
    region: options.Region = None,
) -> None:
    """List your boxes.

    Projects without an instance are among them: their state is none, and their phase says where the work is.
    """
    found = ask.boxes(all_owners=all_owners)
    wanted = Wanted(names or [], tag or [], state or [])
    plain = [show.plain(box) for box in found.boxes]
    kept = [number for number, box in enumerate(plain) if wanted.has(box)]
    found.boxes, plain = [found.boxes[number] for number in kept], [plain[number] for number in kept]
    if settings.json:
        show.print_json(found)
        wanted.check()
        return
    show.conditions(found.conditions)
    if found.stale_since:
        show.say(f"warning: AWS could not be asked; this is from {found.stale_since}")
    headers, rows = _table(found.boxes, plain)
    if found.boxes or not show.is_terminal():
        dispensable = ("zone", "usd/hour", "forwards", "sessions", "generation", "type", "connection", "host")
        show.print_table(headers, rows, dispensable=dispensable, wide=wide)
    else:
        show.say("there is no box" + (" like that" if names or tag or state else ""))
    wanted.check()


def _table(boxes: list[wire.Box], plain: list[dict[str, Any]]) -> tuple[list[str], list[list[Any]]]:
    """Headers and rows: what scripts rely on, or for a terminal what there is to see."""
    if not show.is_terminal():
        return list(COLUMNS), [[field(box, name) for name in COLUMNS] for box in plain]
    headers = _for_people(list(COLUMNS), boxes)
    rows: list[list[Any]] = [[field(box, name) for name in headers] for box in plain]
    if any(box.hour for box in boxes):
        headers.append("usd/hour")  # while it runs: scripts have it in --json
        rows = [[*row, box.hour] for row, box in zip(rows, boxes, strict=True)]
    if any(box.agents for box in boxes):
        headers.append("agents")
        rows = [[*row, box.agents] for row, box in zip(rows, boxes, strict=True)]
    return headers, rows


def _for_people(headers: list[str], boxes: list[wire.Box]) -> list[str]:
    """The columns in which there is something to see, those of projects beside the state."""
    found = [name for name in headers if name not in ("phase", "generation")]
    if any(box.project is not None for box in boxes):
        at = found.index("state") + 1
        found[at:at] = ["phase", "generation"]
    if all(box.connection == "unknown" for box in boxes):
        found.remove("connection")  # nobody may ask
    if all(box.host in (None, f"{box.name}.devbox") for box in boxes):
        found.remove("host")  # the names say it
    return found


def show_box(
    box: options.Box = None,
    profile: options.Profile = None,
    region: options.Region = None,
) -> None:
    """Show one box in full."""
    request = target(ask.chosen(box))
    request.folder = ask.here()
    found = ask.ask(routes.SHOW_BOX, request)
    if settings.json:
        show.print_json(found)
        return
    show.deletes(found.project or found.name, found.deletes)
    plain = show.plain(found)
    show.print_fields(
        [
            (
                name.replace("_", " "),
                show.moment(plain[name]) if plain[name] and name in TIMES else field(plain, name),
            )
            for name in found.__struct_fields__
            if name not in ("tags", "bridges")
        ]
    )
    show.print_fields([("bridge", bridge.said(one)) for one in found.bridges])
    show.print_fields([(f"tag {key}", value) for key, value in sorted(found.tags.items())])


def status(wide: options.Wide = False) -> None:
    """Say what the daemon holds, and how it is doing."""
    found = ask.ask(routes.STATUS)
    held = ask.ask(routes.LIST_SESSIONS).sessions
    if settings.json:
        show.print_json({**show.plain(found), "held_sessions": show.plain(held)})
        return
    show.conditions(found.conditions)
    if found.daemon_version != __version__:
        show.say(f"warning: devboxctl is {__version__} and the daemon {found.daemon_version}")
        show.say("hint: devboxctl daemon restart (sessions and forwards come back by themselves)")
    show.print_fields(
        [
            (
                "devboxd",
                f"{found.daemon_version}, pid {found.pid}, since {show.moment(found.started)} ({found.activation})",
            ),
            ("socket", found.socket),
            ("holding", show.holding(found)),
            *(("login", _login_text(one)) for one in found.logins),
            *(("bridge", f"{one.box}: {bridge.said(one)}") for one in found.bridges),
        ]
    )
    if held:
        sessions.print_sessions(held, wide=wide)


def _login_text(one: wire.Login) -> str:
    until = f", until {one.ends}" + (", renews itself" if one.renews else "") if one.ends else ""
    why = f": {one.problem}" + (f"; {one.hint}" if one.hint else "") if one.verdict == "refused" else ""
    return f"{_method(one.method, one.name)}: {one.verdict}{until}{why}"


def ping(
    box: options.Box = None,
    count: Annotated[int, typer.Option("--count", "-c", min=1, max=1000, help="How often.")] = 3,
    timeout: Annotated[float, typer.Option("--timeout", min=0.1, help="Seconds for one answer.")] = 15.0,
    profile: options.Profile = None,
    region: options.Region = None,
) -> int:
    """Measure the way to the agent on a box and back."""
    found = ask.ask(
        routes.PING,
        wire.PingRequest(
            box=ask.chosen(box),
            count=count,
            timeout=timeout,
            profile=settings.profile,
            region=settings.region,
        ),
        timeout=count * timeout + 60,
    )
    if settings.json:
        show.print_json(found)
        return 0 if found.round_trips else 7
    if found.session_start is not None:
        show.say(f"session opened in {found.session_start * 1000:.0f} ms")
    for number, seconds in enumerate(found.round_trips, 1):
        show.write(f"{show.cell(found.box)}\t{number}\t{seconds * 1000:.1f} ms" + "\n")
    if lost := count - len(found.round_trips):
        show.say(f"{lost} of {count} were not answered")
    return 0 if found.round_trips else 7


def events(
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as they happen.")] = False,
    since: Annotated[int | None, typer.Option("--since", metavar="SEQUENCE", help="Only later ones.")] = None,
) -> None:
    """Show what happened, oldest first."""
    for event in ask.ask_lines(routes.EVENTS, wire.EventsRequest(follow=follow, since=since or 0)):
        if settings.json:
            show.print_json(event, line=True)
        else:
            is_said = not event.box or event.text.startswith(f"{event.box}: ")  # notices begin with it
            box = "" if is_said else f"{event.box}: "
            when, kind, text = map(show.cell, (show.moment(event.time), event.kind, box + event.text))
            if show.is_terminal():
                show.write_line(f"{when}  {kind:<14}  {text}", " " * 6)
            else:
                show.write(f"{when}\t{kind}\t{text}\n")


def doctor(
    box: options.Box = None,
    profile: options.Profile = None,
    region: options.Region = None,
) -> int:
    """Check this machine, or the whole way to a box.

    The exit status is 1 when something is broken.
    """
    name = default_box(box)
    try:
        if name is None:
            found = ask.ask(routes.DOCTOR, target(""), timeout=DOCTOR)
        else:
            found = ask.ask(routes.DOCTOR_BOX, target(name), timeout=DOCTOR)
    except client.Refused:
        raise
    except client.ClientError as error:
        # The first thing that can be ill is the daemon itself.
        found = wire.Doctor([wire.Check("daemon", "failed", error.message, error.hint)])
    if settings.json:
        show.print_json(found)
    else:
        for check in found.checks:
            show.check(check)
    return 1 if any(check.result == "failed" for check in found.checks) else 0


def target(box: str) -> wire.Target:
    """A box, with the AWS settings of this command line."""
    return wire.Target(box=box, profile=settings.profile, region=settings.region)


def whoami(profile: options.Profile = None, region: options.Region = None) -> None:
    """Say who you are for AWS, and for how long."""
    found = ask.ask(routes.IDENTITY, wire.Account(settings.profile, settings.region))
    if settings.json:
        show.print_json(found)
        return
    who = f"{found.kind} {found.name}".strip() + (f", as {found.session}" if found.session else "")
    show.print_fields(
        [
            ("account", found.account),
            ("identity", who),
            ("region", found.region),
            ("profile", found.profile),
            ("credentials from", _method(found.method, found.source)),
            ("credentials until", found.expires or "they do not expire"),
            ("login until", _login_end(found)),
            ("arn", found.arn),
        ]
    )


def _method(method: str, source: str | None) -> str:
    """Where credentials come from; those of the environment have no other name."""
    return method if not source or source == method else f"{method} {source}"


def _login_end(found: wire.Identity) -> str | None:
    if found.login_ends is None:
        return None
    return found.login_ends + (", and renews itself" if found.login_renews else "")


def login(
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Only print the address.")] = False,
    from_environment: Annotated[
        bool,
        typer.Option("--from-environment", help="Lend the daemon AWS_ACCESS_KEY_ID and so on of this shell."),
    ] = False,
    profile: options.Profile = None,
    region: options.Region = None,
) -> int:
    """Renew the AWS login of a profile.

    What waits for it goes on by itself. A profile that wants the code of an MFA device has it asked for here, or read
    from standard input where that is no terminal. Credentials that are lent with --from-environment are used for this
    profile until the daemon ends, or others are lent; they are kept in memory only.
    """
    return logins.lend() if from_environment else logins.renew(no_browser=no_browser)
