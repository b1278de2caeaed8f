"""The program that looks at panes and types into them: against the real tmux, and against zellij's documented command line."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from devboxd.boxside import panes
from devboxd.model.answer import BoxSaysNo
from devboxd.model.pane import Pane, key, typed

pytestmark = pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")


class Box:
    """A home with a tmux of its own."""

    def __init__(self, folder: Path) -> None:
        self.home = folder
        self.env = {
            "HOME": str(folder),
            "PATH": f"{folder}/bin:{os.environ['PATH']}",
            "TMUX_TMPDIR": str(folder),
            "LANG": "C.UTF-8",
            "SHELL": "/bin/sh",
        }

    def tmux(self, *words: str) -> str:
        done = subprocess.run(
            ["tmux", *words], env=self.env, capture_output=True, text=True, check=True, timeout=20
        )
        return done.stdout

    def session(self, name: str, *command: str, size: str = "60x12") -> None:
        columns, rows = size.split("x")
        self.tmux("-f", "/dev/null", "new-session", "-d", "-s", name, "-x", columns, "-y", rows, *command)

    def ask(self, request: bytes) -> bytes:
        done = subprocess.run(
            panes.argv(), input=request, env=self.env, capture_output=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout

    def peek(self, session: str | None = None, *, lines: int = 0, color: bool = False) -> Pane:
        found = panes.read(self.ask(panes.peek(session=session, mux=None, lines=lines, color=color)))
        assert isinstance(found, Pane), found
        return found

    def say(self, text: str, *keys: str, enter: bool = True, session: str | None = None) -> Pane:
        text, pressed = typed(text, keys, enter=enter)
        found = panes.read(self.ask(panes.say(session=session, mux=None, text=text, keys=pressed)))
        assert isinstance(found, Pane), found
        return found

    def missing(self, session: str | None = None) -> list[str]:
        found = panes.read(self.ask(panes.peek(session=session, mux=None, lines=0, color=False)))
        assert isinstance(found, panes.Missing), found
        return [one.name for one in found.sessions]

    def shows(self, line: str, session: str | None = None) -> Pane:
        end = time.monotonic() + 20
        while line not in (found := self.peek(session)).lines:
            assert time.monotonic() < end, found.lines
            time.sleep(0.05)
        return found


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    made = Box(tmp_path)
    yield made
    subprocess.run(["tmux", "kill-server"], env=made.env, capture_output=True, check=False, timeout=20)


def test_the_screen_of_the_session_is_shown_and_nothing_of_it_changes(box: Box) -> None:
    box.session("main", "printf 'one\\ntwo\\n\\n  three \\n'; sleep 100")
    facts = ("display-message", "-p", "-t", "=main:", "#{pane_width}x#{pane_height} #{session_attached}")
    before = box.tmux(*facts)
    found = box.shows("  three")
    assert found.lines == ["one", "two", "", "  three"]
    assert (found.mux, found.session, found.columns, found.rows) == ("tmux", "main", 60, 12)
    assert found.window.startswith("0:")
    assert box.tmux(*facts) == before == "60x12 0\n"


def test_the_session_is_the_one_that_is_named_or_main_or_the_only_one(box: Box) -> None:
    assert box.missing() == []
    box.session("build", "echo build; sleep 100")
    assert box.shows("build").session == "build"
    box.session("other", "echo other; sleep 100")
    assert box.missing() == ["build", "other"]
    assert box.missing("bui") == ["build", "other"], "a beginning of a name is no name"
    box.session("main", "echo main; sleep 100")
    assert sorted(one.name for one in box.shows("main").sessions) == ["build", "main", "other"]
    assert box.shows("other", "other").session == "other"


def test_more_lines_than_the_screen_has_come_from_what_scrolled_away(box: Box) -> None:
    box.session("main", "seq 1 100; echo end; sleep 100")
    found = box.shows("end")
    assert len(found.lines) < 13
    assert box.peek(lines=3).lines == ["99", "100", "end"]
    assert box.peek(lines=50).lines == [*map(str, range(52, 101)), "end"]


def test_an_answer_is_bounded_and_says_that_it_is_cut(box: Box) -> None:
    box.session("main", "yes 0123456789012345678901234567890123456789 | head -3000; echo end; sleep 100")
    box.shows("end")
    request = panes.peek(session=None, mux=None, lines=2000, color=False)
    output = box.ask(request)
    assert len(output) <= panes.ANSWER_MOST
    found = panes.read(output)
    assert isinstance(found, Pane)
    assert found.cut
    assert (found.lines[0], found.lines[-1]) == ("0123456789" * 4, "end")


def test_colours_are_kept_where_they_are_asked_for(box: Box) -> None:
    box.session("main", "printf '\\033[31mred\\033[0m plain\\n'; sleep 100")
    box.shows("red plain")
    assert "\x1b[31mred" in box.peek(color=True).lines[0]


def test_what_is_typed_arrives_as_it_is_then_enter(box: Box) -> None:
    box.session(
        "main", "stty -echo; echo ready; while IFS= read -r line; do printf '<%s>\\n' \"$line\"; done"
    )
    box.shows("ready")
    word = 'it\'s "all" $HOME; `id` -l #{pane_id} ü \\n'
    found = box.say(word)
    assert (found.session, found.mux) == ("main", "tmux")
    box.shows(f"<{word}>")
    box.say("-x half", enter=False)
    time.sleep(0.3)
    assert "<-x half>" not in box.peek().lines
    box.say("", "Enter")
    box.shows("<-x half>")
    assert box.tmux("list-buffers") == "", "no buffer stays"


def test_several_lines_are_one_paste_for_a_program_that_knows_pastes(box: Box) -> None:
    script = "stty raw -echo; printf '\\033[?2004hready\\r\\n'; head -c 20 | od -An -c -w30; sleep 100"
    box.session("main", script)
    box.shows("ready")
    box.say("one\ntwo")
    end = time.monotonic() + 20
    while not (found := "".join(box.peek().lines[1:]).split()):
        assert time.monotonic() < end
        time.sleep(0.05)
    assert "".join(found) == "033[200~one\\rtwo033[201~\\r"


def test_keys_end_a_program_and_leave_a_view_that_was_scrolled_back(box: Box) -> None:
    box.session("main", "trap : INT; echo on-$((40+1)); cat; echo; echo was-$((40+2)); sleep 100")
    box.shows("on-41")
    box.tmux("copy-mode", "-t", "=main:")
    box.say("", "C-c")
    box.shows("was-42")
    assert box.tmux("display-message", "-p", "-t", "=main:", "#{pane_in_mode}") == "0\n"


def test_text_stands_in_no_list_of_processes(box: Box) -> None:
    """It goes through standard input only, also to tmux."""
    folder = box.home / "bin"
    folder.mkdir()
    real = shutil.which("tmux")
    (folder / "tmux").write_text(f'#!/bin/sh\nprintf "%s\\n" "$*" >>{box.home}/calls\nexec {real} "$@"\n')
    (folder / "tmux").chmod(0o755)
    box.session("main", "cat")
    box.say("a-secret-word")
    box.shows("a-secret-word")
    calls = (box.home / "calls").read_text()
    assert "load-buffer" in calls
    assert "secret" not in calls
    assert not [word for word in panes.argv() if "secret" in word]


def test_a_pane_whose_program_has_ended_takes_nothing(box: Box) -> None:
    box.session("main", "sleep 100")
    box.tmux("set-option", "-t", "main", "remain-on-exit", "on")
    box.tmux("respawn-pane", "-k", "-t", "=main:", "true")
    end = time.monotonic() + 20
    while box.tmux("display-message", "-p", "-t", "=main:", "#{pane_dead}") != "1\n":
        assert time.monotonic() < end
    text, pressed = typed("x", [], enter=True)
    with pytest.raises(BoxSaysNo, match="has ended"):
        panes.read(box.ask(panes.say(session=None, mux=None, text=text, keys=pressed)))


# zellij: a stand-in that takes what the documentation says, and nothing else --------------------------------

ZELLIJ = """#!{python}
import json, os, sys
words, home = sys.argv[1:], {home!r}
new = os.path.exists(home + "/new")
with open(home + "/calls", "a") as file:
    file.write(json.dumps(words) + "\\n")
if words == ["list-sessions"]:
    print("\\x1b[32;1mmain\\x1b[m [Created 3h ago]\\nold [Created 1day ago] (\\x1b[31mEXITED\\x1b[m - attach to resurrect)")
    sys.exit()
assert words[:3] == ["--session", "main", "action"], words
action, rest = words[3], words[4:]
pane = ["--pane-id", "terminal_2"]
if action == "list-panes" and new:
    print(json.dumps([
        {{"id": 0, "is_plugin": True, "is_focused": False, "title": "tab-bar"}},
        {{"id": 1, "is_plugin": False, "is_focused": False, "title": "one"}},
        {{"id": 2, "is_plugin": False, "is_focused": True, "title": "two", "tab_name": "Tab #1", "pane_command": "vi"}},
    ]))
elif action == "list-clients":
    print("CLIENT_ID ZELLIJ_PANE_ID RUNNING_COMMAND")
    if os.path.exists(home + "/client"):
        print("1         terminal_2     vi")
elif action == "dump-screen" and new:
    assert [w for w in rest if w not in ("--full", "--ansi")] == pane, rest
    print("above\\nseen" if "--full" in rest else "seen")
elif action == "dump-screen":
    (path,) = [w for w in rest if w != "--full"]
    open(path, "w").write("seen\\n\\n")
elif action in ("paste", "write-chars"):
    assert new or action == "write-chars"
    if new:
        assert rest[:2] == pane
        rest = rest[2:]
    assert rest[0] == "--" and len(rest) == 2, rest
elif action == "write":
    assert all(0 <= int(w) < 256 for w in (rest[2:] if new else rest))
else:
    sys.exit("error: unrecognized subcommand " + action)
"""


@pytest.fixture
def zellij(tmp_path: Path) -> Box:
    made = Box(tmp_path)
    folder = tmp_path / ".local" / "bin"
    folder.mkdir(parents=True)
    python = shutil.which("python3")
    (folder / "zellij").write_text(ZELLIJ.format(python=python, home=str(tmp_path)))
    (folder / "zellij").chmod(0o755)
    return made


def calls(box: Box, *actions: str) -> list[list[str]]:
    """What zellij was told."""
    found: list[list[Any]] = [json.loads(line) for line in (box.home / "calls").read_text().splitlines()]
    return [words[3:] for words in found if words[3:4] and words[3] in actions]


def test_a_session_of_zellij_is_seen_and_typed_into_though_nobody_is_attached(zellij: Box) -> None:
    (zellij.home / "new").touch()
    found = zellij.peek()
    assert (found.mux, found.session, found.lines) == ("zellij", "main", ["seen"])
    assert (found.window, found.command) == ("Tab #1", "vi")
    assert [one.name for one in found.sessions] == ["main"], "one that has ended is none"
    assert zellij.peek(lines=5).lines == ["above", "seen"]
    zellij.say("yes")
    zellij.say("one\ntwo", "C-c", enter=False)
    pane = ["--pane-id", "terminal_2"]
    assert calls(zellij, "write-chars", "write", "paste") == [
        ["write-chars", *pane, "--", "yes"],
        ["write", *pane, "13"],
        ["paste", *pane, "--", "one\ntwo"],
        ["write", *pane, "3"],
    ]


def test_an_old_zellij_is_asked_through_whoever_is_attached_and_says_so_where_nobody_is(zellij: Box) -> None:
    request = panes.peek(session=None, mux=None, lines=0, color=False)
    with pytest.raises(BoxSaysNo, match="no terminal is attached"):
        panes.read(zellij.ask(request))
    (zellij.home / "client").touch()
    assert zellij.peek().lines == ["seen"]
    zellij.say("one\ntwo")
    begin, end = "27 91 50 48 48 126", "27 91 50 48 49 126"
    assert calls(zellij, "write-chars", "write") == [
        ["write", *begin.split()],
        ["write-chars", "--", "one\ntwo"],
        ["write", *end.split()],
        ["write", "13"],
    ]
    assert not list((zellij.home / ".devbox").iterdir()), "no screen stays on the disk"


# What a box may answer --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "output",
    [
        b"",
        b"no json",
        b"[]",
        b"[" * 50_000,
        b'{"mux": "tmux", "session": 1}',
        b'{"mux": "tmux", "session": "main", "rows": -1}',
        b'{"mux": "tmux", "session": "main", "lines": [1]}',
        b'{"mux": "tmux", "session": "main", "lines": [' + b",".join([b'""'] * 4000) + b"]}",
        b'{"missing": true, "sessions": 4}',
    ],
)
def test_a_box_that_says_nonsense_is_not_believed(output: bytes) -> None:
    with pytest.raises(BoxSaysNo, match="does not say"):
        panes.read(output)


def test_what_a_box_prints_before_its_answer_does_not_matter() -> None:
    found = panes.read(b'motd\n{"mux": "tmux", "session": "main", "lines": ["x"]}\n')
    assert found == Pane("tmux", "main", lines=["x"])
    with pytest.raises(BoxSaysNo, match="python3 is not on the box"):
        panes.read(b"problem python3 is not on the box\n")
    with pytest.raises(BoxSaysNo, match=r"^bad news$"):
        panes.read(b'{"problem": "bad\\u001b[31m news"}'.replace(b"\\u001b[31m", b"\\n"))
    assert key("ctrl+c") == key("^C") == key("C-c")
