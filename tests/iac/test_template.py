"""The account's set-up, read as data: nothing listens, everything is kept, encrypted and least."""

from __future__ import annotations

import ipaddress
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from devboxd.model import tags
from devboxd.model.policy import MANAGED_POLICY_LIMIT, Audience, Place, policy
from devboxd.model.project import Project
from tests.iac.cfn import TEMPLATE, filled, of_type, template

ROOT = TEMPLATE.parents[1]
NAMES = {
    "AWS::Partition": "aws",
    "AWS::Region": "eu-central-1",
    "AWS::AccountId": "123456789012",
    "Prefix": "devbox",
}
PLACE = Place("aws", "eu-central-1", "123456789012", "devbox")
CARRIED = {
    Audience.CONNECT: ("ConnectPolicy", None),
    Audience.USER: ("UserPolicy", None),
    Audience.ADMIN: ("AdminPolicy", None),
    Audience.BOX: ("BoxPolicy", None),
    Audience.DEADMAN: ("DeadmanRole", 0),
    Audience.RECONCILER: ("ReconcilerRole", 0),
}


def test_the_linter_finds_nothing() -> None:
    """A template that CloudFormation refuses half-way leaves half an account."""
    program = Path(sys.executable).with_name("cfn-lint")
    if not program.exists():
        pytest.skip("cfn-lint is not installed: make setup")
    done = subprocess.run([program, TEMPLATE], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_template_can_be_given_whole() -> None:
    """CloudFormation takes 51,200 bytes in the call; beyond that it wants a bucket, which nobody has yet."""
    assert TEMPLATE.stat().st_size < 51_200


def test_the_policies_are_those_of_the_model() -> None:
    """Printed, deployed and compared with the code: one text."""
    done = subprocess.run([sys.executable, ROOT / "tools" / "policies.py", "--check"], cwd=ROOT, check=False)
    assert done.returncode == 0, "run: make policies"


@pytest.mark.parametrize("audience", CARRIED)
def test_a_carried_policy_resolves_to_the_printed_one(audience: Audience) -> None:
    """What a person reads before they agree is what gets deployed."""
    name, index = CARRIED[audience]
    found = template()["Resources"][name]["Properties"]
    carried = found["PolicyDocument"] if index is None else found["Policies"][index]["PolicyDocument"]
    assert filled(carried, NAMES) == policy(audience, PLACE)


@pytest.mark.parametrize("audience", Audience)
def test_a_policy_fits_into_a_managed_policy(audience: Audience) -> None:
    longest = Place("aws-us-gov", "us-gov-west-1", "123456789012", "a" * 21)
    assert len(json.dumps(policy(audience, longest), separators=(",", ":"))) < MANAGED_POLICY_LIMIT


def test_nothing_is_let_in() -> None:
    """The promise before all others: no inbound rule, but from boxes to the endpoints of private subnets."""
    groups = of_type("AWS::EC2::SecurityGroup")
    inbound = {
        name: one["SecurityGroupIngress"] for name, one in groups.items() if "SecurityGroupIngress" in one
    }
    assert list(inbound) == ["EndpointGroup"]
    [rule] = inbound["EndpointGroup"]
    assert rule["SourceSecurityGroupId"] == {"Ref": "BoxGroup"}
    assert (rule["FromPort"], rule["ToPort"]) == (443, 443)
    kinds = {one["Type"] for one in template()["Resources"].values()}
    assert not kinds & {
        "AWS::EC2::SecurityGroupIngress",
        "AWS::IAM::User",
        "AWS::EC2::KeyPair",
        "AWS::IAM::AccessKey",
    }


def test_rows_and_keys_outlive_the_stack() -> None:
    """A stack removed by mistake must not take the only record of every project along."""
    resources = template()["Resources"]
    for name in ("Table", "Key"):
        assert resources[name]["DeletionPolicy"] == resources[name]["UpdateReplacePolicy"] == "Retain"
    table = resources["Table"]["Properties"]
    assert table["DeletionProtectionEnabled"] is True
    assert table["PointInTimeRecoverySpecification"] == {"PointInTimeRecoveryEnabled": True}
    assert [key["AttributeName"] for key in table["KeySchema"]] == ["pk", "sk"]


def test_the_default_subnets_lie_in_the_default_network_and_apart() -> None:
    """An overlap shows only when the second subnet is made."""
    parameters = template()["Parameters"]
    network = ipaddress.ip_network(parameters["VpcCidr"]["Default"])
    nets = [
        ipaddress.ip_network(one)
        for name in ("SubnetCidrs", "PrivateSubnetCidrs")
        for one in parameters[name]["Default"].split(",")
    ]
    assert len(nets) == 12
    assert all(isinstance(one, ipaddress.IPv4Network) for one in nets)
    assert all(one.subnet_of(network) for one in nets)  # type: ignore[arg-type]  # all are IPv4: said above
    assert not any(a.overlaps(b) for i, a in enumerate(nets) for b in nets[:i])


@pytest.mark.parametrize("zones", range(1, 7))
def test_each_zone_count_makes_so_many_subnets(zones: int) -> None:
    """Conditions chained by hand: each must be tried."""
    found = template()

    def holds(condition: Any) -> bool:
        match condition:
            case str() as name:
                return holds(found["Conditions"][name])
            case {"Condition": name}:
                return holds(found["Conditions"][name])
            case {"Fn::Not": [one]}:
                return not holds(one)
            case {"Fn::Or": several}:
                return any(holds(one) for one in several)
            case {"Fn::And": several}:
                return all(holds(one) for one in several)
            case {"Fn::Equals": [{"Ref": "ZoneCount"}, number]}:
                return zones == int(number)
            case {"Fn::Equals": [{"Ref": name}, value]}:
                return bool(str(found["Parameters"][name]["Default"]) == value)
        raise AssertionError(condition)

    made = [
        name
        for name, one in found["Resources"].items()
        if one["Type"] == "AWS::EC2::Subnet" and ("Condition" not in one or holds(one["Condition"]))
    ]
    assert made == [f"Subnet{n}" for n in range(1, zones + 1)]


def test_the_module_hands_every_parameter_on() -> None:
    """Two doors that drift apart are two products."""
    module = (ROOT / "iac" / "terraform" / "main.tf").read_text("utf-8")
    block = module.split("parameters = {", 1)[1].split("}", 1)[0]
    given = [line.split("=")[0].strip() for line in block.strip().splitlines()]
    assert given == list(template()["Parameters"])


def test_the_page_lists_every_parameter_and_output() -> None:
    """Who deploys in the console reads there what to choose."""
    page = (ROOT / "iac" / "README.md").read_text("utf-8")
    found = template()
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \|", page, re.MULTILINE)
    assert [name for name, _ in rows] == [*found["Parameters"], *found["Outputs"]]
    defaults = {name: text.strip("`") for name, text in rows if name in found["Parameters"]}
    assert {name: text for name, text in defaults.items() if text != "-"} == {
        name: str(one["Default"])
        for name, one in found["Parameters"].items()
        if one.get("Default", "") != "" and len(str(one["Default"])) < 40
    }


def test_the_deadman_role_is_for_our_group_of_schedules() -> None:
    """EventBridge Scheduler names the group as the source; with a schedule in its place nobody gets the role."""
    (statement,) = template()["Resources"]["DeadmanRole"]["Properties"]["AssumeRolePolicyDocument"][
        "Statement"
    ]
    source = filled(statement["Condition"]["ArnLike"]["aws:SourceArn"], NAMES)
    assert source == "arn:aws:scheduler:eu-central-1:123456789012:schedule-group/devbox"


def test_the_function_may_not_let_a_box_run() -> None:
    """It acts in everybody's name, so it saves and ends, and never begins."""
    allowed = {one for statement in policy(Audience.RECONCILER)["Statement"] for one in statement["Action"]}
    assert not allowed & {"ec2:RunInstances", "ec2:StartInstances", "iam:PassRole", "ssm:StartSession"}


def test_every_parameter_and_output_says_what_it_is() -> None:
    found = template()
    assert [
        name
        for kind in ("Parameters", "Outputs")
        for name, one in found[kind].items()
        if not one.get("Description")
    ] == []


def test_the_bins_keep_what_boxes_leave_under_every_prefix() -> None:
    """A rule matches a tag to the letter; one that no snapshot carries would let deleted ones go at once."""
    left = tags.of_save(Project("0" * 12, "demo", "me"), 1)
    for rule in of_type("AWS::Rbin::Rule").values():
        assert rule["ResourceTags"]
        for tag in rule["ResourceTags"]:
            assert left[tag["ResourceTagKey"]] == tag["ResourceTagValue"]


def test_everything_that_can_carry_a_tag_carries_ours() -> None:
    """The daemon finds the network, and gc knows its own, by this tag."""
    untaggable = {
        "AWS::EC2::VPCGatewayAttachment", "AWS::EC2::Route", "AWS::EC2::SubnetRouteTableAssociation",
        "AWS::EC2::VPCEndpoint", "AWS::IAM::InstanceProfile", "AWS::IAM::ManagedPolicy", "AWS::IAM::Policy", "AWS::KMS::Alias",
        "AWS::Rbin::Rule", "AWS::Logs::LogGroup", "AWS::SQS::Queue", "AWS::Events::Rule", "AWS::Lambda::Permission",
        "AWS::Lambda::EventInvokeConfig", "AWS::CloudWatch::Alarm",
    }  # fmt: skip
    for name, one in template()["Resources"].items():
        if one["Type"] not in untaggable:
            tags = [tag["Key"] for tag in one["Properties"]["Tags"]]
            assert "devbox:managed" in tags, name
