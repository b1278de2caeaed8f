"""The ways a notice can take, as the configuration has them now, joined to the outside."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Mapping

from devboxd.aws.calls import Calls
from devboxd.aws.topic import publish
from devboxd.control.base.notices import Tell
from devboxd.errors import DevboxError, Unreachable
from devboxd.host.notify import notice, tell
from devboxd.host.secrets import delete_secret, get_secret, set_secret
from devboxd.model.config import NotifySettings
from devboxd.model.notice import SECRETS, Post, Way, check_secret, to_ntfy, to_slack

Send = Callable[[Post, str], Awaitable[None]]


class SecretMissing(DevboxError):
    """A way of notices is set up without its secret."""

    code = "secret-missing"


def ways(
    settings: NotifySettings, caller: Callable[[str | None, str], Calls], send: Send
) -> Mapping[Way, Tell]:
    """Those that are set up.

    Args:
        caller: calls AWS with a profile, in a region.
        send: sends a request to the service of that name.
    """
    found: dict[Way, Tell] = {Way.DESKTOP: _desktop}
    if settings.command:
        found[Way.COMMAND] = functools.partial(_run, settings.command)
    if settings.ntfy is not None:
        found[Way.NTFY] = functools.partial(_ntfy, settings.ntfy, send)
    if settings.slack:
        found[Way.SLACK] = functools.partial(_slack, send)
    if settings.sns is not None:
        region = settings.sns.split(":")[3]
        found[Way.SNS] = functools.partial(publish, caller(settings.sns_profile, region), settings.sns)
    return found


async def keep_secret(way: Way, value: str | None) -> None:
    """Keep the secret of a way in the keyring; None: forget it.

    Raises:
        BadRequest: it can not be one.
        NoKeyring, Unreachable: it can not be kept.
    """
    if value is None:
        await delete_secret(_name(way))
    else:
        await set_secret(_name(way), check_secret(way, value))


def _name(way: Way) -> str:
    return f"notify-{way}"


async def _desktop(title: str, text: str) -> None:
    if not await notice(title, text):
        raise Unreachable("there is no desktop that shows notices")


async def _run(command: tuple[str, ...], title: str, text: str) -> None:
    if not await tell(command, title, text):
        raise Unreachable(
            f"{command[0]} did not end well", hint="see notify.command in devboxctl config show"
        )


async def _ntfy(topic: str, send: Send, title: str, text: str) -> None:
    # A topic without a token is usual; one that wants it says so itself.
    try:
        token = await get_secret(_name(Way.NTFY))
    except DevboxError:
        token = None
    await send(to_ntfy(topic, token, title, text), Way.NTFY)


async def _slack(send: Send, title: str, text: str) -> None:
    webhook = await get_secret(_name(Way.SLACK))
    if webhook is None:
        raise SecretMissing(
            f"notify.slack is on, and {SECRETS[Way.SLACK]} is not in the keyring",
            hint="devboxctl notify set slack",
        )
    await send(to_slack(webhook, title, text), Way.SLACK)
