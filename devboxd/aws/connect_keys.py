"""EC2 Instance Connect: put a public key on a box for 60 seconds."""

from __future__ import annotations

from devboxd.aws.clients import Caller
from devboxd.aws.codes import AwsFailed


async def send_ssh_public_key(
    caller: Caller, instance_id: str, user: str, public_key: str, *, zone: str | None = None
) -> None:
    """Let ``public_key`` (one OpenSSH line) log in as ``user`` during the next minute.

    ``zone`` is optional for the service; older emulators want it. Raises as ``Caller.call``: Denied,
    BoxNotFound, WrongState (not running), Throttled (the service does not like bursts).
    """
    request = {"InstanceId": instance_id, "InstanceOSUser": user, "SSHPublicKey": public_key}
    if zone:
        request["AvailabilityZone"] = zone
    answer = await caller.call("ec2-instance-connect", "send_ssh_public_key", target=instance_id, **request)
    if not answer.get("Success", False):
        raise AwsFailed(f"EC2 Instance Connect did not take the key for {instance_id}")
