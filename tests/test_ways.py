"""The ways of notices, with the keyring, the network and SNS as far as they can be had here."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp.web
import keyring.core
import pytest
from keyring.backends import fail

from devboxd import ways as joined
from devboxd.errors import BadRequest, DevboxError, Unreachable
from devboxd.model.config import NotifySettings
from devboxd.model.notice import Post, Way
from devboxd.model.proxy import Refusals
from devboxd.net import webhook
from devboxd.net.dial import DialSettings
from devboxd.ways import SecretMissing, keep_secret, ways
from tests.host.test_small import Ring
from tests.net.authority import make_authority
from tests.net.loopback import connect_proxy

WEBHOOK = "https://hooks.example/T0/B0/xyz"


@pytest.fixture
def ring(monkeypatch: pytest.MonkeyPatch) -> Ring:
    found = Ring()
    monkeypatch.setattr(keyring.core, "_keyring_backend", found)
    return found


class Cloud:
    """AWS, as far as a notice asks it."""

    def __init__(self) -> None:
        self.called: list[tuple[str, str, dict[str, Any]]] = []

    async def call(self, service: str, operation: str, **given: Any) -> Any:
        self.called.append((service, operation, given))
        return {}


class Sent:
    """What would have been posted."""

    def __init__(self) -> None:
        self.posts: list[tuple[Post, str]] = []

    async def __call__(self, what: Post, name: str) -> None:
        self.posts.append((what, name))


def found(settings: NotifySettings, sent: Sent, cloud: Any = None, asked: list[Any] | None = None) -> Any:
    def caller(profile: str | None, region: str) -> Any:
        if asked is not None:
            asked.append((profile, region))
        return cloud

    return ways(settings, caller, sent)


async def test_a_webhook_lies_in_the_keyring_and_nowhere_else(ring: Ring) -> None:
    sent = Sent()
    slack = found(NotifySettings(slack=True), sent)[Way.SLACK]
    with pytest.raises(SecretMissing) as missing:
        await slack("api", "stops")
    assert missing.value.hint == "devboxctl notify set slack"
    await keep_secret(Way.SLACK, WEBHOOK + "\n")
    await slack("api", "stops")
    ((post, name),) = sent.posts
    assert (post.url, post.body, name) == (WEBHOOK, {"text": "api: stops"}, "slack")
    await keep_secret(Way.SLACK, None)
    await keep_secret(Way.SLACK, None)
    assert ring.kept == {}


async def test_what_can_not_be_one_is_not_kept(ring: Ring) -> None:
    with pytest.raises(BadRequest):
        await keep_secret(Way.SLACK, "hooks.example")
    assert ring.kept == {}


async def test_a_topic_works_without_a_keyring_and_with_a_token(
    monkeypatch: pytest.MonkeyPatch, ring: Ring
) -> None:
    sent = Sent()
    ntfy = found(NotifySettings(ntfy="https://ntfy.example/t"), sent)[Way.NTFY]
    await keep_secret(Way.NTFY, "tk_1")
    await ntfy("a", "b")
    monkeypatch.setattr(keyring.core, "_keyring_backend", fail.Keyring())  # type: ignore[no-untyped-call]
    await ntfy("a", "b")
    assert [post.headers for post, _ in sent.posts] == [{"Authorization": "Bearer tk_1"}, {}]


async def test_sns_is_asked_in_the_region_of_its_topic() -> None:
    topic = "arn:aws:sns:eu-west-3:123456789012:devbox"
    cloud, asked = Cloud(), list[Any]()
    sns = found(NotifySettings(sns=topic, sns_profile="ops"), Sent(), cloud, asked)[Way.SNS]
    await sns("api", "stops")
    assert asked == [("ops", "eu-west-3")]
    assert cloud.called == [("sns", "publish", {"TopicArn": topic, "Subject": "api", "Message": "stops"})]


async def test_what_is_not_set_up_is_no_way() -> None:
    assert list(found(NotifySettings(), Sent())) == [Way.DESKTOP]


async def test_a_command_that_fails_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Unreachable, match="/nothing/there did not end well"):
        await found(NotifySettings(command=("/nothing/there",)), Sent())[Way.COMMAND]("a", "b")

    async def none(title: str, text: str) -> bool:
        return False

    monkeypatch.setattr(joined, "notice", none)
    with pytest.raises(Unreachable, match="desktop"):
        await found(NotifySettings(), Sent())[Way.DESKTOP]("a", "b")


@asynccontextmanager
async def service(
    status: int, headers: dict[str, str] | None = None, tls: ssl.SSLContext | None = None
) -> AsyncIterator[tuple[str, list[Any]]]:
    """A service on loopback: its address, and what came."""
    came: list[Any] = []

    async def answer(request: aiohttp.web.Request) -> aiohttp.web.Response:
        came.append((await request.json(), request.headers.get("Authorization")))
        return aiohttp.web.Response(status=status, headers=headers, text="secret words")

    app = aiohttp.web.Application()
    app.router.add_post("/{any:.*}", answer)
    runner = aiohttp.web.AppRunner(app)
    await runner.setup()
    site = aiohttp.web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    try:
        yield f"http{'s' if tls else ''}://127.0.0.1:{runner.addresses[0][1]}/", came
    finally:
        await runner.cleanup()


def direct() -> webhook.Webhook:
    return webhook.Webhook(DialSettings(), Refusals())


async def test_a_post_arrives() -> None:
    async with service(200) as (url, came):
        await direct().post(Post(url, {"text": "ü"}, {"Authorization": "Bearer x"}), "ntfy")
    assert came == [({"text": "ü"}, "Bearer x")]


@pytest.mark.parametrize("status", [302, 401, 404, 500])
async def test_another_status_is_told_and_nothing_else_of_the_answer(status: int) -> None:
    """A redirect is not followed: it would carry the token elsewhere."""
    async with service(status, {"Location": "http://127.0.0.1:1/"}) as (url, came):
        with pytest.raises(DevboxError, match=f"slack answered with HTTP status {status}") as refused:
            await direct().post(Post(url, {"text": "x"}), "slack")
    assert len(came) == 1
    assert url not in f"{refused.value.message}{refused.value.hint}"
    assert "secret words" not in refused.value.message


async def test_nothing_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook, "PATIENCE", 0.5)
    with pytest.raises(Unreachable, match="ntfy did not answer") as silent:
        await direct().post(Post("http://127.0.0.1:1/topic", {}), "ntfy")
    assert "topic" not in silent.value.message


async def test_the_certificates_of_the_bundle_are_trusted(tmp_path: Path) -> None:
    """A proxy that opens TLS shows one of its own, to notices as to everything else."""
    authority = make_authority(tmp_path)
    async with service(200, tls=authority.server) as (url, came):
        with pytest.raises(Unreachable):
            await direct().post(Post(url, {"text": "x"}), "slack")
        trusting = webhook.Webhook(DialSettings(ca_bundle=str(authority.bundle)), Refusals())
        await trusting.post(Post(url, {"text": "x"}), "slack")
        missing = webhook.Webhook(DialSettings(ca_bundle=str(tmp_path / "none")), Refusals())
        with pytest.raises(Unreachable, match="bundle"):
            await missing.post(Post(url, {"text": "x"}), "slack")
    assert len(came) == 1


async def test_a_proxy_that_refuses_the_password_is_left_alone(tmp_path: Path) -> None:
    """A wrong one, often enough, locks an account; whoever else was refused counts, too."""
    authority, refusals = make_authority(tmp_path), Refusals()
    async with connect_proxy("user:secret") as proxy, service(200, tls=authority.server) as (url, came):

        def through(password: str) -> webhook.Webhook:
            address = f"http://user:{password}@127.0.0.1:{proxy.port}"
            return webhook.Webhook(DialSettings(address, ca_bundle=str(authority.bundle)), refusals)

        for _ in range(3):
            with pytest.raises(Unreachable, match="407") as refused:
                await through("wrong").post(Post(url, {"text": "x"}), "slack")
            assert "wrong" not in f"{refused.value.message}{refused.value.hint}"
        assert len(proxy.asked) == 1
        await through("secret").post(Post(url, {"text": "x"}), "slack")
    assert len(came) == 1
