"""Calls that act on instances that are there: start, stop, reboot, terminate, and their attributes."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from devboxd.simulator.ec2 import power, render, types
from devboxd.simulator.ec2.errors import Ec2Error, combination, invalid, missing, wrong_state
from devboxd.simulator.ec2.launch import has_capacity, no_capacity
from devboxd.simulator.ec2.records import Instance, InstanceState
from devboxd.simulator.ec2.region import Region, each
from devboxd.simulator.ec2.times import moment

S = InstanceState
_GONE: Final = (S.SHUTTING_DOWN, S.TERMINATED)


def start_instances(region: Region, params: Mapping[str, Any]) -> dict[str, Any]:
    """StartInstances: all or none; running ones are left alone."""
    instances = _all_in(region, params, (S.STOPPED, S.PENDING, S.RUNNING), "started")
    for one in instances:
        if one.is_interrupted:
            raise Ec2Error(
                "IncorrectSpotRequestState",
                f"You can't start the Spot Instance '{one.id}' because the associated Spot Instance request is not "
                "in an appropriate state to support start.",
            )
        kind = types.known(one.type)
        if one.state is S.STOPPED and kind is not None and not has_capacity(region, one.zone, kind):
            raise no_capacity(region, kind, one.zone)
    return {"StartingInstances": [_changed(region, one, _start) for one in instances]}


def stop_instances(region: Region, params: Mapping[str, Any]) -> dict[str, Any]:
    """StopInstances: all or none; stopped ones are left alone."""
    if params.get("Hibernate"):
        raise Ec2Error(
            "UnsupportedHibernationConfiguration", "The instances are not enabled for hibernation."
        )
    force = bool(params.get("Force") or params.get("SkipOsShutdown"))
    instances = _all_in(region, params, (S.RUNNING, S.STOPPING, S.STOPPED), "stopped")
    for one in instances:
        if one.is_stop_protected:
            raise _protected(one, "stopped", "disableApiStop")
        if one.spot is not None and not one.spot_is_persistent:
            raise Ec2Error(
                "UnsupportedOperation",
                f"You can't stop the Spot Instance '{one.id}' because it is associated with a one-time Spot "
                "Instance request. You can only stop Spot Instances associated with persistent Spot Instance requests.",
            )

    def act(region: Region, one: Instance) -> Instance:
        if one.state is S.RUNNING or (one.state is S.STOPPING and force):
            return power.stop(region, one, force=force)
        return one

    return {"StoppingInstances": [_changed(region, one, act) for one in instances]}


def cancel_spot_requests(region: Region, params: Mapping[str, Any]) -> dict[str, Any]:
    """CancelSpotInstanceRequests: the instances stay, and are not started again by EC2."""
    by_request = {spot_request(one): one for one in region.tables.instances.values() if one.spot is not None}
    for request in params["SpotInstanceRequestIds"]:
        if request not in by_request:
            raise Ec2Error(
                "InvalidSpotInstanceRequestID.NotFound",
                f"The spot instance request ID '{request}' does not exist",
            )
    cancelled = []
    for request in params["SpotInstanceRequestIds"]:
        region.put(replace(by_request[request], spot_is_persistent=False))
        cancelled.append({"SpotInstanceRequestId": request, "State": "cancelled"})
    return {"CancelledSpotInstanceRequests": cancelled}


def spot_request(instance: Instance) -> str:
    """The id of the request that a spot instance was launched for."""
    return f"sir-{instance.id[2:10]}"


def terminate_instances(region: Region, params: Mapping[str, Any]) -> dict[str, Any]:
    """TerminateInstances: idempotent. One that is protected spares those in its zone, and is an error."""
    instances: list[Instance] = each(region.instance, params["InstanceIds"])
    force = bool(params.get("Force") or params.get("SkipOsShutdown"))
    protected = [one for one in instances if one.is_protected and one.state not in _GONE]
    spared = {one.zone for one in protected}

    def act(region: Region, one: Instance) -> Instance:
        return one if one.state in _GONE else power.terminate(region, one, force=force)

    changes = [_changed(region, one, act) for one in instances if one.zone not in spared]
    if protected:
        raise _protected(protected[0], "terminated", "disableApiTermination")
    return {"TerminatingInstances": changes}


def reboot_instances(region: Region, params: Mapping[str, Any]) -> dict[str, Any]:
    """RebootInstances."""
    for one in _all_in(region, params, (S.RUNNING,), "rebooted"):
        power.reboot(region, one)
    return {}


def modify_attribute(region: Region, params: Mapping[str, Any]) -> dict[str, Any]:
    """ModifyInstanceAttribute: one attribute a call."""
    instance = region.instance(params["InstanceId"])
    changes = _wanted(params)
    if not changes:
        raise missing("attribute")
    if len(changes) > 1:
        raise combination("Fields for multiple attribute types specified: " + ", ".join(sorted(changes)))
    if instance.state in _GONE:
        raise wrong_state(
            f"The instance '{instance.id}' is not in a state that can be modified.", of_instance=True
        )
    ((name, value),) = changes.items()
    _SETTERS[name](region, instance, value)
    return {}


def describe_attribute(region: Region, params: Mapping[str, Any]) -> dict[str, Any]:
    """DescribeInstanceAttribute."""
    one, name = region.instance(params["InstanceId"]), params["Attribute"]
    values: dict[str, tuple[str, Any]] = {
        "disableApiTermination": ("DisableApiTermination", {"Value": one.is_protected}),
        "disableApiStop": ("DisableApiStop", {"Value": one.is_stop_protected}),
        "instanceInitiatedShutdownBehavior": (
            "InstanceInitiatedShutdownBehavior", {"Value": one.shutdown_behavior},
        ),
        "instanceType": ("InstanceType", {"Value": one.type}),
        "userData": ("UserData", {} if one.user_data is None else {"Value": one.user_data}),
        "rootDeviceName": ("RootDeviceName", {"Value": one.boot.root_device}),
        "ebsOptimized": ("EbsOptimized", {"Value": one.ebs_optimized}),
        "enaSupport": ("EnaSupport", {"Value": one.boot.ena}),
        "sourceDestCheck": ("SourceDestCheck", {"Value": one.source_dest_check}),
        "groupSet": ("Groups", [{"GroupId": group} for group in one.groups]),
        "blockDeviceMapping": (
            "BlockDeviceMappings", render.instance(region, one, region.tables.volumes_of(one.id))["BlockDeviceMappings"],
        ),
    }  # fmt: skip
    if name not in values:
        raise Ec2Error("UnsupportedOperation", f"The attribute {name} is not imitated.")
    member, value = values[name]
    return {"InstanceId": one.id, member: value}


def modify_metadata(region: Region, params: Mapping[str, Any]) -> dict[str, Any]:
    """ModifyInstanceMetadataOptions."""
    instance = region.instance(params["InstanceId"])
    if instance.state in _GONE:
        raise wrong_state(
            f"The instance '{instance.id}' is not in a state that can be modified.", of_instance=True
        )
    new = {key: value for key, value in params.items() if key not in ("InstanceId", "DryRun")}
    if not new:
        raise missing("HttpTokens")
    changed = replace(instance, metadata={**instance.metadata, **new})
    region.put(changed)
    return {"InstanceId": instance.id, "InstanceMetadataOptions": render.metadata(changed.metadata)}


def console_output(region: Region, params: Mapping[str, Any]) -> dict[str, Any]:
    """GetConsoleOutput: what the system said while it came up. It shows minutes late in EC2; here at once."""
    one = region.instance(params["InstanceId"])
    text = ""
    if one.running_since is not None:
        text = f"[    0.000000] Linux version 6.1 ({one.boot.architecture})\n"
        text += "ip-box login: \n" if one.boots else "No bootable device.\n"
    return {
        "InstanceId": one.id,
        "Timestamp": moment(region.now),
        "Output": base64.b64encode(text.encode()).decode(),
    }


# -- one instance ------------------------------------------------------------------------------------


def _start(region: Region, one: Instance) -> Instance:
    if one.state is not S.STOPPED:
        return one
    if (fault := region.draw("start-dies", one.id)) is not None:
        one = replace(one, sudden_end=(S.STOPPED, fault.code))
    if region.draw("start-spoils-image", one.id) is not None:
        power.spoil_images(region, one.id)
    started = power.power_on(region, one)
    if region.draw("no-boot", one.id) is not None:
        started = replace(started, boots=False)
        region.put(started)
    return started


def _changed(region: Region, one: Instance, act: Callable[[Region, Instance], Instance]) -> dict[str, Any]:
    after = act(region, one)
    return {
        "InstanceId": one.id,
        "CurrentState": render.state(after.state),
        "PreviousState": render.state(one.state),
    }


def _all_in(
    region: Region, params: Mapping[str, Any], allowed: tuple[InstanceState, ...], verb: str
) -> list[Instance]:
    if not params["InstanceIds"]:
        raise missing("InstanceId")
    instances: list[Instance] = each(region.instance, params["InstanceIds"])
    for one in instances:
        if one.state not in allowed:
            raise wrong_state(
                f"The instance '{one.id}' is not in a state from which it can be {verb}.", of_instance=True
            )
    return instances


def _protected(one: Instance, verb: str, attribute: str) -> Ec2Error:
    return Ec2Error(
        "OperationNotPermitted",
        f"The instance '{one.id}' may not be {verb}. "
        f"Modify its '{attribute}' instance attribute and try again.",
    )


# -- attributes --------------------------------------------------------------------------------------


def _wanted(params: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes of a request in either of its two forms, by the name of the member."""
    found = {name: value for name, value in params.items() if name in _SETTERS}
    if (name := params.get("Attribute")) is not None:
        member = name[0].upper() + name[1:]
        if member not in _SETTERS or "Value" not in params:
            raise invalid(f"Value ({name}) for parameter attribute is invalid.")
        text = params["Value"]
        found[member] = {"Value": text == "true" if text in ("true", "false") else text}
    return found


def _set_type(region: Region, instance: Instance, value: Mapping[str, Any]) -> None:
    _must_be_stopped(instance)
    kind = types.known(value["Value"])
    if kind is None:
        raise Ec2Error("InvalidInstanceAttributeValue", f"Invalid value '{value['Value']}' for InstanceType.")
    if kind.architecture != instance.boot.architecture:
        raise Ec2Error(
            "InvalidInstanceAttributeValue",
            f"The instance type '{kind.name}' and the instance do not have the same architecture.",
        )
    if kind.ena == "required" and not instance.boot.ena:
        raise combination(f"Enhanced networking with ENA is required for the '{kind.name}' instance type.")
    region.put(replace(instance, type=kind.name))


def _set_devices(region: Region, instance: Instance, value: list[Mapping[str, Any]]) -> None:
    volumes = {
        volume.attachment.device: volume
        for volume in region.tables.volumes_of(instance.id)
        if volume.attachment is not None and volume.attachment.since <= region.now
    }
    for one in value:
        if one.get("DeviceName") not in volumes:
            raise Ec2Error(
                "InvalidInstanceAttributeValue", f"No device is currently mapped at {one.get('DeviceName')}"
            )
    for one in value:
        volume = volumes[one["DeviceName"]]
        assert volume.attachment is not None
        flag = one.get("Ebs", {}).get("DeleteOnTermination", volume.attachment.delete_on_termination)
        region.put(replace(volume, attachment=replace(volume.attachment, delete_on_termination=flag)))


def _set_protection(region: Region, instance: Instance, value: Mapping[str, Any]) -> None:
    if instance.spot is not None and value["Value"]:
        raise Ec2Error(
            "OperationNotPermitted", "Termination protection cannot be enabled for Spot Instances."
        )
    region.put(replace(instance, is_protected=value["Value"]))


def _set_user_data(region: Region, instance: Instance, value: Mapping[str, Any]) -> None:
    _must_be_stopped(instance)
    data = value["Value"]
    region.put(
        replace(instance, user_data=base64.b64encode(data).decode() if isinstance(data, bytes) else data)
    )


def _set_optimized(region: Region, instance: Instance, value: Mapping[str, Any]) -> None:
    _must_be_stopped(instance)
    region.put(replace(instance, ebs_optimized=value["Value"]))


def _set_ena(region: Region, instance: Instance, value: Mapping[str, Any]) -> None:
    _must_be_stopped(instance)
    region.put(replace(instance, boot=replace(instance.boot, ena=value["Value"])))


def _set_groups(region: Region, instance: Instance, value: list[str]) -> None:
    for group in value:
        if group not in region.networks.groups:
            raise Ec2Error("InvalidGroup.NotFound", f"The security group '{group}' does not exist")
    region.put(replace(instance, groups=tuple(value)))


def _must_be_stopped(instance: Instance) -> None:
    if instance.state is not S.STOPPED:
        raise wrong_state(f"The instance '{instance.id}' is not in the 'stopped' state.", of_instance=True)


_SETTERS: Final[dict[str, Callable[[Region, Instance, Any], None]]] = {
    "BlockDeviceMappings": _set_devices,
    "DisableApiTermination": _set_protection,
    "DisableApiStop": lambda region, one, value: region.put(replace(one, is_stop_protected=value["Value"])),
    "EbsOptimized": _set_optimized,
    "EnaSupport": _set_ena,
    "Groups": _set_groups,
    "InstanceInitiatedShutdownBehavior": lambda region, one, value: region.put(
        replace(one, shutdown_behavior=value["Value"])
    ),
    "InstanceType": _set_type,
    "SourceDestCheck": lambda region, one, value: region.put(replace(one, source_dest_check=value["Value"])),
    "UserData": _set_user_data,
}
ATTRIBUTES: Final = " ".join(_SETTERS)
