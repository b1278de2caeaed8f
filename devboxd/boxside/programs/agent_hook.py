"""What a coding agent on a box does now, in a small file that the collector and the bridgehead read.

Python 3.6 and the standard library only. It is kept as ``~/.devbox/agent-hook.py``; the agents' own hooks run it::

    agent-hook.py claude EVENT      the event as JSON on standard input (Claude Code; the hooks of Codex are alike)
    agent-hook.py codex EVENT       the same
    agent-hook.py codex-notify JSON the ``notify`` program of Codex
    agent-hook.py state STATE TEXT  for any other agent: working, waiting, done, gone
    agent-hook.py run COMMAND       run an agent that has no hooks: OSC 9, OSC 777 and the bell say that it waits

It prints nothing and always succeeds: an agent must not fail because somebody wants to know how it is.
"""

import fcntl
import json
import os
import re
import select
import signal
import subprocess
import sys
import termios
import time
import tty
from typing import TYPE_CHECKING

from devboxd.boxside.programs.parts.agent_note import forget, is_alive, notes_in, process_stat, read_note
from devboxd.boxside.programs.parts.terminal import show, some, take

if TYPE_CHECKING:
    from typing import Any

INPUT_MOST = 4 << 20  # bytes of an event: what a tool is to write may be among it
TEXT_MOST = 300  # characters of a question
NOTES_MOST = 64
HELD_MOST = 4096  # bytes of a sequence that does not end
FOLDER = os.path.join(os.path.expanduser("~"), ".devbox", "agents")
SHELLS = ("sh", "bash", "dash", "zsh", "fish", "ksh", "ash", "env", "timeout", "sudo")
HOLDERS = ("tmux: server", "tmux", "zellij", "screen", "sshd", "login", "systemd", "init", "ssm-session-wor")
ASKS = ("AskUserQuestion", "ExitPlanMode", "request_user_input")  # tools that are a question
NOTICE = re.compile(
    rb"\x1b\](?:9;(?!4;)|777;notify;)([^\x07\x1b]*)(?:\x07|\x1b\\)|\x1b[\]P^_X][^\x07\x1b]*(?:\x07|\x1b\\)|(\x07)"
)


def started(pid: int) -> str:
    """When a process began. Raises OSError where there is none."""
    return process_stat(pid)[1][19]


def words(pid: int) -> "list[str]":
    """The names by which a process may be known."""
    with open("/proc/" + str(pid) + "/cmdline", "rb") as file:
        argv = file.read(4096).decode("utf-8", "replace").split("\0")
    return [os.path.basename(word).split(".")[0] for word in argv[:3]]


def agent(name: str) -> "tuple[int, str]":
    """The process above us that is the agent, and its start: the one of that name, the next that is no shell, or our parent."""
    at, found = os.getppid(), 0
    for _ in range(12):
        try:
            called, fields = process_stat(at)
            parent = int(fields[1])
            if called == name or name in words(at):
                found = at
                break
            if called in HOLDERS:
                break  # the terminal: the agent is below it
            if not found and called not in SHELLS:
                found = at
        except (OSError, ValueError, IndexError):
            break
        if parent <= 1:
            break
        at = parent
    found = found or os.getppid()
    return found, started(found)


def where() -> str:
    """The session of the multiplexer that it runs in."""
    if os.environ.get("ZELLIJ_SESSION_NAME"):
        return os.environ["ZELLIJ_SESSION_NAME"][:64]
    pane = os.environ.get("TMUX_PANE")
    if not pane or not os.environ.get("TMUX"):
        return ""
    try:
        done = subprocess.run(
            ["tmux", "display-message", "-p", "-t", pane, "#{session_name}"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=2,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode("utf-8", "replace").strip()[:64]


class Note:
    """The file of one agent process."""

    def __init__(self, name: str, pid: int, since: str) -> None:
        self.path = os.path.join(FOLDER, name + "-" + str(pid) + ".json")
        self.now = {"name": name, "pid": pid, "id": str(pid) + "-" + since}  # type: dict[str, Any]
        self.look()

    def look(self) -> "Note":
        """Read what was said last."""
        self.was = read_note(self.path)
        if self.was.get("id") != self.now["id"]:
            self.was = {}  # of a process that had this number before
        return self

    @property
    def state(self) -> str:
        """What was said last."""
        return str(self.was.get("state") or "")

    def say(
        self, state: str, text: str = "", quiet: bool = False, doing: str = "", asked: bool = False
    ) -> None:
        """Write it, all or nothing, if that can be; the same state goes on."""
        now = time.time()
        goes_on = state == self.state and (not text or text == self.was.get("text"))
        self.now.update(state=state, at=now, since=self.was.get("since", now) if goes_on else now)
        self.now.update(
            text=" ".join(text.split())[:TEXT_MOST] or (str(self.was.get("text") or "") if goes_on else "")
        )
        self.now.update(quiet=quiet, asked=asked, doing=" ".join(doing.split())[:TEXT_MOST])
        self.now["where"] = str(self.was.get("where") or "") or (where() if state != "working" else "")
        new = self.path + "." + str(os.getpid())
        try:
            with open(new, "w") as file:
                file.write(json.dumps(self.now))
            os.rename(new, self.path)
        except OSError:
            forget(new)  # the disk is full

    def gone(self) -> None:
        """It has ended."""
        forget(self.path)


def tidy() -> None:
    """Take away the notes of agents that are not there any more."""
    for path, note in notes_in(FOLDER, NOTES_MOST * 4):
        is_ours = str(note.get("id") or "").partition("-")[0].isdigit()
        if is_ours and not is_alive(note):
            forget(path)


def doing(event: "dict[str, Any]") -> str:
    """What a tool is asked to do, in a few words."""
    given = event.get("tool_input")
    given = given if isinstance(given, dict) else {}
    questions = given.get("questions")
    if isinstance(questions, list) and questions and isinstance(questions[0], dict):
        return str(questions[0].get("question") or "")
    for key in ("command", "file_path", "path", "url", "plan", "question", "description"):
        value = given.get(key)
        if isinstance(value, list):
            value = " ".join(str(one) for one in value)
        if isinstance(value, str) and value.strip():
            return str(event.get("tool_name") or "") + ": " + value
    return str(event.get("tool_name") or "")


def on_event(name: str, kind: str, event: "dict[str, Any]") -> None:
    """What an event of Claude Code, or one of Codex that is alike, means."""
    note = Note(name, *agent(name))
    if kind == "SessionEnd":
        note.gone()
    elif kind == "SessionStart":
        tidy()
        if event.get("source") != "compact":
            note.say("done", quiet=True)
    elif kind in ("UserPromptSubmit", "PreToolUse", "PostToolUse"):
        beside = (
            bool(event.get("agent_id")) and note.state == "done"
        )  # what works in the background of one that is done
        if kind == "PreToolUse" and str(event.get("tool_name")) in ASKS:
            note.say("waiting", doing(event), asked=True)
        elif not beside:
            note.say("working", doing=doing(event) if kind == "PreToolUse" else "")
    elif kind == "SubagentStop":
        if note.state == "working":
            note.say("working")
    elif kind == "PermissionRequest":
        note.say("waiting", "needs your permission for " + doing(event))
    elif kind == "Stop":
        note.say("done", str(event.get("last_assistant_message") or ""))
    elif kind == "Notification":
        told(note, event)


def told(note: Note, event: "dict[str, Any]") -> None:
    """A notification: a question, or only word that it has nothing to do."""
    kind, text = event.get("notification_type"), str(event.get("message") or "")
    idle = kind == "idle_prompt" or (kind is None and "waiting for your input" in text)
    if note.state == "waiting" and (idle or note.was.get("asked")):
        return  # that is known
    if idle and note.state == "done":
        return
    if idle or kind in (
        None,
        "permission_prompt",
        "elicitation_dialog",
        "worker_permission_prompt",
        "agent_needs_input",
    ):
        more = str(note.was.get("doing") or "")
        note.say("waiting", text + (" (" + more + ")" if more and not idle else ""))


def run(argv: "list[str]") -> int:
    """Run an agent that has no hooks, in a terminal of its own whose output says when it waits."""
    master, slave = os.openpty()
    outer = os.isatty(0)
    if outer:
        fcntl.ioctl(slave, termios.TIOCSWINSZ, fcntl.ioctl(0, termios.TIOCGWINSZ, b"\0" * 8))
        before = termios.tcgetattr(0)
        termios.tcsetattr(slave, termios.TCSANOW, before)
    child = os.fork()
    if child == 0:
        take(slave)
        try:
            os.execvp(argv[0], argv)
        except OSError:
            os._exit(127)
    os.close(slave)
    note = Note(os.path.basename(argv[0])[:40], child, started(child))
    note.say("working")
    signal.signal(
        signal.SIGWINCH,
        lambda *_: (
            fcntl.ioctl(master, termios.TIOCSWINSZ, fcntl.ioctl(0, termios.TIOCGWINSZ, b"\0" * 8))
            if outer
            else 0
        ),
    )
    if outer:
        tty.setraw(0)
    try:
        carry(master, note)
    finally:
        if outer:
            termios.tcsetattr(0, termios.TCSADRAIN, before)
        note.gone()
    status = os.waitpid(child, 0)[1]
    return os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)


def carry(master: int, note: Note) -> None:
    """Copy between the terminals, and hear what the output says."""
    sources, held = [0, master], b""
    while True:
        ready = select.select(sources, [], [])[0]
        if 0 in ready:
            keys = some(0)
            if keys:
                os.write(master, keys)
            else:
                sources.remove(0)
            if (b"\r" in keys or b"\n" in keys) and note.look().state != "working":
                note.say("working")
        if master in ready:
            data = some(master)
            if not data:
                return
            show(data)
            held = hear(held + data, note)


def hear(data: bytes, note: Note) -> bytes:
    """Take what says that it waits; returns what may be the beginning of more."""
    end, text = 0, None
    for match in NOTICE.finditer(data):
        end = match.end()
        if match.group(1) is not None or match.group(2):
            text = (match.group(1) or b"").decode("utf-8", "replace").replace(";", ": ") or text or ""
    if text is not None:
        note.look().say("waiting", text)  # once: all that is printed may be bells
    start = data.rfind(b"\x1b", end)
    return data[start:] if start >= 0 and len(data) - start < HELD_MOST else b""


def main() -> int:
    """Do what is asked, and never fail."""
    os.umask(0o077)
    kind = sys.argv[1] if len(sys.argv) > 1 else ""
    try:
        os.makedirs(FOLDER, exist_ok=True)
    except OSError:
        pass
    if kind == "run":
        return run(sys.argv[2:])
    try:
        if kind in ("claude", "codex"):
            text = sys.stdin.buffer.read(INPUT_MOST).decode("utf-8", "replace")
            try:
                event = json.loads(text)
            except (ValueError, RecursionError):
                event = {}
            on_event(kind, sys.argv[2], event if isinstance(event, dict) else {})
        elif kind == "codex-notify":
            event = json.loads(sys.argv[2])
            if event.get("type") == "agent-turn-complete":
                Note("codex", *agent("codex")).say("done", str(event.get("last-assistant-message") or ""))
        elif kind == "state":
            name = os.environ.get("DEVBOX_AGENT") or ""
            pid, since = agent(name)
            note = Note(name or (words(pid) or ["agent"])[0], pid, since)
            if sys.argv[2] == "gone":
                note.gone()
            elif sys.argv[2] in ("working", "waiting", "done"):
                note.say(sys.argv[2], " ".join(sys.argv[3:]))
    except Exception:  # noqa: BLE001 - see above
        pass
    return 0


sys.exit(main())
