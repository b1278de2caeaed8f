"""``devboxctl ls`` in scripts: JSON or tabs in a tenth of the time that typer and msgspec take to import."""

from __future__ import annotations

import sys

from devboxctl.fast import reply, words
from devboxd.api import client
from devboxd.errors import Kind
from devboxd.text import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    Json = dict[str, object]

# The daemon leaves defaults out; scripts get every key. A test compares these with devboxd.api.wire.
LIST: Json = {"boxes": [], "conditions": [], "stale_since": None, "version": 1}
BOX: Json = {
    "name": "",
    "id": "",
    "state": "unknown",
    "connection": "unknown",
    "type": None,
    "zone": None,
    "launched": None,
    "private_address": None,
    "profile": None,
    "region": None,
    "user": None,
    "sessions": 0,
    "forwards": 0,
    "tags": {},
    "ref": None,
    "host": None,
    "hour": None,
    "bridges": [],
    "project": None,
    "phase": None,
    "generation": 0,
    "want": None,
    "since": None,
    "saved": None,
    "base": None,
    "rebase": None,
    "way_back": None,
    "under_way": None,
    "next": None,
    "deletes": None,
    "agents": None,
    "spot": None,
}
CONDITION: Json = {"code": "", "title": "", "text": "", "hint": None, "since": None, "severity": "warning"}
STATES = ("running", "stopped", "pending", "stopping", "shutting-down", "terminated", "unknown", "none")
COLUMNS = (
    "name",
    "state",
    "connection",
    "type",
    "zone",
    "id",
    "sessions",
    "forwards",
    "host",
    "phase",
    "generation",
)


def main(line: list[str]) -> int | None:
    """Run from the words after ``ls``; None leaves them (and a table for a person) to the full parser."""
    given = words.parse(line, "ls")
    if given is None:
        return None
    try:
        wanted = Wanted(given.arguments, given.repeated.get("tag", []), given.repeated.get("state", []))
    except reply.UsageError as error:
        return reply.show_failure(reply.usage_failure(error))
    as_json = "json" in given.flags
    is_terminal = sys.stdout is not None and sys.stdout.isatty()
    if is_terminal and not as_json:
        return None
    import json

    query = reply.query(
        profile=given.options.get("profile"),
        region=given.options.get("region"),
        all_owners="true" if "all_owners" in given.flags else None,
    )
    try:
        found = {**LIST, **json.loads(client.call("GET", "boxes" + query))}
        found["boxes"] = [{**BOX, **box} for box in found["boxes"]]
        found["conditions"] = [{**CONDITION, **condition} for condition in found["conditions"]]
        found["boxes"] = [box for box in found["boxes"] if wanted.has(box)]
    except client.ClientError as error:
        return reply.show_failure(reply.failure_of(error))
    except (ValueError, TypeError, KeyError):
        return None  # not understood: the full command says so in full
    if as_json:
        text = json.dumps(found, indent=2 if is_terminal else None) + "\n"
    else:
        _warn(found)
        text = "".join(
            "\t".join(_cell(field(box, column)) for column in COLUMNS) + "\n" for box in found["boxes"]
        )
    try:
        reply.write(text)
        wanted.check()
    except client.ClientError as error:
        return reply.show_failure(reply.failure_of(error))
    except reply.ReaderGone:
        return 128 + 13
    return 0


class Wanted:
    """Which boxes: those whose name (or its beginning, or a pattern of it) or id is among ``names``, that have all
    ``tags`` and one of ``states``. What is not given is not asked for.
    """

    def __init__(self, names: list[str], tags: list[str], states: list[str]) -> None:
        self._names = dict.fromkeys(names, False)  # and whether something was found
        self._tags = [tag.partition("=") for tag in tags]
        self._states = [state for text in states for state in text.split(",")]
        for state in self._states:
            if state not in STATES:
                raise reply.UsageError(f"{state!r} is no state of a box", f"one of: {', '.join(STATES)}")

    def has(self, box: Json) -> bool:
        """Say whether this one is wanted."""
        tags = box["tags"]
        if self._states and box["state"] not in self._states:
            return False
        for key, equals, value in self._tags:
            found = tags.get(key) if isinstance(tags, dict) else None
            if found is None or (equals and not like(str(found), value)):
                return False
        hit = False
        for name in self._names:
            if like(str(box["name"]), name, beginning=True) or box["id"] == name:
                self._names[name] = hit = True
        return hit or not self._names

    def check(self) -> None:
        """Raises NoSuchBox when a name has found nothing."""
        if missing := [name for name, found in self._names.items() if not found]:
            raise NoSuchBox(f"there is no box like {', '.join(missing)}", "devboxctl ls shows all of them")


class NoSuchBox(client.ClientError):
    """A name in a list of boxes that none of them has."""

    code = "no-such-box"
    kind = Kind.NOT_FOUND
    retryable = False


def like(text: str, pattern: str, *, beginning: bool = False) -> bool:
    """Compare with a pattern of the shell's kind; with ``beginning`` the beginning of a name will do."""
    if not any(c in "*?[" for c in pattern):
        return text.startswith(pattern) if beginning else text == pattern
    from fnmatch import fnmatchcase

    return fnmatchcase(text, pattern)


def field(box: Json, name: str) -> object:
    """What is shown of a box; None: there is nothing to show."""
    if name == "generation" and not box["generation"]:
        return None
    if not box["id"] and name in ("sessions", "forwards", "connection"):
        return None  # nothing can be connected to it
    return box[name]


def _warn(found: Json) -> None:
    conditions = found["conditions"]
    for condition in conditions if isinstance(conditions, list) else ():
        reply.say(
            reply.fitted(
                printable(f"{condition['severity']}: {condition['title']}: {condition['text']}") + "\n"
            )
        )
        if condition["hint"]:
            reply.say(reply.fitted(printable(f"hint: {condition['hint']}") + "\n"))
    if found["stale_since"]:
        reply.say(printable(f"warning: AWS could not be asked; this is from {found['stale_since']}") + "\n")


def _cell(value: object) -> str:
    return "" if value is None else printable(str(value))
