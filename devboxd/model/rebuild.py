"""Rows out of tags: what a project was, as far as what is left of it at AWS says.

Where it does not say enough, the answer is the one that loses nothing: an image that is whole is a generation,
volumes that may hold more than any image are rescued, and several instances are left to a person.
"""

from __future__ import annotations

from typing import Final

from msgspec.structs import replace

from devboxd.model import tags
from devboxd.model.box import Account
from devboxd.model.change import placed
from devboxd.model.ledger import Ledger
from devboxd.model.project import (
    Boot,
    Disk,
    Generation,
    Phase,
    Place,
    Project,
    Quality,
    Run,
    Span,
    Spec,
    Token,
    Want,
    read_token,
)
from devboxd.model.seen import Box, Image, Observed, Volume
from devboxd.model.states import InstanceState
from devboxd.model.wish import NAME

MARGIN: Final = 100  # numbers that may have been handed out and left no trace


def rebuilt(uid: str, ec2: Observed, owner: str, *, account: Account, at: float) -> Ledger | None:
    """The rows of one project; None where nothing of it is worth a row."""
    generations = _generations(ec2)
    alive = [(token, box) for box in ec2.boxes if box.is_alive and (token := _token(box.token, uid))]
    volumes = [(token, one) for one in ec2.volumes if one.is_there and (token := _token(one.token, uid))]
    if not generations and not alive and not volumes:
        return None
    newest = max([token for token, _ in (*alive, *volumes)], key=_order, default=None)
    runs = [one.run for one in generations] + ([newest.run] if newest else [])
    row = Project(
        uid=uid,
        name=name_of(uid, ec2),
        owner=owner,
        account=account,
        want=Want.COLD,
        phase=Phase.READY if generations else Phase.ABSENT,
        reason="made anew from the tags at AWS",
        since=at,
        head=len(generations),
        run=max(runs, default=0),
        closed=max(runs, default=0),
        saves=max([one.save for one in generations] + _saves(ec2), default=0) + MARGIN,
        spec=_spec(generations, alive),
    )
    if len({box.id for _, box in alive}) > 1:
        names = ", ".join(sorted(box.id for _, box in alive))
        row = replace(row, phase=Phase.BROKEN, reason=f"several instances are alive: {names}")
        return Ledger(row, None, generations)
    if alive:
        return _bound(row, *alive[0], ec2, generations)
    left = tuple(one for token, one in volumes if newest is not None and token.run == newest.run)
    return _adrift(row, newest, left, generations) if left and newest else Ledger(row, None, generations)


def _bound(
    row: Project, token: Token, box: Box, ec2: Observed, generations: tuple[Generation, ...]
) -> Ledger:
    """Its one instance is its box."""
    by_id = {volume.id: volume for volume in ec2.volumes}
    disks = tuple(
        replace(by_id[one.volume].disk, device=one.device, volume=one.volume)
        for one in box.attached
        if one.volume in by_id and by_id[one.volume].rebase is None
    )
    text = f"{row.uid}-{token.run}-{token.attempt}"
    head = generations[-1] if generations else None
    is_saved = head is not None and head.run == token.run and head.stamp == box.launched
    warm = box.state is InstanceState.STOPPED and is_saved
    row = replace(
        row,
        phase=Phase.WARM if warm else Phase.RUNNING,
        want=Want.UP if box.is_up else Want.WARM,
        run=token.run,
        closed=token.run - 1,
        attempt=token.attempt,
        instance=box.id,
        at=placed(box),
        launched=box.launched,
        bound=(text,),
        clean=warm,
        unprotected=True,  # for all we know
    )
    end = None if box.is_up else box.stopped or box.launched
    spans = (Span(box.launched, end, box.type, box.address),) if box.launched else ()
    return Ledger(row, _run(row, text, disks, box.boot, spans, box.id), generations)


def _adrift(
    row: Project, token: Token, volumes: tuple[Volume, ...], generations: tuple[Generation, ...]
) -> Ledger:
    """Its instance is gone and volumes are left: they may hold more than any generation."""
    head = generations[-1] if generations else None
    text = f"{row.uid}-{token.run}-{token.attempt}"
    devices = {disk.snapshot: disk.device for one in generations for disk in one.disks}
    boot = head.boot if head else Boot()
    disks = tuple(
        replace(
            one.disk,
            device=devices.get(one.disk.source)
            or (boot.root_device or "/dev/xvda" if number == 0 else f"/dev/sd{number:x}"),
            volume=one.id,
        )
        for number, one in enumerate(
            sorted(volumes, key=lambda one: (one.disk.source not in devices, one.id))
        )
    )
    number = row.saves + 1
    row = replace(
        row, phase=Phase.RESCUE, closed=token.run - 1, run=token.run, bound=(text,), saves=number, save=number
    )
    return Ledger(row, _run(row, text, disks, boot, (), None), generations)


def _run(
    row: Project,
    token: str,
    disks: tuple[Disk, ...],
    boot: Boot,
    spans: tuple[Span, ...],
    instance: str | None,
) -> Run:
    return Run(
        number=row.run,
        source=row.head,
        image=row.spec.image,
        places=row.spec.places,
        disks=disks,
        tags=row.spec.tags,
        profile=row.spec.profile,
        groups=row.spec.groups,
        boot=boot,
        token=token,
        instance=instance,
        spans=spans,
    )


def renumbered(known: Ledger) -> Ledger:
    """A project out of an export, which may be older than what happened since: its numbers go on far above."""
    project = known.project
    changed = replace(project, saves=project.saves + MARGIN, moved="")
    if project.phase in (Phase.READY, Phase.ABSENT):
        changed = replace(changed, run=project.run + MARGIN, closed=project.run + MARGIN)
    return Ledger(changed, known.run, known.generations)


def _generations(ec2: Observed) -> tuple[Generation, ...]:
    """Every image that is whole, in the order of its save."""
    snapshots = {one.id: one for one in ec2.snapshots if one.state == "completed"}
    whole = [
        image
        for image in ec2.images
        if image.state == "available"
        and image.save is not None
        and image.snapshots
        and all(snapshot in snapshots for snapshot in image.snapshots.values())
    ]
    found = []
    for number, image in enumerate(sorted(whole, key=lambda one: one.save or 0), 1):
        stamp = _stamp(image)
        disks = tuple(
            replace(disk, volume=snapshots[disk.snapshot].volume) for disk in image.disks if disk.snapshot
        )
        found.append(
            Generation(
                number=number,
                image=image.id,
                run=image.run or 0,
                save=image.save or 0,
                disks=disks,
                boot=image.boot,
                quality=Quality.CLEAN if stamp is not None else Quality.CRASH,
                created=image.created or 0.0,
                stamp=stamp,
                parent=number - 1,
            )
        )
    return tuple(found)


def _stamp(image: Image) -> float | None:
    text = image.tags.get(tags.STAMP, "")
    return float(text) if text.isascii() and text.isdigit() else None


def _saves(ec2: Observed) -> list[int]:
    found = [image.save for image in ec2.images] + [snapshot.save for snapshot in ec2.snapshots]
    return [number for number in found if number is not None]


def _token(text: str | None, uid: str) -> Token | None:
    token = read_token(text)
    return token if token is not None and token.uid == uid else None


def _order(token: Token) -> tuple[int, int]:
    return token.run, token.attempt


def name_of(uid: str, ec2: Observed) -> str:
    """The name in the tags: that of the newest image, or any other."""
    images = sorted(ec2.images, key=lambda one: -(one.save or 0))
    tagged = [image.tags for image in images] + [box.tags for box in ec2.boxes]
    tagged += [volume.tags for volume in ec2.volumes]
    names = (one.get(tags.PROJECT, "") for one in tagged)
    return next((name for name in names if NAME.match(name)), f"project-{uid}")


def _spec(generations: tuple[Generation, ...], alive: list[tuple[Token, Box]]) -> Spec:
    """What a launch needs, as far as it shows. A generation to launch from needs only a place."""
    boxes = [box for _, box in alive if box.type]
    return Spec(
        image=generations[0].image if generations else "",
        places=tuple(Place(box.type, box.zone, box.subnet) for box in boxes),
        groups=boxes[0].groups if boxes else (),
        profile=boxes[0].profile if boxes else None,
        tags=tags.of_user(boxes[0].tags) if boxes else {},
    )
