"""What goes over the bridge and outlives its sessions, as its user sees it."""

from __future__ import annotations

import json
import socket
import threading
import time

import pytest

from tests.e2e.kit import World, is_alive, until


@pytest.mark.parametrize("words", [("--raw",), ("--mux", "none")])
def test_a_plain_shell_outlives_its_sessions(world: World, words: tuple[str, ...]) -> None:
    with world.terminal("attach", "api", *words) as terminal:
        pid = terminal.shell_pid()
        for _ in range(3):
            assert world.fault("terminate") >= 1
            assert terminal.shell_pid() == pid
        terminal.resize(70, 20)
        terminal.ask("stty size", "20 70")
        terminal.line("exit 7")
        assert terminal.wait() == 7


def test_a_plain_shell_ends_with_its_user(world: World) -> None:
    with world.terminal("attach", "api", "--raw") as terminal:
        pid = terminal.shell_pid()
        terminal.type(b"\r~.")
        assert terminal.wait() == 0
    until(lambda: not is_alive(pid), "the shell has ended")


def test_a_command_on_a_terminal_outlives_its_sessions(world: World) -> None:
    script = "echo up; read -r line; echo heard $line; tty >/dev/null && exit 5"
    with world.terminal("exec", "-t", "api", "--", "sh", "-c", script) as terminal:
        terminal.until("up")
        assert world.fault("terminate") >= 1
        terminal.line("me")
        terminal.until("heard me")
        assert terminal.wait() == 5
    began = time.monotonic()
    with world.terminal("exec", "-t", "api", "--", "true") as terminal:
        assert terminal.wait() == 0
    assert time.monotonic() - began < 5


def test_a_lent_agent_answers_over_the_bridge_and_after_its_sessions(world: World) -> None:
    """Half-close too: whoever has asked everything is still answered."""
    path = world.folder / "agent"
    served = socket.socket(socket.AF_UNIX)
    served.bind(str(path))
    served.listen()

    def answer() -> None:
        while True:
            try:
                one, _ = served.accept()
            except OSError:
                return
            with one:
                asked = b""
                while part := one.recv(1000):
                    asked += part
                one.sendall(b"answer to " + asked)

    threading.Thread(target=answer, daemon=True).start()
    ask = (
        "import socket, os; s = socket.socket(socket.AF_UNIX); s.connect(os.path.expanduser('~/.devbox/agent.sock'));"
        "s.sendall(b'me'); s.shutdown(1); print(s.recv(100).decode())"
    )
    try:
        with world.terminal("attach", "-A", "api", "--raw", env={"SSH_AUTH_SOCK": str(path)}) as terminal:
            terminal.shell_pid()
            for _ in range(2):
                until(
                    lambda: world.run("exec", "api", "--", "python3", "-c", ask).stdout == b"answer to me\n",
                    "an answer",
                )
                assert world.fault("terminate") >= 1
            assert "bridgehead" in world.ok("exec", "api", "--", "sh", "-c", "ps -eo args")
            terminal.type(b"\r~.")
            assert terminal.wait() == 0
    finally:
        served.close()


def test_auto_is_told_of_changes_and_leaves_bridgeheads_alone(world: World) -> None:
    world.ok("forward", "api", "--auto")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        def mirrored() -> list[str]:
            return [one["remote"] for one in world.json("forward", "ls")["forwards"]]

        until(lambda: str(port) in mirrored(), "it is mirrored")
        notes = [json.loads(path.read_text()) for path in (world.disk() / ".devbox").glob("bridge-*.json")]
        assert notes
        assert not {str(note["port"]) for note in notes} & set(mirrored())
    until(lambda: str(port) not in mirrored(), "it is gone")


def test_a_ping_goes_over_the_bridge_that_stands(world: World) -> None:
    world.ok("exec", "api", "--", "true")
    before = {one["id"] for one in world.far_sessions()}
    assert "ms" in world.ok("ping", "api")
    assert {one["id"] for one in world.far_sessions()} <= before
