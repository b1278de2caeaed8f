"""The pieces of this package, as control asks for them."""

from __future__ import annotations

from devboxd.aws.clients import Callers
from devboxd.aws.cloud import AwsCloud
from devboxd.control.base import needs
from devboxd.model.box import Account
from devboxd.net.link import Dialer
from tests.aws.fake import FakeAws, xml

BOX = "i-0123456789abcdef0"


async def test_the_edge_has_the_shape_that_control_asks_for(callers: Callers) -> None:
    """mypy does the work: these names are Protocols."""
    cloud: needs.Cloud = AwsCloud(callers)
    dialer: needs.Dialer = Dialer()
    assert cloud.sessions(Account()) is cloud.sessions(Account())
    assert isinstance(dialer, Dialer)


async def test_a_key_goes_to_the_account_of_its_box(aws: FakeAws, callers: Callers) -> None:
    aws.on("SendSSHPublicKey", {"RequestId": "r", "Success": True})
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHkX5rVpDmJgZ1lQkzOqVxN8C6bUeA0sX8n0z4c1oHhB devbox"
    await AwsCloud(callers).send_ssh_key(Account(region="eu-west-2"), BOX, "ubuntu", key)
    assert "/eu-west-2/" in aws.calls[0].headers["Authorization"]


async def test_we_are_who_sts_says(aws: FakeAws, callers: Callers) -> None:
    arn = "arn:aws:sts::123456789012:assumed-role/dev/ann"
    answer = (
        '<GetCallerIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><GetCallerIdentityResult>'
        f"<Arn>{arn}</Arn><UserId>AROA:ann</UserId><Account>123456789012</Account>"
        "</GetCallerIdentityResult></GetCallerIdentityResponse>"
    )
    aws.on("GetCallerIdentity", xml(answer))
    found = await AwsCloud(callers).identity(Account(region="eu-west-2"))
    assert (found.number, found.arn, found.region) == ("123456789012", arn, "eu-west-2")
    assert found.expires_in is None, "a key pair does not end"
