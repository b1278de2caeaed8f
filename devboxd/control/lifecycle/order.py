"""What a launch is to be like: what was asked, what is remembered, and what EC2 offers, put together."""

from __future__ import annotations

import msgspec
from msgspec.structs import replace

from devboxd.control.base.needs import Offers
from devboxd.errors import BadRequest
from devboxd.model import offer, tags
from devboxd.model.box import Account
from devboxd.model.config import ProjectSettings
from devboxd.model.ledger import Ledger
from devboxd.model.offer import Ground, MachineType
from devboxd.model.project import Generation, Phase, Policy, Project, Spec
from devboxd.model.wish import generation


class LaunchWish(msgspec.Struct, frozen=True):
    """What somebody asks of a launch. What is not said stays as it was at the last one.

    ``types``: in order of preference. ``base``: a name or an image id, for a new project only. ``generation``:
    one to go back to (negative: counted back from the newest). ``profile``: instance profile, name or ARN.
    ``zone``, ``subnets``, ``groups``: of the network; ``any`` gives a choice back. ``kms``: the key of the disks, for
    a new project only.
    """

    types: tuple[str, ...] = ()
    gib: int | None = None
    base: str | None = None
    generation: int | None = None
    zone: str | None = None
    subnets: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    kms: str | None = None
    profile: str | None = None
    user_data: str | None = None
    tags: dict[str, str] | None = None
    spot: bool | None = None
    until_up: bool | None = None
    account: Account | None = None
    policy: Policy | None = None


def usual(settings: ProjectSettings) -> LaunchWish:
    """What the configuration says of a project that is launched for the first time."""
    return LaunchWish(
        types=(settings.type,) if settings.type else (),
        gib=settings.disk,
        base=settings.base,
        zone=settings.zone,
        subnets=settings.subnets,
        groups=settings.security_groups,
        kms=settings.key,
        profile=settings.instance_profile,
        user_data=settings.user_data,
        tags=settings.tags,
    )


def filled(wish: LaunchWish, usual: LaunchWish) -> LaunchWish:
    """A wish for a project that is new, with what is usual where it says nothing."""
    return replace(
        grounded(wish, usual),
        gib=wish.gib or usual.gib,
        base=wish.base or usual.base,
        kms=wish.kms or usual.kms,
        user_data=usual.user_data if wish.user_data is None else wish.user_data,
        tags=wish.tags if wish.tags == {} else {**(usual.tags or {}), **(wish.tags or {})},
    )


def grounded(wish: LaunchWish, usual: LaunchWish) -> LaunchWish:
    """A wish with the usual types, network and instance profile where it says nothing of them."""
    return replace(
        wish,
        types=wish.types or usual.types,
        zone=wish.zone or usual.zone,
        subnets=wish.subnets or usual.subnets,
        groups=wish.groups or usual.groups,
        profile=wish.profile or usual.profile,
    )


def lacks_ground(project: Project) -> bool:
    """Say whether nothing tells where its next box goes: it was made anew from tags, or its box had no profile."""
    return project.instance is None and (not project.spec.places or project.spec.profile is None)


async def ordered(known: Ledger | None, wish: LaunchWish, offers: Offers) -> Spec:
    """The spec of a launch.

    Raises:
        BadRequest: what was asked can not be, with what could.
    """
    old = known.project.spec if known is not None else Spec()
    source = source_of(known, wish)
    _check(known, source, wish)
    spec = _wished(old, wish)
    types = wish.types or tuple(dict.fromkeys(one.type for one in old.places)) or (offer.DEFAULT_TYPE,)
    machines = await offers.types(types)
    base_name = renewed(known) if wish.base is None or (known and _has_begun(known)) else wish.base
    architecture = offer.architecture_of(machines, source.boot.architecture if source else None)
    if base_name is None and known is not None:
        _check_fit(known, source, machines)
    is_lost = known is None or lacks_ground(known.project)
    if wish.types or spec.network != old.network or not old.places or is_lost:
        spec = _placed(spec, await offers.ground(types, spec.network), wish)
    elif wish.profile is not None:
        spec = replace(spec, profile=wish.profile)
    if base_name is not None:
        base = await offers.base(base_name, architecture)
        offer.check_fit(base_name, base.boot, machines, "choose another type")
        disks = offer.ordered_disks(base, spec.root_gib, wish.kms or _kms(old))
        spec = replace(spec, image=base.image, base=base_name, disks=disks, boot=base.boot)
    return spec


def renewed(known: Ledger | None) -> str | None:
    """The base image whose newest one a launch is from; None: it is from what is there already."""
    if known is None:
        return offer.DEFAULT_BASE
    if _has_begun(known):
        return None
    spec = known.project.spec
    if not spec.image:
        return offer.DEFAULT_BASE
    return spec.base if offer.is_named(spec.base) else None


def _check_fit(known: Ledger, source: Generation | None, machines: tuple[MachineType, ...]) -> None:
    """Raises BadRequest where these types can not boot what the project holds: saved, on its box, or about to be."""
    project, boot = known.project, known.project.spec.boot
    if source is not None:
        boot = source.boot
    elif known.run is not None and (project.bound or project.phase is Phase.LAUNCHING):
        boot = known.run.boot
    offer.check_fit(project.name, boot, machines, f"choose a type that can boot {project.name}")


def _kms(old: Spec) -> str | None:
    """The key of the disks, which a project has from its first launch on."""
    return next((disk.kms for disk in old.disks if disk.kms is not None), None)


def _check(known: Ledger | None, source: Generation | None, wish: LaunchWish) -> None:
    """What a project keeps from its first launch on can not be asked for anew. Raises BadRequest."""
    if known is None:
        return
    if wish.kms is not None:
        raise BadRequest(
            f"{known.project.name} has its key already: another one is for a new project",
            hint="leave --key out",
        )
    if wish.base is not None and source is not None:
        raise BadRequest(
            f"{known.project.name} is saved already: a base image is for a new project",
            hint=f"devboxctl rebase {known.project.name} --onto {wish.base} puts it under this one",
        )
    if wish.base is not None and wish.base != known.project.spec.base and _has_begun(known):
        project = known.project
        is_new = project.phase is Phase.LAUNCHING and not project.bound
        raise BadRequest(
            f"{project.name} is from {project.spec.base or 'an image of its own'} already: a base image is for a new project",
            hint=f"devboxctl ops cancel {project.name} first"
            if is_new
            else f"once it runs, devboxctl rebase {project.name} --onto {wish.base} puts it under this one",
        )


def _has_begun(known: Ledger) -> bool:
    """Say whether there is a box, or something saved, that its base image is under."""
    project = known.project
    is_forked = project.fork_of is not None
    return bool(project.head or project.bound) or project.phase is not Phase.ABSENT or is_forked


def _wished(old: Spec, wish: LaunchWish) -> Spec:
    """The spec with what needs no look at AWS."""
    return replace(
        old,
        root_gib=wish.gib or old.root_gib or offer.DEFAULT_GIB,
        user_data=old.user_data if wish.user_data is None else wish.user_data or None,
        tags=old.tags if wish.tags is None else tags.checked(wish.tags),
        network=offer.chosen(old.network, wish.zone, wish.subnets, wish.groups),
        spot=old.spot if wish.spot is None else wish.spot,
        until_up=old.until_up if wish.until_up is None else wish.until_up,
    )


def source_of(known: Ledger | None, wish: LaunchWish) -> Generation | None:
    """The generation that a launch would come from; None: the base image. Raises GenerationNotFound."""
    if known is None:
        return None
    return known.head if wish.generation is None else generation(known, wish.generation)


def _placed(spec: Spec, ground: Ground, wish: LaunchWish) -> Spec:
    profile = wish.profile or spec.profile or ground.profile
    if profile is None:
        raise BadRequest(
            "a box without an instance profile can not be reached through Session Manager",
            hint="name one with --instance-profile, or let devboxctl init user --create-profile make one",
        )
    return replace(spec, places=ground.places, groups=ground.groups, profile=profile)
