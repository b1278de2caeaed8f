"""Where the two halves of the account meet: networks and profiles are moto's, what is launched there is ours."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError

from devboxd.simulator.ec2 import catalogue
from tests.kit.sim import MakeSimulator
from tests.simulator.api.test_endpoint import client
from tests.simulator.client import until

ARM = catalogue.newest("us-east-1", 0, "arm64")
SMALL: dict[str, Any] = {"ImageId": ARM, "InstanceType": "t4g.small", "MinCount": 1, "MaxCount": 1}


async def test_a_box_is_launched_into_a_network_of_its_owner(simulator: MakeSimulator) -> None:
    """What ``init account`` deploys must be what ``launch`` finds, and must not go while a box is in it."""
    sim = await simulator(boxes=[])
    tags = [{"ResourceType": "vpc", "Tags": [{"Key": "Name", "Value": "devbox"}]}]
    async with client(sim, "ec2") as ec2:
        vpc = (await ec2.create_vpc(CidrBlock="10.219.0.0/16", TagSpecifications=tags))["Vpc"]["VpcId"]
        made = await ec2.create_subnet(VpcId=vpc, CidrBlock="10.219.2.0/24", AvailabilityZone="us-east-1b")
        subnet = made["Subnet"]["SubnetId"]
        group = (await ec2.create_security_group(GroupName="box", Description="no way in", VpcId=vpc))[
            "GroupId"
        ]
        await ec2.create_tags(Resources=[subnet, group], Tags=[{"Key": "devbox:owner", "Value": "me"}])
        named = [{"Name": "tag:Name", "Values": ["devbox"]}]
        assert [one["VpcId"] for one in (await ec2.describe_vpcs(Filters=named))["Vpcs"]] == [vpc]
        mine = [{"Name": "tag:devbox:owner", "Values": ["me"]}]
        assert [one["SubnetId"] for one in (await ec2.describe_subnets(Filters=mine))["Subnets"]] == [subnet]
        groups = (await ec2.describe_security_groups(Filters=mine))["SecurityGroups"]
        assert [one["GroupId"] for one in groups] == [group]
        answer = await ec2.run_instances(**SMALL, SubnetId=subnet, SecurityGroupIds=[group])
        box = answer["Instances"][0]
        assert (box["SubnetId"], box["VpcId"], box["Placement"]["AvailabilityZone"]) == (
            subnet,
            vpc,
            "us-east-1b",
        )
        assert box["PrivateIpAddress"].startswith("10.219.2.")
        assert "PublicIpAddress" not in box, "the subnet gives none"
        for delete in (ec2.delete_subnet(SubnetId=subnet), ec2.delete_security_group(GroupId=group)):
            with pytest.raises(ClientError, match="DependencyViolation"):
                await delete
        await ec2.terminate_instances(InstanceIds=[box["InstanceId"]])
        await until(lambda: sim.machines.state(box["InstanceId"]) == "terminated")
        await ec2.delete_subnet(SubnetId=subnet)
        assert not (await ec2.describe_subnets(Filters=mine))["Subnets"]


async def test_an_instance_profile_must_exist(simulator: MakeSimulator) -> None:
    """A mistyped profile is refused at once instead of making a box that nobody can reach."""
    sim = await simulator(boxes=[])
    async with client(sim, "ec2") as ec2, client(sim, "iam") as iam:
        with pytest.raises(ClientError, match="Invalid IAM Instance Profile name"):
            await ec2.run_instances(**SMALL, IamInstanceProfile={"Name": "of-my-own"})
        arn = (await iam.create_instance_profile(InstanceProfileName="of-my-own"))["InstanceProfile"]["Arn"]
        for profile in ({"Name": "of-my-own"}, {"Arn": arn}):
            answer = await ec2.run_instances(**SMALL, IamInstanceProfile=profile)
            assert answer["Instances"][0]["IamInstanceProfile"]["Arn"] == arn
        await iam.delete_instance_profile(InstanceProfileName="of-my-own")


async def test_public_parameters_name_images_and_others_are_motos(simulator: MakeSimulator) -> None:
    sim = await simulator(boxes=[])
    ubuntu = "/aws/service/canonical/ubuntu/server/24.04/stable/current/arm64/hvm/ebs-gp3/ami-id"
    async with client(sim, "ssm") as ssm, client(sim, "ec2") as ec2:
        image = (await ssm.get_parameter(Name=ubuntu))["Parameter"]["Value"]
        shown = (await ec2.describe_images(ImageIds=[image]))["Images"][0]
        assert shown["Name"].startswith("ubuntu/images/hvm-ssd-gp3/ubuntu-noble-24.04-arm64-server-")
        answer = await ssm.get_parameters(Names=[ubuntu, "/aws/service/nothing"])
        assert [one["Name"] for one in answer["Parameters"]] == [ubuntu]
        assert answer["InvalidParameters"] == ["/aws/service/nothing"]
        with pytest.raises(ClientError, match="ParameterNotFound"):
            await ssm.get_parameter(Name="/aws/service/nothing")
        with pytest.raises(ClientError, match="ParameterNotFound"):
            await ssm.get_parameter(Name="/of/my/own")
    async with client(sim, "ssm", region="eu-west-1") as ssm:
        assert (await ssm.get_parameter(Name=ubuntu))["Parameter"]["Value"] != image, (
            "each region has its own"
        )
