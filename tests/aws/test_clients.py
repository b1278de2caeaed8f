"""Callers: settings, regions, expired credentials, and clients that are replaced under load."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import pytest

from devboxd.api import wire
from devboxd.aws import clients, generation
from devboxd.aws.clients import Caller, Callers
from devboxd.aws.errors import ProfileUnknown, ProxyUnusable, RegionMissing
from devboxd.aws.lent import Lent
from devboxd.errors import BadRequest, Denied, DevboxError, LoginNeeded, Throttled, Unreachable
from devboxd.model import box
from devboxd.model.login import Method, Source
from tests.aws.conftest import FixedClock
from tests.aws.fake import Call, FakeAws, error, fake_aws
from tests.net.authority import make_authority
from tests.net.loopback import connect_proxy

OK = {"Target": "i-1", "Status": "connected"}
STATUS = ("ssm", "get_connection_status")


async def ask(account: Caller) -> dict[str, object]:
    return await account.call(*STATUS, Target="i-1")


def key_of(call: Call) -> str:
    return call.headers["Authorization"].partition("Credential=")[2].partition("/")[0]


async def test_clients_are_kept(aws: FakeAws, callers: Callers) -> None:
    aws.on("GetConnectionStatus", OK)
    account = callers.caller()
    assert callers.caller(None, None) is account
    assert callers.caller("", "") is account
    await ask(account)
    first = account._generation
    await asyncio.gather(*(ask(account) for _ in range(5)))
    assert account._generation is first
    assert aws.counts["GetConnectionStatus"] == 6


@pytest.mark.parametrize(
    "code", ["ExpiredTokenException", "UnrecognizedClientException", "InvalidClientTokenId"]
)
async def test_new_credentials_on_disk_are_picked_up_within_the_call(
    callers: Callers, monkeypatch: pytest.MonkeyPatch, home: Path, code: str
) -> None:
    """A login in another window must be enough."""
    file = home / ".aws" / "credentials"
    file.write_text("[default]\naws_access_key_id = OLD\naws_secret_access_key = x\n")
    monkeypatch.setenv("AWS_REGION", "eu-north-1")
    async with fake_aws() as aws:
        monkeypatch.setenv("AWS_ENDPOINT_URL", aws.url)
        aws.on("GetConnectionStatus", lambda call: OK if key_of(call) == "NEW" else error(code, "expired"))
        account = callers.caller()
        with pytest.raises(LoginNeeded) as needed:
            await ask(account)
        assert "~/.aws/credentials" in (needed.value.hint or "")
        file.write_text("[default]\naws_access_key_id = NEW\naws_secret_access_key = y1\n")
        assert await ask(account)
        assert key_of(aws.calls[-1]) == "NEW"


async def test_expired_credentials_do_not_cost_a_new_session_at_every_call(
    aws: FakeAws, callers: Callers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The daemon polls: while nothing has changed it must stay cheap."""
    aws.on("GetConnectionStatus", error("ExpiredTokenException", "expired"))
    account = callers.caller()
    for _ in range(4):
        with pytest.raises(LoginNeeded, match="expired"):
            await ask(account)
    assert aws.counts["GetConnectionStatus"] == 5  # the first call tried twice
    monkeypatch.setattr(clients, "RENEW_EVERY", 0.0)
    with pytest.raises(LoginNeeded):
        await ask(account)
    assert aws.counts["GetConnectionStatus"] == 7


async def test_calls_under_way_survive_a_refresh(aws: FakeAws, callers: Callers) -> None:
    """A login must not break the calls that other boxes are making."""
    aws.on("GetConnectionStatus", OK)
    account = callers.caller()
    await ask(account)
    used = account._generation
    assert used is not None
    async with used.client("ssm") as client:
        await callers.refresh()
        assert (await client.get_connection_status(Target="i-1"))["Status"] == "connected"
        assert await ask(account)
        assert account._generation is not used
    assert not used._clients, "the old clients were closed when they came back"


async def test_one_profile_can_be_forgotten_alone(callers: Callers, home: Path) -> None:
    (home / ".aws" / "config").write_text(
        "[profile a]\nregion = eu-west-1\n[profile b]\nregion = eu-west-2\n"
    )
    a, b = callers.caller("a"), callers.caller("b")
    assert (a.region, b.region) == ("eu-west-1", "eu-west-2")
    kept = b._generation
    (home / ".aws" / "config").write_text(
        "[profile a]\nregion = eu-west-3\n[profile b]\nregion = eu-west-3\n"
    )
    await callers.forget("a")
    assert a.region == "eu-west-3"
    assert b.region == "eu-west-2"
    assert b._generation is kept


@pytest.mark.parametrize(
    ("environment", "config", "asked", "region"),
    [
        ({"AWS_REGION": "eu-a-1", "AWS_DEFAULT_REGION": "eu-b-1"}, "region = eu-c-1", "eu-d-1", "eu-d-1"),
        ({"AWS_REGION": "eu-a-1", "AWS_DEFAULT_REGION": "eu-b-1"}, "region = eu-c-1", None, "eu-a-1"),
        ({"AWS_DEFAULT_REGION": "eu-b-1"}, "region = eu-c-1", None, "eu-b-1"),
        ({}, "region = eu-c-1", None, "eu-c-1"),
        ({"AWS_ENDPOINT_URL_SSM": "https://127.0.0.1:4566"}, "", None, "us-east-1"),
        ({"AWS_ENDPOINT_URL": "http://localhost:4566"}, "", None, "us-east-1"),
        ({"AWS_ENDPOINT_URL_SSM": "https://ssm.eu-central-1.amazonaws.com"}, "", None, "eu-central-1"),
        (
            {"AWS_ENDPOINT_URL_SSM": "https://vpce-0a.ssm.us-gov-west-1.vpce.amazonaws.com"},
            "",
            None,
            "us-gov-west-1",
        ),
        ({}, "endpoint_url = http://localhost:4566", None, "us-east-1"),
    ],
)
def test_where_the_region_comes_from(
    callers: Callers,
    monkeypatch: pytest.MonkeyPatch,
    home: Path,
    environment: dict[str, str],
    config: str,
    asked: str | None,
    region: str,
) -> None:
    (home / ".aws" / "config").write_text(f"[default]\n{config}\n")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert callers.caller(None, asked).region == region


async def test_no_region_at_all_says_where_to_set_one(callers: Callers) -> None:
    with pytest.raises(RegionMissing) as missing:
        await ask(callers.caller())
    assert "AWS_REGION" in (missing.value.hint or "")


async def test_a_profile_that_does_not_exist_is_named(callers: Callers, dummy: None) -> None:
    with pytest.raises(ProfileUnknown, match="nobody"):
        await ask(callers.caller("nobody"))


@pytest.mark.parametrize(
    "region", ["A" * 300, "eu west", "-", "1", "é", "eu-west-1 # home", '"eu-west-1"', "a\nb"]
)
async def test_a_region_that_cannot_be_is_a_bad_request(callers: Callers, dummy: None, region: str) -> None:
    """botocore's error for it is a ValueError, too, as those of a damaged cache are: not a bug of ours."""
    with pytest.raises(BadRequest, match="the AWS configuration can not be used"):
        await callers.caller(None, region).call("ssm", "describe_sessions", State="Active")


async def test_only_accounts_that_can_be_are_known(callers: Callers, dummy: None) -> None:
    """Each one that is known is looked at again and again; misspelt ones would add up."""
    for profile, region in ((None, "eu-x-1"), ("nope", None), (None, "-"), (None, None)):
        with contextlib.suppress(DevboxError):
            assert callers.caller(profile, region).region
    assert [account.asked_region for account in callers.known()] == ["eu-x-1", None]


async def test_a_broken_configuration_file_is_a_bad_request(callers: Callers, home: Path) -> None:
    (home / ".aws" / "config").write_text("[default\nregion")
    with pytest.raises(BadRequest, match="configuration"):
        await ask(callers.caller())


async def test_no_credentials_at_all_ask_for_a_login(
    callers: Callers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_REGION", "eu-north-1")
    account = callers.caller()
    with pytest.raises(LoginNeeded, match="no AWS credentials"):
        await ask(account)
    with pytest.raises(LoginNeeded, match="no AWS credentials"):
        await account.credentials()


async def test_the_bare_data_path_works_with_an_endpoint_a_bundle_a_proxy_and_dummy_keys(
    callers: Callers, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """No AWS_REGION, no files: what an emulated gateway needs and nothing else."""
    authority = make_authority(tmp_path)
    async with fake_aws(authority.server) as aws, connect_proxy("user:secret") as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL_SSM", aws.url)
        monkeypatch.setenv("AWS_CA_BUNDLE", str(authority.bundle))
        monkeypatch.setenv("HTTPS_PROXY", f"http://user:secret@127.0.0.1:{proxy.port}")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "dummy")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "dummy")
        aws.on("GetConnectionStatus", OK)
        account = callers.caller()
        assert await ask(account) is not None
        assert proxy.asked == [aws.url.removeprefix("https://")]
        assert "/us-east-1/ssm/" in aws.calls[0].headers["Authorization"]
        assert account.ca_bundle() == str(authority.bundle)
        assert await account.endpoint("ssm") == aws.url
        await callers.refresh()
        monkeypatch.setenv("HTTPS_PROXY", f"http://user:wrong@127.0.0.1:{proxy.port}")
        with pytest.raises(ProxyUnusable, match="407") as refused:
            await ask(account)
        assert "wrong" not in f"{refused.value} {refused.value.hint}"


async def test_an_unknown_authority_is_named_with_the_remedy(
    callers: Callers, monkeypatch: pytest.MonkeyPatch, dummy: None, tmp_path: Path
) -> None:
    async with fake_aws(make_authority(tmp_path).server) as aws:
        monkeypatch.setenv("AWS_ENDPOINT_URL", aws.url)
        account = callers.caller()
        with pytest.raises(Unreachable, match="not trusted") as untrusted:
            await ask(account)
        assert "AWS_CA_BUNDLE" in (untrusted.value.hint or "")
        await callers.refresh()
        monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path / "none.pem"))
        with pytest.raises(BadRequest, match="CA bundle"):
            await ask(account)


async def test_an_endpoint_that_is_down_is_unreachable(
    callers: Callers, monkeypatch: pytest.MonkeyPatch, dummy: None
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(Unreachable, match="can not be reached") as down:
        await ask(callers.caller())
    assert down.value.retryable


async def test_throttling_is_retried_once_or_twice_and_then_told(aws: FakeAws, callers: Callers) -> None:
    aws.on("GetConnectionStatus", error("ThrottlingException", "Rate exceeded"), OK)
    assert await ask(callers.caller())
    aws.on("GetConnectionStatus", error("ThrottlingException", "Rate exceeded"))
    with pytest.raises(Throttled):
        await ask(callers.caller())
    assert aws.counts["GetConnectionStatus"] == 2 + generation.ATTEMPTS


async def test_credentials_of_a_process_tell_when_they_expire(
    callers: Callers, clock: FixedClock, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expires = "2100-01-01T00:00:00Z"
    text = (
        f'{{"Version": 1, "AccessKeyId": "AKIDP", "SecretAccessKey": "s", "SessionToken": "t",'
        f' "Expiration": "{expires}"}}'
    )
    (home / "answer.json").write_text(text)
    (home / ".aws" / "config").write_text(
        f"[default]\nregion = eu-north-1\ncredential_process = cat {home}/answer.json\n"
    )
    account = callers.caller()
    assert await account.credentials_expire_in() == 4102444800 - clock.now
    assert (await account.credentials()).access_key == "AKIDP"
    (home / "answer.json").unlink()
    await account.forget()
    with pytest.raises(LoginNeeded) as needed:
        await account.credentials()
    assert "answer.json" not in str(needed.value)


async def test_static_keys_never_expire(aws: FakeAws, callers: Callers) -> None:
    assert await callers.caller().credentials_expire_in() is None


async def test_a_hint_names_the_variables_where_those_are_used(aws: FakeAws, callers: Callers) -> None:
    aws.on("GetConnectionStatus", error("ExpiredTokenException", "expired"))
    with pytest.raises(LoginNeeded) as needed:
        await ask(callers.caller())
    assert "AWS_SESSION_TOKEN" in (needed.value.hint or "")


async def test_every_call_tells_whether_its_credentials_were_taken(aws: FakeAws, clock: FixedClock) -> None:
    """Whoever waits for a login goes on with the first call that works, whoever makes it."""
    heard: list[tuple[box.Account, str | None]] = []
    callers = Callers(
        clock, lambda account, refusal: heard.append((account, None if refusal is None else refusal.message))
    )
    account = callers.caller(None, "eu-north-1")
    aws.on("GetConnectionStatus", OK, error("ExpiredTokenException", "expired"))
    await ask(account)
    with pytest.raises(LoginNeeded):
        await ask(account)
    aws.on("GetConnectionStatus", error("AccessDeniedException", "no"))
    with pytest.raises(Denied):
        await ask(account)
    assert [bool(refusal) for _, refusal in heard] == [False, True], "a denied call says nothing of a login"
    assert {account for account, _ in heard} == {box.Account(None, "eu-north-1")}
    await callers.close()


async def test_credentials_that_are_past_their_time_are_a_login_and_no_internal_error(
    aws: FakeAws, callers: Callers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """botocore raises a bare RuntimeError over AWS_CREDENTIAL_EXPIRATION."""
    monkeypatch.setenv("AWS_CREDENTIAL_EXPIRATION", "2020-01-01T00:00:00Z")
    aws.on("GetConnectionStatus", OK)
    with pytest.raises(LoginNeeded) as needed:
        await ask(callers.caller())
    assert "AWS_SESSION_TOKEN" in (needed.value.hint or "")


async def test_what_a_shell_lends_is_used_in_every_region_until_it_is_taken_back(
    aws: FakeAws, callers: Callers, clock: FixedClock
) -> None:
    """Keys that only a shell has: the daemon was started before they were."""
    aws.on("GetConnectionStatus", OK)
    there, here = callers.caller(region="eu-west-1"), callers.caller(region="us-east-1")
    await there.call(*STATUS, Target="i-1")
    former = await callers.lend(None, Lent("AKIDLENT", "secret", "token-lent", clock.now + 60))
    assert former is None
    for account in (there, here):
        await account.call(*STATUS, Target="i-1")
        assert "AKIDLENT" in aws.calls[-1].headers["Authorization"]
        assert aws.calls[-1].headers["X-Amz-Security-Token"] == "token-lent"
        assert account.source() == Source(Method.LENT, "default", 60.0)
        assert await account.credentials_expire_in() == 60.0
    assert await callers.lend(None, None) is not None
    await there.call(*STATUS, Target="i-1")
    assert "AKIDLENT" not in aws.calls[-1].headers["Authorization"]


def test_what_was_lent_is_shown_nowhere() -> None:
    lent = Lent("AKIDLENT", "very-secret", "token-lent")
    request = wire.LendRequest(
        access_key_id="AKIDLENT", secret_access_key="very-secret", session_token="token-lent"
    )
    for shown in (repr(lent), str(lent), repr(request), str(request)):
        assert "AKID" not in shown
        assert "secret-" not in shown
        assert "token-lent" not in shown
