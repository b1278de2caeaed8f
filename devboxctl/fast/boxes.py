"""``devboxctl ls`` in scripts: JSON or tabs in a tenth of the time that typer and msgspec take to import."""

from __future__ import annotations

import sys

from devboxctl.fast import reply, words
from devboxd.api import client
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
}
CONDITION: Json = {"code": "", "title": "", "text": "", "hint": None, "since": None, "severity": "warning"}
COLUMNS = ("name", "state", "connection", "type", "zone", "id", "sessions", "forwards", "host")


def main(line: list[str]) -> int | None:
    """Run from the words after ``ls``; None leaves them (and a table for a person) to the full parser."""
    given = words.parse(line, "ls")
    if given is None or given.arguments:
        return None
    as_json = "json" in given.flags
    is_terminal = sys.stdout is not None and sys.stdout.isatty()
    if is_terminal and not as_json:
        return None
    import json

    query = reply.query(profile=given.options.get("profile"), region=given.options.get("region"))
    try:
        found = {**LIST, **json.loads(client.call("GET", "boxes" + query))}
        found["boxes"] = [{**BOX, **box} for box in found["boxes"]]
        found["conditions"] = [{**CONDITION, **condition} for condition in found["conditions"]]
    except client.ClientError as error:
        return reply.show_failure(reply.failure_of(error))
    except (ValueError, TypeError, KeyError):
        return None  # not understood: the full command says so in full
    if as_json:
        text = json.dumps(found, indent=2 if is_terminal else None) + "\n"
    else:
        _warn(found)
        text = "".join("\t".join(_cell(box[column]) for column in COLUMNS) + "\n" for box in found["boxes"])
    try:
        reply.write(text)
    except client.ClientError as error:
        return reply.show_failure(reply.failure_of(error))
    except reply.ReaderGone:
        return 128 + 13
    return 0


def _warn(found: Json) -> None:
    conditions = found["conditions"]
    for condition in conditions if isinstance(conditions, list) else ():
        reply.say(printable(f"{condition['severity']}: {condition['title']}: {condition['text']}") + "\n")
        if condition["hint"]:
            reply.say(printable(f"hint: {condition['hint']}") + "\n")
    if found["stale_since"]:
        reply.say(printable(f"warning: AWS could not be asked; this is from {found['stale_since']}") + "\n")


def _cell(value: object) -> str:
    return "" if value is None else printable(str(value))
