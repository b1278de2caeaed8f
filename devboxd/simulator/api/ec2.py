"""EC2 over HTTP: a form in, the model's answer or refusal as XML.

Networks and instance profiles of one's own come from moto (CloudFormation makes them there), so the
model takes them over before every call that may speak of them.
"""

from __future__ import annotations

from typing import Final

from devboxd.simulator.api.moto import MotoApp
from devboxd.simulator.ec2 import place, wire
from devboxd.simulator.ec2.errors import Ec2Error
from devboxd.simulator.ec2.records import InstanceState
from devboxd.simulator.machines import Machines

_ABOUT_NETWORKS: Final = frozenset(
    {
        "RunInstances", "DescribeSubnets", "DescribeVpcs", "DescribeSecurityGroups", "ModifyInstanceAttribute",
        "DescribeTags",
    }
)  # fmt: skip
_OURS: Final = ("i-", "vol-", "snap-", "ami-")
_DELETES: Final = {"DeleteSubnet": "SubnetId", "DeleteVpc": "VpcId", "DeleteSecurityGroup": "GroupId"}


class Ec2Api:
    """Answers the calls that the model knows; others are moto's."""

    def __init__(self, machines: Machines, moto: MotoApp) -> None:
        self._machines = machines
        self._moto = moto

    def knows(self, action: str, form: wire.Form) -> bool:
        """Whether a call is ours; tags are where the thing is that they are on."""
        if action in ("CreateTags", "DeleteTags"):
            return any(
                value.startswith(_OURS) for name, value in form.items() if name.startswith("ResourceId.")
            )
        return self._machines.knows(action)

    async def answer(self, form: wire.Form, region: str, request_id: str) -> tuple[int, bytes]:
        """Process one call: HTTP status and XML.

        Raises:
            AnswerLost: nothing is to be answered.
        """
        action = form.get("Action", "")
        if action in _ABOUT_NETWORKS:
            await self._take_over(region)
        try:
            answer = await self._machines.call(action, wire.decode(form), region=region)
        except Ec2Error as error:
            return error.http_status, wire.error_xml(error.code, error.message, request_id)
        return 200, wire.encode(action, answer, request_id)

    def check_unused(self, action: str, form: wire.Form, region: str) -> None:
        """moto knows no instance of ours, and would delete the network under it.

        Raises:
            Ec2Error: one is still there.
        """
        wanted = form.get(_DELETES.get(action, ""))
        for one in self._machines.region(region).tables.instances.values() if wanted else ():
            if one.state is not InstanceState.TERMINATED and wanted in (one.vpc, one.subnet, *one.groups):
                raise Ec2Error("DependencyViolation", f"'{wanted}' has dependencies and cannot be deleted.")

    async def _take_over(self, region: str) -> None:
        model = self._machines.region(region).region
        made = await self._moto.made(model.account, region)
        profiles = set() if made is None else made.profiles
        model.profiles = {place.PROFILE, *profiles}
        if made is None:
            return
        nets = model.networks
        default = {one.id for one in nets.vpcs.values() if one.is_default}
        nets.vpcs = {id_: one for id_, one in nets.vpcs.items() if id_ in default} | made.vpcs
        nets.subnets = {id_: one for id_, one in nets.subnets.items() if one.vpc in default} | made.subnets
        nets.groups = {id_: one for id_, one in nets.groups.items() if one.vpc in default} | made.groups
