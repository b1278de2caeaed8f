"""Model values as clients see them. The model may change any day; ``wire`` may not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from decimal import Decimal

from devboxd.api import wire
from devboxd.aws.login import LoginStep
from devboxd.control.base.handing import Kind as Handed
from devboxd.control.connect.bridge_facts import BridgeFacts
from devboxd.control.connect.handing import Inheritance
from devboxd.control.connect.session import HeldSession
from devboxd.control.doctor import Finding
from devboxd.control.lifecycle.budgets import Shown
from devboxd.control.lifecycle.fleet import Status
from devboxd.control.lifecycle.money import Compared, Line, Quote, Report
from devboxd.control.lifecycle.projects import is_at_rest
from devboxd.errors import DevboxError, exit_status
from devboxd.host.config import Loaded
from devboxd.host.ssh_config import SshConfigState, SshFiles
from devboxd.model.billed import is_silent
from devboxd.model.box import Account, Instance
from devboxd.model.budget import ALL, percent
from devboxd.model.cost import DAY, Kind, Sum, day_of, month_of
from devboxd.model.folder import InFolder
from devboxd.model.forward import Facts
from devboxd.model.health import Condition, Event
from devboxd.model.identity import Identity, principal
from devboxd.model.ledger import Ledger
from devboxd.model.leftover import Leftover
from devboxd.model.listing import Alone, next_step
from devboxd.model.login import Login
from devboxd.model.names import HOST_SUFFIX, Listing
from devboxd.model.price import Rates, TypeRate
from devboxd.model.project import Generation, Project
from devboxd.model.rebase import told
from devboxd.model.states import Connection
from devboxd.model.unsaved import Unsaved
from devboxd.text import rfc3339


def failure(error: DevboxError) -> wire.Failure:
    """An error as clients see it."""
    return wire.Failure(
        error.code, error.message, error.hint, error.retryable, exit_status(error.kind), error.kind
    )


def condition(value: Condition) -> wire.Condition:
    """A standing condition."""
    return wire.Condition(
        value.code, value.title, value.text, value.hint, rfc3339(value.since), value.severity
    )


def goes_on(counts: Counter[Handed]) -> wire.GoesOn:
    """What a restart does not cut."""
    return wire.GoesOn(counts[Handed.CONNECTION], counts[Handed.COMMAND], counts[Handed.SHELL])


def handed_over(value: Inheritance | None) -> wire.HandedOver | None:
    """What became of what the daemon before has left."""
    if value is None:
        return None
    return wire.HandedOver(value.kept, value.cut, value.why or None)


def ssh_config(value: SshConfigState, files: SshFiles) -> wire.SshConfigResult:
    """The generated ssh configuration as it stands now."""
    return wire.SshConfigResult(
        config_file=str(files.include),
        user_config=str(files.user_config),
        included=value.included,
        current=value.current,
        changed=[str(path) for path in value.changed],
    )


def config(value: Loaded, here: InFolder | None = None) -> wire.ConfigView:
    """The configuration in force, and what is wrong with the files; with what a folder says of itself."""
    merged = value.merged if here is None else here.merged
    settings = [wire.Setting(item.name, item.value, item.origin) for item in merged.settings()]
    if here is not None:
        said = {"box": here.folder.box, "forwards": list(here.folder.forwards)}
        settings += [
            wire.Setting(name, said[name], merged.origins[name]) for name in said.keys() & merged.origins
        ]
    return wire.ConfigView(
        settings=settings,
        files=[str(path) for path in value.files],
        error=failure(value.error) if value.error is not None else None,
    )


def login_step(value: LoginStep) -> wire.LoginStep:
    """Progress of a login."""
    return wire.LoginStep(
        state=value.state,
        text=value.text,
        url=value.url,
        code=value.code,
        expires=None if value.expires is None else rfc3339(value.expires.timestamp()),
        failure=None if value.failure is None else failure(value.failure),
    )


def doctor(value: Sequence[Finding]) -> wire.Doctor:
    """What the doctor found."""
    return wire.Doctor([wire.Check(one.name, one.result, one.text, one.hint, one.seconds) for one in value])


def event(value: Event) -> wire.Event:
    """Something that happened."""
    return wire.Event(
        value.sequence, rfc3339(value.time), value.kind, value.text, value.box, dict(value.data)
    )


def forward(value: Facts) -> wire.Forward:
    """A forward as it stands."""
    return wire.Forward(
        id=value.id,
        box=value.box,
        state=value.state.value,
        local=value.local,
        remote=value.remote,
        connections=value.connections,
        total_connections=value.total_connections,
        bytes_up=value.bytes_up,
        bytes_down=value.bytes_down,
        sessions=value.sessions,
        error=value.error,
        auto=value.auto,
        note=value.note,
        reverse=value.reverse,
    )


def bridge(value: BridgeFacts) -> wire.Bridge:
    """A bridge as it stands, or why there is none."""
    return wire.Bridge(
        box=value.box,
        user=value.user,
        lanes=[
            wire.Lane(
                lane.session,
                "opening" if not lane.is_up else "behind" if lane.is_behind else "up",
                lane.round_trip,
            )
            for lane in value.lanes
        ],
        streams=value.streams,
        waiting=value.waiting,
        rate_up=value.rate_up,
        rate_down=value.rate_down,
        packs=value.packs,
        without=value.without,
    )


def session(value: HeldSession) -> wire.Session:
    """A held session."""
    channel = value.channel
    return wire.Session(
        id=value.id or "",
        box=value.plan.box,
        kind=value.plan.kind,
        state=value.state.value,
        detail=value.detail,
        since=rfc3339(value.changed_at),
        resumes=value.tally.resumes,
        bytes_up=value.tally.bytes_up,
        bytes_down=value.tally.bytes_down,
        round_trip=value.round_trip,
        agent_version=(channel.agent_version or None) if channel is not None else None,
        name=value.plan.name,
        target=value.plan.target,
        profile=value.plan.account.profile,
        region=value.plan.account.region,
    )


def login(value: Login, now: float) -> wire.Login:
    """A login. ``now`` is Unix seconds."""
    source = value.source
    ends = None if source.expires_in is None else rfc3339(now + source.expires_in)
    return wire.Login(
        source.method,
        source.name,
        value.verdict,
        ends,
        source.renews,
        value.problem or None,
        value.mend or None,
    )


def identity(value: Identity, now: float) -> wire.Identity:
    """Who we are. ``now`` is Unix seconds."""
    who = principal(value.arn)
    source = value.source
    return wire.Identity(
        account=value.number,
        arn=value.arn,
        kind=who.kind,
        name=who.name,
        session=who.session,
        profile=value.profile,
        region=value.region,
        method=source.method,
        source=source.name,
        expires=None if value.expires_in is None else rfc3339(now + value.expires_in),
        login_ends=None if source.expires_in is None else rfc3339(now + source.expires_in),
        login_renews=source.renews,
    )


def box(
    instance: Instance,
    account: Account,
    listing: Listing | None,
    *,
    connection: Connection = Connection.UNKNOWN,
    sessions: int = 0,
    forwards: int = 0,
    user: str | None = None,
    hourly: Decimal | None = None,
    project: Project | None = None,
) -> wire.Box:
    """An instance. One that is going has no listing: it answers to no name any more."""
    return wire.Box(
        name=listing.name if listing is not None else instance.name or instance.id,
        id=instance.id,
        state=instance.state,
        connection=connection,
        type=instance.type,
        zone=instance.zone,
        launched=None if instance.launched is None else rfc3339(instance.launched),
        private_address=instance.private_address,
        profile=account.profile,
        region=account.region,
        user=user,
        sessions=sessions,
        forwards=forwards,
        tags=dict(instance.tags),
        ref=listing.ref if listing is not None else instance.id,
        host=listing.host if listing is not None else None,
        hour=None if hourly is None else fine_dollars(hourly),
        project=project.name if project is not None else None,
        phase=project.phase.value if project is not None else None,
        generation=project.head if project is not None else 0,
    )


def alone(value: Alone) -> wire.Box:
    """A project that no instance is listed for."""
    row = value.project
    place = row.place
    return wire.Box(
        name=row.name,
        id=value.instance or "",
        state=value.state,
        type=place.type if place else None,
        profile=row.account.profile,
        region=row.account.region,
        ref=row.name,
        host=f"{row.name}{HOST_SUFFIX}",
        project=row.name,
        phase=row.phase.value,
        generation=row.head,
    )


def of_project(found: wire.Box, known: Ledger, status: Status) -> wire.Box:
    """Say in a box what there is to say of its project."""
    row = known.project
    is_pending = not is_at_rest(row)
    found.project, found.phase, found.generation = row.name, row.phase.value, row.head
    found.want = row.want.value
    found.since = rfc3339(row.since) if row.since else None
    found.saved = rfc3339(known.head.created) if known.head is not None else None
    found.base, found.rebase = row.spec.base or None, told(row) or None
    found.way_back = row.rebase.source if row.rebase is not None else None
    found.under_way = status.problem or row.reason or (status.why if is_pending else "") or None
    found.next = next_step(row, is_pending=is_pending)
    return found


def project(value: Status) -> wire.Project:
    """A project, and how far its loop is."""
    row = value.project
    place = row.place
    return wire.Project(
        name=row.name,
        id=row.uid,
        phase=row.phase.value,
        want=row.want.value,
        pending=not is_at_rest(row),
        waits=value.why,
        problem=value.problem,
        reason=row.reason,
        instance=row.instance,
        generation=row.head,
        type=place.type if place else None,
        next_type=row.next_type,
        zone=place.zone if place else None,
        disk=row.spec.root_gib,
        base=row.spec.base or None,
        rebase=told(row),
        rebase_problem=row.rebase.problem if row.rebase is not None else "",
        way_back=row.rebase.source if row.rebase is not None else None,
        profile=row.account.profile,
        region=row.account.region,
        since=rfc3339(row.since) if row.since else None,
    )


def unsaved(value: Sequence[Unsaved]) -> list[str]:
    """Git work that is on a box only: a sentence for each repository."""
    return [str(one) for one in value]


def generation(value: Generation, head: int) -> wire.Generation:
    """A saved state."""
    return wire.Generation(
        number=value.number,
        image=value.image,
        quality=value.quality.value,
        created=rfc3339(value.created),
        size=sum(disk.size_gib for disk in value.disks),
        volumes=len(value.disks),
        label=value.label,
        pins=list(value.pins),
        is_newest=value.number == head,
        base=value.base,
        lacks=list(value.lacks),
    )


def leftover(value: Leftover, project_name: str) -> wire.Leftover:
    """A resource that nothing uses."""
    goes = rfc3339(value.goes) if value.goes is not None else None
    usd = "" if value.usd_month is None else dollars(value.usd_month)
    return wire.Leftover(value.id, value.kind, value.why, value.gib, usd, goes, project_name)


def dollars(value: Decimal) -> str:
    """Dollars and cents."""
    return f"{value:.2f}"


def fine_dollars(value: Decimal) -> str:
    """Dollars to a hundredth of a cent, for the price of an hour."""
    return f"{value:.4f}"


def price_note(rates: Rates, problem: str, market: tuple[float | None, str] | None = None) -> wire.PriceNote:
    """Where prices come from; ``market``: when those of spot boxes were asked for, and why not."""
    note = wire.PriceNote(rates.region, rates.date, rates.source, rates.built_in, problem)
    if market is not None:
        note.spot = rfc3339(market[0]) if market[0] is not None else None
        note.spot_problem = market[1] or ("" if note.spot else "they are being asked for")
    return note


def cost(value: Line) -> wire.Cost:
    """What something costs."""
    row, standing = value.project, value.standing
    sums = (value.month, value.forecast.total, standing.hourly, standing.running)
    return wire.Cost(
        name=value.name,
        id=row.uid if row is not None else "",
        phase=row.phase.value if row is not None else "",
        type=value.type,
        region=value.region,
        base=row.spec.base if row is not None else "",
        hour=fine_dollars(standing.hourly.total),
        today=dollars(value.today.total),
        month=dollars(value.month.total),
        most=dollars(value.month.most),
        forecast=dollars(value.forecast.total.total),
        forecast_days=round(value.forecast.days, 2),
        running=dollars(standing.running.total),
        stopped=dollars(standing.stopped.total),
        archived=dollars(standing.archived.total),
        parts={kind.value: dollars(value.month.parts.get(kind, Decimal(0))) for kind in Kind},
        unknown=list(dict.fromkeys(text for one in sums for text in one.unknown)),
    )


def cost_day(day: str, value: Sum) -> wire.CostDay:
    """A day."""
    parts = {kind.value: dollars(value.parts.get(kind, Decimal(0))) for kind in Kind}
    return wire.CostDay(day, **parts, total=dollars(value.total), most=dollars(value.most))


def cost_report(value: Report) -> wire.CostReport:
    """What it all costs."""
    return wire.CostReport(
        [cost(one) for one in value.lines],
        cost(value.total),
        month_of(value.at),
        [cost_day(day, one) for day, one in value.days],
        [price_note(rates, problem, value.markets.get(rates.region)) for rates, problem in value.rates],
        [compared(one) for one in value.compared],
    )


def compared(value: Compared) -> wire.Billed:
    """What AWS has billed, and what we count."""
    if value.billed is None:
        return wire.Billed(value.owner, problem=value.problem)
    return wire.Billed(
        value.owner,
        day_of(value.until - DAY),
        dollars(value.billed),
        dollars(value.counted.total),
        dollars(value.counted.most),
        is_silent(value.billed, value.counted.total),
        value.problem,
    )


def quote(value: Quote, refused: str = "") -> wire.Quote:
    """What a launch would cost."""
    standing = value.standing
    return wire.Quote(
        value.type,
        value.region,
        fine_dollars(value.hour.most if value.spot else value.hour.total),
        dollars(standing.running.most if value.spot else standing.running.total),
        dollars(standing.stopped.total),
        value.spot and value.hour.more > 0,
        list(dict.fromkeys([*value.hour.unknown, *standing.running.unknown])),
        price_note(value.rates, value.problem, value.market),
        refused,
    )


def machine_type(value: TypeRate) -> wire.MachineType:
    """An instance type."""
    hourly = value.hourly or Decimal(0)
    return wire.MachineType(
        value.name,
        value.vcpus,
        f"{value.memory_gib:g}",
        value.architecture,
        value.gpu,
        fine_dollars(hourly),
        dollars(hourly * 30 * round(DAY / 3600)),
    )


def budget(value: Shown) -> wire.Budget:
    """A budget, and how far it is."""
    one, used = value.budget, percent(value.budget, value.spent)
    deadline = value.told.deadline if value.told is not None and value.in_force else None
    return wire.Budget(
        one.name if one.scope != ALL else "",
        dollars(one.limit),
        one.hard,
        one.month,
        dollars(value.spent),
        used,
        "used" if used >= 100 else "most" if used >= 80 else "half" if used >= 50 else "fine",
        rfc3339(deadline) if deadline is not None else None,
        one.grace,
        value.in_force,
    )
