"""What the code calls is allowed to whom it is for, on what is theirs and on nothing else; and nothing more is."""

from __future__ import annotations

import ast
import asyncio
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
from botocore.session import Session

from devboxd.aws.errors import action
from devboxd.model.policy import Audience, Place, policy
from devboxd.model.project import Phase
from devboxd.model.tags import REBASE
from tests.control.fakes import LoopClock
from tests.lifecycle.kit import OWNER, Bench, Ran, bench, start, stop
from tests.lifecycle.test_rebase_verb import COPYING, DONE, SCRIPT, is_done
from tests.lifecycle.test_rounds import elsewhere, run

AWS = Path(__file__).parents[2] / "devboxd" / "aws"
PLACE = Place("aws", "us-east-1", "123456789012", "devbox")
# Asked without credentials, or as whoever they belong to, which needs no permission.
FREE = {
    "sso-oauth:CreateToken",
    "sso-oauth:RegisterClient",
    "sso-oauth:StartDeviceAuthorization",
    "sts:GetCallerIdentity",
}
PARTS = {"dynamodb:TransactWriteItems": {"dynamodb:PutItem", "dynamodb:DeleteItem"}}
FOREIGN = {"dynamodb:Scan"}  # the table of another tool, whose policy is not ours to give
# Of init account and init user --create-profile, which an administrator runs.
SETTING_UP = ("cloudformation:", "iam:", "ec2:DescribeAvailabilityZones")
# Permissions that no call of ours is named after.
BEHIND = {
    "iam:PassRole": "RunInstances hands the box its role, CreateSchedule the dead-man's",
    "kms:CreateGrant": "EC2 calls KMS in our name for encrypted disks",
    "kms:Decrypt": "the same",
    "kms:DescribeKey": "the same",
    "kms:GenerateDataKeyWithoutPlaintext": "the same",
    "kms:ReEncrypt*": "the same",
    "ssmmessages:OpenDataChannel": "the websocket of a session is signed for it",
}
# Granted before it is asked for: a look at a schedule.
IDLE_AND_MONEY = {"scheduler:GetSchedule"}


def called() -> set[str]:
    """Every action that the code of ``devboxd.aws`` can ask for, read from its text."""
    service = Session().get_service_model("ec2")
    methods = {
        "".join(f"_{c.lower()}" if c.isupper() else c for c in name)[1:] for name in service.operation_names
    }
    found = set()
    for path in AWS.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            match node:
                case ast.Call(
                    func=ast.Attribute(attr="call" | "pages"),
                    args=[ast.Constant(value=str(service_name)), ast.Constant(value=str(operation)), *_],
                ):
                    found.add(action(service_name, operation))
                case ast.Tuple(elts=[ast.Constant(value=str(operation)), _]) if operation in methods:
                    found.add(action("ec2", operation))
                case ast.Call(args=[_, ast.Constant(value=str(operation)), *_]) if operation in methods:
                    found.add(action("ec2", operation))
    parts = {part for one in found & set(PARTS) for part in PARTS[one]}
    return (found - set(PARTS) - FREE - FOREIGN) | parts


def allowed(*audiences: Audience) -> set[str]:
    """The actions of these policies."""
    return {
        one
        for audience in audiences
        for statement in policy(audience, PLACE)["Statement"]
        for one in statement["Action"]
    }


def test_a_person_may_do_all_that_the_code_does_for_them() -> None:
    """Else they hunt for permissions one by one."""
    own = {one for one in called() if not one.startswith(SETTING_UP)}
    patterns = allowed(Audience.CONNECT, Audience.USER, Audience.BILL)
    assert sorted(one for one in own if not any(fnmatchcase(one, p) for p in patterns)) == []


def test_who_sets_an_account_up_may_do_all_that_it_takes() -> None:
    patterns = allowed(Audience.ADMIN)
    needed = {one for one in called() if one.startswith(SETTING_UP)}
    assert sorted(one for one in needed if not any(fnmatchcase(one, p) for p in patterns)) == []


@pytest.mark.parametrize(
    "audiences", [(Audience.CONNECT, Audience.USER), (Audience.BILL,), (Audience.RECONCILER,)]
)
def test_nothing_is_allowed_that_is_never_asked_for(audiences: tuple[Audience, ...]) -> None:
    """A permission that nobody uses is one that somebody else will."""
    assert sorted(allowed(*audiences) - called() - set(BEHIND) - IDLE_AND_MONEY) == []


def test_the_block_of_idling_and_money_is_in_our_group_and_passes_one_role() -> None:
    found = {statement["Sid"]: statement for statement in policy(Audience.USER, PLACE)["Statement"]}
    assert found["StopSchedules"]["Resource"] == "arn:aws:scheduler:us-east-1:123456789012:schedule/devbox/*"
    assert found["PassTheDeadmanRole"]["Resource"].endswith("role/devbox-us-east-1-deadman")
    assert found["PassTheDeadmanRole"]["Condition"] == {
        "StringEquals": {"iam:PassedToService": "scheduler.amazonaws.com"}
    }


# Conditions: a small IAM, over the requests that the code really makes ---------------------------------------


def holds(condition: Mapping[str, Any], context: Mapping[str, Any]) -> bool:
    """Say whether all operators of a condition hold. Raises KeyError for one that nobody has taught it."""

    def one(operator: str, key: str, wanted: Any) -> bool:
        values = wanted if isinstance(wanted, list) else [wanted]
        values = [value.replace("${aws:userid}", OWNER) for value in values]
        found = context.get(key)
        if operator == "Null":
            return (found is None) == (values == ["true"])
        if operator == "ForAllValues:StringEquals":
            return all(each in values for each in found or ())
        patterns = {"StringEquals", "Bool", "StringLike", "ArnEquals"}
        assert operator in patterns, operator
        return found is not None and any(fnmatchcase(str(found), value) for value in values)

    return all(
        one(operator, key, value) for operator, keys in condition.items() for key, value in keys.items()
    )


def permits(audiences: tuple[Audience, ...], name: str, arn: str, context: Mapping[str, Any]) -> bool:
    """Say whether a statement of these policies allows an action on one resource."""
    return any(
        any(fnmatchcase(name, one) for one in statement["Action"])
        and any(fnmatchcase(arn, one) for one in _listed(statement["Resource"]))
        and holds(statement.get("Condition", {}), context)
        for audience in audiences
        for statement in policy(audience, PLACE)["Statement"]
    )


def _listed(value: Any) -> list[str]:
    return value if isinstance(value, list) else [value]


def arn(kind: str, name: str) -> str:
    account = "" if kind in ("image", "snapshot") else PLACE.account
    return f"arn:aws:ec2:us-east-1:{account}:{kind}/{name}"


KINDS = {
    "i": "instance",
    "vol": "volume",
    "snap": "snapshot",
    "ami": "image",
    "sir": "spot-instances-request",
    "eni": "network-interface",
}


def checks(
    one: Bench, operation: str, params: Mapping[str, Any]
) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """What IAM asks of a request: action, resource, context. By the service authorization reference."""
    name, tables = f"ec2:{operation}", one.model.tables
    known: dict[str, Any] = {**tables.instances, **tables.volumes, **tables.snapshots, **tables.images}

    def existing(id_: str) -> tuple[str, dict[str, Any]]:
        tags = known[id_].tags if id_ in known else {}
        return arn(KINDS[id_.split("-")[0]], id_), {
            f"aws:ResourceTag/{key}": value for key, value in tags.items()
        }

    new = {
        spec["ResourceType"]: {f"aws:RequestTag/{tag['Key']}": tag["Value"] for tag in spec["Tags"]}
        for spec in params.get("TagSpecifications", ())
    }
    if operation == "RunInstances":
        more = {
            "instance": {
                "ec2:MetadataHttpTokens": params["MetadataOptions"]["HttpTokens"],
                "ec2:InstanceProfile": f"arn:aws:iam::{PLACE.account}:instance-profile/{params['IamInstanceProfile']['Name']}",
            },
            "volume": {"ec2:Encrypted": str(params["BlockDeviceMappings"][0]["Ebs"]["Encrypted"]).lower()},
        }
        for kind in ("instance", "volume", "network-interface"):
            yield name, arn(kind, "*"), {**new[kind], **more.get(kind, {})}
        yield name, arn("image", params["ImageId"]), {}
    elif operation == "CreateTags":
        for id_ in params["Resources"]:
            where, context = existing(id_)
            yield name, where, {**context, "aws:TagKeys": [tag["Key"] for tag in params["Tags"]]}
    else:
        ids = [params[key] for key in ("InstanceId", "VolumeId", "SnapshotId", "ImageId") if key in params]
        ids += params.get("InstanceIds", [])
        ids += [
            m["Ebs"]["SnapshotId"]
            for m in params.get("BlockDeviceMappings", ())
            if "SnapshotId" in m.get("Ebs", {})
        ]
        for id_ in ids:
            where, context = existing(id_)
            yield name, where, context
        is_secret = {"ec2:Encrypted": str(params.get("Encrypted")).lower()} if "Encrypted" in params else {}
        for kind, tags in new.items():
            yield name, arn(kind, "*"), {**tags, **is_secret}
    for kind, tags in new.items():
        yield "ec2:CreateTags", arn(kind, "*"), {**tags, "ec2:CreateAction": operation}


def recorded(one: Bench) -> list[tuple[str, str, dict[str, Any]]]:
    """All that IAM is asked from now on."""
    found: list[tuple[str, str, dict[str, Any]]] = []
    real = one.account.model.call

    def call(name: str, params: Mapping[str, Any], **more: Any) -> Any:
        if not name.startswith("Describe") and more.get("caller") != "console":
            found.extend(checks(one, name, params))
        return real(name, params, **more)

    one.account.model.call = call  # type: ignore[method-assign, assignment]
    return found


PROFILE = f"devbox-{PLACE.region}-box"


@pytest.mark.looptime
async def test_a_whole_life_of_a_box_is_within_its_owners_policy() -> None:
    """Each request as it is made: resource by resource, with the tags that it carries and meets."""
    one = await start(bench())
    asked = recorded(one)
    await one.launched(profile=PROFILE)
    await one.projects.stop("api")
    await one.until("api", Phase.WARM)
    await one.projects.up("api")
    row = (await one.until("api", Phase.RUNNING)).project
    await one.projects.reboot("api")
    now = LoopClock().wall()
    off = {"InstanceId": row.instance, "DisableApiTermination": {"Value": False}}
    one.model.call("ModifyInstanceAttribute", off, now=now, caller="console")
    one.model.call("TerminateInstances", {"InstanceIds": [row.instance]}, now=now, caller="console")
    one.fleet.wake(row.uid)
    await one.until("api", lambda project: project.phase is Phase.READY)
    await one.projects.up("api")
    await one.until("api", Phase.RUNNING)
    await one.projects.terminate("api")
    await one.until("api", Phase.READY)
    await one.projects.delete("api")
    await asyncio.sleep(7200)
    await stop(one)
    both = (Audience.CONNECT, Audience.USER)
    assert [
        (name, where, context) for name, where, context in asked if not permits(both, name, where, context)
    ] == []
    done = {name for name, _, _ in asked}
    assert done >= {
        "ec2:RunInstances", "ec2:StopInstances", "ec2:StartInstances", "ec2:TerminateInstances", "ec2:CreateImage",
        "ec2:CreateSnapshot", "ec2:RegisterImage", "ec2:ModifyInstanceAttribute", "ec2:RebootInstances", "ec2:CreateTags",
        "ec2:DeleteVolume", "ec2:DeleteSnapshot", "ec2:DeregisterImage",
    }  # fmt: skip
    # The same requests, were it somebody else's: nothing of it is allowed but what has no owner yet.
    for name, where, context in asked:
        theirs = {
            key: "somebody" if key.endswith("/devbox:owner") else value for key, value in context.items()
        }
        if theirs != context:
            is_loose = name == "ec2:RunInstances" and ":network-interface/" in where
            assert is_loose or not permits(both, name, where, theirs), (name, where)
    # Nothing is deleted that was not marked in an earlier call.
    for name, where, context in asked:
        if name in ("ec2:DeleteVolume", "ec2:DeleteSnapshot", "ec2:DeregisterImage"):
            unmarked = {key: value for key, value in context.items() if not key.endswith("/devbox:gc")}
            assert not permits(both, name, where, unmarked)


@pytest.mark.looptime
async def test_a_rebase_is_within_its_owners_policy() -> None:
    """A copy of an old root of one's own, encrypted, on a box of one's own."""
    one = await start(bench())
    one.runner.answers[SCRIPT] = Ran(0, DONE)
    await one.launched(profile=PROFILE)
    asked = recorded(one)
    await one.projects.rebases.rebase("api", "debian-13")
    await one.until("api", is_done)
    await asyncio.sleep(600)
    await stop(one)
    both = (Audience.CONNECT, Audience.USER)
    assert [row for row in asked if not permits(both, *row)] == []
    new = {"ec2:CreateVolume", "ec2:AttachVolume", "ec2:DetachVolume"}
    assert {name for name, _, _ in asked} >= new
    for name, where, context in asked:
        if name not in new:
            continue
        theirs = {
            key: "somebody" if key.endswith("/devbox:owner") else value for key, value in context.items()
        }
        assert not permits(both, name, where, theirs)
        plain = {key: value for key, value in context.items() if not key.endswith("Encrypted")}
        assert plain == context or not permits(both, name, where, plain), (name, where)


async def saved_by_the_function(one: Bench) -> tuple[Bench, list[tuple[str, str, dict[str, Any]]]]:
    """The daemon is gone, and the box is to go: the function starts as often as that takes, and asks this of AWS."""
    await stop(one)
    fresh = bench(one.store, model=one.model)
    asked = recorded(fresh)
    await fresh.projects.terminate("api")
    for _ in range(4):
        fleets, lines = elsewhere(fresh, limited=True)
        await run(fresh, fleets, lines)
        await asyncio.sleep(400)
    return fresh, asked


@pytest.mark.looptime
async def test_the_function_takes_an_old_root_off_before_it_saves() -> None:
    """A daemon died in the middle of a rebase, and the box is to go."""
    one = await start(bench())
    one.runner.answers[SCRIPT] = Ran(0, COPYING)
    await one.launched(profile=PROFILE)
    await one.projects.rebases.rebase("api", "debian-13")
    await one.until("api", lambda row: row.is_moving and row.phase is Phase.RUNNING)
    while not any(v.attachment for v in one.model.tables.volumes.values() if REBASE in v.tags):
        await one.fleet.changed(5.0)
    fresh, asked = await saved_by_the_function(one)
    assert (await fresh.projects.get("api")).project.phase is Phase.READY
    assert not [v for v in one.model.tables.volumes.values() if REBASE in v.tags]
    assert "ec2:DetachVolume" in {name for name, _, _ in asked}
    assert [row for row in asked if not permits((Audience.RECONCILER,), *row)] == []


@pytest.mark.looptime
async def test_what_the_function_does_is_within_its_role() -> None:
    """A save and a release, from the first call to the last."""
    one = await start(bench())
    await one.launched(profile=PROFILE)
    _, asked = await saved_by_the_function(one)
    role = (Audience.RECONCILER,)
    assert {name for name, _, _ in asked} >= {
        "ec2:StopInstances",
        "ec2:CreateImage",
        "ec2:TerminateInstances",
        "ec2:DeleteVolume",
    }
    assert [
        (name, where, context) for name, where, context in asked if not permits(role, name, where, context)
    ] == []
    foreign = {"aws:ResourceTag/Name": "somebody else's server"}
    for name in ("ec2:StopInstances", "ec2:TerminateInstances", "ec2:CreateImage"):
        assert not permits(role, name, arn("instance", "i-1"), foreign)
    assert not permits(
        role,
        "ec2:DeleteVolume",
        arn("volume", "vol-1"),
        {**foreign, "aws:ResourceTag/devbox:managed": "devbox"},
    )


def test_what_aws_has_billed_is_in_a_policy_of_its_own() -> None:
    """It shows what a whole account costs, and each call costs: nobody gets it by the way."""
    assert allowed(Audience.BILL) == {"ce:GetCostAndUsage"}
    others = [one for one in Audience if one is not Audience.BILL]
    assert not any(action.startswith("ce:") for one in others for action in allowed(one))
