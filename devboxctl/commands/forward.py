"""forward: keep local ports (or sockets) tied to ports of a box."""

from __future__ import annotations

import signal
import time
from typing import Annotated, Any

import msgspec
import typer

from devboxctl import ask, grammar, options, show, spec
from devboxctl.fast import framed, reply
from devboxctl.fast.reply import UsageError
from devboxctl.options import settings
from devboxd.api import client, routes, starting, wire
from devboxd.errors import Kind

HEADERS = ("id", "box", "state", "local", "remote", "open", "total", "up", "down", "error")


class ForwardNotFound(client.ClientError):
    """No forward, or more than one, answers to that id or port."""

    code = "forward-not-found"
    kind = Kind.NOT_FOUND
    retryable = False


def add_to(app: typer.Typer) -> None:
    """Add the group."""
    group = grammar.add_group(
        app,
        "forward",
        "Keep local ports tied to ports of a box.",
        section=grammar.CONNECT,
        cls=grammar.UsualGroup,
        examples=[
            "devboxctl forward api 8080:80",
            "devboxctl forward api 5432 6379",
            "devboxctl forward api 15432:db.internal:5432",
            "devboxctl forward api -D 1080",
            "devboxctl forward api 8080:/run/app.sock",
            "devboxctl forward api -R 8080:3000",
            "devboxctl forward api --auto",
            "devboxctl forward ls",
            "devboxctl forward rm 8080",
        ],
    )
    grammar.add(group, "add", add, cls=ForwardCommand, examples=["devboxctl forward add api 8080:80"])
    grammar.add(group, "ls", list_, examples=["devboxctl forward ls"])
    grammar.add(group, "rm", remove, examples=["devboxctl forward rm 8080", "devboxctl forward rm all"])


class ForwardCommand(grammar.Command):
    """Gives ``-D`` its usual port when none follows."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Insert the port."""
        whole: list[str] = []
        for at, word in enumerate(args):
            whole.append(word)
            following = args[at + 1] if at + 1 < len(args) else ""
            if word in ("-D", "--dynamic") and not following.isdecimal():
                whole.append(str(spec.SOCKS_PORT))
        return super().parse_args(ctx, whole)


def add(
    box: options.Box = None,
    specs: Annotated[
        list[str] | None,
        typer.Argument(metavar="SPEC...", help="[LOCAL:][HOST:]PORT; LOCAL may be a path, PORT a range."),
    ] = None,
    bind: Annotated[
        str, typer.Option("--bind", "-b", metavar="ADDRESS", help="Local address.")
    ] = "localhost",
    dynamic: Annotated[
        int | None,
        typer.Option(
            "--dynamic", "-D", metavar="[PORT]", min=0, max=65535, help="A SOCKS5 proxy, at 1080 by default."
        ),
    ] = None,
    reverse: Annotated[
        list[str] | None,
        typer.Option(
            "--reverse",
            "-R",
            metavar="SPEC",
            help="The other way: [BOX:][HOST:]PORT of this side, from the box.",
        ),
    ] = None,
    auto: Annotated[bool, typer.Option("--auto", help="Mirror what listens on the box.")] = False,
    foreground: Annotated[bool, typer.Option("--foreground", help="Hold until Ctrl-C.")] = False,
    profile: options.Profile = None,
    region: options.Region = None,
) -> None:
    """Add forwards that stay through sleep and network changes.

    SPEC is 8000, 9000:8000, 0:8000 (any free port), 8000-8010, db.internal:5432 (a host that the box can
    reach), 15432:db.internal:5432, or ./db.sock:5432 (a local unix socket). 8080:/run/app.sock leads to a unix
    socket of the box. -R 8080:3000 lets programs on the box reach port 3000 here as their port 8080; -R ~/app.sock:3000
    at a socket there. Sockets of the box and -R need a bridge (docs/bridge.md).

    --auto takes no number that a program of this machine uses, or used in the last ten minutes: the mirror
    gets another one, and forward ls says why.
    """
    given = [word for word in (box, *(specs or [])) if word is not None]
    _add(given, reverse or [], bind=bind, dynamic=dynamic, auto=auto, foreground=foreground)


def _add(
    given: list[str], reverse: list[str], *, bind: str, dynamic: int | None, auto: bool, foreground: bool
) -> None:
    box = given.pop(0) if given and not spec.looks_like_spec(given[0]) else None
    specs = [one for text in given for one in spec.read(text, bind)]
    specs += [spec.read_reverse(text) for text in reverse]
    if dynamic is not None:
        specs.append(wire.ForwardSpec(dynamic=True, local_port=dynamic, bind=bind))
    if not specs and not auto:
        specs = [one for text in ask.of_folder("forwards") or () for one in spec.read(text, bind)]
    if not specs and not auto:
        raise UsageError(
            "there is nothing to forward", "name a port, -D or --auto; devboxctl forward ls lists"
        )
    request = wire.ForwardRequest(
        box=ask.chosen(box),
        profile=settings.profile,
        region=settings.region,
        forwards=specs,
        auto=auto,
    )
    if foreground:
        _hold(request)
        return
    added = ask.ask(routes.ADD_FORWARDS, request)
    _show_added(added)


def _show_added(added: wire.ForwardList) -> None:
    if settings.json:
        show.print_json(added)
        return
    show.conditions(added.conditions)
    for one in added.forwards:
        ends = f"{one.local} -> {one.box}:{one.remote}"
        if one.reverse:
            ends = f"{one.box}:{one.remote} -> {one.local}"
        show.write(show.cell(ends) + f"\t{show.cell(one.id)}" + "\n")


def _hold(request: wire.ForwardRequest) -> None:
    """Keep the stream that holds the forwards, until Ctrl-C; ask again when the daemon was restarted.

    The daemon removes them when the stream ends, however this process does: it knows which of them others
    hold, too, or have asked to keep.
    """
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _leave)
    _hold_on(request)


def _leave(number: int, _frame: object) -> None:
    raise SystemExit(128 + number)


def _hold_on(request: wire.ForwardRequest) -> None:
    path, body = ask.spelled(routes.HOLD_FORWARDS, request)
    delay, shown = 0.1, False
    while True:
        if shown and starting.is_stopped(client.socket_path()):
            time.sleep(delay)  # by the user: it is not for us to start it again
            continue
        try:
            with client.Exchange.start("POST", path, body, upgrade=True) as exchange:
                exchange.connection.settimeout(None)  # it may be quiet for weeks
                for kind, payload in framed.frames_of(exchange):
                    if kind == framed.ANSWER and not shown:
                        _show_added(ask.understood(payload, wire.ForwardList))
                        show.say("holding; Ctrl-C ends")
                        shown, delay = True, 0.1
                    elif kind == framed.EXIT:
                        _show_end(ask.understood(payload, wire.StreamExit))
                        return
        except client.Refused:
            raise
        except client.ClientError:
            if not shown:
                raise
            time.sleep(delay)
            delay = min(2.0, delay * 2)


def _show_end(end: wire.StreamExit) -> None:
    """Tell why the stream has ended. Raises ClientError for a failure."""
    if end.failure is not None:
        raise client.Refused(500, msgspec.json.encode(end.failure))
    if end.reason:
        show.say(end.reason)


def list_(wide: options.Wide = False) -> None:
    """List the forwards."""
    found = ask.ask(routes.LIST_FORWARDS)
    if settings.json:
        show.print_json(found)
        return
    # A sentence makes a poor column: people read it below the table, programs in the last field.
    is_read = show.is_terminal()
    show.print_table(
        HEADERS if is_read else (*HEADERS, "note"),
        [
            (
                *(f.id, f.box, f.state, f.local, f"{f.remote} (-R)" if f.reverse else f.remote),
                *(f.connections, f.total_connections),
                *(show.size(f.bytes_up), show.size(f.bytes_down), f.error),
                *(() if is_read else (f.note,)),
            )
            for f in found.forwards
        ],
        dispensable=("total", "up", "down", "open", "error", "id", "remote"),
        wide=wide,
    )
    for one in found.forwards if is_read else ():
        if one.note:
            show.say(f"{one.local} is port {one.remote} of {one.box}: {one.note}")


def remove(
    forwards: Annotated[
        list[str] | None,
        typer.Argument(metavar="FORWARD|all...", help="Its id or the beginning of it, or its local port."),
    ] = None,
) -> int:
    """Remove forwards, or all of them."""
    rest = forwards or []
    if not rest:
        raise UsageError(
            "which forward? FORWARD is missing", "devboxctl forward ls shows them; all removes every one"
        )
    known = ask.ask(routes.LIST_FORWARDS).forwards
    if rest == ["all"]:
        # What --auto mirrors goes with the forward that mirrors it.
        ids = [f.id for f in known if not f.auto or f.remote == "auto"]
    else:
        ids = [_matching(word, known) for word in rest]
    removed, status = [], 0
    for id_ in dict.fromkeys(ids):
        try:
            removed.append(ask.ask(routes.REMOVE_FORWARD, wire.ForwardId(id_)))
        except client.Refused as error:
            failure = reply.failure_of(error)
            if rest == ["all"] and failure.get("exit_status") == 3:
                continue  # somebody else was quicker
            status = reply.show_failure(failure)  # and the others are removed all the same
    if settings.json:
        show.print_json(wire.ForwardList(forwards=removed))
    else:
        show.say(f"removed {show.count(len(removed), 'forward')}")
    return status


def _matching(word: str, known: list[wire.Forward]) -> str:
    """Find the one forward whose id begins with ``word``, or whose local end it is."""
    if any(word == f.id for f in known):
        return word
    matches = [f.id for f in known if f.id.startswith(word)] or [
        f.id for f in known if f.local == word or f.local.rpartition(":")[2] == word
    ]
    if len(matches) != 1:
        problem = f"several forwards answer to {word}: {', '.join(matches)}" if matches else None
        raise ForwardNotFound(problem or f"no forward answers to {word}", "devboxctl forward ls shows them")
    return matches[0]
