"""Named conditions: what a person should know or do, until it is no longer so. Each is declared once, here.

``docs/conditions.md`` shows this table to users; a test compares the two, and every place that states a
condition with the words that its texts leave open.
"""

from __future__ import annotations

from typing import Final

import msgspec

from devboxd.model.states import Severity


class Kind(msgspec.Struct, frozen=True):
    """A kind of condition.

    ``text`` and ``hint`` are filled in by ``str.format``; a hint that comes to nothing is left out.
    ``after``: seconds that it has to stand before anybody hears of it, where it often mends itself.
    """

    title: str
    severity: Severity
    text: str
    hint: str = ""
    after: float = 0.0


CONDITIONS: Final[dict[str, Kind]] = {
    "login-needed": Kind(
        "login needed",
        Severity.ERROR,
        "{problem}; open sessions go on, and what needs new links waits",
        "{mend}",
    ),
    "login-expiring": Kind(
        "a login ends soon",
        Severity.WARNING,
        "{problem}; open sessions go on",
        "{mend}",
    ),
    "resume-refused": Kind(
        "AWS refuses to resume sessions",
        Severity.ERROR,
        "{problem}; {sessions} for it",
        "{hint}",
    ),
    "config-invalid": Kind(
        "the configuration has an error",
        Severity.ERROR,
        "{problem}; {follows}",
        "{hint}",
        after=1.0,  # some editors write a file in two steps
    ),
    "journal-lost": Kind("the journal could not be read", Severity.WARNING, "{problem}"),
    "proxy-denied": Kind(
        "the proxy refuses the password",
        Severity.ERROR,
        "{problem}; sessions wait, and it is asked again only now and then",
        "{hint}",
    ),
    "notice-not-sent": Kind(
        "a notice did not reach you",
        Severity.WARNING,
        "{problem}",
        "{hint}",
    ),
    "state-not-saved": Kind(
        "the daemon's memory cannot be written",
        Severity.ERROR,
        "{problem}; what changes now is forgotten when the daemon ends",
        "{hint}",
    ),
    "forward-set-aside": Kind(
        "a forward cannot be made again",
        Severity.WARNING,
        "forward {id} of an earlier daemon cannot be: {problem}",
        "devboxctl forward rm {id} forgets it",
    ),
    "forward-failed": Kind("a forward could not be made again", Severity.WARNING, "{problem}", "{hint}"),
    "task-failed": Kind(
        "a part of the daemon failed",
        Severity.WARNING,
        "{name} failed and is started again: {problem}",
        "devboxctl daemon logs has the details",
    ),
    "descriptors-short": Kind(
        "devboxd has few descriptors left",
        Severity.WARNING,
        "nearly all of the {limit} descriptors that devboxd may have are in use: new connections to forwards wait",
        "end connections that nobody needs, or raise the limit: LimitNOFILE= in the unit, or ulimit -Hn",
    ),
    "store-failed": Kind("the projects cannot be read", Severity.ERROR, "{problem}", "{hint}", after=5.0),
    "store-changed": Kind(
        "another store is configured",
        Severity.WARNING,
        "the projects are in {old} for this daemon, and the configuration says {new}",
        "devboxctl daemon restart",
    ),
    "projects-elsewhere": Kind(
        "projects are in a store that is not in use",
        Severity.WARNING,
        "nobody looks after {names}: the daemon uses {used}, and they are in {other}",
        "devboxctl store migrate --all --to {used}",
    ),
    "project-broken": Kind(
        "a project needs you",
        Severity.ERROR,
        "project {name} needs you: {why}",
        "{hint}",
    ),
    "project-refused": Kind(
        "a project does not get on",
        Severity.WARNING,
        "project {name}: {problem}; it is tried again",
        "{hint}",
        after=60.0,
    ),
    "project-disused": Kind(
        "a project is deleted soon",
        Severity.WARNING,
        "project {name} is deleted on {when} at the earliest, with all that is saved of it: nobody used it for {unused}",
        "devboxctl extend {name} keeps it",
    ),
    "idle-unknown": Kind(
        "it is not known whether a box is idle",
        Severity.WARNING,
        "what works on {name} can not be seen: {problem}; it is not stopped for being idle meanwhile",
        "{hint}",
        after=900.0,
    ),
    "deadman-off": Kind(
        "nothing stops a box from outside",
        Severity.INFO,
        "no schedule stops {name} where no daemon is there any more: {problem}; its own watchdog does when it is idle",
        "{hint}",
        after=900.0,
    ),
    "box-reclaimed": Kind(
        "EC2 takes a spot box back",
        Severity.ERROR,
        "{name} is taken back by EC2 {when}; its disk is kept, and is saved as soon as the box has ended{then}",
        "what is not on its disk yet has to be written there now",
    ),
    "box-at-risk": Kind(
        "EC2 may take a spot box back",
        Severity.INFO,
        "EC2 is likelier than before to take {name} back, with two minutes' notice; its disk would be kept and saved",
        "devboxctl snapshot {name} saves it as it is now",
    ),
    "ec2-unavailable": Kind("EC2 cannot be asked", Severity.WARNING, "{problem}", "{hint}"),
}


class Condition(msgspec.Struct, frozen=True):
    """One thing that is not as it should be.

    ``code`` names the kind; together with ``subject`` (a profile, a box, a file) it is unique.
    ``since`` is Unix time in seconds.
    """

    code: str
    title: str
    text: str
    hint: str | None = None
    severity: Severity = Severity.WARNING
    subject: str = ""
    since: float = 0.0


def condition(code: str, since: float, subject: str = "", /, **values: str | int | None) -> Condition:
    """State a condition of a known kind.

    Args:
        values: what its texts leave open; None is nothing.
    """
    kind = CONDITIONS[code]
    words = {name: "" if value is None else value for name, value in values.items()}
    text, hint = kind.text.format(**words), kind.hint.format(**words)
    return Condition(code, kind.title, text, hint or None, kind.severity, subject, since)


class Event(msgspec.Struct, frozen=True):
    """Something that happened. ``kind`` is dotted: session.resumed, forward.added, login.needed."""

    sequence: int
    time: float  # Unix seconds
    kind: str
    text: str
    box: str | None = None
    data: dict[str, str | int | float | bool | None] = {}
