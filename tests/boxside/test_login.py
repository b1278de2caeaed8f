"""What users' login shells do, and that an attach finds their multiplexer all the same.

The shells are real: whatever this machine has of bash, dash, zsh, fish, tcsh and busybox. The agent's shell, which
runs the start script, is one of dash, bash and busybox ash.
"""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from devboxd.boxside import shell
from devboxd.boxside.script import load
from devboxd.boxside.shell import Mark, MarkFilter, attach_command
from devboxd.model.states import Mux
from tests.boxside.terminal import Terminal

NONCE = "0123456789abcdef"
AGENT_SHELLS = [path for path in ("/bin/dash", "/bin/bash", "/bin/busybox") if Path(path).exists()]
LOGIN_SHELLS = [path for name in ("bash", "dash", "zsh", "fish", "tcsh") if (path := shutil.which(name))]
RC = {
    "bash": ".profile",
    "dash": ".profile",
    "zsh": ".zprofile",
    "fish": ".config/fish/config.fish",
    "tcsh": ".tcshrc",
}
SET_PATH = {
    "fish": "set -gx PATH {home}/late/bin $PATH\nset -gx FROM_PROFILE yes\n",
    "tcsh": "setenv PATH {home}/late/bin:$PATH\nsetenv FROM_PROFILE yes\n",
}
FAKE = """#!/bin/sh
case "$1" in -V|--version) exit 0;; has-session|list-sessions) exit 1;; esac
echo "{name} got: $*"; echo "from=[$FROM_PROFILE] tmux=[$TMUX$ZELLIJ] ask=[$DEVBOX_ASK] n=[$n] mask=$(umask) dir=$PWD"
"""


class Home:
    """A home folder with a login shell, and the programs that its profile finds."""

    def __init__(self, folder: Path, shell: str) -> None:
        self.folder = folder
        self.shell = shell
        self.tools = folder / "tools"
        self.tools.mkdir()
        self._program(self.tools / "getent", f'#!/bin/sh\necho "me:x:0:0::{folder}:{shell}"\n')
        self.env = {
            "PATH": f"{self.tools}:/usr/bin:/bin",
            "HOME": str(folder),
            "TERM": "xterm-256color",
            "LANG": "C.UTF-8",
            "DEVBOX_KEEP_HOME": "1",
            "TMUX_TMPDIR": str(folder),
            "XDG_CONFIG_HOME": str(folder / ".config"),
        }

    def _program(self, path: Path, text: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)

    def mux(self, place: str, name: str = "zellij") -> Path:
        """A multiplexer that says how it was started."""
        path = self.folder / place / name
        self._program(path, FAKE.format(name=name))
        return path

    def profile(self, text: str, *, name: str | None = None) -> None:
        path = self.folder / (name or RC[Path(self.shell).name])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.replace("{home}", str(self.folder)))

    def path_in_profile(self, after: str = "") -> None:
        name = Path(self.shell).name
        usual = "PATH={home}/late/bin:$PATH; export PATH\nexport FROM_PROFILE=yes\n"
        self.profile(SET_PATH.get(name, usual) + after)

    def hides_system_muxes(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A system without the multiplexers of this machine."""
        script = load("attach.sh")
        without = script.replace("/usr/bin /bin /usr/pkg/bin", "/usr/pkg/bin")
        assert without != script
        monkeypatch.setattr(shell, "load", lambda _: without)
        self.env["PATH"] = f"{self.tools}:{system_without_muxes()}"


@cache
def system_without_muxes() -> Path:
    """A folder with the programs of this system, but for its multiplexers and its terminal tools."""
    clean = Path(tempfile.mkdtemp(prefix="dbx-system-"))
    atexit.register(shutil.rmtree, clean)
    hidden = {"tmux", "zellij", "infocmp", "tput", "toe"}
    for place in ("/usr/bin", "/bin"):
        for program in os.scandir(place):
            if program.name not in hidden and not (clean / program.name).is_symlink():
                (clean / program.name).symlink_to(program.path)
    return clean


@pytest.fixture
def folder() -> Iterator[Path]:
    """Short, for sockets."""
    folder = Path(subprocess.check_output(["mktemp", "-d", "/tmp/dbx-XXXXXX"], text=True).strip())
    yield folder
    if shutil.which("tmux"):
        environment = {"TMUX_TMPDIR": str(folder), "PATH": os.defpath}
        subprocess.run(["tmux", "kill-server"], env=environment, stderr=subprocess.DEVNULL, check=False)
    shutil.rmtree(folder, ignore_errors=True)


def marks_of(output: bytes) -> list[tuple[str, ...]]:
    return [piece.words for piece in MarkFilter(NONCE).feed(output) if isinstance(piece, Mark)]


def start(home: Home, *, agent_shell: str = "/bin/sh", **more: object) -> Terminal:
    more.setdefault("session", "main")
    more.setdefault("term", "xterm-256color")
    terminal = Terminal(attach_command(nonce=NONCE, **more), home.env, shell=agent_shell)  # type: ignore[arg-type]
    terminal.resize(80, 24)
    return terminal


def started(terminal: Terminal, timeout: float = 15.0) -> tuple[str, ...]:
    terminal.until(rb"(start|fail);[^\x1b]*\x1b\\", timeout)
    return next(mark for mark in marks_of(terminal.output) if mark[0] in ("start", "fail"))


@pytest.mark.parametrize("agent_shell", AGENT_SHELLS)
@pytest.mark.parametrize("login_shell", LOGIN_SHELLS)
def test_a_mux_on_the_profiles_path_only_is_found_by_its_login_shell(
    agent_shell: str, login_shell: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """tcsh takes no -c beside -l, fish has a syntax of its own; and the environment of the profile is there."""
    home = Home(folder, login_shell)
    home.hides_system_muxes(monkeypatch)
    home.mux("late/bin")
    home.path_in_profile()
    with start(home, agent_shell=agent_shell) as terminal:
        assert started(terminal)[:2] == ("start", "zellij")
        terminal.until(rb"exit;0\x1b")
        assert b"zellij got: attach --create main" in terminal.output
        assert b"from=[yes] tmux=[] ask=[] n=[]" in terminal.output
        assert f"dir={folder}\r\n".encode() in terminal.output


@pytest.mark.parametrize(
    "place",
    [
        ".local/bin",
        "bin",
        ".cargo/bin",
        ".nix-profile/bin",
        ".local/state/nix/profile/bin",
        ".guix-profile/bin",
    ],
)
def test_a_mux_in_a_usual_folder_needs_no_login_shell(
    place: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And it is started by its path, whatever the profile does."""
    home = Home(folder, "/bin/sh")
    home.hides_system_muxes(monkeypatch)
    home.mux(place)
    home.profile("exec true\n", name=".profile")
    with start(home) as terminal:
        assert started(terminal)[:2] == ("start", "zellij")
        terminal.until(rb"zellij got: attach --create main")


NASTY = {
    "a program in the background holds the output open": "sleep 600 &\n",
    "another shell takes over": "exec cat\n",
    "no terminal, no work": "[ -t 1 ] || exit 3\n",
    "a mux of its own": '[ -z "$TMUX" ] && exec tmux new -A -s mine\n',
    "a trap at the exit": "trap 'echo /opt/evil/zellij' EXIT\n",
    "it prints": "echo welcome; printf '/usr/bin/zellij'\n",
    "it prints marks": f"printf '%s\\n' {NONCE[::-1]}\n",
    "it asks": "read answer </dev/tty\n",
    "it stops at errors": "set -e; false\n",
    "it stops at what is not set": 'set -u; : "$NOT_SET"\n',
    "it goes elsewhere": "cd /tmp\n",
    "it exports our names": "export n=1 u=2 path=3 mux=4 i=5 f=6 why=7 USER=evil DEVBOX_ASK=8 PATH\n",
    "it exports what is read only": "export UID EUID PPID\n",
    "lines in values": 'export A="one\ntwo \'three\' \\"four\\" \\$(touch pwned)"\n',
    "a function": "hello() { echo hello; }; export -f hello 2>/dev/null\n",
    "no path at all": "PATH=\n",
    "its own idea of the terminal": "export TERM=vt52 COLUMNS=3 LINES=2\n",
    "it kills itself": "kill -9 $$\n",
}


@pytest.mark.parametrize("number", range(len(NASTY)), ids=NASTY.keys())
def test_whatever_the_profile_does_the_mux_is_found_and_started(number: int, folder: Path) -> None:
    """Nobody is told that it is not installed, and nothing hangs."""
    text, agent_shell = list(NASTY.values())[number], AGENT_SHELLS[number % len(AGENT_SHELLS)]
    home = Home(folder, "/bin/bash")
    home.mux(".local/bin")
    home.profile(text)
    began = time.monotonic()
    with start(home, agent_shell=agent_shell) as terminal:
        assert started(terminal)[:2] == ("start", "zellij")
        terminal.until(rb"exit;0\x1b")
        assert b"zellij got: attach --create main" in terminal.output
        assert b"tmux=[] ask=[" in terminal.output
    assert time.monotonic() - began < 8
    assert not (folder / "pwned").exists()


@pytest.mark.parametrize("text", ["sleep 600\n", "cat </dev/tty\n"])
def test_a_profile_that_never_ends_is_given_a_time_and_that_is_shown(
    text: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mux comes up after it, with the environment that there is."""
    home = Home(folder, "/bin/bash")
    home.mux(".local/bin")
    home.profile(text)
    script = load("attach.sh")
    monkeypatch.setattr(shell, "load", lambda _: script.replace("*) limit=10", "*) limit=2"))
    with start(home) as terminal:
        if "tty" not in text:  # that fails at once where setsid takes the terminal away
            terminal.until(rb"note;login;2\x1b")
        assert started(terminal, 20)[:2] == ("start", "zellij")
        terminal.until(rb"zellij got")


def test_a_slow_profile_runs_once_and_not_at_all_for_a_session_that_is_there(folder: Path) -> None:
    """It ran three times: once to look, once to start, and once in the pane."""
    home = Home(folder, "/bin/bash")
    mux = home.mux(".local/bin")
    home.profile("echo x >> {home}/runs; sleep 1.5\n")
    with start(home) as terminal:
        started(terminal)
        terminal.until(rb"exit;0\x1b")
    assert (folder / "runs").read_text() == "x\n"
    mux.write_text(
        mux.read_text().replace(
            "has-session|list-sessions) exit 1",
            'list-sessions) printf "\\033[32mmain\\033[m [Created 2h ago]\\n"; exit',
        )
    )
    with start(home) as terminal:
        started(terminal)
        terminal.until(rb"exit;0\x1b")
    assert (folder / "runs").read_text() == "x\n"


@pytest.mark.parametrize(
    "line", ["main-2 [Created]", "amain [Created]", "main [Created 2h ago] (EXITED - attach to resurrect)"]
)
def test_a_session_that_only_looks_like_ours_is_not_it(line: str, folder: Path) -> None:
    """One that has ended is made again, and wants the environment."""
    home = Home(folder, "/bin/bash")
    mux = home.mux(".local/bin")
    mux.write_text(
        mux.read_text().replace("has-session|list-sessions) exit 1", f'list-sessions) echo "{line}"; exit')
    )
    home.path_in_profile()
    with start(home) as terminal:
        terminal.until(rb"from=\[yes\]")


def test_a_mux_that_does_not_run_is_passed_over(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Copied from another kind of machine."""
    home = Home(folder, "/bin/bash")
    home.mux(".cargo/bin").write_text("#!/no/such/interpreter\n")
    home.mux(".local/bin", "tmux")
    home.hides_system_muxes(monkeypatch)
    with start(home) as terminal:
        assert started(terminal)[:2] == ("start", "tmux")
        terminal.until(rb"tmux got: -u new-session -A -s main")


@pytest.mark.parametrize(
    ("profile", "why"), [("", "missing"), ("kill -9 $$\n", "silent"), ("exec cat\n", "silent")]
)
def test_where_there_is_none_the_reason_is_true(
    profile: str, why: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ "Not installed" only where somebody has looked."""
    home = Home(folder, "/bin/bash")
    home.hides_system_muxes(monkeypatch)
    home.profile(f"PATH={home.env['PATH']}\n{profile}")  # /etc/profile puts the system's back
    with start(home) as terminal:
        mark = started(terminal)
        assert (mark[0], mark[1], mark[3]) == ("start", "none", why)
    with start(home, mux=Mux.TMUX) as terminal:
        assert started(terminal) == ("fail", "no-mux", "tmux", why)


@pytest.mark.parametrize("login_shell", LOGIN_SHELLS)
def test_a_command_runs_with_the_environment_of_the_profile(login_shell: str, folder: Path) -> None:
    """``exec -t``: also with tcsh, which refuses -l beside -c."""
    home = Home(folder, login_shell)
    home.path_in_profile()
    with start(home, command="echo from=$FROM_PROFILE; exit 7") as terminal:
        terminal.until(rb"exit;7\x1b")
        assert b"from=yes" in terminal.output


@pytest.mark.parametrize("text", ["exec cat\n", "[ -t 1 ] || exit 3\n", "umask 077\n"])
def test_a_command_runs_whatever_the_profile_does(text: str, folder: Path) -> None:
    """A profile that puts another shell in its place swallowed it."""
    home = Home(folder, "/bin/bash")
    home.profile(text)
    with start(home, command="echo mask=$(umask)-ran") as terminal:
        terminal.until(rb"mask=%s-ran" % (b"0077" if "umask" in text else rb"\d+"))
        terminal.until(rb"exit;0\x1b")


@pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")
@pytest.mark.parametrize("login_shell", LOGIN_SHELLS)
def test_a_real_tmux_comes_up_under_every_login_shell(login_shell: str, folder: Path) -> None:
    """And is joined again by the second terminal."""
    agent_shell = AGENT_SHELLS[LOGIN_SHELLS.index(login_shell) % len(AGENT_SHELLS)]
    home = Home(folder, login_shell)
    for _ in range(2):
        with start(home, agent_shell=agent_shell, mux=Mux.TMUX) as terminal:
            assert started(terminal)[:2] == ("start", "tmux")
            terminal.until(rb"\x1b\[\?1049h")
    environment = {"TMUX_TMPDIR": str(folder), "PATH": os.defpath}
    listed = subprocess.run(
        ["tmux", "list-sessions"], env=environment, capture_output=True, check=True
    ).stdout
    assert listed.count(b"\n") == 1


@pytest.mark.parametrize(
    ("term", "kind"), [("dumb", "none"), ("unknown", "none"), ("xterm-256color", "zellij")]
)
def test_a_terminal_that_can_show_no_mux_gets_a_plain_shell(term: str, kind: str, folder: Path) -> None:
    """Emacs, a build server: tmux fails there, and its error said nothing."""
    home = Home(folder, "/bin/bash")
    home.mux(".local/bin")
    with start(home, term=term) as terminal:
        mark = started(terminal)
        assert mark[1] == kind
        if kind == "none":
            assert mark[3] == "dumb"
            terminal.type(b"echo t=$TERM.\r")
            terminal.until(rb"t=dumb\.")


@pytest.mark.parametrize("has_tools", [True, False])
@pytest.mark.parametrize(
    ("term", "given"),
    [
        ("xterm-ghostty-of-the-future", "xterm-256color"),
        ("tmux-of-the-future", "screen-256color|screen"),
        ("nobody", "xterm"),
        ("../../etc/passwd", "xterm"),
    ],
)
def test_an_unknown_terminal_is_told_one_that_the_box_knows_and_that_is_said(
    term: str, given: str, has_tools: bool, folder: Path
) -> None:
    """With infocmp, and where only its database is there."""
    home = Home(folder, "/bin/bash")
    home.mux(".local/bin")
    if not has_tools:
        home.env["PATH"] = f"{home.tools}:{system_without_muxes()}"
    with start(home, term=term) as terminal:
        started(terminal)
        notes = [mark for mark in marks_of(terminal.output) if mark[0] == "note"]
        assert [note[1] for note in notes] == ["term"]
        assert notes[0][3] in given.split("|")
        assert "/" not in notes[0][2]


def test_without_any_database_the_users_terminal_is_believed(folder: Path) -> None:
    """A box of busybox alone: nobody can tell."""
    script = (Path(__file__).parents[2] / "devboxd/boxside/programs/attach.sh").read_text()
    functions = (
        script[: script.index("# Ask the user's login shell")]
        .replace("/share/terminfo", "/no/such")
        .replace("/etc/terminfo", "/no/such")
        .replace("/lib/terminfo", "/no/such")
    )
    done = subprocess.run(
        ["/bin/sh", "-c", f'{functions}\nn=x; HOME=/no/such; choose_term xterm-new; echo "$TERM"'],
        env={"PATH": f"{folder}"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "xterm-new\n"
