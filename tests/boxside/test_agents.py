"""Hooks of coding agents: put in place beside what is there, run for real with their own input, and taken away again."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import resource
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from devboxd.boxside.script import in_python, load_program

PYTHONS = [sys.executable, *map(str, sorted(Path.home().glob(".pyenv/versions/3.6.*/bin/python3")))]


class Box:
    """A home, with agents that do what a script says."""

    def __init__(self, folder: Path, python: str = sys.executable) -> None:
        self.home = folder
        self.bin = folder / "bin"
        self.bin.mkdir(exist_ok=True)
        (self.bin / "python3").symlink_to(python)
        self.env = {"HOME": str(folder), "PATH": f"{self.bin}:/usr/bin:/bin", "LANG": "C.UTF-8"}

    def ask(self, **request: Any) -> dict[str, Any]:
        words = {"program": load_program("agent_hook"), **request}
        done = subprocess.run(
            in_python("agents", ""),
            input=json.dumps(words).encode(),
            env=self.env,
            capture_output=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr.decode()
        found: dict[str, Any] = json.loads(done.stdout)
        assert "problem" not in found, found
        return found

    def set_up(self, *which: str, undo: bool = False, dry: bool = False) -> dict[str, dict[str, Any]]:
        """By name of the file."""
        names = list(which or ("claude", "codex", "generic"))
        done = self.ask(verb="setup", undo=undo, dry=dry, **{"for": names})["done"]
        return {Path(one["file"]).name: one for one in done}

    @property
    def notes(self) -> list[dict[str, Any]]:
        folder = self.home / ".devbox" / "agents"
        found = []
        for path in sorted(folder.glob("*.json")):
            with contextlib.suppress(FileNotFoundError):  # forgotten while we looked
                found.append(json.loads(path.read_text()))
        return found

    @property
    def claude(self) -> Path:
        return self.home / ".claude" / "settings.json"

    @property
    def codex(self) -> Path:
        return self.home / ".codex" / "config.toml"


@pytest.fixture(params=PYTHONS, ids=lambda path: str(path).split("/")[-3])
def box(request: pytest.FixtureRequest, tmp_path: Path) -> Box:
    return Box(tmp_path, request.param)


class Agent:
    """A process with the name of an agent, which runs the hooks that are installed, as the agent would."""

    def __init__(self, box: Box, name: str) -> None:
        self.box, self.name = box, name
        script = box.bin / name
        script.write_text('#!/bin/sh\nwhile IFS= read -r line; do eval "$line"; echo done; done\n')
        script.chmod(0o755)
        self.process = subprocess.Popen(
            [script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=box.env, text=True
        )

    def do(self, line: str) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "done\n", "a hook prints nothing"

    def fire(self, event: str, **fields: Any) -> dict[str, Any] | None:
        """Run the hooks of an event; what is known of the agent then."""
        path = self.box.claude if self.name == "claude" else self.box.home / ".codex" / "hooks.json"
        given = {"session_id": "s", "cwd": "/srv", "hook_event_name": event, **fields}
        data = self.box.home / "event.json"
        data.write_text(json.dumps(given))
        for group in json.loads(path.read_text())["hooks"][event]:
            for hook in group["hooks"]:
                command = self.box.home / "command"
                command.write_text(hook["command"])
                self.do(f'sh -c "$(cat {command})" <{data} || echo failed with $?')
        return self.note

    @property
    def note(self) -> dict[str, Any] | None:
        found = [one for one in self.box.notes if one["pid"] == self.process.pid]
        return found[0] if found else None

    def end(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(20)
        self.process.stdout.close()


# What an agent says -----------------------------------------------------------------------------------------


def test_a_turn_of_claude_code_from_its_prompt_to_its_end(box: Box) -> None:
    box.set_up("claude")
    agent = Agent(box, "claude")
    note = agent.fire("SessionStart", source="startup")
    assert note is not None
    assert (note["name"], note["state"], note["quiet"]) == ("claude", "done", True)
    note = agent.fire("UserPromptSubmit", prompt="mend it")
    assert note is not None
    assert (note["state"], note["pid"]) == ("working", agent.process.pid)
    since = note["since"]
    note = agent.fire("PreToolUse", tool_name="Bash", tool_input={"command": "rm -rf\nbuild"})
    assert note is not None
    assert (note["state"], note["since"]) == ("working", since), "it goes on"
    note = agent.fire(
        "Notification",
        message="Claude needs your permission to use Bash",
        notification_type="permission_prompt",
    )
    assert note is not None
    assert note["state"] == "waiting"
    assert note["text"] == "Claude needs your permission to use Bash (Bash: rm -rf build)"
    assert note["since"] > since
    note = agent.fire("PostToolUse", tool_name="Bash", tool_input={}, tool_response={})
    assert note is not None
    assert (note["state"], note["text"]) == ("working", "")
    note = agent.fire(
        "Stop", stop_hook_active=False, last_assistant_message="All tests pass.\nShall I commit?"
    )
    assert note is not None
    assert (note["state"], note["text"], note["quiet"]) == ("done", "All tests pass. Shall I commit?", False)
    done = note["since"]
    note = agent.fire(
        "Notification", message="Claude is waiting for your input", notification_type="idle_prompt"
    )
    assert note is not None
    assert (note["state"], note["since"]) == ("done", done), "it was said that it is done"
    (path,) = (box.home / ".devbox" / "agents").glob("*.json")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert agent.fire("SessionEnd", reason="other") is None
    agent.end()


def test_an_interrupted_turn_becomes_waiting_and_a_question_is_told_once(box: Box) -> None:
    """Escape runs no Stop hook; a minute later it is told that nobody types."""
    box.set_up("claude")
    agent = Agent(box, "claude")
    agent.fire("UserPromptSubmit", prompt="x")
    note = agent.fire("Notification", message="Claude is waiting for your input")
    assert note is not None
    assert note["state"] == "waiting"
    agent.fire("UserPromptSubmit", prompt="x")
    asks = {"questions": [{"question": "Which colour?", "options": []}]}
    note = agent.fire("PreToolUse", tool_name="AskUserQuestion", tool_input=asks)
    assert note is not None
    assert (note["state"], note["text"]) == ("waiting", "Which colour?")
    again = agent.fire(
        "Notification", message="Claude needs your attention", notification_type="permission_prompt"
    )
    assert again is not None
    assert again["since"] == note["since"]
    agent.end()


def test_what_works_behind_an_agent_that_is_done_does_not_make_it_work(box: Box) -> None:
    box.set_up("claude")
    agent = Agent(box, "claude")
    agent.fire("UserPromptSubmit", prompt="x")
    note = agent.fire("SubagentStop")
    assert note is not None
    assert note["state"] == "working"
    agent.fire("Stop")
    for event in ("SubagentStop", "PostToolUse"):
        note = agent.fire(event, agent_id="a1", tool_name="Bash")
        assert note is not None
        assert note["state"] == "done"
    agent.end()


def test_codex_says_it_by_hooks_and_by_its_notify_program(box: Box) -> None:
    box.set_up("codex")
    agent = Agent(box, "codex")
    agent.fire("UserPromptSubmit", prompt="x")
    note = agent.fire("PermissionRequest", tool_name="shell", tool_input={"command": ["git", "push"]})
    assert note is not None
    assert (note["state"], note["text"]) == ("waiting", "needs your permission for shell: git push")
    agent.fire("PostToolUse", tool_name="shell")
    line = next(line for line in box.codex.read_text().splitlines() if line.startswith("notify"))
    argv = json.loads(line.partition("=")[2].partition("#")[0])
    event = {"type": "agent-turn-complete", "thread-id": "t", "last-assistant-message": "It's done"}
    (box.home / "event").write_text(json.dumps(event))
    agent.do(" ".join(argv) + f' "$(cat {box.home}/event)"')
    note = agent.note
    assert note is not None
    assert (note["name"], note["state"], note["text"]) == ("codex", "done", "It's done")
    agent.end()


def test_nonsense_and_a_full_disk_never_fail_an_agent(box: Box) -> None:
    box.set_up()
    program = [str(box.bin / "python3"), "-I", "-S", str(box.home / ".devbox" / "agent-hook.py")]
    (box.home / ".devbox" / "agents").chmod(0o700)
    for words, data in (
        ([], b""),
        (["claude"], b"{}"),
        (["claude", "Stop"], b"\xff{" * 100),
        (["claude", "PreToolUse"], b'{"tool_input": 7, "tool_name": []}'),
        (["claude", "Notification"], b"[" * 100_000),
        (["claude", "NoEvent"], b"{}"),
        (["codex-notify"], b""),
        (["codex-notify", "{"], b""),
        (["state", "sleeping"], b""),
    ):
        done = subprocess.run(
            program + words, input=data, env=box.env, capture_output=True, timeout=20, check=False
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b""), words
    shutil.rmtree(box.home / ".devbox" / "agents")
    (box.home / ".devbox" / "agents").write_text("")
    done = subprocess.run(
        [*program, "claude", "Stop"], input=b"{}", env=box.env, capture_output=True, timeout=20, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    command = json.loads(box.claude.read_text())["hooks"]["Stop"][0]["hooks"][0]["command"]
    shutil.rmtree(box.home / ".devbox")
    gone = subprocess.run(
        ["sh", "-c", command], input=b"{}", env=box.env, capture_output=True, timeout=20, check=False
    )
    assert (gone.returncode, gone.stderr) == (0, b""), "nor once it is gone"


def test_the_note_of_an_agent_that_was_killed_goes_with_the_next_session(box: Box) -> None:
    box.set_up("claude")
    first, second = Agent(box, "claude"), Agent(box, "claude")
    first.fire("UserPromptSubmit", prompt="x")
    first.process.kill()
    first.end()
    (box.home / ".devbox" / "agents" / "own.json").write_text('{"pid": 1, "state": "working", "since": 1}')
    second.fire("SessionStart", source="resume")
    assert {one["pid"] for one in box.notes} == {1, second.process.pid}, "only ours are taken away"
    second.end()


def test_two_sessions_that_begin_at_once_do_not_mind_that_the_other_tidies(box: Box) -> None:
    """What both want to take away is there for one of them only."""
    box.set_up("claude")
    first = Agent(box, "claude")
    first.fire("UserPromptSubmit", prompt="x")
    first.process.kill()
    first.end()
    script = (
        "import os, sys; unlink = os.unlink\n"
        "def twice(path): unlink(path); unlink(path)\n"
        "os.unlink = twice; sys.argv[0:1] = []; exec(open(sys.argv[0]).read())"
    )
    subprocess.run(
        [box.bin / "python3", "-c", script, box.home / ".devbox" / "agent-hook.py", "claude", "SessionStart"],
        input=b"{}", env=box.env, timeout=20, check=True,
    )  # fmt: skip
    assert [one["pid"] for one in box.notes] == [os.getpid()]


def test_an_agent_without_hooks_runs_where_nothing_can_be_written(box: Box) -> None:
    box.set_up("generic")
    (box.home / ".devbox" / "agents").rmdir()
    (box.home / ".devbox" / "agents").touch()
    program = box.home / ".devbox" / "agent-hook.py"
    command = ["run", "sh", "-c", "printf a; exit 7"]
    done = subprocess.run(
        [box.bin / "python3", program, *command], env=box.env, input=b"", capture_output=True, timeout=20, check=False
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (7, b"a", b"")


def test_a_note_of_emoji_is_told_and_taken_away(box: Box) -> None:
    """Each is twelve bytes of JSON: of such texts a note is longer than any other."""
    box.set_up("claude", "generic")
    agent, emoji = Agent(box, "claude"), "\N{PILE OF POO}" * 400
    agent.fire("PreToolUse", tool_name="Bash", tool_input={"command": emoji})
    agent.fire("Notification", message=emoji, notification_type="permission_prompt")
    (path,) = (box.home / ".devbox" / "agents").glob("*.json")
    (found,) = box.ask(verb="status")["agents"]
    assert (found["state"], found["text"], found["alive"]) == ("waiting", emoji[:300], True)
    note = json.loads(path.read_text())
    path.write_text(json.dumps({**note, "doing": emoji[:300]}))
    box.set_up(undo=True)
    assert not path.exists()
    agent.end()


def test_a_note_of_a_process_whose_number_is_another_ones_is_of_none(box: Box) -> None:
    box.set_up("claude")
    folder = box.home / ".devbox" / "agents"
    note = {"name": "claude", "pid": os.getpid(), "id": f"{os.getpid()}-1", "state": "done", "since": 1.0}
    (folder / "claude-1.json").write_text(json.dumps(note))
    assert [one["alive"] for one in box.ask(verb="status")["agents"]] == [False]
    agent = Agent(box, "claude")
    agent.fire("SessionStart", source="resume")
    assert [one["pid"] for one in box.notes] == [agent.process.pid]
    agent.end()


def test_any_other_agent_says_it_with_a_command(box: Box) -> None:
    box.set_up("generic")
    agent = Agent(box, "aider")
    program = f"{box.bin}/python3 ~/.devbox/agent-hook.py"
    agent.do(f"DEVBOX_AGENT=aider {program} state waiting 'may I?'")
    note = agent.note
    assert note is not None
    assert (note["name"], note["state"], note["text"]) == ("aider", "waiting", "may I?")
    agent.do(f"DEVBOX_AGENT=aider {program} state gone")
    assert agent.note is None
    agent.end()


@pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")
def test_a_script_in_a_pane_is_the_agent_and_its_session_is_named(box: Box) -> None:
    """Not the server of tmux, though that is no shell and a shell is in front of it."""
    box.set_up("generic")
    env = {**box.env, "TMUX_TMPDIR": str(box.home)}
    program = f"DEVBOX_AGENT=mine {box.bin}/python3 ~/.devbox/agent-hook.py"
    script = box.home / "script"
    script.write_text(f"echo $$ >~/pid\n{program} state waiting 'one?'\nsleep 100\n")
    try:
        words = ["tmux", "-f", "/dev/null", "new-session", "-d", "-s", "night", f"sh {script}; true"]
        subprocess.run(words, env=env, check=True, timeout=20)
        until(lambda: bool(box.notes), lambda: list(box.home.iterdir()))
        (note,) = box.notes
        assert (note["name"], note["text"], note["where"]) == ("mine", "one?", "night")
        assert note["pid"] == int((box.home / "pid").read_text())
    finally:
        subprocess.run(["tmux", "kill-server"], env=env, check=False, timeout=20)


@pytest.mark.parametrize(
    ("sent", "text"),
    [
        ("\\033]9;ready for you\\007", "ready for you"),
        ("\\033]777;notify;Agent;which one?\\033\\\\", "Agent: which one?"),
        ("\\007", ""),
    ],
)
def test_an_agent_without_hooks_is_heard_when_it_rings(box: Box, sent: str, text: str) -> None:
    """OSC 9, OSC 777 and the bell; a title that ends in a bell is none, nor is progress (OSC 9;4)."""
    box.set_up("generic")
    script = box.bin / "agent"
    quiet = "\\033]0;title\\007\\033]9;4;1;50\\007"
    script.write_text(
        f"#!/bin/sh\nprintf '{quiet}begun\\n'; read -r x; printf 'ask{sent}\\n'; read -r y; echo \"$x$y\"; exit 7\n"
    )
    script.chmod(0o755)
    master, slave = pty.openpty()
    running = subprocess.Popen(
        [box.bin / "python3", box.home / ".devbox" / "agent-hook.py", "run", "agent"],
        stdin=slave, stdout=slave, stderr=slave, env=box.env, start_new_session=True,
    )  # fmt: skip
    os.close(slave)

    def state() -> tuple[str, str]:
        notes = box.notes  # each time another look
        return (notes[0]["state"], notes[0]["text"]) if notes else ("", "")

    try:
        seen = b""
        while b"begun" not in seen:
            seen += os.read(master, 1000)
        assert state() == ("working", "")
        os.write(master, b"a\r")
        until(lambda: state() == ("waiting", text), state)
        os.write(master, b"b\r")
        until(lambda: state()[0] == "working" or not box.notes, state)
        assert running.wait(20) == 7
        assert box.notes == []
    finally:
        running.kill()
        running.wait()
        os.close(master)


def until(is_so: Callable[[], bool], seen: Callable[[], object]) -> None:
    end = time.monotonic() + 20
    while not is_so():
        assert time.monotonic() < end, seen()
        time.sleep(0.02)


# Settings that are somebody's own ---------------------------------------------------------------------------

OWN = """{
    "model": "opus",
    "hooks": {
        "Stop": [{"hooks": [{"type": "command", "command": "say done"}]}],
        "PreToolUse": [{"matcher": "Bash", "hooks": [{"type": "command", "command": "check"}]}]
    },
    "env": {"A": "\\u00fc"}
}"""


def test_own_hooks_stay_and_undo_takes_exactly_ours(box: Box) -> None:
    box.claude.parent.mkdir()
    box.claude.write_text(OWN)
    box.claude.chmod(0o640)
    done = box.set_up("claude")["settings.json"]
    assert (done["changed"], done["problem"]) == (True, False)
    found, before = json.loads(box.claude.read_text()), json.loads(OWN)
    assert list(found) == ["model", "hooks", "env"]
    assert found["hooks"]["Stop"][0] == before["hooks"]["Stop"][0]
    assert len(found["hooks"]["Stop"]) == 2
    assert found["hooks"]["PreToolUse"][0] == before["hooks"]["PreToolUse"][0]
    assert stat.S_IMODE(box.claude.stat().st_mode) == 0o640
    assert (box.claude.parent / "settings.json.before-devbox").read_text() == OWN
    text = box.claude.read_text()
    assert box.set_up("claude")["settings.json"]["said"] == "is set up"
    assert box.claude.read_text() == text, "a second time changes nothing"
    box.set_up("claude", undo=True)
    assert box.claude.read_text() == OWN, "to the byte, as nothing else was changed"
    assert sorted(path.name for path in box.claude.parent.iterdir()) == ["settings.json"]


def test_what_was_changed_since_stays_when_ours_is_taken_away(box: Box) -> None:
    box.claude.parent.mkdir()
    box.claude.write_text(OWN)
    box.set_up("claude")
    found = json.loads(box.claude.read_text())
    found["model"] = "haiku"
    found["hooks"]["Stop"][1]["hooks"].append({"type": "command", "command": "mine"})
    box.claude.write_text(json.dumps(found))
    assert box.set_up("claude")["settings.json"]["said"] == "is set up"
    box.set_up("claude", undo=True)
    found, before = json.loads(box.claude.read_text()), json.loads(OWN)
    assert found["model"] == "haiku"
    mine = {"hooks": [{"type": "command", "command": "mine"}]}
    assert found["hooks"] == {**before["hooks"], "Stop": [*before["hooks"]["Stop"], mine]}
    assert "agent-hook" not in box.claude.read_text()


def test_a_box_without_settings_has_none_again_afterwards(box: Box) -> None:
    box.set_up()
    assert json.loads(box.claude.read_text()).keys() == {"hooks"}
    box.set_up(undo=True)
    assert not box.claude.exists()
    assert not box.codex.exists()
    assert list((box.home / ".devbox").iterdir()) == []


def test_the_program_stays_while_hooks_run_it(box: Box) -> None:
    box.set_up()
    assert "stays" in box.set_up("generic", undo=True)["agent-hook.py"]["said"]
    assert (box.home / ".devbox" / "agent-hook.py").exists()


def test_a_dry_run_says_what_would_be_and_changes_nothing(box: Box) -> None:
    done = box.set_up(dry=True)
    assert {name for name, one in done.items() if one["changed"]} == {
        "agent-hook.py", "settings.json", "hooks.json", "config.toml",
    }  # fmt: skip
    assert sorted(path.name for path in box.home.iterdir()) == ["bin"]
    box.set_up()
    before = box.claude.read_text()
    assert box.set_up(undo=True, dry=True)["settings.json"]["changed"]
    assert box.claude.read_text() == before


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[" * 5000,
        "// comment\n{}",
        "[]",
        '{"hooks": []}',
        '{"hooks": {"Stop": {}}}',
        "\x00",
        '{"a": 1,}',
    ],
)
def test_settings_that_can_not_be_read_are_not_written(box: Box, text: str) -> None:
    box.claude.parent.mkdir()
    box.claude.write_text(text)
    done = box.set_up("claude")["settings.json"]
    assert (done["problem"], done["changed"]) == (True, False)
    assert done["said"].endswith("nothing of it was changed")
    assert box.claude.read_text() == text
    assert [path.name for path in box.claude.parent.iterdir()] == ["settings.json"]


def test_settings_that_do_not_fit_leave_nothing_beside_them(box: Box) -> None:
    box.claude.parent.mkdir()
    box.claude.write_text(json.dumps({"long": "x" * (128 << 10)}))
    before, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 << 10, hard))
    try:
        done = box.set_up("claude")["settings.json"]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (before, hard))
    assert done["problem"]
    assert done["said"].startswith("it can not be written: ")
    assert [one.name for one in box.claude.parent.iterdir()] == ["settings.json"]


def test_settings_that_are_a_link_stay_one(box: Box) -> None:
    """Dotfiles are kept in a repository."""
    real = box.home / "dotfiles" / "claude.json"
    real.parent.mkdir()
    real.write_text("{}")
    box.claude.parent.mkdir()
    box.claude.symlink_to(real)
    box.set_up("claude")
    assert box.claude.is_symlink()
    assert "hooks" in json.loads(real.read_text())
    box.set_up("claude", undo=True)
    assert real.read_text() == "{}"


TOML = """# my codex
model = "o4"   # a comment
long = \"\"\"
notify = ["not", "this"]
[nor.a.table]
\"\"\"
list = [  # of things
  "[x]", # and more
  '''y#]''',
]

[tui]
notify = true
"""


def test_toml_keeps_its_comments_and_gets_one_line_in_front_of_its_tables(box: Box) -> None:
    tomllib = pytest.importorskip("tomllib")
    box.codex.parent.mkdir()
    box.codex.write_text(TOML)
    assert box.set_up("codex")["config.toml"]["changed"]
    text = box.codex.read_text()
    assert text.endswith("\n" + TOML)
    found = tomllib.loads(text)
    assert found["notify"][-1] == "codex-notify"
    assert {key: value for key, value in found.items() if key != "notify"} == tomllib.loads(TOML)
    assert box.set_up("codex")["config.toml"]["said"] == "is set up"
    box.codex.write_text(text + "# later\n")
    box.set_up("codex", undo=True)
    assert box.codex.read_text() == TOML + "# later\n"


@pytest.mark.parametrize("own", ['notify = ["mine"]\n', '"notify" = [\n  "mine",\n]\n'])
def test_a_notify_program_of_ones_own_stays_and_that_is_said(box: Box, own: str) -> None:
    box.codex.parent.mkdir()
    box.codex.write_text("# x\n" + own + "[tui]\n")
    done = box.set_up("codex")
    assert "which stays" in done["config.toml"]["said"]
    assert not done["config.toml"]["changed"]
    assert done["hooks.json"]["changed"], "its hooks say it all the same"
    box.set_up("codex", undo=True)
    assert box.codex.read_text() == "# x\n" + own + "[tui]\n"


@pytest.mark.parametrize("text", ["no toml\n", 'a = "x\n', "a = [1\n", "a = '''x\n", "a = ]\n", "= 1\n"])
def test_toml_that_can_not_be_read_is_not_written(box: Box, text: str) -> None:
    box.codex.parent.mkdir()
    box.codex.write_text(text)
    done = box.set_up("codex")["config.toml"]
    assert (done["problem"], done["changed"]) == (True, False)
    assert box.codex.read_text() == text


def test_how_it_is_can_be_asked(box: Box) -> None:
    assert all(one["changed"] for one in box.ask(verb="status")["done"])
    box.set_up("claude")
    agent = Agent(box, "claude")
    agent.fire("UserPromptSubmit", prompt="x")
    found = box.ask(verb="status")
    assert {Path(one["file"]).name for one in found["done"] if not one["changed"]} == {
        "settings.json",
        "agent-hook.py",
    }
    assert [(one["name"], one["state"], one["alive"]) for one in found["agents"]] == [
        ("claude", "working", True)
    ]
    agent.end()
    assert [one["alive"] for one in box.ask(verb="status")["agents"]] == [False]
