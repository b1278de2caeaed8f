"""The daemon as a whole: names, what an earlier daemon left, and a clean end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from devboxd.control.connect.execute import ExecSpec
from devboxd.control.connect.sweep import sweep
from devboxd.control.daemon import Daemon
from devboxd.errors import BadRequest, BoxAmbiguous, BoxNotFound, BoxStopped, Denied, Unreachable
from devboxd.model.attach import AttachSpec
from devboxd.model.box import Account
from devboxd.model.config import BoxSettings, Config, Defaults
from devboxd.model.memory import State
from devboxd.model.names import is_host_name
from devboxd.model.states import Mux
from devboxd.simulator.world import Simulator
from tests.control.conftest import MakeDaemon, reconfigure
from tests.control.kit import Screen
from tests.kit.sim import MakeSimulator
from tests.kit.tasks import beside

HERE = Account()
CALLS = ("DescribeInstances", "ec2:DescribeInstances")


async def until(what: Callable[[], object], timeout: float = 15.0) -> None:
    """Wait for something that a real program does."""
    async with asyncio.timeout(timeout):
        while not what():
            await asyncio.sleep(0.01)


async def open_one(daemon: Daemon, sim: Simulator) -> None:
    """Leave a port session open."""
    box = await daemon.boxes.resolve(sim.box("api").id, HERE)
    await daemon.connect(box, 7, None, 20.0)


async def test_an_instance_id_needs_no_permission_at_all(daemon: Daemon, sim: Simulator) -> None:
    """Somebody else's box, and only ssm:StartSession."""
    await sim.fault("refuse", call="*", code="UnauthorizedOperation", status=403)
    box = await daemon.boxes.resolve("i-0123456789abcdef0", HERE)
    assert (box.name, box.target) == ("i-0123456789abcdef0", "i-0123456789abcdef0")
    assert (await daemon.boxes.resolve("mi-0123456789abcdef0.devbox", HERE)).target == "mi-0123456789abcdef0"


async def test_names_come_from_tags_and_are_kept_for_a_while(daemon: Daemon, sim: Simulator) -> None:
    """ssh asks for the same name ten times in a row."""
    box = await daemon.boxes.resolve("web", HERE)
    assert (box.name, box.target) == ("web", sim.box("web").id)
    await sim.fault("refuse", call="*", code="UnauthorizedOperation", status=403)
    assert (await daemon.boxes.resolve("web.devbox", HERE)).target == sim.box("web").id


async def test_a_name_that_nothing_has_is_told_with_those_that_are(daemon: Daemon) -> None:
    """A typo should show its correction."""
    with pytest.raises(BoxNotFound) as caught:
        await daemon.boxes.resolve("wbe", HERE)
    assert "web" in (caught.value.hint or "")


@pytest.mark.parametrize("name", ["", " ", "a\0b", "x" * 257])
async def test_what_cannot_be_a_name_is_refused(daemon: Daemon, name: str) -> None:
    """Before EC2 is asked."""
    with pytest.raises(BadRequest):
        await daemon.boxes.resolve(name, HERE)


TAGS = [
    "My Dev Box",
    "web/prod",
    "büro",
    "ann@corp",
    "開発",
    "-x",
    "#1",
    "*",
    "env:prod",
    "x.devbox",
    "..",
    "a'b\"c",
]


async def tagged(simulator: MakeSimulator, *tags: str) -> tuple[Simulator, list[str]]:
    """An account with a box of each of these names, and the ids in that order."""
    boxes = [f"b{number}" for number in range(len(tags))]
    sim = await simulator(boxes=boxes)
    ids = [sim.box_id(box) for box in boxes]
    for id_, tag in zip(ids, tags, strict=True):
        await sim.console("CreateTags", Resources=[id_], Tags=[{"Key": "Name", "Value": tag}])
    return sim, ids


async def test_every_name_tag_is_a_name_and_has_a_host_name_of_its_own(
    simulator: MakeSimulator, make_daemon: MakeDaemon
) -> None:
    """What ``ls`` shows, every command takes; and ssh reaches each under a name that it can take."""
    sim, ids = await tagged(simulator, *TAGS)
    daemon = await make_daemon(sim)
    hosts = set()
    for number, tag in enumerate(TAGS):
        box = await daemon.boxes.resolve(tag, HERE)
        assert (box.name, box.target) == (tag, ids[number])
        host = daemon.boxes.host(box)
        assert is_host_name(host)
        assert (await daemon.boxes.resolve(f"{host}.devbox", HERE)).target == box.target
        hosts.add(host)
    assert len(hosts) == len(TAGS)


async def test_any_tag_can_be_what_a_configured_box_is_aimed_at(
    simulator: MakeSimulator, make_daemon: MakeDaemon
) -> None:
    """``target = "My Dev Box"``: in full, never by its beginning."""
    sim, ids = await tagged(simulator, "My Dev Box", "web-1")
    boxes = {
        "dev": BoxSettings(target="My Dev Box", user="ann@corp.example"),
        "web": BoxSettings(target="we"),
    }
    daemon = await make_daemon(sim, boxes=boxes)
    dev = await daemon.boxes.resolve("dev", HERE)
    assert (dev.name, dev.target, dev.user) == ("dev", ids[0], "ann@corp.example")
    assert (await daemon.boxes.resolve("de", HERE)) == dev, "its beginning carries its settings"
    with pytest.raises(BoxNotFound, match="aimed at"):
        await daemon.boxes.resolve("web", HERE)


async def test_the_beginning_of_a_name_will_do_where_it_can_mean_one_box_only(
    simulator: MakeSimulator, make_daemon: MakeDaemon
) -> None:
    """An ambiguous one lists what it can mean, and does nothing."""
    sim, ids = await tagged(simulator, "web-1", "web-2", "West Wing", "api")
    daemon = await make_daemon(sim)
    api = await daemon.boxes.resolve("a.devbox", HERE)
    assert (api.name, api.target) == ("api", ids[3])
    assert (await daemon.boxes.resolve(ids[3][:-2], HERE)).target == api.target
    for text in ("web", "web.devbox"):
        with pytest.raises(BoxAmbiguous, match=r"beginning of 2 boxes: web-1, web-2"):
            await daemon.boxes.resolve(text, HERE)
    with pytest.raises(BoxAmbiguous, match=r"3 boxes: 'West Wing', web-1, web-2"):
        await daemon.boxes.resolve("we", HERE)


@pytest.mark.parametrize(
    ("slip", "meant"),
    [
        ("wbe", "web"),
        ("webb", "web"),
        ("My Dve Box", "'My Dev Box'"),
        ("my.dev.box", "'My Dev Box'"),
    ],
)
async def test_a_slip_is_told_with_what_may_have_been_meant(
    simulator: MakeSimulator, make_daemon: MakeDaemon, slip: str, meant: str
) -> None:
    sim, _ = await tagged(simulator, "web", "My Dev Box", "api")
    daemon = await make_daemon(sim)
    with pytest.raises(BoxNotFound) as caught:
        await daemon.boxes.resolve(slip, HERE)
    assert f"did you mean {meant}" in (caught.value.hint or "")


async def test_a_long_list_of_candidates_is_cut(simulator: MakeSimulator, make_daemon: MakeDaemon) -> None:
    """An account of a thousand boxes must not fill the screen."""
    sim, _ = await tagged(simulator, *(f"n{number:02}" for number in range(15)))
    daemon = await make_daemon(sim)
    with pytest.raises(BoxAmbiguous, match=r"15 boxes: n00.* and 3 more"):
        await daemon.boxes.resolve("n", HERE)


async def test_an_instance_that_is_nowhere_is_not_shown(daemon: Daemon, sim: Simulator) -> None:
    """An id with a slip in it looked like a box that is off."""
    nowhere = await daemon.boxes.resolve("i-00000000000000001", HERE)
    with pytest.raises(BoxNotFound):
        await daemon.boxes.instance(nowhere)
    await sim.fault("refuse", call="DescribeInstances", code="UnauthorizedOperation", status=403)
    assert await daemon.boxes.instance(nowhere) is None, "EC2 may not be asked: nobody knows"


async def test_without_ec2_permissions_the_way_around_is_named(daemon: Daemon, sim: Simulator) -> None:
    """Session Manager alone is enough."""
    await sim.fault("refuse", call="*", code="UnauthorizedOperation", status=403)
    with pytest.raises(Denied) as caught:
        await daemon.boxes.resolve("web", HERE)
    assert "instance id" in (caught.value.hint or "")


async def test_two_boxes_of_one_name_are_a_question(
    simulator: MakeSimulator, make_daemon: MakeDaemon
) -> None:
    """The running one is meant where only one runs; else the user says which."""
    sim = await simulator(boxes=["a", "b"])
    await sim.console("CreateTags", Resources=[sim.box_id("b")], Tags=[{"Key": "Name", "Value": "a"}])
    daemon = await make_daemon(sim)
    with pytest.raises(BadRequest, match="means 2 boxes"):
        await daemon.boxes.resolve("a", HERE)


async def test_of_two_boxes_of_one_name_the_running_one_is_meant(
    simulator: MakeSimulator, make_daemon: MakeDaemon
) -> None:
    """Its stopped predecessor is still there."""
    sim = await simulator(boxes=["a", "b"], stopped=["b"])
    running = sim.box("a").id
    await sim.console("CreateTags", Resources=[sim.box_id("b")], Tags=[{"Key": "Name", "Value": "a"}])
    daemon = await make_daemon(sim)
    assert (await daemon.boxes.resolve("a", HERE)).target == running


async def test_a_configured_box_wins_over_tags(sim: Simulator, make_daemon: MakeDaemon) -> None:
    """With its account, user and mux."""
    boxes = {
        "web": BoxSettings("i-0123456789abcdef0", "prod", "eu-west-1", "ana", Mux.TMUX),
        "db": BoxSettings(target="data", user="root"),
        "api": BoxSettings(user="bob"),
    }
    daemon = await make_daemon(sim, boxes=boxes, defaults=Defaults(user="dev", mux=Mux.ZELLIJ))
    web = await daemon.boxes.resolve("web", HERE)
    assert (web.target, web.account, web.user, web.mux) == (
        "i-0123456789abcdef0",
        Account("prod", "eu-west-1"),
        "ana",
        "tmux",
    )
    assert (await daemon.boxes.resolve("web", Account("other"))).account.profile == "other", "a flag wins"
    db = await daemon.boxes.resolve("db", HERE)
    assert (db.name, db.target, db.user, db.mux) == ("db", sim.box("data").id, "root", "zellij")
    api = await daemon.boxes.resolve("api", HERE)
    assert (api.target, api.user) == (sim.box("api").id, "bob")
    reconfigure(daemon, Config(defaults=Defaults(user="eve")))
    assert (await daemon.boxes.resolve("api", HERE)).user == "eve"


async def test_the_list_of_boxes_comes_from_memory_when_ec2_is_away(daemon: Daemon, sim: Simulator) -> None:
    """And says how old it is, and why."""
    fresh, _, of_when = await daemon.boxes.all(HERE)
    assert of_when is None
    await sim.fault("refuse", call="*", code="InternalServerError", status=500)
    old, _, of_when = await daemon.boxes.all(HERE)
    assert [box.id for box in old] == [box.id for box in fresh]
    assert of_when is not None
    assert isinstance(of_when.why, Unreachable)


async def test_stop_ends_every_session_at_aws(sim: Simulator, make_daemon: MakeDaemon) -> None:
    """Port, terminal and command: nothing stays open for the twenty minutes that AWS would keep it."""
    daemon = await make_daemon(sim)
    await open_one(daemon, sim)
    box = await daemon.boxes.resolve(sim.box("api").id, HERE)
    terminal, command = Screen(), Screen()
    work = [
        beside(daemon.attach(AttachSpec(box=box, raw=True), terminal)),
        beside(daemon.execute(ExecSpec(box=box, argv=["sleep", "60"]), command)),
    ]
    await until(lambda: len(sim.gateway.sessions) == 3 and all(s.id for s in daemon.sessions()))
    async with asyncio.timeout(6):
        await daemon.stop()
    assert all(session.is_over for session in sim.gateway.sessions.values())
    assert not daemon.sessions()
    await asyncio.wait(work, timeout=5)
    assert all(one.done() for one in work)
    with pytest.raises(Unreachable):
        await daemon.execute(ExecSpec(box=box, argv=["true"]), Screen())


async def test_sessions_of_a_daemon_that_crashed_are_ended(sim: Simulator, make_daemon: MakeDaemon) -> None:
    """By the journal, and by their Reason where even that was lost; nobody else's are touched."""
    states = [State(), State(), State()]
    owners = ["test", "test", "somebody-else"]
    crashed = [
        await make_daemon(sim, state=state, owner=owner) for state, owner in zip(states, owners, strict=True)
    ]
    # Only their hearts beat: the sweeps are over.
    await until(lambda: all(len(one.shared.tasks) == 1 for one in crashed))
    for one in crashed:
        await open_one(one, sim)
    journal, reason, foreign = list(sim.gateway.sessions.values())
    remembered = State(open_sessions=dict(states[0].open_sessions))
    assert list(remembered.open_sessions) == [journal.id]
    new = await make_daemon(sim, state=remembered)
    await until(lambda: journal.is_over and reason.is_over)
    assert not foreign.is_over
    await until(lambda: not remembered.open_sessions)
    await until(lambda: "sweep.ended" in [event.kind for event in new.shared.news.events()])


async def test_a_stale_session_that_cannot_be_ended_now_is_not_forgotten(
    sim: Simulator, make_daemon: MakeDaemon
) -> None:
    """The login had expired when the daemon started: the next one tries again."""
    state = State()
    crashed = await make_daemon(sim, state=state)
    await open_one(crashed, sim)
    (session,) = sim.gateway.sessions.values()
    await sim.fault("refuse", call="TerminateSession", code="ExpiredTokenException", status=403)
    remembered = State(open_sessions=dict(state.open_sessions))
    second = await make_daemon(sim, state=remembered)
    await until(lambda: len(second.shared.tasks) == 1)  # only its heart beats: the sweep is over
    assert session.id in remembered.open_sessions
    await sim.fault("clear")
    third = await make_daemon(sim, state=State(open_sessions=dict(remembered.open_sessions)))
    await until(lambda: session.is_over)
    assert third.sessions() == []


async def test_the_sweep_spares_what_this_daemon_starts_meanwhile(
    sim: Simulator, make_daemon: MakeDaemon
) -> None:
    """Socket activation: the first attach comes with the start of the daemon itself."""
    daemon = await make_daemon(sim)
    box = await daemon.boxes.resolve(sim.box("api").id, HERE)
    await daemon.connect(box, 7, None, 20.0)
    # As if the answer to StartSession were still on its way: nothing is written down yet.
    await sweep(daemon._sessions, {}, [box.account])
    (session,) = sim.gateway.sessions.values()
    assert not session.is_over


async def test_a_session_is_ended_by_the_start_of_its_id(daemon: Daemon, sim: Simulator) -> None:
    """As ``devboxctl status`` shows it; an ambiguous start ends nothing."""
    await open_one(daemon, sim)
    (session,) = daemon.sessions()
    assert session.id is not None
    with pytest.raises(BoxNotFound):
        await daemon.end_session("no-such")
    await daemon.end_session(session.id[:8])
    await until(lambda: all(one.is_over for one in sim.gateway.sessions.values()))


async def test_ping_measures_and_leaves_nothing_open(daemon: Daemon, sim: Simulator) -> None:
    """A number, the agent's version, and no session behind it."""
    box = await daemon.boxes.resolve(sim.box("api").id, HERE)
    trips, opened, version = await daemon.ping(box, 3, 10.0)
    assert len(trips) == 3
    assert all(0 < trip < 5 for trip in trips)
    assert opened is not None
    assert opened > 0
    assert version == "3.3.987.0"
    await until(lambda: all(one.is_over for one in sim.gateway.sessions.values()))


async def test_ping_of_a_box_that_is_off_ends_in_time(
    simulator: MakeSimulator, make_daemon: MakeDaemon
) -> None:
    """And says why."""
    sim = await simulator(stopped=["api"])
    daemon = await make_daemon(sim)
    box = await daemon.boxes.resolve(sim.box("api").id, HERE)
    async with asyncio.timeout(3):
        with pytest.raises((Unreachable, BoxStopped), match=r"not connected|did not answer|is stopped"):
            await daemon.ping(box, 1, 0.5)
