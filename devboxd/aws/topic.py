"""SNS: a message to a topic (SNS API Reference, Publish)."""

from __future__ import annotations

from devboxd.aws.calls import Calls
from devboxd.model.notice import plain, subject


async def publish(caller: Calls, topic: str, title: str, text: str) -> None:
    """Publish a notice; who has subscribed gets it by mail, SMS or whatever they chose. Errors: those of a call."""
    await caller.call("sns", "publish", TopicArn=topic, Subject=subject(title), Message=plain(text))
