"""exec: what a script may rely on."""

from __future__ import annotations

import asyncio
import hashlib
import os

import pytest

from devboxd.boxside.relay import OUTPUT_WINDOW
from devboxd.control.connect.execute import ExecSpec
from devboxd.control.daemon import Daemon
from devboxd.errors import BoxStopped, WrongState
from devboxd.model.box import Account
from devboxd.model.terminal import EndOfInput, Leaving, Signal, Taken
from devboxd.simulator.world import Simulator
from tests.control.conftest import MakeDaemon
from tests.control.kit import Screen
from tests.kit.sim import MakeSimulator
from tests.kit.tasks import beside


async def run(
    daemon: Daemon, sim: Simulator, *argv: str, stdin: bytes = b"", **more: object
) -> tuple[Leaving, Screen]:
    screen = Screen()
    if stdin:
        screen.type(stdin)
    screen.say(EndOfInput())
    box = await daemon.boxes.resolve(sim.box("api").id, Account())
    spec = ExecSpec(box=box, argv=list(argv), **more)  # type: ignore[arg-type]
    return await daemon.execute(spec, screen), screen


async def test_streams_are_separate_and_the_exit_status_is_the_commands(
    daemon: Daemon, sim: Simulator
) -> None:
    """Scripts branch on the status and parse only standard output."""
    leaving, screen = await run(daemon, sim, "sh", "-c", "echo out; echo err >&2; exit 37")
    assert (leaving.status, leaving.error) == (37, None)
    assert (bytes(screen.out), bytes(screen.err)) == (b"out\n", b"err\n")


async def test_every_byte_value_survives_both_ways(daemon: Daemon, sim: Simulator) -> None:
    """Also the bytes that the agent itself loses: U+FFFD, and a tail that is not UTF-8."""
    data = bytes(range(256)) * 40 + b"\xef\xbf\xbd" * 7 + b"\xf0\x9f\x98"
    leaving, screen = await run(daemon, sim, "cat", stdin=data)
    assert leaving.status == 0
    assert bytes(screen.out) == data


async def test_what_the_agent_says_of_its_encryption_is_not_the_commands_standard_error(
    make_daemon: MakeDaemon, simulator: MakeSimulator
) -> None:
    """A script that wants standard error empty must not fail because its account demands KMS."""
    sim = await simulator()
    sim.use_kms()
    daemon = await make_daemon(sim)
    leaving, screen = await run(daemon, sim, "sh", "-c", "echo err >&2")
    assert leaving.status == 0
    assert bytes(screen.err) == b"err\n"
    assert not [line for line in screen.lines if "encrypted" in line.text]


async def test_a_command_that_does_not_exist_is_127_with_a_sentence(daemon: Daemon, sim: Simulator) -> None:
    """As a shell would have it."""
    leaving, screen = await run(daemon, sim, "no-such-program")
    assert leaving.status == 127
    assert b"no-such-program: No such file or directory" in screen.err


async def test_a_command_ended_by_a_signal_reports_it_as_shells_do(daemon: Daemon, sim: Simulator) -> None:
    """128 plus the signal."""
    leaving, _ = await run(daemon, sim, "sh", "-c", "kill -9 $$")
    assert leaving.status == 137


async def test_environment_and_folder_are_set(daemon: Daemon, sim: Simulator) -> None:
    """Values with quotes and template braces arrive as they are."""
    value = "a 'b' {{ssm:secret}} \"c\""
    leaving, screen = await run(daemon, sim, "sh", "-c", 'printf %s "$X"; pwd', env={"X": value}, cwd="/")
    assert leaving.status == 0
    assert bytes(screen.out) == value.encode() + b"/\n"


async def test_a_folder_that_is_not_there_is_an_error_not_a_status(daemon: Daemon, sim: Simulator) -> None:
    """The command must not run somewhere else."""
    leaving, _ = await run(daemon, sim, "pwd", cwd="/no/such/folder")
    assert isinstance(leaving.error, WrongState)


async def test_a_signal_from_here_reaches_the_command(daemon: Daemon, sim: Simulator) -> None:
    """Ctrl-C ends the remote command, not only the local client."""
    screen = Screen()
    box = await daemon.boxes.resolve(sim.box("api").id, Account())
    work = beside(
        daemon.execute(
            ExecSpec(box=box, argv=["sh", "-c", "trap 'exit 9' INT; echo up; sleep 60 & wait"]), screen
        )
    )
    await screen.until(b"up\n")
    screen.say(Signal(2))
    assert (await asyncio.wait_for(work, 20)).status == 9


async def test_a_client_that_goes_away_ends_the_command(daemon: Daemon, sim: Simulator) -> None:
    """Nobody waits for it any more, and the session must not leak."""
    screen = Screen()
    marker = sim.box("api").disk / "alive"
    box = await daemon.boxes.resolve(sim.box("api").id, Account())
    work = beside(
        daemon.execute(
            ExecSpec(
                box=box, argv=["sh", "-c", f"trap 'echo gone > {marker}; exit' HUP; echo up; sleep 60 & wait"]
            ),
            screen,
        )
    )
    await screen.until(b"up\n")
    screen.say(None)
    await asyncio.wait_for(work, 20)
    async with asyncio.timeout(20):
        while not marker.exists():
            await asyncio.sleep(0.02)
    assert not daemon.sessions()


@pytest.mark.parametrize("fault", ["rst", "fin", "close"])
async def test_links_cut_in_the_middle_lose_nothing(daemon: Daemon, sim: Simulator, fault: str) -> None:
    """The whole point: a train in a tunnel does not cost a build log."""
    size = 3_000_000
    source = sim.box("api").disk / "data"
    source.write_bytes(os.urandom(size))
    screen = Screen()
    box = await daemon.boxes.resolve(sim.box("api").id, Account())
    work = beside(daemon.execute(ExecSpec(box=box, argv=["cat", str(source)], stdin=False), screen))
    for part in (0.1, 0.4, 0.7):
        while len(screen.out) < size * part and not work.done():
            await asyncio.sleep(0.005)
        await sim.fault(fault, session="last")
    leaving = await asyncio.wait_for(work, 60)
    assert leaving.error is None
    assert leaving.status == 0
    assert hashlib.sha256(screen.out).digest() == hashlib.sha256(source.read_bytes()).digest()


async def test_a_command_that_ended_while_nobody_read_is_still_heard_to_its_last_byte(
    daemon: Daemon, sim: Simulator
) -> None:
    """Its pipe holds the rest while the relay's window is full: no output and an exit status is not the end."""

    class Stuck(Screen):
        held = 0
        is_stuck = True

        def output(self, data: bytes, *, error: bool = False) -> None:
            self.out.extend(data)
            self.held += len(data)
            if not self.is_stuck:
                self.release()

        def release(self) -> None:
            self.is_stuck = False
            taken, self.held = self.held, 0
            self.say(Taken(taken))

    data = os.urandom(OUTPUT_WINDOW + (48 << 10))
    source = sim.box("api").disk / "data"
    source.write_bytes(data)
    screen = Stuck()
    box = await daemon.boxes.resolve(sim.box("api").id, Account())
    work = beside(daemon.execute(ExecSpec(box=box, argv=["cat", str(source)], stdin=False), screen))
    while len(screen.out) < OUTPUT_WINDOW:
        await asyncio.sleep(0.01)
    await asyncio.sleep(1.5)  # longer than the relay waits for children of the command that still write
    screen.release()
    leaving = await asyncio.wait_for(work, 20)
    assert leaving.status == 0
    assert bytes(screen.out) == data


@pytest.mark.parametrize("number", [2, 15])
async def test_a_signal_before_the_command_runs_ends_the_wait(
    daemon: Daemon, sim: Simulator, number: int
) -> None:
    """It was kept for a command that never came, and the first Ctrl-C did nothing for two minutes."""
    await sim.fault("refuse-start", code="TargetNotConnected", times=None)
    screen = Screen()
    screen.type(b"input that came first\n")
    box = await daemon.boxes.resolve(sim.box("api").id, Account())
    work = beside(daemon.execute(ExecSpec(box=box, argv=["true"]), screen))
    await screen.until_state("starting")
    screen.say(Signal(number))
    leaving = await asyncio.wait_for(work, 10)
    assert (leaving.status, leaving.error) == (128 + number, None)
    assert not daemon.sessions()


async def test_a_client_that_leaves_before_the_command_runs_ends_the_wait(
    daemon: Daemon, sim: Simulator
) -> None:
    """Also with input on its way, which waited for the command."""
    await sim.fault("refuse-start", code="TargetNotConnected", times=None)
    screen = Screen()
    screen.type(b"input that came first\n")
    box = await daemon.boxes.resolve(sim.box("api").id, Account())
    work = beside(daemon.execute(ExecSpec(box=box, argv=["true"]), screen))
    await screen.until_state("starting")
    screen.say(None)
    await asyncio.wait_for(work, 10)
    assert not daemon.sessions()


async def test_a_box_that_is_off_is_called_off_at_once(
    simulator: MakeSimulator, make_daemon: MakeDaemon
) -> None:
    """exec was silent for 120 seconds."""
    sim = await simulator(stopped=["api"])
    daemon = await make_daemon(sim)
    leaving, _ = await asyncio.wait_for(run(daemon, sim, "true"), 10)
    assert isinstance(leaving.error, BoxStopped)


async def test_a_connection_to_a_box_that_is_off_fails_at_once(
    simulator: MakeSimulator, make_daemon: MakeDaemon
) -> None:
    """ssh waited for 118 seconds."""
    sim = await simulator(stopped=["api"])
    daemon = await make_daemon(sim)
    box = await daemon.boxes.resolve(sim.box("api").id, Account())
    with pytest.raises(BoxStopped, match="api is stopped"):
        await asyncio.wait_for(daemon.connect(box, 22, None, 120.0), 10)


async def test_a_first_session_that_dies_costs_no_input(daemon: Daemon, sim: Simulator) -> None:
    """Nothing of it was sent, so the next try has it still."""
    work = beside(run(daemon, sim, "cat", stdin=b"precious\n"))
    while not sim.gateway.sessions:
        await asyncio.sleep(0.001)
    await sim.fault("terminate", session="last")
    leaving, screen = await asyncio.wait_for(work, 20)
    assert (leaving.status, leaving.error) == (0, None)
    assert bytes(screen.out) == b"precious\n"
    assert len(sim.gateway.sessions) == 2
