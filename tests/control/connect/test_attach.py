"""Attach: a terminal on a box that outlives everything between them. The mux is a real tmux."""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from devboxd.boxside.shell import Mark
from devboxd.control.connect import screen as screen_module
from devboxd.control.daemon import Daemon
from devboxd.errors import (
    BoxStopped,
    Denied,
    DocumentInvalid,
    NotConnected,
    Unreachable,
    WrongState,
    exit_status,
)
from devboxd.model import attach as attach_decisions
from devboxd.model.attach import AttachSpec
from devboxd.model.box import Account
from devboxd.model.config import Config
from devboxd.model.session import SessionState
from devboxd.model.states import Mux
from devboxd.model.terminal import Detach, EndOfInput, Leaving, Resize
from devboxd.simulator.world import Simulator
from devboxd.ssm import documents
from tests.control.conftest import MakeDaemon, reconfigure
from tests.control.kit import Screen
from tests.kit.sim import MakeSimulator
from tests.kit.tasks import beside

pytestmark = pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")
PID = rb"pid-(\d+)-dip"
ASK_PID = b"echo pid-$$-dip\n"


@asynccontextmanager
async def attached(
    daemon: Daemon, sim: Simulator, screen: Screen, box: str = "api", **more: Any
) -> AsyncIterator[asyncio.Future[Leaving]]:
    """A terminal at work; its user hangs up at the end."""
    more.setdefault("mux", None if more.get("raw") or more.get("command") else "tmux")
    spec = AttachSpec(box=await daemon.boxes.resolve(sim.box(box).id, Account()), **more)
    work = beside(daemon.attach(spec, screen))
    try:
        yield work
    finally:
        screen.say(None)
        await asyncio.wait({work}, timeout=15)
        assert work.done()


async def until(what: Callable[[], object], timeout: float = 15.0) -> None:
    """Wait for something that a real program does."""
    async with asyncio.timeout(timeout):
        while not what():
            await asyncio.sleep(0.01)


async def until_online(screen: Screen) -> None:
    """Wait until the latest state (notices aside) is online."""
    try:
        await until(lambda: [line.state for line in screen.lines if line.state != "notice"][-1] == "online")
    except TimeoutError:
        raise AssertionError(f"not online: {screen.lines[-6:]}") from None


async def shell_pid(screen: Screen) -> int:
    """The process id of the shell in the mux."""
    screen.out.clear()
    screen.type(ASK_PID)
    return int((await screen.until(PID))[1])


async def test_a_terminal_joins_types_resizes_and_detaches(daemon: Daemon, sim: Simulator) -> None:
    """The ordinary day."""
    screen = Screen()
    async with attached(daemon, sim, screen, columns=100, rows=30) as work:
        await screen.until_state("online")
        assert screen.lines[-1].mux == "tmux" or any(line.mux == "tmux" for line in screen.lines)
        screen.type(b"stty size\n")
        await screen.until(rb"(29|30) 100")
        screen.say(Resize(132, 50))
        screen.say(Resize(90, 20))
        screen.say(Resize(140, 45))
        async with asyncio.timeout(20):
            while re.search(rb"(44|45) 140", bytes(screen.out)) is None:  # sizes are collected for a moment
                screen.type(b"stty size\n")
                await asyncio.sleep(0.2)
        screen.say(Detach())
        leaving = await asyncio.wait_for(work, 10)
        assert (leaving.error, leaving.reattach) == (None, True)
    await until(lambda: all(one.is_over for one in sim.gateway.sessions.values()))
    assert not daemon.sessions()
    # What ran in the mux runs on.
    again = Screen()
    async with attached(daemon, sim, again, columns=140, rows=45):
        await again.until(rb"stty size")


async def test_the_marks_of_the_start_script_never_reach_the_screen(daemon: Daemon, sim: Simulator) -> None:
    """They carry a nonce, and are ours."""
    screen = Screen()
    async with attached(daemon, sim, screen):
        await shell_pid(screen)
    assert b"_devbox;" not in screen.out


OWN = {"boxes": {"api": {"document": "team-shell"}}}


async def test_a_plain_shell_is_of_the_document_that_the_user_named(daemon: Daemon, sim: Simulator) -> None:
    """Some accounts allow nothing but a document of their own; terminals in a multiplexer need a command."""
    reconfigure(daemon, msgspec.convert(OWN, Config))
    sim.documents["team-shell"] = dict(sim.documents[documents.SHELL])
    box = await daemon.boxes.resolve("api", Account())
    for more, expected in (({"raw": True}, "team-shell"), ({"mux": "tmux"}, documents.INTERACTIVE)):
        screen = Screen()
        work = beside(daemon.attach(AttachSpec(box=box, **more), screen))
        await shell_pid(screen)
        assert [one.task.document for one in sim.gateway.sessions.values()][-1] == expected
        screen.say(None)
        await asyncio.wait_for(work, 15)


async def test_where_no_command_may_be_given_it_is_typed_into_the_users_own_document(
    daemon: Daemon, sim: Simulator
) -> None:
    """The account's default shell may be forbidden as well."""
    reconfigure(daemon, msgspec.convert(OWN, Config))
    sim.documents["team-shell"] = sim.documents.pop(documents.SHELL)
    del sim.documents[documents.INTERACTIVE]
    box = await daemon.boxes.resolve("api", Account())
    screen = Screen()
    work = beside(daemon.attach(AttachSpec(box=box, mux=Mux.TMUX), screen))
    await shell_pid(screen)
    screen.say(None)
    await asyncio.wait_for(work, 15)


async def test_a_document_that_is_not_there_is_named(daemon: Daemon, sim: Simulator) -> None:
    """A typo in the configuration, and not a fault of AWS."""
    reconfigure(daemon, msgspec.convert(OWN, Config))
    box = await daemon.boxes.resolve("api", Account())
    leaving = await asyncio.wait_for(daemon.attach(AttachSpec(box=box, raw=True), Screen()), 15)
    assert isinstance(leaving.error, DocumentInvalid)
    assert "team-shell" in leaving.error.message


@pytest.mark.parametrize("fault", ["rst", "fin", "close", "agent-cut"])
async def test_a_lost_link_is_not_noticed_by_the_shell(daemon: Daemon, sim: Simulator, fault: str) -> None:
    """Same session, same shell; typed while away arrives once."""
    screen = Screen()
    async with attached(daemon, sim, screen):
        pid = await shell_pid(screen)
        await sim.fault(fault, session="last")
        screen.type(b"echo once-$((40+2))\n")
        await screen.until(rb"once-42")
        assert await shell_pid(screen) == pid
        assert len(sim.gateway.sessions) == 1


@pytest.mark.parametrize("fault", ["terminate", "idle", "end-silently", "forget"])
async def test_a_session_that_is_gone_is_reopened_into_the_same_shell(
    daemon: Daemon, sim: Simulator, fault: str
) -> None:
    """Somebody ended it, it idled out, the service forgot it: no command needs to be typed."""
    screen = Screen()
    async with attached(daemon, sim, screen) as work:
        pid = await shell_pid(screen)
        await sim.fault(fault, session="last")
        if fault in ("end-silently", "forget"):
            await sim.fault("rst")
        await screen.until_state("reopening")
        await until_online(screen)
        assert await shell_pid(screen) == pid
        assert len(daemon.sessions()) == 1
        assert not work.done()
    kinds = [event.kind for event in daemon.shared.news.events()]
    assert kinds.count("session.reopening") == kinds.count("session.reopened") == 1


async def test_a_session_that_has_died_without_a_word_is_left_for_another(
    daemon: Daemon, sim: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its worker on the box was killed: the link stands, the agent lives, and nobody answers."""
    monkeypatch.setattr("devboxd.model.hold.STALLED_AFTER", 0.6)
    monkeypatch.setattr("devboxd.control.connect.attach.SILENCE_LIMIT", 0.3)
    screen = Screen()
    async with attached(daemon, sim, screen) as work:
        pid = await shell_pid(screen)
        (dead,) = daemon.sessions()
        await sim.fault("mute", session="last")
        screen.type(b"\x15")
        async with asyncio.timeout(10):
            while dead.end is None:
                dead.beat()
                await asyncio.sleep(0.05)
        assert "stalled" in [line.state for line in screen.lines]
        await until_online(screen)
        assert await shell_pid(screen) == pid
        assert not work.done()


async def test_a_silent_session_is_kept_while_the_agent_is_away(
    daemon: Daemon, sim: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another could not be opened, and it may come back with what was typed."""
    monkeypatch.setattr("devboxd.model.hold.STALLED_AFTER", 0.6)
    monkeypatch.setattr("devboxd.control.connect.attach.SILENCE_LIMIT", 0.3)
    screen = Screen()
    async with attached(daemon, sim, screen):
        pid = await shell_pid(screen)
        (silent,) = daemon.sessions()
        await sim.fault("agent-restart", seconds=60.0, box="api")
        await sim.fault("mute", session="last")
        screen.type(b"\x15")
        async with asyncio.timeout(10):
            while "stalled" not in [line.state for line in screen.lines]:
                silent.beat()
                await asyncio.sleep(0.05)
        await asyncio.sleep(1.0)
        assert silent.end is None
        await sim.fault("wire", session="last")
        assert await shell_pid(screen) == pid


async def test_leaving_the_last_shell_of_the_mux_ends_the_attach(daemon: Daemon, sim: Simulator) -> None:
    """``exit`` means that the user is done: no reconnect loop."""
    screen = Screen()
    async with attached(daemon, sim, screen) as work:
        await shell_pid(screen)
        screen.type(b"exit\n")
        leaving = await asyncio.wait_for(work, 15)
        assert (leaving.status, leaving.error, leaving.reattach) == (0, None, False)


async def test_a_box_that_is_stopped_is_waited_for_and_said_so(
    daemon: Daemon, sim: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The user comes back in the morning, starts the box, and the terminal is there again."""
    screen = Screen()
    async with attached(daemon, sim, screen) as work:
        await shell_pid(screen)
        await sim.fault("box-stop", box="api")
        await screen.until_state("waiting")
        line = next(line for line in screen.lines if line.state == "waiting")
        assert re.match(r"the box is stopp(ing|ed)", line.text)
        assert line.since is not None
        await until(lambda: sim.state("api") == "stopped")
        await sim.fault("box-start", box="api")
        await until(lambda: sim.is_connected("api"))
        daemon.shared.bells.network.ring()
        await until_online(screen)
        await shell_pid(screen)
        assert not work.done()


async def test_a_box_that_was_terminated_ends_the_attach(daemon: Daemon, sim: Simulator) -> None:
    """Waiting for it would be waiting for ever."""
    screen = Screen()
    async with attached(daemon, sim, screen) as work:
        await shell_pid(screen)
        await sim.fault("box-terminate", box="api")
        leaving = await asyncio.wait_for(work, 20)
        assert isinstance(leaving.error, WrongState)
        assert "has been terminated" in leaving.error.message


@pytest.mark.parametrize("text", ["", "Your session timed out"])
async def test_a_raw_shell_ends_with_its_session_and_says_why(
    daemon: Daemon, sim: Simulator, text: str
) -> None:
    """Nothing keeps a plain shell: pretending otherwise would lose work silently."""
    screen = Screen()
    async with attached(daemon, sim, screen, raw=True) as work:
        screen.type(b"echo raw-$((1+1))\n")
        await screen.until(rb"raw-2")
        await sim.fault("terminate", text=text)
        leaving = await asyncio.wait_for(work, 15)
    if text:
        assert isinstance(leaving.error, Unreachable)
        assert text in leaving.error.message
    else:
        assert leaving.error is None
    assert len(sim.gateway.sessions) == 1


async def test_a_raw_shell_survives_lost_links_too(daemon: Daemon, sim: Simulator) -> None:
    """The session lives; only the link died."""
    screen = Screen()
    async with attached(daemon, sim, screen, raw=True):
        screen.type(ASK_PID)
        pid = (await screen.until(PID))[1]
        await sim.fault("rst")
        screen.out.clear()
        screen.type(ASK_PID)
        assert (await screen.until(PID))[1] == pid


async def test_without_a_mux_on_the_box_the_shell_is_not_replaced_behind_its_users_back(
    daemon: Daemon, sim: Simulator
) -> None:
    """It was announced that it ends with its connection; a fresh shell in its place would be a lie."""
    screen = Screen()
    async with attached(daemon, sim, screen, mux="none") as work:
        await shell_pid(screen)
        assert any("ends with its connection" in line.text for line in screen.lines)
        await sim.fault("terminate", text="ended elsewhere")
        leaving = await asyncio.wait_for(work, 15)
        assert leaving.error is not None
        assert "ended elsewhere" in leaving.error.message


async def test_a_command_in_a_terminal_reports_its_status(daemon: Daemon, sim: Simulator) -> None:
    """``exec -t``."""
    screen = Screen()
    async with attached(daemon, sim, screen, command="test -t 0 && echo tty; exit 7") as work:
        leaving = await asyncio.wait_for(work, 15)
    assert (leaving.status, leaving.error) == (7, None)
    assert b"tty" in screen.out


async def test_too_much_typed_while_away_is_not_kept_and_what_is_kept_arrives_once(
    daemon: Daemon, sim: Simulator
) -> None:
    """A cat on the keyboard in the tunnel."""
    screen = Screen()
    async with attached(daemon, sim, screen, raw=True):
        screen.type(b"stty -echo; cat > taken; echo done-$?\n")
        disk = sim.box("api").disk
        await until(lambda: (disk / "taken").exists())
        await sim.fault("refuse-resume", code="InternalServerError", status=500)
        await sim.fault("rst")
        await until(lambda: screen.lines[-1].state == "reconnecting")
        lines = [b"line-%04d-%s\n" % (number, b"x" * 50) for number in range(1000)]
        for line in lines:
            screen.type(line)
        await until(lambda: screen.credited >= 20_000)
        assert any("too much while away" in line.text for line in screen.lines)
        await sim.fault("clear")
        daemon.shared.bells.network.ring()
        await until(lambda: daemon.sessions()[0].state is SessionState.ONLINE)
        await until(lambda: screen.credited >= sum(map(len, lines)))
        screen.type(b"\x04")
        await screen.until(rb"done-0")
        taken = (disk / "taken").read_bytes().splitlines(keepends=True)
        assert taken == lines[: len(taken)], "in order, once, and a beginning of what was typed"
        assert 4000 < sum(map(len, taken)) <= 4096 + 17 * 1024


async def test_what_was_typed_for_a_screen_that_is_gone_is_dropped_and_said(
    daemon: Daemon, sim: Simulator
) -> None:
    """A ``rm -r`` typed into a dead session must not run an hour later in another one."""
    screen = Screen()
    async with attached(daemon, sim, screen):
        await shell_pid(screen)
        await sim.fault("refuse-resume", code="InternalServerError", status=500)
        await sim.fault("end-silently")
        await sim.fault("rst")
        await until(lambda: screen.lines[-1].state == "reconnecting")
        screen.type(b"echo must-not-run > ran\n")
        await asyncio.sleep(0.05)
        await sim.fault("clear")
        daemon.shared.bells.network.ring()
        await screen.until_state("reopening")
        await until_online(screen)
        assert any("bytes typed while away may not have arrived" in line.text for line in screen.lines)
        await shell_pid(screen)
        assert not (sim.box("api").disk / "ran").exists()


async def test_a_terminal_that_does_not_read_loses_the_middle_and_then_gets_a_fresh_screen(
    daemon: Daemon, sim: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-S in a terminal emulator must not fill the memory of the daemon."""
    monkeypatch.setattr(attach_decisions, "BACKLOG_LIMIT", 1000)
    screen = Screen()
    async with attached(daemon, sim, screen):
        await shell_pid(screen)
        screen.stuck = 100_000
        before = len(screen.out)
        screen.type(b"seq 1 2000; echo flood-$((1+1))\n")
        disk = sim.box("api").disk
        screen.type(b"touch finished\n")
        await until(lambda: (disk / "finished").exists() and screen.kept_back > 0)
        assert len(screen.out) - before < 100
        screen.out.clear()
        screen.stuck = 0
        await screen.until(rb"\x18")  # half a sequence may have been cut: it is cancelled first
        await screen.until(rb"flood-2")  # and the mux draws what is there now
        assert any("were skipped" in line.text for line in screen.lines)


async def test_an_interrupt_overtakes_a_paste_that_is_still_here(daemon: Daemon, sim: Simulator) -> None:
    """The program reads nothing; Ctrl-C must not wait behind the paste."""
    screen = Screen()
    async with attached(daemon, sim, screen, raw=True):
        screen.type(b"stty -echo; echo go-$((1+1)); sleep 60\n")
        await screen.until(rb"go-2")
        paste = b"x" * 60_000
        screen.type(paste)
        await asyncio.sleep(0.3)
        screen.type(b"\x03")
        screen.type(b"\necho free-$((2+2))\n")
        await screen.until(rb"free-4")
        await until(lambda: screen.credited >= len(paste))


async def test_where_commands_are_denied_the_mux_is_typed_into_the_plain_shell(
    daemon: Daemon, sim: Simulator
) -> None:
    """Accounts that allow only the default document still keep their sessions."""
    del sim.documents["AWS-StartInteractiveCommand"]
    screen = Screen()
    async with attached(daemon, sim, screen):
        pid = await shell_pid(screen)
        assert any("starting through the plain shell" in line.text for line in screen.lines)
        await sim.fault("terminate")
        await screen.until_state("reopening")
        await until_online(screen)
        assert await shell_pid(screen) == pid
    assert b"base64" not in screen.out, "the start command is not shown"


async def test_a_denied_start_is_the_error(daemon: Daemon, sim: Simulator) -> None:
    """Both documents were tried; no loop."""
    await sim.fault("refuse-start", code="AccessDeniedException", times=None)
    screen = Screen()
    async with attached(daemon, sim, screen) as work:
        leaving = await asyncio.wait_for(work, 10)
    assert isinstance(leaving.error, Denied)


async def test_a_box_that_is_off_is_called_off_at_once(
    simulator: MakeSimulator, make_daemon: MakeDaemon
) -> None:
    """Two minutes of waiting told nobody what to do."""
    sim = await simulator(stopped=["api"])
    daemon = await make_daemon(sim)
    screen = Screen()
    async with attached(daemon, sim, screen, wait=120.0) as work:
        leaving = await asyncio.wait_for(work, 10)
    assert isinstance(leaving.error, BoxStopped)
    assert leaving.error.message == "api is stopped"
    assert exit_status(leaving.error.kind) == 5


async def test_a_box_whose_agent_is_away_is_an_error_after_the_wait(
    simulator: MakeSimulator, make_daemon: MakeDaemon
) -> None:
    """Bounded at the first start, and its user is told what is waited for, without a second clock."""
    sim = await simulator()
    daemon = await make_daemon(sim)
    await sim.fault("refuse-start", code="TargetNotConnected", times=None)
    screen = Screen()
    async with attached(daemon, sim, screen, wait=2.0) as work:
        leaving = await asyncio.wait_for(work, 20)
    assert isinstance(leaving.error, NotConnected)
    waits = [line for line in screen.lines if "not connected to Session Manager yet" in line.text]
    assert waits
    assert not re.search(r"\d+ s", waits[0].text)


async def test_the_end_of_a_clients_input_ends_nobodys_shell(daemon: Daemon, sim: Simulator) -> None:
    """``attach web work1 </dev/null``: the session was gone, for every terminal that had it open."""
    one, other = Screen(), Screen()
    async with attached(daemon, sim, one), attached(daemon, sim, other) as work:
        pid = await shell_pid(one)
        other.say(EndOfInput())
        other.say(EndOfInput())
        assert await shell_pid(other) == pid
        other.say(None)
        await asyncio.wait_for(work, 15)
        assert await shell_pid(one) == pid


async def test_a_command_of_its_own_does_hear_the_end_of_its_input(daemon: Daemon, sim: Simulator) -> None:
    """``echo x | exec -t BOX -- cat``."""
    screen = Screen()
    async with attached(daemon, sim, screen, command="cat; echo ended-$?") as work:
        await screen.until_state("online")
        screen.type(b"typed\n")
        await screen.until(b"typed\r\ntyped")
        screen.say(EndOfInput())
        assert (await asyncio.wait_for(work, 15)).status == 0
    assert b"ended-0" in screen.out


async def test_what_is_typed_before_the_next_session_is_there_is_dropped_and_said(
    daemon: Daemon, sim: Simulator
) -> None:
    """The old screen stands, but it is a picture: what comes next may not be what was typed at."""
    screen = Screen()
    async with attached(daemon, sim, screen):
        await shell_pid(screen)
        await sim.fault("refuse-start", code="InternalServerError", status=500, times=None)
        await sim.fault("terminate", session="last")
        await screen.until_state("reopening")
        await until(lambda: len(screen.lines) > 2 and screen.lines[-1].state == "reopening")
        before = screen.credited
        screen.type(b"echo must-not-run > ran\n")
        await until(lambda: screen.credited >= before + 24)
        assert any(
            "what is typed before the session is back is not kept" in line.text for line in screen.lines
        )
        await sim.fault("clear")
        daemon.shared.bells.network.ring()
        await until_online(screen)
        await shell_pid(screen)
        assert not (sim.box("api").disk / "ran").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [({"user": "no-such-user-here"}, "no user"), ({"mux": "zellij", "hide": True}, "not installed")],
)
async def test_what_the_start_script_cannot_do_is_a_sentence(
    daemon: Daemon, sim: Simulator, more: dict[str, Any], message: str
) -> None:
    """Not a shell as somebody else, not another mux."""
    if more.pop("hide", False):
        (sim.box("api").disk / ".profile").write_text("PATH=/nowhere\n")
    screen = Screen()
    async with attached(daemon, sim, screen, **more) as work:
        leaving = await asyncio.wait_for(work, 15)
    assert isinstance(leaving.error, WrongState)
    assert message in leaving.error.message
    assert len(sim.gateway.sessions) == 1


async def test_a_client_that_vanishes_leaves_nothing_open(daemon: Daemon, sim: Simulator) -> None:
    """Its terminal window was closed."""
    screen = Screen()
    async with attached(daemon, sim, screen) as work:
        await shell_pid(screen)
        screen.say(None)
        leaving = await asyncio.wait_for(work, 10)
        assert leaving.reattach
    await until(lambda: all(one.is_over for one in sim.gateway.sessions.values()))
    assert not daemon.sessions()
    assert daemon.clients.attached == 0


async def test_a_start_mark_that_tmux_threw_away_is_made_again(
    daemon: Daemon, sim: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """tmux discards what waits in its terminal when it starts: on a busy box that was the mark itself."""
    marks: list[Mark] = []
    take = screen_module.Screen._mark

    def lose_the_first(screen: screen_module.Screen, mark: Mark) -> list[screen_module.Event]:
        marks.append(mark)
        return take(screen, mark) if len(marks) > 1 else []

    monkeypatch.setattr(screen_module.Screen, "_mark", lose_the_first)
    screen = Screen()
    async with attached(daemon, sim, screen) as work:
        await screen.until_state("online")
        assert [mark.words[0] for mark in marks] == ["start", "start"]
        assert screen.out.startswith(b"\x1b[?1049h"), "the screen as it was drawn before the mark"
        assert await shell_pid(screen)
        screen.say(Detach())
        await asyncio.wait_for(work, 15)
    assert b"_devbox" not in screen.out
