"""The template deployed to moto by our own code: weak evidence (docs: moto drops much), but of the whole path."""

from __future__ import annotations

import os
import warnings
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from devboxd.aws.clients import Caller, Callers
from devboxd.aws.offers import OffersApi
from devboxd.aws.stack import StackApi
from devboxd.control.base.time import Time
from devboxd.control.lifecycle.deploy import deploy, parameters_of
from devboxd.errors import BadRequest
from devboxd.host.clock import Clock
from devboxd.host.template import template as installed
from devboxd.model.config import Layer, merge
from devboxd.model.project import Network
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
@pytest.mark.parametrize("prefix", ["devbox", "team-b"])
async def test_init_account_makes_what_a_launch_needs(account: Caller, prefix: str) -> None:
    """Network, profile, group, table and schedule group are there under the names that the daemon looks for."""
    config = merge([Layer("test", {"projects": {"prefix": prefix}})]).config
    stack = StackApi(account, config.projects.prefix)
    zones = await stack.zones()
    made = deploy(
        stack,
        Time(Clock()),
        TEMPLATE.read_text("utf-8"),
        cidr=None,
        given={},
        prefix=config.projects.prefix,
        dry_run=False,
    )
    lines = [line async for line in made]
    assert lines[-1].state == "done"
    ground = await OffersApi(account, account.region, prefix).ground(["t4g.medium"], Network())
    assert ground.profile == f"{prefix}-eu-central-1-box"
    assert len(ground.groups) == 1
    assert not ground.is_default
    subnets = await account.pages(
        "ec2", "describe_subnets", "Subnets", Filters=[{"Name": "tag:devbox:managed", "Values": [prefix]}]
    )
    assert {place.subnet for place in ground.places} == {one["SubnetId"] for one in subnets}
    assert len(subnets) == len(zones)
    assert len({one["AvailabilityZone"] for one in subnets}) == len(zones)
    groups = await account.pages(
        "ec2",
        "describe_security_groups",
        "SecurityGroups",
        Filters=[{"Name": "group-name", "Values": [f"{prefix}-box"]}],
    )
    assert [group["IpPermissions"] for group in groups] == [[]]
    profile = await account.call(
        "iam", "get_instance_profile", InstanceProfileName=f"{prefix}-eu-central-1-box"
    )
    assert [role["RoleName"] for role in profile["InstanceProfile"]["Roles"]] == [
        f"{prefix}-eu-central-1-box"
    ]
    table = await account.call("dynamodb", "describe_table", TableName=config.table)
    assert table["Table"]["DeletionProtectionEnabled"] is True


def test_the_package_has_the_template_of_the_repository() -> None:
    """What init account deploys would be another account than the one that was reviewed."""
    assert installed() == TEMPLATE.read_text("utf-8")
    assert parameters_of(installed()) == list(template()["Parameters"])


async def test_another_prefix_is_set_once_where_the_daemon_looks_for_it(account: Caller) -> None:
    """A stack whose names begin otherwise than the daemon's would never be found."""
    made = deploy(
        StackApi(account, "devbox"),
        Time(Clock()),
        TEMPLATE.read_text("utf-8"),
        cidr=None,
        given={"Prefix": "team-b"},
        prefix="devbox",
        dry_run=False,
    )
    with pytest.raises(BadRequest, match="begin with devbox, as configured, and not with team-b") as refused:
        await anext(made)
    assert 'projects.prefix = "team-b"' in str(refused.value.hint)
