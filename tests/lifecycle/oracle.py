"""What must hold at every moment, and what must have come about in the end: S1 to S9 and V1 to V5.

The oracle looks at what is really there (the tables of the EC2 model, the items of the store), which no daemon can.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from devboxd.model import tags
from devboxd.model.ledger import Ledger
from devboxd.model.project import Generation, Phase, Want, read_token
from devboxd.model.seen import Seen
from devboxd.model.step import Call, Erase, Release, Step
from devboxd.simulator.ec2.records import Image, Instance, Snapshot, Volume
from tests.lifecycle.world import OWNER, World

ALIVE: Final = ("pending", "running", "stopping", "stopped")
CREATING: Final = ("RunInstances", "CreateImage", "RegisterImage", "CreateSnapshot", "CreateVolume")
Key = tuple[str, str]  # uid and device


class Broken(AssertionError):
    """An invariant does not hold."""


@dataclass(eq=False)
class Oracle:
    """Watches one world. ``lenient`` invariants are not checked: for faults that excuse them."""

    world: World
    uids: tuple[str, ...]
    lenient: frozenset[str] = frozenset()
    newest: dict[Key, int] = field(default_factory=dict)  # F: newest content of a bound instance, by device
    devices: dict[str, str] = field(default_factory=dict)  # where a volume was attached
    lineage: dict[Key, set[int]] = field(default_factory=dict)  # all contents that a device ever had
    decided: dict[str, tuple[Seen, Step]] = field(default_factory=dict)  # the last decision, by project
    stamps: dict[str, set[float]] = field(default_factory=dict)  # of generations, by launch token
    terminated_with: dict[str, set[float]] = field(default_factory=dict)
    copies: set[str] = field(default_factory=set)  # volumes that were made of an old root
    went_back: dict[str, int] = field(default_factory=dict)  # the last run before going back, by project
    _checked: int = -1
    _commits: int = 0

    def install(self) -> None:
        """Watch from now on."""
        self.world.after_event = self.check
        self.world.on_call = self.called
        self.world.on_commit = self.committed
        self.world.on_decision = self.saw

    def fail(self, rule: str, text: str) -> None:
        if rule not in self.lenient:
            raise Broken(f"{rule}: {text}")

    # After each event

    def check(self) -> None:
        """S1, S6 and S7, where anything has changed."""
        version = self.world.model.region.version + self._commits
        if version == self._checked:
            return
        self._checked = version
        ledgers = {uid: self.world.ledger(uid) for uid in self.uids}
        for uid, ledger in ledgers.items():
            if ledger is not None and ledger.project.phase is not Phase.DELETING:
                self._follow(uid, ledger)
                self._no_loss(uid, ledger)
                self._head_is_whole(ledger)
                self._one_box(ledger)
                self._way_back(ledger)

    def _follow(self, uid: str, ledger: Ledger) -> None:
        """What volumes of bound launches hold is what must never be lost; the last writes come with the power cut."""
        for volume in self.world.model.tables.volumes.values():
            if tags.REBASE in volume.tags:
                self.copies.add(volume.id)
            if volume.attachment is not None:
                self.devices[volume.id] = volume.attachment.device
            device = self.devices.get(volume.id)
            token = read_token(volume.tags.get(tags.LAUNCH))
            if token is not None and token.run <= self.went_back.get(uid, 0):
                continue  # what it holds is in the generation that was made before going back
            if device is not None and volume.tags.get(tags.LAUNCH) in ledger.project.bound:
                key = (uid, device)
                self.lineage.setdefault(key, set()).add(volume.content)
                self.newest[key] = max(self.newest.get(key, 0), volume.content)

    def _no_loss(self, uid: str, ledger: Ledger) -> None:
        """S1: the newest content of each device is on a volume, or in a whole image."""
        for key, content in self.newest.items():
            if key[0] == uid and not self._is_kept(uid, key, content):
                self.fail("S1", f"{key[1]} of {ledger.project.name}: content {content} is nowhere")

    def _is_kept(self, uid: str, key: Key, content: int) -> bool:
        good = {one for one in self.lineage[key] if one >= content}
        tables = self.world.model.tables
        if any(v.content in good and v.state not in ("deleting", "error") for v in tables.volumes.values()):
            return True
        return any(
            image.tags.get(tags.UID) == uid
            and image.state == "available"
            and any(
                device.device == key[1]
                and (snapshot := tables.snapshots.get(device.snapshot or "")) is not None
                and snapshot.state == "completed"
                and not snapshot.is_deleted
                and snapshot.content in good
                for device in image.mappings
            )
            for image in tables.images.values()
        )

    def _head_is_whole(self, ledger: Ledger) -> None:
        """S6: what READY and WARM promise is there."""
        project = ledger.project
        if project.phase not in (Phase.READY, Phase.WARM) or not project.head:
            return
        head = next((one for one in ledger.generations if one.number == project.head), None)
        if head is None:
            self.fail("S6", f"{project.phase} without generation {project.head}")
        elif problem := self._lacks(head):
            self.fail("S6", f"{project.phase}, and {problem}")

    def _lacks(self, generation: Generation) -> str:
        tables = self.world.model.tables
        image = tables.images.get(generation.image)
        if image is None or image.state != "available":
            return f"{generation.image} of the head is {image.state if image else 'not there'}"
        for disk in generation.disks:
            snapshot = tables.snapshots.get(disk.snapshot or "")
            if snapshot is None or snapshot.state != "completed":
                return f"{disk.snapshot} of the head is {snapshot.state if snapshot else 'not there'}"
        return ""

    def _way_back(self, ledger: Ledger) -> None:
        """S12: while homes are to be copied from a generation, it is whole."""
        rebase = ledger.project.rebase
        if rebase is None or rebase.source is None or rebase.done:
            return
        source = next((one for one in ledger.generations if one.number == rebase.source and one.is_ok), None)
        if source is None or self._lacks(source):
            self.fail("S12", f"generation {rebase.source}, with the homes, is not whole")

    def _one_box(self, ledger: Ledger) -> None:
        """S7: one bound instance at most is anything but gone."""
        alive = [
            one.id
            for one in self.world.model.tables.instances.values()
            if one.client_token in ledger.project.bound and one.state.value in ALIVE
        ]
        if len(alive) > 1:
            self.fail("S7", f"{ledger.project.name} has {alive}")

    # At each call

    def saw(self, seen: Seen, step: Step) -> None:
        """A daemon has decided."""
        self.decided[seen.project.uid] = (seen, step)
        if isinstance(step, Call | Erase) and seen.project.phase is Phase.BROKEN:
            self.fail("S9", f"{type(step).__name__} in BROKEN")
        if isinstance(step, Release) and seen.project.phase is not Phase.DELETING:
            box = next((one for one in seen.ec2.boxes if one.id == step.instance), None)
            if box is not None and box.launched is not None:
                self.terminated_with.setdefault(step.instance, set()).add(box.launched)

    def called(self, name: str, params: Mapping[str, Any], caller: str) -> None:
        """S2, S3, S4 and S8, before the call takes effect."""
        if name in CREATING:
            self._is_tagged(name, params)
            if name == "CreateImage" and params.get("NoReboot") is not True:
                self.fail("R3", "an image is asked for that may reboot the box")
            return
        target = _target(params)
        record = self._record(target)
        if record is None:
            return
        uid = record.tags.get(tags.UID)
        is_adopted = name == "CreateTags" or isinstance(record, Instance)
        if (record.tags.get(tags.OWNER) != OWNER or uid not in self.uids) and not is_adopted:
            self.fail("S8", f"{name} of {target}, which is not ours: {dict(record.tags)}")
        ledger = self.world.ledger(uid or "")
        if name == "StartInstances" and ledger is not None:
            self._is_stray(target, ledger)
            self._boots_from_its_own(target)
        if ledger is None or ledger.project.phase is Phase.DELETING:
            return
        if name == "TerminateInstances" and isinstance(record, Instance):
            self._may_terminate(record, ledger)
        if name == "DeleteVolume" and isinstance(record, Volume):
            self._may_delete_volume(record, ledger)
        if name in ("DeregisterImage", "DeleteSnapshot") and isinstance(record, Image | Snapshot):
            self._may_delete_image(record, ledger)

    def _boots_from_its_own(self, instance: str) -> None:
        """S13: we start no box that has an old root beside its own. A hand in the console may."""
        record = self.world.model.tables.instances[instance]
        for volume in self.world.model.tables.volumes_of(instance):
            if tags.REBASE in volume.tags and record.state.value == "stopped":
                self.fail("S13", f"{instance} is started with {volume.id}, an old root")

    def _is_stray(self, instance: str, ledger: Ledger) -> None:
        """A start that was on its way for so long that nobody can know any more whose it was."""
        if ledger.project.phase is not Phase.STARTING or ledger.project.want is not Want.UP:
            self.world.hands.append((instance, self.world.now))

    def _is_tagged(self, name: str, params: Mapping[str, Any]) -> None:
        for specification in params["TagSpecifications"]:
            given = {one["Key"]: one["Value"] for one in specification["Tags"]}
            if given.get(tags.OWNER) != OWNER or not given.get(tags.UID) or not given.get(tags.PROJECT):
                self.fail("S8", f"{name} makes a {specification['ResourceType']} without our tags")
            if tags.RUN not in given or not {tags.LAUNCH, tags.SAVE, tags.REBASE} & set(given):
                self.fail("S8", f"{name} makes a {specification['ResourceType']} of no run or save")

    def _record(self, target: str) -> Instance | Volume | Image | Snapshot | None:
        tables = self.world.model.tables
        for table in (tables.instances, tables.volumes, tables.images, tables.snapshots):
            if target in table:
                found: Instance | Volume | Image | Snapshot = table[target]
                return found
        return None

    def _may_terminate(self, instance: Instance, ledger: Ledger) -> None:
        """S2: never bound, or all of it in a generation, by its stamp at the deciding look."""
        if instance.client_token not in ledger.project.bound or instance.state.value not in ALIVE:
            return
        stamps = self.stamps.get(instance.client_token, set())
        if not self.terminated_with.get(instance.id, set()) <= stamps:
            self.fail("S2", f"{instance.id} is terminated, and no generation has its stamp")

    def _may_delete_volume(self, volume: Volume, ledger: Ledger) -> None:
        """S3: its launch was never bound, or its run is closed; and it was marked in an earlier pass."""
        if tags.REBASE in volume.tags:
            if volume.snapshot not in self.world.model.tables.snapshots or tags.GARBAGE not in volume.tags:
                self.fail("S3", f"{volume.id} is deleted: it is no copy of what there is, or was not marked")
            return
        token = read_token(volume.tags.get(tags.LAUNCH))
        bound = volume.tags.get(tags.LAUNCH) in ledger.project.bound
        if token is None or (bound and token.run > ledger.project.closed):
            self.fail("S3", f"{volume.id} of run {token and token.run} is deleted")
        if tags.GARBAGE not in volume.tags:
            self.fail("S3", f"{volume.id} was not marked before")

    def _may_delete_image(self, record: Image | Snapshot, ledger: Ledger) -> None:
        """S4: of a retired generation, or of a save that is over and in none."""
        project = ledger.project
        used = any(
            one.is_ok and (one.image == record.id or any(d.snapshot == record.id for d in one.disks))
            for one in ledger.generations
        )
        save = record.tags.get(tags.SAVE, "")
        current = save in (str(project.save), str(project.snap))
        if used or current or tags.GARBAGE not in record.tags:
            self.fail("S4", f"{record.id} of save {save} is deleted: used {used}, current {current}")

    # At each commit

    def committed(self, before: Ledger | None, after: Ledger | None) -> None:
        """S5: the head never goes back, and a generation is never rewritten."""
        self._commits += 1
        if before is None or after is None:
            return
        if after.project.head < before.project.head:
            self.fail("S5", f"the head goes from {before.project.head} to {after.project.head}")
        if after.project.closed < before.project.closed or after.project.saves < before.project.saves:
            self.fail("S5", "a counter goes back")
        self._dead_at_rescue(before, after)
        if not self.world.is_asking:
            self._wish_is_the_users(before, after)
        if after.project.head > before.project.head:
            self._only_its_own(after)
            self._goes_back(before, after)
        now = {one.number: one for one in after.generations}
        for one in after.generations:
            if one.stamp is not None and after.run is not None and one.run == after.run.number:
                self.stamps.setdefault(after.run.token, set()).add(one.stamp)
        for one in before.generations:
            other = now.get(one.number)
            if other is None and not one.is_ok:
                continue
            if other is None or _fixed(other) != _fixed(one) or (other.is_ok and not one.is_ok):
                self.fail("S5", f"generation {one.number} is rewritten")

    def _goes_back(self, before: Ledger, after: Ledger) -> None:
        """The user wants what was once: from now on that is what must not be lost."""
        head = next(one for one in after.generations if one.number == after.project.head)
        if not any(one.image == head.image for one in before.generations):
            return
        uid, snapshots = after.project.uid, self.world.model.tables.snapshots
        self.went_back[uid] = after.project.run
        self.newest = {key: found for key, found in self.newest.items() if key[0] != uid}
        for disk in head.disks:
            key = (uid, disk.device)
            self.newest[key] = snapshots[disk.snapshot or ""].content
            self.lineage.setdefault(key, set()).add(self.newest[key])

    def _only_its_own(self, ledger: Ledger) -> None:
        """S14: what a generation is launched from has its volumes and no others, least of all an old root."""
        head = next(one for one in ledger.generations if one.number == ledger.project.head)
        image = self.world.model.tables.images.get(head.image)
        devices = {disk.device for disk in head.disks}
        if foreign := [disk.volume for disk in head.disks if disk.volume in self.copies]:
            self.fail("S14", f"generation {head.number} has {foreign}, copies of an old root")
        if image is not None and {one.device for one in image.mappings} != devices:
            self.fail(
                "S14", f"{image.id} has {sorted(one.device for one in image.mappings)}, not {sorted(devices)}"
            )

    def _dead_at_rescue(self, before: Ledger, after: Ledger) -> None:
        """R1: absence is not death."""
        begins = after.project.phase is Phase.RESCUE and before.project.phase is not Phase.RESCUE
        instance = self.world.model.tables.instances.get(before.project.instance or "")
        if begins and instance is not None and instance.state.value in ALIVE:
            self.fail("R1", f"{instance.id} is {instance.state.value}, and its volumes are rescued")

    def _wish_is_the_users(self, before: Ledger, after: Ledger) -> None:
        """S11: what is wanted changes by a command, by a hand on the instance, or where a launch can not be."""
        was, wants = before.project, after.project
        if was.want is wants.want:
            return
        instance = self.world.model.tables.instances.get(was.instance or "")
        if wants.want is Want.UP:
            since = was.launched or 0.0  # whole seconds
            by_hand = any(one == was.instance and at + 1 > since for one, at in self.world.hands)
            asked = self.world.wished.get(was.uid) is Want.UP and instance and instance.launched > since
            if not by_hand and not asked:
                self.fail("S11", f"{was.name} is wanted up, and nobody has started it")
        runs_on = (
            instance is not None
            and instance.state.value == "running"
            and instance.launched <= (was.launched or 0.0)
        )
        if was.want is Want.UP and wants.want is Want.WARM and runs_on:
            self.fail("S11", f"{was.name} is wanted down, and it runs on")

    # In the end

    def settled(self, uid: str) -> bool:
        """V1: nothing is under way."""
        project = self.world.project(uid)
        if project.phase in (Phase.READY, Phase.ABSENT, Phase.BROKEN):
            return project.want is not Want.UP
        if project.phase is Phase.WARM:
            return project.want is Want.WARM
        return project.phase is Phase.RUNNING and project.want is Want.UP

    def ends_well(self, uid: str) -> None:
        """V2, V3 and V5: the head holds everything, and nothing is left over."""
        ledger = self.world.ledger(uid)
        assert ledger is not None
        project = ledger.project
        if project.phase in (Phase.READY, Phase.WARM) and project.head:
            self._head_holds_all(uid, ledger)
        self._homes_are_copied(uid, ledger)
        kept_images = {one.image for one in ledger.generations}
        kept_snapshots = {disk.snapshot for one in ledger.generations for disk in one.disks}
        tables = self.world.model.tables
        left = [
            one.id
            for one in tables.instances.values()
            if one.tags.get(tags.UID) == uid and one.state.value in ALIVE and one.id != project.instance
        ]
        own = {v.id for v in tables.volumes_of(project.instance)} if project.instance else set()
        left += [
            v.id
            for v in tables.volumes.values()
            if v.tags.get(tags.UID) == uid and v.id not in own and v.state != "deleting"
        ]
        left += [
            i.id
            for i in tables.images.values()
            if i.tags.get(tags.UID) == uid and i.id not in kept_images and i.state != "deregistered"
        ]
        left += [
            s.id
            for s in tables.snapshots.values()
            if s.tags.get(tags.UID) == uid and s.id not in kept_snapshots and not s.is_deleted
        ]
        if left:
            self.fail("V3", f"{', '.join(left)} are left over in {project.phase}")

    def _homes_are_copied(self, uid: str, ledger: Ledger) -> None:
        """V6: a rebase that is done has the homes of its source, and of nothing else."""
        rebase = ledger.project.rebase
        source = next((one for one in ledger.generations if rebase and one.number == rebase.source), None)
        if rebase is None or not rebase.done or source is None:
            return
        snapshot = next(one.snapshot for one in source.disks if one.device == source.boot.root_device)
        if self.world.moved.get(uid) != snapshot:
            self.fail("V6", f"the homes are those of {self.world.moved.get(uid)}, not of {snapshot}")

    def _head_holds_all(self, uid: str, ledger: Ledger) -> None:
        head = next(one for one in ledger.generations if one.number == ledger.project.head)
        image = self.world.model.tables.images[head.image]
        rebase = ledger.project.rebase
        for (owner, device), content in self.newest.items():
            if owner != uid:
                continue
            found = [self._content(image, device)]
            if (found[0] is None or (rebase and not rebase.done)) and self._is_old_root(ledger, device):
                # It may be in the generation that is the way back, which homes are copied from once a box runs.
                way_back = next(one for one in ledger.generations if rebase and one.number == rebase.source)
                found.append(self._content(self.world.model.tables.images[way_back.image], device))
            if max((one for one in found if one is not None), default=-1) < content:
                self.fail("V2", f"{device} of the head has {found[0]}, not {content}")

    def _content(self, image: Any, device: str) -> int | None:
        """What an image has of a device; None: nothing."""
        mapped = next((one for one in image.mappings if one.device == device), None)
        snapshot = self.world.model.tables.snapshots.get(mapped.snapshot or "") if mapped else None
        return snapshot.content if snapshot else None

    def _is_old_root(self, ledger: Ledger, device: str) -> bool:
        rebase = ledger.project.rebase
        source = next((one for one in ledger.generations if rebase and one.number == rebase.source), None)
        return source is not None and source.is_ok and source.boot.root_device == device


def _fixed(generation: Generation) -> tuple[Any, ...]:
    return (
        generation.image,
        generation.run,
        generation.save,
        generation.disks,
        generation.created,
        generation.stamp,
        generation.quality,
    )


def _target(params: Mapping[str, Any]) -> str:
    if "Resources" in params:
        return str(params["Resources"][0])
    if "InstanceIds" in params:
        return str(params["InstanceIds"][0])
    keys = ("InstanceId", "VolumeId", "ImageId", "SnapshotId")
    return str(next((params[key] for key in keys if key in params), ""))
