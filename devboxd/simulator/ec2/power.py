"""Machines going up and down: what starts it, what it does to their volumes, and how it ends."""

from __future__ import annotations

import math
from dataclasses import replace

from devboxd.simulator.ec2 import types
from devboxd.simulator.ec2.effects import PowerOff, PowerOn, Rebooted
from devboxd.simulator.ec2.records import Instance, InstanceState
from devboxd.simulator.ec2.region import Event, Region
from devboxd.simulator.ec2.times import stamp
from devboxd.simulator.ec2.volumes import begin_delete

_USER = ("Client.UserInitiatedShutdown", "Client.UserInitiatedShutdown: User initiated shutdown")
_INSIDE = (
    "Client.InstanceInitiatedShutdown",
    "Client.InstanceInitiatedShutdown: Instance initiated shutdown",
)
_SPOILED = (
    "Client.InstanceTerminated",
    "Client.InstanceTerminated: The instance was terminated or rebooted during AMI creation.",
)
_RECORD_KEPT = 3600.0  # seconds a terminated instance stays visible
_TOKEN_KEPT = 23 * 3600.0  # after that; "at least 24 hours" in all


def power_on(region: Region, instance: Instance) -> Instance:
    """Begin to start an instance that does not run. Returns the pending record."""
    # EC2 shows whole seconds, and a real stop and start never fits into one: the stamp must differ.
    launched = max(math.floor(region.now), instance.launched + 1)
    pending = replace(
        instance,
        state=InstanceState.PENDING,
        serial=instance.serial + 1,
        launched=float(launched),
        running_since=None,
        reason=None,
        transition_reason="",
        public_address=_public_address(region) if instance.public_address is not None else None,
        boots=boots(region, instance),
    )
    region.put(pending)
    region.plan(region.wait("pending"), "instance", pending.id, pending.serial)
    return pending


def stop(region: Region, instance: Instance, *, force: bool, by_user: bool = True) -> Instance:
    """Begin to stop a running instance, or cut the power of one that is stopping."""
    return _leave(region, instance, InstanceState.STOPPING, force=force, by_user=by_user)


def terminate(region: Region, instance: Instance, *, force: bool = False, by_user: bool = True) -> Instance:
    """Begin to terminate an instance; one that does not run is gone at once."""
    spoil_images(region, instance.id)
    if instance.state is InstanceState.STOPPED:
        instance = _with_reason(region, instance, by_user=by_user)
        return _terminated(region, instance)
    return _leave(region, instance, InstanceState.SHUTTING_DOWN, force=force, by_user=by_user)


def reboot(region: Region, instance: Instance, *, spoils: bool = True) -> None:
    """Reboot a running instance: the system goes down in order and comes up again."""
    if spoils:
        spoil_images(region, instance.id)
    flush(region, instance)
    changed = replace(instance, running_since=region.now + region.wait("rebooting"))
    region.put(replace(changed, boots=boots(region, changed)))
    region.emit(Rebooted(instance.id))


def interrupt(region: Region, instance: Instance) -> Instance:
    """Take a spot instance back."""
    if instance.spot == "stop":
        gone = stop(region, instance, force=False, by_user=False)
        code = "Server.SpotInstanceShutdown"
    else:
        gone = terminate(region, instance, by_user=False)
        code = "Server.SpotInstanceTermination"
    gone = replace(
        gone,
        is_interrupted=True,
        reason=(code, f"{code}: Spot instance interruption"),
        transition_reason=code,
    )
    region.put(gone)
    return gone


def restore(region: Region, instance: Instance) -> None:
    """There is room again for a persistent spot instance that was interrupted: EC2 starts it by itself."""
    power_on(region, replace(instance, is_interrupted=False))


def advance(region: Region, event: Event) -> None:
    """A passing state ends."""
    instance = region.tables.instances.get(event.id)
    if instance is None or instance.serial != event.serial:
        return
    if instance.state is InstanceState.PENDING:
        if instance.sudden_end is not None:
            _die(region, instance, *instance.sudden_end)
            return
        region.put(replace(instance, state=InstanceState.RUNNING, running_since=region.now))
        region.emit(PowerOn(instance.id))
    elif instance.state is InstanceState.STOPPING:
        _end_system(region, instance)
        region.put(replace(instance, state=InstanceState.STOPPED, hangs=False, running_since=None))
    elif instance.state is InstanceState.SHUTTING_DOWN:
        _end_system(region, instance)
        _terminated(region, instance)


def boots(region: Region, instance: Instance) -> bool:
    """Whether the system on the root volume comes up on this machine, whatever the image says of it."""
    kind = types.known(instance.type)
    for volume in region.tables.volumes_of(instance.id):
        assert volume.attachment is not None
        if volume.attachment.device == instance.boot.root_device:
            return (
                volume.system is not None
                and kind is not None
                and volume.system.boots_on(
                    kind.architecture, instance.boot.firmware_started, needs_ena=kind.ena == "required"
                )
            )
    return False


def flush(region: Region, instance: Instance) -> None:
    """What the system still held is written, and its last words with it."""
    for volume in region.tables.volumes_of(instance.id):
        region.put(replace(volume, content=region.next_content(), unsynced=None))


def forget(region: Region, event: Event) -> None:
    """An hour after its end the record goes; its client token stands for it a day longer."""
    instance = region.tables.instances.get(event.id)
    if instance is not None and instance.client_token:
        region.ghosts[event.id] = instance
        region.plan(_TOKEN_KEPT, "ghost", event.id)
    region.drop(event.id)


def lay(region: Region, event: Event) -> None:
    """Its client token means nothing any more."""
    region.ghosts.pop(event.id, None)


def fade(region: Region, event: Event) -> None:
    """The tags go earlier: who looks by tag sees nothing where who looks by id still sees the end."""
    instance = region.tables.instances.get(event.id)
    if instance is not None:
        region.put(replace(instance, tags={}))


def spoil_images(region: Region, instance_id: str) -> None:
    """Images that are being made of an instance fail when it is terminated or rebooted."""
    for image in list(region.tables.images.values()):
        if image.state == "pending" and image.source_instance == instance_id:
            region.put(replace(image, state="failed", reason=_SPOILED))


def _leave(
    region: Region, instance: Instance, passing: InstanceState, *, force: bool, by_user: bool
) -> Instance:
    was_up = instance.state in (InstanceState.RUNNING, InstanceState.PENDING)
    hangs = instance.hangs or (was_up and region.draw("stop-hangs", instance.id) is not None)
    instance = _with_reason(region, instance, by_user=by_user)
    kind = "hanging" if hangs else "shutting_down" if passing is InstanceState.SHUTTING_DOWN else "stopping"
    if force:
        # Nothing that was only in memory survives; what is on the medium does.
        for volume in region.tables.volumes_of(instance.id):
            region.put(replace(volume, unsynced=None))
        kind, hangs = "forced", True
    leaving = replace(instance, state=passing, serial=instance.serial + 1, hangs=hangs)
    region.put(leaving)
    region.plan(region.wait(kind), "instance", leaving.id, leaving.serial)
    if was_up:
        region.emit(PowerOff(leaving.id))
    return leaving


def _with_reason(region: Region, instance: Instance, *, by_user: bool) -> Instance:
    return replace(
        instance,
        reason=_USER if by_user else _INSIDE,
        transition_reason=f"User initiated ({stamp(region.now)})" if by_user else "",
    )


def _end_system(region: Region, instance: Instance) -> None:
    """The last writes of an orderly shutdown; without one, what was in memory is lost."""
    if not instance.boots or instance.hangs or instance.running_since is None:
        for volume in region.tables.volumes_of(instance.id):
            region.put(replace(volume, unsynced=None))
    else:
        flush(region, instance)


def _die(region: Region, instance: Instance, state: InstanceState, code: str) -> None:
    """It never came up: back to stopped if it had been started, gone if it had been launched."""
    dead = replace(
        instance, reason=(code, f"{code}: by order of a fault"), transition_reason=code, sudden_end=None
    )
    if state is InstanceState.TERMINATED:
        _terminated(region, dead)
    else:
        region.put(replace(dead, state=InstanceState.STOPPED))


def _terminated(region: Region, instance: Instance) -> Instance:
    for volume in region.tables.volumes_of(instance.id):
        assert volume.attachment is not None
        free = replace(volume, attachment=None, state="available")
        region.put(free)
        if volume.attachment.delete_on_termination:
            begin_delete(region, free)
    ended = replace(
        instance,
        state=InstanceState.TERMINATED,
        serial=instance.serial + 1,
        gone=region.now,
        public_address=None,
        running_since=None,
    )
    region.put(ended)
    region.plan(region.wait("tags_fade"), "fade", ended.id)
    region.plan(_RECORD_KEPT, "forget", ended.id)
    return ended


def _public_address(region: Region) -> str:
    return f"203.0.113.{region.entropy.randrange(1, 255)}"
