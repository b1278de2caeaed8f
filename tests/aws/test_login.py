"""Logging in to SSO by device code, with botocore reading the result."""

from __future__ import annotations

import json
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from aiohttp import web

from devboxd.aws.clients import Callers
from devboxd.aws.lent import Lent
from devboxd.aws.login import Login, LoginStep, NotSso
from devboxd.aws.sso import cached_token
from devboxd.errors import LoginNeeded, Unreachable
from devboxd.host.files import replace_file
from devboxd.model.login import Method
from tests.aws.conftest import FixedClock
from tests.aws.fake import FakeAws, error, fake_aws

CONFIG = """
[profile work]
sso_session = corp
sso_account_id = 111122223333
sso_role_name = Developer
region = eu-north-1
[sso-session corp]
sso_start_url = https://corp.awsapps.com/start
sso_region = eu-west-1
sso_registration_scopes = sso:account:access
[profile old]
sso_start_url = https://corp.awsapps.com/start
sso_region = eu-west-1
sso_account_id = 111122223333
sso_role_name = Developer
region = eu-north-1
[profile through]
role_arn = arn:aws:iam::111122223333:role/x
source_profile = work
region = eu-north-1
[profile keys]
region = eu-north-1
"""
REGISTERED = {"clientId": "c-1", "clientSecret": "c-secret", "clientSecretExpiresAt": 4_000_000_000}
DEVICE = {
    "deviceCode": "d-1",
    "userCode": "ABCD-EFGH",
    "verificationUri": "https://device.sso/",
    "verificationUriComplete": "https://device.sso/?user_code=ABCD-EFGH",
    "expiresIn": 600,
    "interval": 1,
}
TOKEN = {"accessToken": "ACCESS", "refreshToken": "REFRESH", "expiresIn": 28800, "tokenType": "Bearer"}
ROLE = {
    "roleCredentials": {
        "accessKeyId": "ASIAROLE",
        "secretAccessKey": "role-secret",
        "sessionToken": "role-token",
        "expiration": 4_000_000_000_000,
    }
}


@pytest.fixture
async def portal(home: Path, monkeypatch: pytest.MonkeyPatch) -> object:
    (home / ".aws" / "config").write_text(CONFIG)
    async with fake_aws() as fake:
        monkeypatch.setenv("AWS_ENDPOINT_URL", fake.url)
        fake.on("POST /client/register", REGISTERED)
        fake.on("POST /device_authorization", DEVICE)
        fake.on("POST /token", error("AuthorizationPendingException"), TOKEN)
        fake.on("GET /federation/credentials", ROLE)
        fake.on("StartSession", {"SessionId": "s", "TokenValue": "t", "StreamUrl": "wss://x"})
        yield fake


def pauses(clock: FixedClock) -> tuple[list[float], Callable[[float], Awaitable[None]]]:
    """Waiting takes no time, but the clock goes on."""
    waited: list[float] = []

    async def pause(seconds: float) -> None:
        waited.append(seconds)
        clock.now += seconds

    return waited, pause


async def run(callers: Callers, clock: FixedClock, profile: str) -> tuple[list[LoginStep], list[float]]:
    waited, pause = pauses(clock)
    login = Login(callers.caller(profile), clock, replace_file, pause)
    return [step async for step in login.run()], waited


@pytest.mark.parametrize("profile", ["work", "old", "through"])
async def test_after_a_login_the_same_account_works(
    portal: FakeAws, callers: Callers, clock: FixedClock, profile: str, home: Path
) -> None:
    """Nobody has to restart the daemon, and the aws CLI sees the login too."""
    account = callers.caller(profile)
    if profile != "through":
        with pytest.raises(LoginNeeded) as needed:
            await account.call("ssm", "start_session", Target="i-1")
        assert f"devboxctl login --profile {profile}" in (needed.value.hint or "")
    clock.now = 4_000_000_000 - 40_000  # botocore uses the real time: the token must be good for it too
    steps, waited = await run(callers, clock, profile)
    assert [step.state for step in steps] == ["open", "done"]
    assert steps[0].code == "ABCD-EFGH"
    assert steps[0].url == "https://device.sso/?user_code=ABCD-EFGH"
    assert waited == [1.0, 1.0]
    (file,) = (home / ".aws" / "sso" / "cache").iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    content = json.loads(file.read_text())
    assert content["accessToken"] == "ACCESS"
    assert content["expiresAt"].endswith("Z")
    source = account.source()
    assert source.method is Method.SSO
    assert source.expires_in == pytest.approx(28800)
    assert source.renews
    if profile != "through":
        await account.call("ssm", "start_session", Target="i-1")
        (asked,) = portal.made("GET /federation/credentials")
        assert asked.headers["x-amz-sso_bearer_token"] == "ACCESS"
        assert "ASIAROLE" in portal.made("StartSession")[0].headers["Authorization"]
        assert await account.credentials_expire_in() == pytest.approx(4_000_000_000 - clock.now, abs=2)


async def test_only_new_style_profiles_ask_for_scopes(
    portal: FakeAws, callers: Callers, clock: FixedClock
) -> None:
    await run(callers, clock, "work")
    portal.on("POST /token", TOKEN)
    await run(callers, clock, "old")
    new, old = portal.made("POST /client/register")
    assert new.body["scopes"] == ["sso:account:access"]
    assert "refresh_token" in new.body["grantTypes"]
    assert "scopes" not in old.body


async def test_a_registration_is_used_again(portal: FakeAws, callers: Callers, clock: FixedClock) -> None:
    await run(callers, clock, "work")
    portal.on("POST /token", TOKEN)
    await run(callers, clock, "work")
    assert portal.counts["POST /client/register"] == 1
    assert portal.made("POST /token")[-1].body["clientId"] == "c-1"


async def test_polling_slows_down_when_asked(portal: FakeAws, callers: Callers, clock: FixedClock) -> None:
    portal.on("POST /token", error("SlowDownException"), error("AuthorizationPendingException"), TOKEN)
    steps, waited = await run(callers, clock, "work")
    assert steps[-1].state == "done"
    assert waited == [1.0, 6.0, 6.0]


@pytest.mark.parametrize(
    ("code", "text"), [("ExpiredTokenException", "in time"), ("AccessDeniedException", "refused")]
)
async def test_a_login_that_nobody_confirms_fails_with_a_reason(
    portal: FakeAws, callers: Callers, clock: FixedClock, code: str, text: str
) -> None:
    portal.on("POST /token", error(code))
    steps, _ = await run(callers, clock, "work")
    assert steps[-1].state == "failed"
    assert text in steps[-1].text
    assert isinstance(steps[-1].failure, LoginNeeded)


async def test_polling_ends_with_the_code_even_if_the_service_never_says_so(
    portal: FakeAws, callers: Callers, clock: FixedClock
) -> None:
    portal.on("POST /device_authorization", DEVICE | {"expiresIn": 5})
    portal.on("POST /token", error("AuthorizationPendingException"))
    steps, waited = await run(callers, clock, "work")
    assert steps[-1].state == "failed"
    assert len(waited) == 5


async def test_a_profile_without_sso_is_told_what_to_do(
    portal: FakeAws, callers: Callers, clock: FixedClock
) -> None:
    (step,), _ = await run(callers, clock, "keys")
    assert isinstance(step.failure, NotSso)
    assert "aws configure sso --profile keys" in (step.failure.hint or "")
    (step,), _ = await run(callers, clock, "nobody")
    assert step.failure is not None
    assert step.failure.code == "profile-unknown"


async def test_a_login_that_lent_credentials_would_hide_is_not_begun(
    portal: FakeAws, callers: Callers, clock: FixedClock
) -> None:
    """It went well, and the daemon went on with what a shell had lent, expired or not."""
    await callers.lend("work", Lent("AKID", "secret", None))
    (step,), _ = await run(callers, clock, "work")
    assert step.failure is not None
    assert (
        step.failure.message == "a login would change nothing: profile 'work' uses what a shell has lent it"
    )
    assert "devboxctl daemon restart" in (step.failure.hint or "")
    assert portal.calls == []


async def test_no_network_is_no_login_problem(
    portal: FakeAws, callers: Callers, clock: FixedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    (step,), _ = await run(callers, clock, "work")
    assert isinstance(step.failure, Unreachable)


@pytest.mark.parametrize("raised", [KeyError("x"), AttributeError("hunter2"), ValueError("hunter2")])
async def test_what_botocore_trips_over_fails_the_login(
    portal: FakeAws,
    callers: Callers,
    clock: FixedClock,
    monkeypatch: pytest.MonkeyPatch,
    raised: Exception,
) -> None:
    """It ends with a sentence for whoever waits, as every other call does."""

    async def trip(*_: object, **__: object) -> object:
        raise raised

    monkeypatch.setattr("aiobotocore.client.AioBaseClient._make_api_call", trip)
    (step,), _ = await run(callers, clock, "work")
    assert step.state == "failed"
    assert step.failure is not None
    assert step.failure.code == "aws-failed"
    assert "hunter2" not in step.text


async def test_steps_and_errors_hold_no_token(portal: FakeAws, callers: Callers, clock: FixedClock) -> None:
    steps, _ = await run(callers, clock, "work")
    sso = callers.caller("work").sso()
    assert sso is not None
    shown = f"{steps!r} {cached_token(sso)!r}"
    for secret in ("ACCESS", "REFRESH", "c-secret", "d-1"):
        assert secret not in shown


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"accessToken": "x", "expiresAt": "soon"}', '{"accessToken"']
)
async def test_a_broken_cache_file_is_no_login(
    portal: FakeAws, callers: Callers, content: str, home: Path
) -> None:
    account = callers.caller("work")
    sso = account.sso()
    assert sso is not None
    folder = home / ".aws" / "sso" / "cache"
    folder.mkdir(parents=True)
    (folder / f"{sso.cache_key}.json").write_text(content)
    assert account.source().expires_in is None
    with pytest.raises(LoginNeeded):
        await account.call("ssm", "start_session", Target="i-1")


@pytest.mark.parametrize(
    "page",
    [
        "http://device.sso/",
        "HTTP://device.sso/",
        "ftp://device.sso/",
        "file:///etc/passwd",
        "javascript:alert(1)",
        "https:device.sso",
        "https://",
        "https://user@device.sso/",
        "https://device.sso@evil.example/",
        "https://device.sso/ x",
        "https://device.sso/\x1b[31m",
        "https://device.sso/\u202e",
        "https://dévice.sso/",
        "https://device.sso/" + "x" * 3000,
        " https://device.sso/",
        "-https://device.sso/",
        "",
        5,
        ["https://device.sso/"],
    ],
)
async def test_only_a_page_over_https_is_opened(
    portal: FakeAws, callers: Callers, clock: FixedClock, page: object
) -> None:
    """Whoever can change a page on its way gets somebody else's login confirmed; and a browser opens much more."""
    portal.on(
        "POST /device_authorization", {**DEVICE, "verificationUriComplete": page, "verificationUri": page}
    )
    (step,), _ = await run(callers, clock, "work")
    assert step.state == "failed"
    assert step.url is None
    assert step.failure is not None
    assert step.failure.code != "internal"


@pytest.mark.parametrize("operation", ["POST /client/register", "POST /device_authorization", "POST /token"])
@pytest.mark.parametrize(
    "body",
    [
        b"", b"{}", b"[]", b"5", b"null", b'"x"', b"<html>log in here</html>", b"\xff", b'{"a":' * 3000,
        b'{"clientId": 5, "deviceCode": 5, "accessToken": 5}',
        b'{"expiresIn": "soon", "clientSecretExpiresAt": "x", "userCode": []}',
        b'{"clientId": "c", "clientSecret": "s", "clientSecretExpiresAt": 1e30, "accessToken": "a", "expiresIn": 1e30,'
        b' "deviceCode": "d", "userCode": "u", "interval": -1}',
    ],
)  # fmt: skip
async def test_an_answer_that_is_none_fails_the_login_in_a_sentence(
    portal: FakeAws, callers: Callers, clock: FixedClock, operation: str, body: bytes
) -> None:
    """A captive portal answers everything, and a login must end with a word for the person who waits."""
    portal.on(operation, web.Response(body=body, content_type="application/json"))
    steps, _ = await run(callers, clock, "work")
    assert steps[-1].state == "failed"
    assert steps[-1].failure is not None
    assert len(steps[-1].text) < 300
