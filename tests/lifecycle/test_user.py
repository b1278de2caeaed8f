"""``init user``: what is found, what is made, and what is written, over the EC2 model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from devboxd.control.lifecycle.user import Asked, UserSetUp
from devboxd.errors import BadRequest, Denied, DevboxError, LoginNeeded
from devboxd.model.box import Account
from devboxd.model.config import Config, Defaults, ProjectSettings, StoreSettings
from devboxd.model.identity import Identity
from devboxd.model.ledger import StoreFailed
from devboxd.model.login import Method, Source
from devboxd.model.states import StoreEngine
from tests.lifecycle.kit import Bench, FakeComputes, with_daemon

pytestmark = pytest.mark.looptime

ME = Identity(
    profile="default",
    region="us-east-1",
    number="123456789012",
    arn="arn:aws:sts::123456789012:assumed-role/dev/ann",
    source=Source(Method.NONE, "default", None),
    user_id="AROAEXAMPLE:ann",
)


@dataclass
class Aws:
    """What the account has, and what it refuses."""

    profiles: dict[str, list[str]] = field(default_factory=dict)
    made: list[tuple[str, Mapping[str, Any]]] = field(default_factory=list)
    rehearsed: list[Mapping[str, Any]] = field(default_factory=list)
    refuses: list[DevboxError] = field(default_factory=list)  # rehearsals, one after the other
    no_look: DevboxError | None = None
    no_identity: DevboxError | None = None
    no_table: DevboxError | None = None
    written: list[Mapping[str, Mapping[str, Any]]] = field(default_factory=list)

    async def rehearse(self, request: Mapping[str, Any]) -> None:
        self.rehearsed.append(request)
        if self.refuses:
            raise self.refuses.pop(0)

    async def roles_of(self, profile: str) -> list[str] | None:
        if self.no_look is not None:
            raise self.no_look
        return self.profiles.get(profile)

    async def make_profile(self, name: str, policy: Mapping[str, Any]) -> None:
        self.made.append((name, policy))
        self.profiles[name] = [name]

    async def identity(self) -> Identity:
        if self.no_identity is not None:
            raise self.no_identity
        return ME

    async def read_table(self) -> None:
        if self.no_table is not None:
            raise self.no_table

    async def write(self, settings: Mapping[str, Mapping[str, Any]]) -> str:
        self.written.append(settings)
        return "50-init-user.toml"


async def found(
    one: Bench, aws: Aws, config: Config | None = None, **asked: Any
) -> dict[str, tuple[str, str, str]]:
    """Result, text and hint of each finding, by name."""
    given = Asked(asked.pop("account", Account()), **asked)
    work = UserSetUp(
        given,
        one.shared.time,
        api=lambda: aws,
        offers=lambda: FakeComputes(one.account).offers(Account()),
        identity=aws.identity,
        plan=one.projects.plan,
        read_table=aws.read_table,
        write=aws.write,
        config=config or Config(),
    )
    return {each.name: (each.result.value, each.text, each.hint or "") async for each in work.run()}


@with_daemon
async def test_what_is_missing_is_named_with_what_mends_it(one: Bench) -> None:
    aws = Aws()
    seen = await found(one, aws)
    assert seen["login"][:2] == ("ok", "account 123456789012, role dev, region us-east-1")
    assert seen["network"][0] == "ok"
    assert seen["profile"][0] == "failed"
    assert "--create-profile" in seen["profile"][2]
    assert list(seen) == ["login", "network", "profile"], "what follows from it is not tried"
    assert (aws.made, aws.written, aws.rehearsed) == ([], [], [])


@with_daemon
async def test_a_profile_is_made_with_the_least_that_the_agent_needs_and_once(one: Bench) -> None:
    aws = Aws()
    seen = await found(one, aws, create_profile=True)
    ((name, policy),) = aws.made
    assert name == "devbox-box"
    actions = {action for each in policy["Statement"] for action in each["Action"]}
    assert all(action.startswith(("ssm:Update", "ssmmessages:")) for action in actions)
    assert {each[0] for each in seen.values()} == {"ok"}
    assert aws.written == [{"projects": {"instance_profile": "devbox-box"}}]
    (request,) = aws.rehearsed
    assert request["IamInstanceProfile"] == {"Name": "devbox-box"}
    assert await one.projects.all() == [], "nothing was written down"
    config = Config(projects=ProjectSettings(instance_profile="devbox-box"))
    await found(one, aws, config, create_profile=True)
    assert (len(aws.made), len(aws.written)) == (1, 1), "twice is once"


@with_daemon
async def test_a_dry_run_makes_and_writes_nothing(one: Bench) -> None:
    aws = Aws()
    seen = await found(
        one, aws, create_profile=True, dry_run=True, account=Account("work"), store=StoreEngine.DYNAMODB
    )
    assert (aws.made, aws.written, aws.rehearsed) == ([], [], [])
    assert seen["profile"][0] == "skipped"
    text = seen["settings"][1]
    assert all(word in text for word in ('"devbox-box"', 'store.engine = "dynamodb"', '"work"'))


@with_daemon
async def test_a_new_profile_is_waited_for_and_a_wrong_one_is_not(one: Bench) -> None:
    """IAM tells EC2 some seconds later."""
    unknown = BadRequest("Invalid IAM Instance Profile name")
    aws = Aws(refuses=[unknown, unknown])
    assert (await found(one, aws, create_profile=True))["launch"][0] == "ok"
    assert len(aws.rehearsed) == 3
    aws = Aws(profiles={"mine": ["r"]}, refuses=[unknown, unknown])
    seen = await found(one, aws, profile="mine")
    assert (seen["launch"][0], len(aws.rehearsed)) == ("failed", 1)


@with_daemon
async def test_what_is_not_allowed_is_told_by_its_action(one: Bench) -> None:
    aws = Aws(no_look=Denied("AWS does not allow iam:GetInstanceProfile"))
    aws.refuses = [
        Denied("AWS does not allow ec2:RunInstances", hint="ask for the permission ec2:RunInstances")
    ]
    seen = await found(one, aws, profile="arn:aws:iam::123456789012:instance-profile/team/boxes")
    assert (seen["profile"][0], seen["launch"][0]) == ("warning", "failed")
    assert "ec2:RunInstances" in seen["launch"][1]
    assert "iam policy --for user" in seen["launch"][2]


@with_daemon
async def test_no_login_no_network_and_no_table_are_said_so(one: Bench) -> None:
    seen = await found(one, Aws(no_identity=LoginNeeded("the AWS login has expired", hint="devboxctl login")))
    assert seen == {"login": ("failed", "the AWS login has expired", "devboxctl login")}
    aws = Aws(profiles={"devbox-box": ["r"]}, no_table=StoreFailed("there is no table devbox"))
    seen = await found(one, aws, store=StoreEngine.DYNAMODB)
    assert seen["store"][:2] == ("failed", "there is no table devbox")
    assert aws.written == [{"projects": {"instance_profile": "devbox-box"}}], "no store that is not there"
    networks = one.model.region.networks
    networks.subnets = {}
    seen = await found(one, aws)
    assert seen["network"][0] == "failed"
    assert "no default VPC" in seen["network"][1]
    assert "init account" in seen["network"][2]


@with_daemon
async def test_what_the_user_has_set_is_not_written_over(one: Bench) -> None:
    aws = Aws(profiles={"devbox-box": ["r"]})
    config = Config(
        defaults=Defaults(profile="home", region="eu-central-1"),
        store=StoreSettings(engine=StoreEngine.DYNAMODB),
        projects=ProjectSettings(instance_profile="devbox-box"),
    )
    seen = await found(one, aws, config, account=Account("work", "us-east-1"), store=StoreEngine.DYNAMODB)
    assert aws.written == []
    assert seen["settings"][1] == "nothing has to be written"
