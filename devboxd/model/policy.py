"""The IAM policies that devbox asks for: least privilege, each statement with the reason it is there.

They stand here once. ``iac/devbox.yaml`` carries them as managed policies (``tools/policies.py`` writes that part
and a test compares), ``devboxctl iam policy`` prints them, and a test compares them with the calls that the code
makes. What can be scoped, and by which condition: service authorization reference, as summed up in docs/iam.md.

The owner of a box is the ``aws:userid`` of who launched it: IAM knows it for every kind of identity (user, role
session, Identity Center), it cannot be chosen by its bearer, and it is the same in every session of the same person.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final

import msgspec

from devboxd.model.stack import PREFIX

MANAGED_POLICY_LIMIT: Final = 6144  # characters without white space (IAM quotas)
OWNER: Final = "${aws:userid}"  # an IAM policy variable, filled in by AWS at each call

Statement = dict[str, Any]
Policy = dict[str, Any]


class Audience(StrEnum):
    """Who a policy is for."""

    CONNECT = "connect"  # a person who connects to boxes that devbox launched for them
    USER = "user"  # a person who launches, saves and deletes boxes of their own; needs CONNECT beside it
    ADMIN = "admin"  # who sets the account up, once
    BOX = "box"  # the instance role
    BILL = "bill"  # somebody who may see what AWS has billed, beside what devbox counts
    DEADMAN = "deadman"  # EventBridge Scheduler, to stop a box that nobody watches
    RECONCILER = "reconciler"  # the always-on reconciler, for every owner


class Place(msgspec.Struct, frozen=True):
    """Where a policy is meant to hold. ``*`` in region or account: everywhere."""

    partition: str = "aws"
    region: str = "*"
    account: str = "*"
    prefix: str = PREFIX


def policy(audience: Audience, place: Place | None = None) -> Policy:
    """The policy for ``audience``, as IAM takes it."""
    place = place or Place()
    statements = _AUDIENCES[audience](place)
    return {"Version": "2012-10-17", "Statement": statements}


def _arn(place: Place, service: str, resource: str, *, account: str | None = None) -> str:
    owner = place.account if account is None else account
    return f"arn:{place.partition}:{service}:{place.region}:{owner}:{resource}"


def _ec2(place: Place, *kinds: str) -> list[str]:
    """All EC2 resources of these kinds. Images and snapshots carry no account in their ARN."""
    return [
        _arn(place, "ec2", f"{kind}/*", account="" if kind in ("image", "snapshot") else None)
        for kind in kinds
    ]


def _allow(
    sid: str, actions: list[str], resources: Any, condition: Mapping[str, Any] | None = None
) -> Statement:
    statement: Statement = {"Sid": sid, "Effect": "Allow", "Action": actions, "Resource": resources}
    if condition:
        statement["Condition"] = dict(condition)
    return statement


_MINE: Final = {"StringEquals": {"aws:ResourceTag/devbox:owner": OWNER}}
_FOR_ME: Final = {"StringEquals": {"aws:RequestTag/devbox:owner": OWNER}}
_MANAGED: Final = {"Null": {"aws:ResourceTag/devbox:managed": "false"}}

_LOOK: Final = [
    "ec2:DescribeInstances",
    "ssm:DescribeInstanceInformation",
    "ssm:DescribeSessions",
    "ssm:GetConnectionStatus",
]
# What a project consists of. The describes of EC2 know no resource to bound them by.
_LOOK_AT_PROJECTS: Final = [
    "ec2:DescribeImages",
    "ec2:DescribeInstances",
    "ec2:DescribeSnapshots",
    "ec2:DescribeVolumes",
]
_LOOK_FOR_PLACES: Final = [
    "ec2:DescribeInstanceTypeOfferings",
    "ec2:DescribeInstanceTypes",
    "ec2:DescribeSecurityGroups",
    "ec2:DescribeSubnets",
]
# A transaction needs the permissions of what is in it: rows are put and deleted, each under a condition of its own.
_ROWS: Final = ["dynamodb:DeleteItem", "dynamodb:PutItem", "dynamodb:Query"]


def _connect(place: Place) -> list[Statement]:
    """Sessions to one's own boxes, and nothing of anybody else's sessions."""
    documents = [
        "AWS-StartInteractiveCommand",
        "AWS-StartNonInteractiveCommand",
        "AWS-StartPortForwardingSession",
        "AWS-StartPortForwardingSessionToRemoteHost",
        "AWS-StartSSHSession",
    ]
    return [
        _allow("Look", _LOOK, "*"),
        _allow(
            "SessionsToMyBoxes",
            ["ssm:StartSession"],
            _ec2(place, "instance"),
            {"StringEquals": {"ssm:resourceTag/devbox:owner": OWNER}},
        ),
        _allow(
            "SessionDocuments",
            ["ssm:StartSession"],
            [
                _arn(place, "ssm", "document/SSM-SessionManagerRunShell"),
                _arn(place, "ssm", f"document/{place.prefix}-session"),
                *(_arn(place, "ssm", f"document/{name}", account="") for name in documents),
            ],
        ),
        _allow(
            "MySessions",
            ["ssm:ResumeSession", "ssm:TerminateSession", "ssmmessages:OpenDataChannel"],
            _arn(place, "ssm", f"session/{OWNER}-*"),
        ),
        _allow("SshKeyForAMinute", ["ec2-instance-connect:SendSSHPublicKey"], _ec2(place, "instance"), _MINE),
        _allow(
            "EncryptedSessions",
            ["kms:GenerateDataKey"],
            _arn(place, "kms", "key/*"),
            {"StringLike": {"kms:EncryptionContext:aws:ssm:SessionId": "*"}},
        ),
    ]


def _launch(place: Place) -> list[Statement]:
    """A box of one's own: tagged, encrypted and with IMDSv2 in the creating call, or not at all."""
    return [
        _allow(
            "LaunchTagged",
            ["ec2:RunInstances"],
            _ec2(place, "instance"),
            {
                "StringEquals": {"aws:RequestTag/devbox:owner": OWNER, "ec2:MetadataHttpTokens": "required"},
                "ArnEquals": {"ec2:InstanceProfile": _iam(place, "instance-profile", "box")},
            },
        ),
        _allow(
            "LaunchEncrypted",  # and a copy of an old root
            ["ec2:CreateVolume", "ec2:RunInstances"],
            _ec2(place, "volume"),
            {"StringEquals": {"aws:RequestTag/devbox:owner": OWNER}, "Bool": {"ec2:Encrypted": "true"}},
        ),
        _allow(
            "LaunchInto",
            ["ec2:RunInstances"],
            _ec2(
                place,
                "image",
                "snapshot",
                "network-interface",
                "security-group",
                "spot-instances-request",
                "subnet",
            ),
        ),
        _allow(
            "PassTheBoxRole",
            ["iam:PassRole"],
            _iam(place, "role", "box"),
            {"StringEquals": {"iam:PassedToService": f"ec2.{_suffix(place)}"}},
        ),
    ]


def _live(place: Place) -> list[Statement]:
    """What may be done with what one owns. Deleting takes two calls: the mark, and on a later pass the deed."""
    made = [
        "CreateImage",
        "CreateSnapshot",
        "CreateSnapshots",
        "CreateVolume",
        "RegisterImage",
        "RunInstances",
    ]
    kinds = ("image", "instance", "network-interface", "snapshot", "spot-instances-request", "volume")
    return [
        _allow(
            "TagWhatICreate",
            ["ec2:CreateTags"],
            _ec2(place, *kinds),
            {"StringEquals": {"ec2:CreateAction": made, "aws:RequestTag/devbox:owner": OWNER}},
        ),
        _allow(
            "MarkWhatIsMine",
            ["ec2:CreateTags"],
            _ec2(place, *kinds),
            {**_MINE, "ForAllValues:StringEquals": {"aws:TagKeys": ["devbox:gc", "devbox:gen", "Name"]}},
        ),
        _allow(
            "ActOnMine",  # each on the kind of resource that it is for
            [
                "ec2:AttachVolume",
                "ec2:CancelSpotInstanceRequests",
                "ec2:CreateImage",
                "ec2:CreateSnapshot",
                "ec2:DetachVolume",
                "ec2:ModifyInstanceAttribute",
                "ec2:ModifyVolume",
                "ec2:RebootInstances",
                "ec2:StartInstances",
                "ec2:StopInstances",
                "ec2:TerminateInstances",
            ],
            _ec2(place, "instance", "spot-instances-request", "volume"),
            _MINE,
        ),
        _allow(
            "SavedAsMine",
            ["ec2:CreateImage", "ec2:CreateSnapshot"],
            _ec2(place, "image", "snapshot"),
            _FOR_ME,
        ),
        _allow("RescuedAsMine", ["ec2:RegisterImage"], _ec2(place, "image"), _FOR_ME),
        _allow("RescuedFromMine", ["ec2:CreateVolume", "ec2:RegisterImage"], _ec2(place, "snapshot"), _MINE),
        _allow(
            "DeleteWhatIsMarked",
            ["ec2:DeleteSnapshot", "ec2:DeleteVolume", "ec2:DeregisterImage"],
            _ec2(place, "image", "snapshot", "volume"),
            {**_MINE, "Null": {"aws:ResourceTag/devbox:gc": "false"}},
        ),
    ]


def _state(place: Place) -> list[Statement]:
    """The rows of one's own projects, and the schedule that stops a box which nobody watches."""
    return [
        _allow(
            "MyRows",
            _ROWS,
            _arn(place, "dynamodb", f"table/{place.prefix}"),
            {"ForAllValues:StringLike": {"dynamodb:LeadingKeys": [f"O#{OWNER}", f"O#{OWNER}#*"]}},
        ),
        _allow(
            "StopSchedules",
            [
                "scheduler:CreateSchedule",
                "scheduler:DeleteSchedule",
                "scheduler:GetSchedule",
                "scheduler:UpdateSchedule",
            ],
            _arn(place, "scheduler", f"schedule/{place.prefix}/*"),
        ),
        _allow(
            "PassTheDeadmanRole",
            ["iam:PassRole"],
            _iam(place, "role", "deadman"),
            {"StringEquals": {"iam:PassedToService": "scheduler.amazonaws.com"}},
        ),
        _allow(
            "BaseImagesByName",
            ["ssm:GetParameter"],
            [_arn(place, "ssm", "parameter/aws/service/*", account="")],
        ),
    ]


def _user(place: Place) -> list[Statement]:
    return [
        _allow("LookAtProjects", [*_LOOK_AT_PROJECTS, *_LOOK_FOR_PLACES], "*"),
        _allow("Prices", ["ec2:DescribeSpotPriceHistory", "pricing:GetProducts"], "*"),
        _allow("Tell", ["sns:Publish"], _arn(place, "sns", f"{place.prefix}*")),
        *_launch(place),
        *_live(place),
        *_state(place),
        _allow(
            "DiskKeys",
            [
                "kms:CreateGrant",
                "kms:Decrypt",
                "kms:DescribeKey",
                "kms:GenerateDataKeyWithoutPlaintext",
                "kms:ReEncrypt*",
            ],
            _arn(place, "kms", "key/*"),
            {"StringLike": {"kms:ViaService": f"ec2.*.{_suffix(place)}"}},
        ),
    ]


def _box(place: Place) -> list[Statement]:
    """What the agent needs for sessions, and nothing else: ``AmazonSSMManagedInstanceCore`` reads all parameters."""
    return [
        _allow(
            "Sessions",
            [
                "ssm:UpdateInstanceInformation",
                "ssmmessages:CreateControlChannel",
                "ssmmessages:CreateDataChannel",
                "ssmmessages:OpenControlChannel",
                "ssmmessages:OpenDataChannel",
            ],
            "*",
        )
    ]


def _bill(place: Place) -> list[Statement]:
    """Apart from the others: it shows what the whole account costs (the API knows no resource), and each call costs."""
    return [_allow("WhatAwsHasBilled", ["ce:GetCostAndUsage"], "*")]


def _deadman(place: Place) -> list[Statement]:
    return [_allow("StopWhatNobodyWatches", ["ec2:StopInstances"], _ec2(place, "instance"), _MANAGED)]


def _reconciler(place: Place) -> list[Statement]:
    """The always-on reconciler saves, releases and sweeps for every owner; it launches nothing and opens no session."""
    marked = {"Null": {"aws:ResourceTag/devbox:managed": "false", "aws:ResourceTag/devbox:gc": "false"}}
    return [
        _allow("Look", _LOOK_AT_PROJECTS, "*"),
        _allow(
            "SaveBoxes",
            [
                "ec2:CancelSpotInstanceRequests",
                "ec2:CreateImage",
                "ec2:CreateSnapshot",
                "ec2:CreateTags",
                "ec2:DetachVolume",
                "ec2:ModifyInstanceAttribute",
                "ec2:RegisterImage",
                "ec2:StopInstances",
                "ec2:TerminateInstances",
            ],
            _ec2(place, "instance", "volume", "image", "snapshot", "spot-instances-request"),
            _MANAGED,
        ),
        _allow(
            "SavedAs",
            ["ec2:CreateImage", "ec2:CreateSnapshot", "ec2:RegisterImage"],
            _ec2(place, "image", "snapshot"),
        ),
        _allow(
            "TagWhatItSaves",
            ["ec2:CreateTags"],
            _ec2(place, "image", "snapshot"),
            {"StringEquals": {"ec2:CreateAction": ["CreateImage", "CreateSnapshot", "RegisterImage"]}},
        ),
        _allow(
            "DeleteWhatIsMarked",
            ["ec2:DeleteSnapshot", "ec2:DeleteVolume", "ec2:DeregisterImage"],
            _ec2(place, "image", "snapshot", "volume"),
            marked,
        ),
        _allow(
            "AllRows",
            _ROWS,
            [
                _arn(place, "dynamodb", f"table/{place.prefix}"),
                _arn(place, "dynamodb", f"table/{place.prefix}/index/projects"),
            ],
        ),
    ]


def _admin(place: Place) -> list[Statement]:
    """What ``devboxctl init account`` calls, and what CloudFormation then calls in its name."""
    named = [
        f"arn:{place.partition}:iam::{place.account}:{kind}/{place.prefix}-*"
        for kind in ("role", "instance-profile", "policy")
    ]
    everywhere = [
        "cloudformation:DescribeStackEvents",
        "cloudformation:DescribeStacks",
        "cloudformation:GetTemplateSummary",
        "cloudformation:ValidateTemplate",
        "ec2:AssociateRouteTable",
        "ec2:AttachInternetGateway",
        "ec2:AuthorizeSecurityGroup*",
        "ec2:CreateInternetGateway",
        "ec2:CreateRoute*",
        "ec2:CreateSecurityGroup",
        "ec2:CreateSubnet",
        "ec2:CreateTags",
        "ec2:CreateVpc",
        "ec2:CreateVpcEndpoint",
        "ec2:DeleteInternetGateway",
        "ec2:DeleteRoute*",
        "ec2:DeleteSecurityGroup",
        "ec2:DeleteSubnet",
        "ec2:DeleteTags",
        "ec2:DeleteVpc",
        "ec2:DeleteVpcEndpoints",
        "ec2:Describe*",
        "ec2:DetachInternetGateway",
        "ec2:DisassociateRouteTable",
        "ec2:ModifySubnetAttribute",
        "ec2:ModifyVpcAttribute",
        "ec2:ModifyVpcEndpoint",
        "ec2:RevokeSecurityGroup*",
        "kms:CreateKey",
        "logs:DescribeLogGroups",
        "rbin:*",
        "sts:GetCallerIdentity",
    ]
    key = _arn(place, "kms", "key/*")
    managed = {"Null": {"aws:ResourceTag/devbox:managed": "false"}}
    return [
        _allow("SetUp", everywhere, "*"),
        _allow(
            "Stack",
            [
                "cloudformation:CreateChangeSet",
                "cloudformation:CreateStack",
                "cloudformation:DeleteChangeSet",
                "cloudformation:DeleteStack",
                "cloudformation:DescribeChangeSet",
                "cloudformation:ExecuteChangeSet",
                "cloudformation:UpdateStack",
                "cloudformation:UpdateTerminationProtection",
            ],
            _arn(place, "cloudformation", f"stack/{place.prefix}/*"),
        ),
        _allow("RolesAndPolicies", ["iam:*InstanceProfile*", "iam:*Polic*", "iam:*Role*"], named),
        _allow("TagKey", ["kms:TagResource"], key, {"Null": {"aws:RequestTag/devbox:managed": "false"}}),
        _allow(
            "Key",
            [
                "kms:*Alias",
                "kms:DescribeKey",
                "kms:EnableKeyRotation",
                "kms:Get*",
                "kms:ListResourceTags",
                "kms:PutKeyPolicy",
                "kms:UpdateKeyDescription",
            ],
            key,
            managed,
        ),
        _allow("KeyName", ["kms:*Alias"], _arn(place, "kms", f"alias/{place.prefix}")),
        _allow("Table", ["dynamodb:*"], _arn(place, "dynamodb", f"table/{place.prefix}")),
        _allow(
            "SessionDocument",
            ["ssm:*Document*", "ssm:*TagsToResource"],
            _arn(place, "ssm", f"document/{place.prefix}-*"),
        ),
        _allow("Schedules", ["scheduler:*"], _arn(place, "scheduler", f"schedule-group/{place.prefix}")),
        _allow(
            "AlwaysOn",
            ["cloudwatch:*Alarm*", "cloudwatch:*Resource", "events:*", "lambda:*", "logs:*", "sqs:*"],
            [
                _arn(place, "cloudwatch", f"alarm:{place.prefix}-*"),
                _arn(place, "events", f"rule/{place.prefix}-*"),
                _arn(place, "lambda", f"function:{place.prefix}-*"),
                _arn(place, "logs", f"log-group:/aws/lambda/{place.prefix}-*"),
                _arn(place, "sqs", f"{place.prefix}-*"),
            ],
        ),
        _allow("ItsCode", ["s3:GetObject"], f"arn:{place.partition}:s3:::*/{place.prefix}-reconciler-*"),
    ]


def _iam(place: Place, kind: str, name: str) -> str:
    """Roles are global to an account, and a template is deployed by region: so the region is in their names."""
    return f"arn:{place.partition}:iam::{place.account}:{kind}/{place.prefix}-{place.region}-{name}"


def _suffix(place: Place) -> str:
    return "amazonaws.com.cn" if place.partition == "aws-cn" else "amazonaws.com"


_AUDIENCES: Final = {
    Audience.CONNECT: _connect,
    Audience.USER: _user,
    Audience.ADMIN: _admin,
    Audience.BOX: _box,
    Audience.BILL: _bill,
    Audience.DEADMAN: _deadman,
    Audience.RECONCILER: _reconciler,
}
