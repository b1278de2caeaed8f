"""``devboxctl attach`` on a real terminal, tmux on the box, and everything that may happen to it."""

from __future__ import annotations

import signal
import time

import pytest

from tests.e2e.kit import Terminal, World, until
from tests.kit.processes import is_alive


def leave(terminal: Terminal) -> int:
    """Detach with the escape."""
    terminal.type(b"\r")
    terminal.read(0.2)
    terminal.type(b"~.")
    return terminal.wait()


def test_typing_resizing_detaching_and_coming_back(world: World) -> None:
    with world.attached(session="plain") as terminal:
        pid = terminal.shell_pid()
        assert terminal.is_raw()
        terminal.resize(120, 40)
        terminal.ask("stty size", r"39 120|40 120")  # tmux keeps a line for itself
        assert leave(terminal) == 0
        assert terminal.mode == terminal.before
    assert is_alive(pid)
    with world.attached(session="plain") as terminal:
        assert terminal.shell_pid() == pid


@pytest.mark.parametrize("fault", ["rst", "fin", "close", "agent-cut", "end-silently", "terminate"])
def test_the_same_shell_after_a_lost_link_and_after_a_lost_session(world: World, fault: str) -> None:
    """The first four resume; the last two need a new session, joined to the same tmux."""
    with world.attached(session=f"cut-{fault}") as terminal:
        pid = terminal.shell_pid()
        assert world.fault(fault) >= 1
        began = time.monotonic()
        assert terminal.shell_pid() == pid
        print(f"{fault}: answers after {time.monotonic() - began:.2f} s")
        assert leave(terminal) == 0
        assert terminal.mode == terminal.before


def test_what_is_typed_while_the_link_is_down_arrives_once(world: World) -> None:
    with world.attached(session="typed") as terminal:
        terminal.shell_pid()
        world.fault("refuse-resume", seconds=1.0)
        world.fault("rst")
        time.sleep(0.2)
        terminal.line("echo typed-in''-the-dark >> dark; cat dark")
        terminal.until("typed-in-the-dark")
        assert (world.disk() / "dark").read_text() == "typed-in-the-dark\n"
        leave(terminal)


def test_one_line_says_that_the_link_is_away_and_then_the_screen_is_as_before(world: World) -> None:
    with world.attached(session="line") as terminal:
        terminal.ask("clear; echo the''-screen", "the-screen")
        world.fault("refuse-resume")
        world.fault("rst")
        terminal.until("devbox: ")
        world.fault("clear")
        until(
            lambda: terminal.read() is not None and "devbox: " not in terminal.shown, "the line is taken away"
        )
        terminal.until(r"the-screen")
        leave(terminal)


def test_the_client_survives_a_killed_daemon(world: World) -> None:
    """It starts a new one, joins the same tmux, and its user goes on."""
    with world.attached(session="killed") as terminal:
        pid = terminal.shell_pid()
        world.kill_daemon()
        began = time.monotonic()
        assert until(world.daemon_pid, "somebody starts a daemon")
        until(lambda: b"\x1b[" in terminal.read(0.1), "the screen is drawn")
        assert terminal.shell_pid() == pid
        print(f"SIGKILL to an answering shell: {time.monotonic() - began:.2f} s")
        assert leave(terminal) == 0
        assert terminal.mode == terminal.before


def test_the_client_survives_a_restart_of_the_daemon(world: World) -> None:
    with world.attached(session="restart") as terminal:
        pid = terminal.shell_pid()
        before = world.daemon_pid()
        world.ok("daemon", "restart")
        assert world.daemon_pid() != before
        assert terminal.shell_pid() == pid
        assert leave(terminal) == 0
        assert terminal.mode == terminal.before


def test_two_terminals_on_one_session_see_the_same(world: World) -> None:
    with world.attached(session="two") as one, world.attached(session="two") as two:
        pid = one.shell_pid()
        assert two.shell_pid() == pid
        one.line("echo seen''-by-both")
        two.until("seen-by-both")
        assert leave(two) == 0
        one.ask("echo still''-one", "still-one")
        assert leave(one) == 0


def test_a_window_that_closes_ends_the_client_and_not_the_shell(world: World) -> None:
    with world.attached(session="hup") as terminal:
        pid = terminal.shell_pid()
        terminal.program.send_signal(signal.SIGHUP)
        assert terminal.wait() == 128 + signal.SIGHUP
        assert terminal.mode == terminal.before
    assert is_alive(pid)
    until(lambda: not world.far_sessions(), "no session is left")


def test_exit_ends_it_all_with_the_shells_status(world: World) -> None:
    with world.attached("--mux", "none", session="ends") as terminal:
        terminal.shell_pid()
        terminal.line("exit 6")
        assert terminal.wait() == 6
        assert terminal.mode == terminal.before


def test_without_a_terminal_it_refuses_and_says_what_does_it(world: World) -> None:
    """The end of a script's input would be typed into somebody's shell."""
    done = world.run("attach", "api", "--raw", "--escape", "none", stdin=b"echo from-a''-script\nexit\n")
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"devboxctl exec api" in done.stderr
