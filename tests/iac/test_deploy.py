"""The template deployed to moto by our own code: weak evidence (docs: moto drops much), but of the whole path."""

from __future__ import annotations

import os
import warnings
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from devboxd.aws.clients import Caller, Callers
from devboxd.aws.stack import StackApi
from devboxd.control.base.time import Time
from devboxd.control.lifecycle.account import SetUp
from devboxd.control.lifecycle.deploy import parameters_of
from devboxd.host.clock import Clock
from devboxd.host.template import template as installed
from devboxd.model.stack import network
from tests.iac.cfn import TEMPLATE, template

pytest.importorskip("moto.cloudformation", reason="needs moto[cloudformation]")


@pytest.fixture
def moto(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A moto server on loopback, and an environment that leads to it."""
    from moto.server import ThreadedMotoServer  # half a second, and only these tests need it

    for name in [one for one in os.environ if one.startswith("AWS_")]:
        monkeypatch.delenv(name)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "eu-central-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }.items():
        monkeypatch.setenv(name, value)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # moto names each type it does not know
        yield host
        server.stop()


@pytest_asyncio.fixture
async def account(moto: str) -> AsyncIterator[Caller]:
    callers = Callers(Clock())
    yield callers.caller()
    await callers.close()


@pytest.mark.filterwarnings("ignore")  # moto names each type it does not know
async def test_init_account_makes_what_a_launch_needs(account: Caller) -> None:
    """Network, profile and table are there under the names that the daemon looks for."""
    stack = StackApi(account, "devbox")
    zones = await stack.zones()
    made = SetUp(
        stack,
        Time(Clock()),
        template=TEMPLATE.read_text("utf-8"),
        known=list(template()["Parameters"]),
        asked=network("10.219.0.0/16", zones),
        tags={"devbox:managed": "devbox"},
    )
    lines = [line async for line in made.run()]
    assert lines[-1].state == "done"
    subnets = await account.pages(
        "ec2", "describe_subnets", "Subnets", Filters=[{"Name": "tag:devbox:managed", "Values": ["devbox"]}]
    )
    assert len(subnets) == len(zones)
    assert len({one["AvailabilityZone"] for one in subnets}) == len(zones)
    groups = await account.pages(
        "ec2",
        "describe_security_groups",
        "SecurityGroups",
        Filters=[{"Name": "group-name", "Values": ["devbox-box"]}],
    )
    assert [group["IpPermissions"] for group in groups] == [[]]
    profile = await account.call("iam", "get_instance_profile", InstanceProfileName="devbox-eu-central-1-box")
    assert [role["RoleName"] for role in profile["InstanceProfile"]["Roles"]] == ["devbox-eu-central-1-box"]
    table = await account.call("dynamodb", "describe_table", TableName="devbox")
    assert table["Table"]["DeletionProtectionEnabled"] is True


def test_the_package_has_the_template_of_the_repository() -> None:
    """What init account deploys would be another account than the one that was reviewed."""
    assert installed() == TEMPLATE.read_text("utf-8")
    assert parameters_of(installed()) == list(template()["Parameters"])
