"""Put the hooks of coding agents in place, take them away again, or say how they are.

Python 3.6 and the standard library only. The request (JSON) comes on standard input; one line of JSON goes out. What is the
user's own stays as it is: what can not be read is not written, each file has a copy beside it from before, and what is
taken away is what was put there.
"""

import json
import os
import sys
from typing import TYPE_CHECKING

from devboxd.boxside.programs.parts.agent_note import forget, is_alive, notes_in
from devboxd.boxside.programs.parts.agent_told import told_of
from devboxd.boxside.programs.parts.request import Refused, requested

if TYPE_CHECKING:
    from typing import Any

FILE_MOST = 4 << 20  # bytes of somebody's settings
NOTES_MOST = 64
HOME = os.path.expanduser("~")
NOTES = os.path.join(HOME, ".devbox", "agents")
PROGRAM = os.path.join(HOME, ".devbox", "agent-hook.py")
MARK = ".devbox/agent-hook.py"
BEFORE = ".before-devbox"
COMMENT = "#"
QUOTES = "\"'"
LIMIT = 5  # seconds that an agent waits for a hook
# Those that every Claude Code with hooks for sessions knows: it takes no settings with an event that it does not know.
CLAUDE = (
    "SessionStart",
    "UserPromptSubmit",
    "PreToolUse",
    "PostToolUse",
    "Notification",
    "Stop",
    "SubagentStop",
    "SessionEnd",
)
AGENTS = ["claude", "codex"]  # whose settings are known
CODEX = ("SessionStart", "UserPromptSubmit", "PreToolUse", "PermissionRequest", "PostToolUse", "Stop")


def read(path: str) -> "str | None":
    """A file; None: there is none. Raises Refused."""
    try:
        with open(path, "rb") as file:
            data = file.read(FILE_MOST + 1)
        if len(data) > FILE_MOST:
            raise Refused("it is too large to be settings")
        return data.decode()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Refused("it can not be read: " + str(error.strerror)) from None
    except UnicodeDecodeError:
        raise Refused("it is no text in UTF-8") from None


def write(path: str, text: str, mode: int = 0o600) -> None:
    """All of it or nothing; a link stays one, and so do the rights of a file that is there."""
    path = os.path.realpath(path)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    try:
        mode = os.stat(path).st_mode & 0o777
    except OSError:
        pass
    new = path + ".devbox-" + str(os.getpid())
    try:
        with open(new, "wb") as file:
            file.write(text.encode())
        os.chmod(new, mode)
        os.rename(new, path)
    except OSError as error:
        forget(new)
        raise Refused("it can not be written: " + str(error.strerror)) from None


def change(path: str, edit: "Any", undo: bool, dry: bool) -> "dict[str, Any]":
    """Change a file of settings by a function of its text; None from it: as it was."""
    found = {"file": path, "changed": False, "problem": False}  # type: dict[str, Any]
    try:
        old = read(path)
        new, said = edit(old, undo)
        copy = path + BEFORE
        found["said"] = said
        if new is None or new == old:
            return found
        found["changed"] = True
        if undo:
            before = read(copy)
            if before is not None and edit(before, False)[0] == old:
                new = before  # to the byte: nobody has changed anything since
        if dry:
            return found
        if undo:
            if os.path.exists(copy):
                os.unlink(copy)
            if new == "":
                os.unlink(path)  # there was none
            else:
                write(path, new)
        else:
            if old is not None and not os.path.exists(copy):
                write(copy, old)
            write(path, new)
    except (Refused, OSError) as error:
        found.update(said=str(error) + "; nothing of it was changed", changed=False, problem=True)
    return found


# Hooks in JSON: Claude Code, and Codex ----------------------------------------------------------------------


def command(name: str, event: str) -> str:
    """What a hook runs: nothing once the program is gone."""
    return "[ ! -e ~/" + MARK + " ] || " + sys.executable + " -I -S ~/" + MARK + " " + name + " " + event


def is_ours(hook: "Any") -> bool:
    return isinstance(hook, dict) and MARK in str(hook.get("command"))


def without_ours(groups: "list[Any]", wanted: "str | None") -> "tuple[list[Any], bool]":
    """Groups of hooks without ours, but for one that runs what is ``wanted``; and whether there is one."""
    kept, is_there = [], False
    for group in groups:
        inner = group.get("hooks") if isinstance(group, dict) else None
        inner = inner if isinstance(inner, list) else []
        ours = [one for one in inner if is_ours(one)]
        if any(one["command"] == wanted for one in ours):
            is_there = True
        elif ours:
            group = dict(group, hooks=[one for one in inner if not is_ours(one)])
            if not group["hooks"]:
                continue
        kept.append(group)
    return kept, is_there


def hooks(name: str, events: "tuple[str, ...]") -> "Any":
    """The edit of a file with hooks."""

    def edit(text: "str | None", undo: bool) -> "tuple[str | None, str]":
        try:
            settings = json.loads(text) if text and text.strip() else {}
        except (ValueError, RecursionError) as error:
            raise Refused("it is no JSON that can be read (" + str(error) + ")") from None
        if not isinstance(settings, dict) or not isinstance(settings.get("hooks", {}), dict):
            raise Refused("its hooks are not as " + name + " has them")
        known = dict(settings.get("hooks") or {})
        there = set()
        for event in list(known):
            if not isinstance(known[event], list):
                raise Refused("its hooks are not as " + name + " has them")
            wanted = command(name, event) if event in events and not undo else None
            known[event], is_there = without_ours(known[event], wanted)
            if is_there:
                there.add(event)
            if not known[event]:
                del known[event]
        missing = [] if undo else [event for event in events if event not in there]
        for event in missing:
            one = {"type": "command", "command": command(name, event), "timeout": LIMIT}
            known[event] = [*known.get(event, []), {"hooks": [one]}]
        if known == (settings.get("hooks") or {}):
            return None, "no hooks of devbox are in it" if undo else "is set up"
        if known:
            settings["hooks"] = known
        else:
            settings.pop("hooks", None)
        said = "hooks are taken away" if undo else "hooks for " + ", ".join(missing)
        if not settings:
            return "", said
        return json.dumps(settings, indent=2, ensure_ascii=False) + "\n", said

    return edit


# TOML: the notify program of Codex --------------------------------------------------------------------------


def notify_line() -> str:
    """Our line: a value that is JSON is TOML, too."""
    return (
        "notify = "
        + json.dumps([sys.executable, "-I", "-S", PROGRAM, "codex-notify"])
        + "  "
        + COMMENT
        + " devbox"
    )


def top_keys(text: str) -> "list[tuple[str, int]]":
    """The keys in front of the first table, with the numbers of their lines. Raises Refused where it is no TOML.

    It knows strings, comments and brackets, which is all it takes to tell where a value ends.
    """
    found, lines = [], text.split("\n")  # type: list[tuple[str, int]], list[str]
    depth, quote = 0, ""
    for number, line in enumerate(lines):
        at, start = 0, not depth and not quote
        stripped = line.strip()
        if start and stripped.startswith("["):
            return found
        if start and stripped and not stripped.startswith(COMMENT):
            name = line.partition("=")[0].strip().strip("'\"")
            if "=" not in line or not name:
                raise Refused("line " + str(number + 1) + " is no TOML that can be read")
            found.append((name, number))
        while at < len(line):
            three, one = line[at : at + 3], line[at]
            if quote:
                if quote[0] == '"' and one == "\\":
                    at += 2
                elif line.startswith(quote, at):
                    at, quote = at + len(quote), ""
                else:
                    at += 1
            elif one in QUOTES and three == 3 * one:
                quote, at = three, at + 3
            elif one in QUOTES:
                quote, at = one, at + 1
            elif one == COMMENT:
                break
            else:
                depth += (one in "[{") - (one in "]}")
                at += 1
            if depth < 0:
                raise Refused("line " + str(number + 1) + " is no TOML that can be read")
        if len(quote) == 1:
            raise Refused("line " + str(number + 1) + " is no TOML that can be read")
    if depth or quote:
        raise Refused("it ends in the middle of a value")
    return found


def notify(text: "str | None", undo: bool) -> "tuple[str | None, str]":
    """The edit of config.toml: one line in front; comments and all else stay as they are."""
    text = text or ""
    lines = text.split("\n")
    keys = dict(top_keys(text))
    number = keys.get("notify")
    ours = (
        number is not None and MARK in lines[number] and lines[number].rstrip().endswith(COMMENT + " devbox")
    )
    if number is not None and not ours:
        return (
            None,
            "no notify of devbox is in it"
            if undo
            else "has a notify program of its own, which stays: there can be one",
        )
    if undo:
        if number is None:
            return None, "no notify of devbox is in it"
        del lines[number]
        return "\n".join(lines), "notify is taken away"
    if number is not None:
        if lines[number] == notify_line():
            return None, "is set up"
        lines[number] = notify_line()
        return "\n".join(lines), "notify is renewed"
    return notify_line() + "\n" + text, "notify"


# What is asked ----------------------------------------------------------------------------------------------


def place(kind: str, variable: str, folder: str) -> str:
    """Where an agent has its settings."""
    return os.path.join(os.environ.get(variable) or os.path.join(HOME, folder), kind)


def edits(which: "list[str]") -> "list[tuple[str, str, Any]]":
    """What there is to change: agent, file, how."""
    found = []  # type: list[tuple[str, str, Any]]
    if "claude" in which:
        found.append(
            ("claude", place("settings.json", "CLAUDE_CONFIG_DIR", ".claude"), hooks("claude", CLAUDE))
        )
    if "codex" in which:
        found.append(("codex", place("hooks.json", "CODEX_HOME", ".codex"), hooks("codex", CODEX)))
        found.append(("codex", place("config.toml", "CODEX_HOME", ".codex"), notify))
    return found


def program(text: str, undo: bool, dry: bool) -> "dict[str, Any]":
    """The hook program itself."""
    there = read(PROGRAM)
    changed = there is not None if undo else there != text
    if changed and not dry:
        if undo:
            os.unlink(PROGRAM)
            forget_all()
        else:
            write(PROGRAM, text, 0o700)
            os.makedirs(NOTES, exist_ok=True)
    said = "is taken away" if undo else "the program that hooks run" if changed else "is set up"
    return of_program(said, changed)


def of_program(said: str, changed: bool = False) -> "dict[str, Any]":
    return {"agent": "generic", "file": PROGRAM, "said": said, "changed": changed, "problem": False}


def forget_all() -> None:
    """Take away what agents have said; what somebody else has put there stays."""
    for path, note in notes_in(NOTES):
        if note.get("id"):
            forget(path)
    try:
        os.rmdir(NOTES)
    except OSError:
        pass  # there is none, or it is not ours alone


def is_in(path: str, edit: "Any") -> bool:
    """Whether something of ours is in a file of settings."""
    return bool(change(path, edit, True, True)["changed"])


def set_up(asked: "dict[str, Any]") -> "list[dict[str, Any]]":
    """Put in place, or take away; with ``dry`` only say what would be."""
    which, undo, dry = list(asked["for"]), bool(asked.get("undo")), bool(asked.get("dry"))
    found = []
    if not undo:
        found.append(program(str(asked["program"]), False, dry))
    for name, path, edit in edits(which):
        found.append(dict(change(path, edit, undo, dry), agent=name))
    if undo and "generic" in which:
        left = [one for one, path, edit in edits(AGENTS) if is_in(path, edit)] if not dry else []
        if left:
            found.append(of_program("stays: hooks of " + left[0] + " run it"))
        else:
            found.append(program("", True, dry))
    return found


def notes() -> "list[dict[str, Any]]":
    """What agents say of themselves."""
    found = [(told_of(note), is_alive(note)) for _, note in notes_in(NOTES, NOTES_MOST)]
    return [dict(one, alive=alive) for one, alive in found if one is not None]


def main() -> None:
    """Read the request, and answer it."""
    os.umask(0o077)
    try:
        asked = requested()
        if asked["verb"] != "setup":
            asked.update({"for": AGENTS, "undo": False, "dry": True})
        found = {"done": set_up(asked), "agents": notes()}  # type: dict[str, Any]
    except (Refused, OSError, ValueError) as error:
        found = {"problem": str(error)[:300]}
    sys.stdout.buffer.write(json.dumps(found).encode() + b"\n")


main()
