"""How command lines are read and explained: what a new user sees first, and what other programs write for us."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from typing import Any

import pytest

from devboxctl import explain, grammar, table
from devboxctl.app import command, run
from devboxctl.commands import ssh
from devboxctl.fast import words
from tests.ctl.fake_daemon import FakeDaemon, Peer

Capture = pytest.CaptureFixture[str]

ROOT: Any = command()


def walk(command: Any, path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], Any]]:
    found = [(path, command)]
    for name, one in getattr(command, "commands", {}).items():
        found += walk(one, (*path, name))
    return found


ALL = walk(ROOT)[1:]
LEAVES = [(path, one) for path, one in ALL if not hasattr(one, "commands")]


def name_of(value: object) -> str:
    return "-".join(value) if isinstance(value, tuple) else ""


# Help -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("line", [[], ["config"], ["daemon"], ["forward"], ["--no-color"], ["daemon", "-h"]])
def test_a_group_alone_on_its_line_explains_itself(line: list[str], capsys: Capture) -> None:
    """The first thing a new user types must not be answered with an error."""
    assert run(line) == 0
    out, err = capsys.readouterr()
    assert "Usage\n" in out
    assert "Examples\n" in out
    assert err == ""


def test_the_overview_groups_the_commands_in_lines_that_are_whole(capsys: Capture) -> None:
    assert run([]) == 0
    out = capsys.readouterr().out
    for section in explain.SECTIONS:
        assert f"\n{section}\n" in out
    shown = re.findall(r"^  ([a-z][a-z-]+)  ", out, re.MULTILINE)
    assert set(shown) == {name for name, one in ROOT.commands.items() if not one.hidden}
    assert max(map(len, out.splitlines())) <= 80
    assert all("…" not in line for line in out.splitlines() if not line.startswith("  devboxctl"))


@pytest.mark.parametrize(("path", "command"), ALL, ids=name_of)
def test_every_command_has_a_summary_of_one_line_and_a_place(path: tuple[str, ...], command: Any) -> None:
    """What does not fit is cut off or wrapped, and a list of commands is read in one glance or not at all."""
    assert 0 < len(explain.summary(command)) <= 80 - 2 - 2 - len("completion"), explain.summary(command)
    if len(path) == 1 and not command.hidden:
        assert command.rich_help_panel in explain.SECTIONS


@pytest.mark.parametrize(("path", "command"), ALL, ids=name_of)
def test_every_example_can_be_typed(
    path: tuple[str, ...], command: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An example that is refused is worse than none."""
    monkeypatch.setattr(grammar.Command, "invoke", lambda *_: None)
    examples = explain.examples(command)
    assert examples
    for line in examples:
        inner = line
        if quoted := re.search(r"'(devboxctl [^']*)'", line):  # for rsync, git
            assert quoted[1].split()[1] in ROOT.commands
            continue
        if embedded := re.search(r"\$\(([^)]*)\)", line):
            inner = embedded[1]
        inner = inner[inner.index("devboxctl") :].split(" | ")[0]
        assert run(shlex.split(inner)[1:]) == 0, line
        assert f"devboxctl {' '.join(path)}" in line


@pytest.mark.parametrize("columns", [80, 40])
@pytest.mark.parametrize(("path", "command"), ALL, ids=name_of)
def test_help_fits_the_terminal(
    path: tuple[str, ...], command: Any, columns: int, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    assert run([*path, "--help"]) == 0
    out = capsys.readouterr().out
    body = out[: out.index("Examples")]
    wrapped = [line for line in body.splitlines() if not line.startswith("  devboxctl")]
    assert max(map(len, wrapped)) <= columns


def test_help_explains_commands_of_groups_too(capsys: Capture) -> None:
    assert run(["help", "daemon", "logs"]) == 0
    whole = capsys.readouterr().out
    assert whole.startswith("Show the log of the daemon.\n")
    assert "devboxctl daemon logs [OPTIONS]" in whole
    assert run(["daemon", "logs", "--help"]) == 0
    assert capsys.readouterr().out == whole
    assert run(["help"]) == 0
    assert "Connect\n" in capsys.readouterr().out
    assert run(["help", "--json", "ls"]) == 0
    assert json.loads(capsys.readouterr().out)["help"].startswith("List your boxes.")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (["help", "atach"], "did you mean 'attach'"),
        (["atach"], "did you mean 'attach'"),
        (["daemon", "restrat"], "did you mean 'restart'"),
        (["ls", "--jsn"], "no such option"),
        (["help", "ls", "x"], "has no commands of its own"),
        (["show", "a", "b"], "unexpected extra argument"),
        (["show", "a", "b"], "error: unexpected extra argument: b\n"),
        (["show", "a", "b", "c"], "error: unexpected extra arguments: b c\n"),
        (["peek", "a", "--lines", "x"], "'x' is not a whole number\n"),
        (["ping", "a", "--timeout", "x"], "'x' is not a number\n"),
        (["generations", "show", "a", "x"], "'x' is not a whole number\n"),
        (["cost", "--what-if", "archived"], "of which project?"),
        (["idle", "a", "--reset", "--lid", "15m"], "--reset leaves nothing as you say"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_misspelt_line_says_what_is_wrong_in_one_line(line: list[str], said: str, capsys: Capture) -> None:
    assert run(line) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err.lower()
    assert re.fullmatch(r"error: .*\nhint: devboxctl .*\n", err)


# JSON -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("path", "command"), ALL, ids=name_of)
def test_every_command_takes_json(path: tuple[str, ...], command: Any) -> None:
    assert "--json" in {name for one in command.params for name in one.opts}


@pytest.mark.parametrize(
    "line",
    [
        ["--json", "nonsense"],
        ["nonsense", "--json"],
        ["ls", "--nonsense", "--json"],
        ["exec", "--json", "api"],
        ["exec", "--json", "--nonsense", "api", "x"],
        ["daemon", "--json", "nonsense"],
        ["daemon", "nonsense", "--json"],
        ["ping", "--count", "x", "--json"],
        ["forward", "--json", "rm"],
        ["attach", "api", "--escape", "long", "--json"],
    ],
    ids=" ".join,
)
def test_what_is_wrong_with_a_line_is_said_in_json_when_asked(
    line: list[str], home: object, capsys: Capture
) -> None:
    assert run(line) == 2
    out, err = capsys.readouterr()
    assert out == ""
    found = json.loads(err)
    assert set(found) == {"code", "message", "hint", "retryable", "version"}
    assert found["code"] == "usage"


# Lines that belong to other programs ------------------------------------------------------------------

VALUED = frozenset({"-u", "--user"})


@pytest.mark.parametrize(
    ("line", "ours", "rest"),
    [
        ("box ls -la", "box", "ls -la"),
        ("-t box ls -t", "-t box", "ls -t"),
        ("-u me box ls -u x", "-u me box", "ls -u x"),
        ("-tu me box ls", "-tu me box", "ls"),
        ("-ume box ls", "-ume box", "ls"),
        ("--user me box ls", "--user me box", "ls"),
        ("--user=me box ls", "--user=me box", "ls"),
        ("box -t ls -t", "box -t", "ls -t"),
        ("box -u me -- -x", "box -u me", "-x"),
        ("box -- a -- b", "box", "a -- b"),
        ("box a -- b", "box", "a -- b"),
        ("-- a", "", "a"),
        ("box", "box", ""),
        ("box --", "box", ""),
        ("box - x", "box", "- x"),
        ("", "", ""),
        ("-u", "-u", ""),
    ],
)
def test_from_its_first_word_on_the_line_belongs_to_the_command(line: str, ours: str, rest: str) -> None:
    """An option that we take away from a command is one that it runs without, and nobody notices."""
    assert words.cut(line.split(), VALUED, 1) == (ours.split(), rest.split())


RSYNC = "exec -l ann api rsync --server -vlogDtpre.iLsfxCIvu . src/"


@pytest.mark.parametrize(
    ("line", "box", "argv", "user"),
    [
        ("exec api uname -a", "api", ["uname", "-a"], None),
        ("exec api -- uname -a", "api", ["uname", "-a"], None),
        ("exec api --user ann uname -a", "api", ["uname", "-a"], "ann"),
        ("exec api env --user x", "api", ["env", "--user", "x"], None),
        ("exec -n api sh -c true -- --json", "api", ["sh", "-c", "true", "--", "--json"], None),
        (RSYNC, "api", RSYNC.split()[4:], "ann"),
    ],
)
def test_both_parsers_leave_the_options_of_a_command_to_it(
    daemon: FakeDaemon, line: str, box: str, argv: list[str], user: str | None
) -> None:
    def ended(peer: Peer, _: FakeDaemon) -> None:
        peer.upgrade()
        peer.exit(status=0)

    daemon.streams["exec"] = ended
    for code in (
        "from devboxctl.entry import main; main()",
        "import sys; from devboxctl.app import run; sys.exit(run(sys.argv[1:]))",
    ):
        done = subprocess.run(
            [sys.executable, "-c", code, *line.split()],
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        assert (done.returncode, done.stderr) == (0, "")
        asked = daemon.requests[-1][2]
        assert (asked["box"], asked["argv"], asked.get("user")) == (box, argv, user)


SSH_VALUED = frozenset({"-p", "-l", "-r", "--user", "-o", "-L", "-e", "-i"})


@pytest.mark.parametrize(
    ("line", "ours", "theirs"),
    [
        ("api", "api", ""),
        ("-l ann api", "-l ann api", ""),
        ("-A -t api", "api", "-A -t"),
        ("-L 1:h:2 -N api", "api", "-L 1:h:2 -N"),
        ("-o SendEnv=GIT_PROTOCOL -p 2222 api", "--port 2222 api", "-o SendEnv=GIT_PROTOCOL"),
        ("-p2222 api", "--port 2222 api", ""),
        ("-p work -oUser=x api", "-p work api", "-oUser=x"),
        ("-vvi key api", "api", "-vvi key"),
        ("api -t", "api", "-t"),
        ("--user ann -G api", "--user ann api", "-G"),
    ],
)
def test_options_of_ssh_are_told_from_ours(line: str, ours: str, theirs: str) -> None:
    """git, rsync and fingers write for us what they write for ssh."""
    assert ssh.sort(line.split(), SSH_VALUED) == (ours.split(), theirs.split())


@pytest.mark.parametrize(
    ("line", "before", "command"),
    [
        ([], [], []),
        (["ls", "-p"], [], ["ls", "-p"]),
        (["-p22", "-vp", "22", "-A", "x"], ["-p22", "-vp", "22", "-A"], ["x"]),
        (["-t", "--", "-x"], ["-t"], ["-x"]),
        (["-o"], ["-o"], []),
    ],
)
def test_options_for_ssh_stand_before_the_host(
    line: list[str], before: list[str], command: list[str]
) -> None:
    assert ssh.split(line) == (before, command)


# Tables -----------------------------------------------------------------------------------------------

HEADERS = ("name", "state", "zone", "id")
ROWS = [("api", "running", "eu-central-1a", "i-0123456789abcdef0"), ("büro", "stopped", "", "i-1")]


@pytest.mark.parametrize(
    ("columns", "kept"),
    [(49, [0, 1, 2, 3]), (48, [0, 1, 3]), (34, [0, 1, 3]), (33, [0, 3]), (25, [0, 3]), (24, None)],
)
def test_a_table_fits_by_leaving_columns_out(columns: int, kept: list[int] | None) -> None:
    """An id that is broken in the middle cannot be copied."""
    found = table.fitting(HEADERS, ROWS, columns, ("zone", "state"))
    assert found == kept
    if found is not None:
        lines = table.aligned(HEADERS, ROWS, found)
        assert max(map(table.cells, lines)) <= columns
        assert ROWS[0][3] in lines[1]


def test_a_narrow_table_is_a_list() -> None:
    assert table.listed(HEADERS, ROWS) == [
        "api",
        "  state  running",
        "  zone   eu-central-1a",
        "  id     i-0123456789abcdef0",
        "büro",
        "  state  stopped",
        "  id     i-1",
    ]


@pytest.mark.parametrize(("text", "width"), [("abc", 3), ("büro", 4), ("会社", 4), ("e\u0301", 1), ("", 0)])
def test_columns_are_counted_as_the_terminal_does(text: str, width: int) -> None:
    assert table.cells(text) == width
    assert table.cells(table.padded(text, 9)) == 9
