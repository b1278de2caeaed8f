"""How a user is told of something while no terminal is attached: the ways there are, and what travels on each.

Sources: ntfy documentation, "Publish as JSON" and "Access tokens"; Slack API, "Sending messages using incoming
webhooks" (``&``, ``<`` and ``>`` are its control characters); SNS API Reference, Publish (``Subject``: ASCII, begins
with a letter, digit or mark, shorter than 100 characters).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final
from urllib.parse import urlsplit

from devboxd.errors import BadRequest
from devboxd.text import one_line

TEXT_MAX: Final = 500  # characters
SUBJECT_MAX: Final = 99
SECRET_MAX: Final = 2048  # characters
# The address of a topic of ntfy, and the name of one of SNS, as settings have them.
NTFY: Final = r"^https://[A-Za-z0-9.-]+(:\d{1,5})?(/[A-Za-z0-9._-]+)*/[-_A-Za-z0-9]{1,64}\Z"
TOPIC: Final = r"^arn:aws[a-z-]*:sns:[a-z0-9-]+:\d{12}:[-_A-Za-z0-9]{1,256}\Z"


class Way(StrEnum):
    """Where a notice can go."""

    DESKTOP = "desktop"
    COMMAND = "command"  # a program of the user's
    NTFY = "ntfy"
    SLACK = "slack"
    SNS = "sns"


# What is too secret for a configuration file, and lies in the keyring. Who has the address of a Slack webhook can
# write to its channel; a topic of ntfy may want a token.
SECRETS: Final = {
    Way.SLACK: "the address of an incoming webhook",
    Way.NTFY: "the access token of the topic",
}


@dataclass(frozen=True, slots=True)
class Post:
    """An HTTPS request. Its address and headers may be secret."""

    url: str = field(repr=False)
    body: dict[str, str]
    headers: dict[str, str] = field(default_factory=dict, repr=False)


def check_secret(way: Way, value: str) -> str:
    """The secret of a way, as it is kept.

    Raises:
        BadRequest: it can not be one. It is not quoted.
    """
    value = value.strip()
    if way not in SECRETS:
        raise BadRequest(f"{way} needs no secret", hint=f"these do: {', '.join(SECRETS)}")
    is_printable = value.isascii() and value.isprintable() and " " not in value
    if not value or len(value) > SECRET_MAX or not is_printable:
        raise BadRequest(f"that is not {SECRETS[way]}")
    if way is Way.SLACK:
        try:
            is_address = urlsplit(value).scheme == "https" and bool(urlsplit(value).hostname)
        except ValueError:
            is_address = False
        if not is_address:
            raise BadRequest(f"that is not {SECRETS[way]}", hint="it begins with https://")
    return value


def to_ntfy(topic: str, token: str | None, title: str, text: str) -> Post:
    """A message for a topic that ``NTFY`` matches."""
    server, _, name = topic.rpartition("/")
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return Post(server + "/", {"topic": name, "title": plain(title), "message": plain(text)}, headers)


def to_slack(webhook: str, title: str, text: str) -> Post:
    """A message for a channel. Nothing in it is read as markup, and it can call nobody."""
    said = f"{plain(title)}: {plain(text)}"
    for character, escaped in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):
        said = said.replace(character, escaped)
    return Post(webhook, {"text": said})


def subject(title: str) -> str:
    """The subject of an SNS message."""
    kept = plain(title).encode("ascii", "ignore").decode().strip()[:SUBJECT_MAX]
    return kept if kept[:1].isalnum() else f"devbox {kept}"[:SUBJECT_MAX].strip()


def plain(text: str) -> str:
    """Printable and short: parts of it may come from a box."""
    return one_line(text, TEXT_MAX)
