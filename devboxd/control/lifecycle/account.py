"""Set an account up: deploy or update the stack of ``iac/devbox.yaml``, and tell how far it is.

The decision is ``model.stack.next_step``; this only looks, acts once and waits. Killed at any point, the same call
takes up where CloudFormation stands: the change set has a name of its own for each content, and is found again.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Final, Protocol, assert_never

import msgspec

from devboxd.control.base.time import Time
from devboxd.errors import Denied, DevboxError, WrongState
from devboxd.model.stack import (
    Change,
    Discard,
    Done,
    Execute,
    Failed,
    Prepare,
    Remove,
    StackSeen,
    Wait,
    kept,
    missing_permission,
    next_step,
)

REMOVED_WAIT: Final = 2.0  # seconds until a removed stack is looked for again
RACES: Final = 5  # change sets of ours that others' deployments made obsolete before we give up
EVENTS_SLACK: Final = 60.0  # seconds that this machine's clock may be ahead of AWS's


class Happened(Protocol):
    """An event of a stack."""

    @property
    def id(self) -> str: ...
    @property
    def time(self) -> float: ...
    @property
    def resource(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def status(self) -> str: ...
    @property
    def reason(self) -> str: ...
    @property
    def failed(self) -> bool: ...


class Stack(Protocol):
    """CloudFormation, as far as one stack needs it. Every error is a ``DevboxError``."""

    @property
    def name(self) -> str: ...
    async def look(self, change_set: str, *, executed: bool = False) -> StackSeen: ...
    async def parameters(self) -> dict[str, str]: ...
    async def outputs(self) -> dict[str, str]: ...
    async def prepare(
        self,
        change_set: str,
        template: str,
        parameters: Mapping[str, str | None],
        *,
        creates: bool,
        tags: Mapping[str, str],
    ) -> None: ...
    async def execute(self, change_set: str) -> None: ...
    async def discard(self, change_set: str) -> None: ...
    async def remove(self) -> None: ...
    async def events(self, since: float) -> Sequence[Happened]: ...


class Progress(msgspec.Struct, frozen=True):
    """One line of progress. ``state`` is ``change`` (would be or will be made), ``step``, ``failed`` or ``done``."""

    state: str
    text: str
    resource: str = ""
    action: str = ""


class SetUp:
    """One deployment of the stack."""

    def __init__(
        self,
        stack: Stack,
        time: Time,
        *,
        template: str,
        known: Sequence[str],
        asked: Mapping[str, str],
        tags: Mapping[str, str],
        dry_run: bool = False,
    ) -> None:
        self._stack = stack
        self._time = time
        self._template = template
        self._known = known
        self._asked = asked
        self._tags = tags
        self._dry_run = dry_run
        self._executed = False
        self._began = time.wall()
        self._told: set[str] = set()
        self._why: list[Happened] = []

    async def run(self) -> AsyncIterator[Progress]:
        """Go on until the stack is as wished.

        Raises:
            Denied: a permission is missing; the message names it.
            WrongState: CloudFormation can not do it; the message is its own.
            DevboxError: AWS could not be asked.
        """
        old = await self._stack.parameters()
        parameters = kept(self._known, old, self._asked)
        change_set = self._name(parameters)
        races = 0
        while True:
            seen = await self._stack.look(change_set, executed=self._executed)
            if self._executed:
                async for line in self._news():
                    yield line
            match next_step(seen, dry_run=self._dry_run):
                case Wait(seconds, text):
                    if not self._executed:
                        yield Progress("step", text)
                    await asyncio.sleep(seconds)
                case Prepare(creates):
                    races += 1
                    if races > RACES:
                        raise WrongState("somebody else keeps deploying this stack", hint="try again later")
                    yield Progress("step", "CloudFormation works out what would change")
                    given = {k: v for k, v in parameters.items() if v is not None or not creates}
                    await self._stack.prepare(
                        change_set, self._template, given, creates=creates, tags=self._tags
                    )
                case Execute():
                    assert seen.change_set is not None
                    for change in seen.change_set.changes:
                        yield _told(change)
                    await self._stack.execute(change_set)
                    self._executed = True
                case Discard():
                    assert seen.change_set is not None
                    await self._stack.discard(change_set)
                    if self._dry_run:
                        for change in seen.change_set.changes:
                            yield _told(change)
                        await self._leave_nothing(seen)
                        yield Progress("done", "nothing was changed")
                        return
                case Remove():
                    yield Progress("step", f"removing what an earlier try left ({seen.status})")
                    await self._stack.remove()
                    await asyncio.sleep(REMOVED_WAIT)
                case Done(changed):
                    if seen.change_set is not None:
                        await self._stack.discard(change_set)
                    yield Progress("done", "deployed" if changed else "nothing had to change")
                    return
                case Failed(reason):
                    raise self._failure(reason)
                case forgotten:
                    assert_never(forgotten)

    async def _leave_nothing(self, seen: StackSeen) -> None:
        """A change set for a new stack makes an empty one; a dry run takes it away again."""
        if seen.status == "REVIEW_IN_PROGRESS":
            await self._stack.remove()

    async def _news(self) -> AsyncIterator[Progress]:
        for event in await self._stack.events(self._began - EVENTS_SLACK):
            if event.id in self._told:
                continue
            self._told.add(event.id)
            if event.failed:
                self._why.append(event)
            if event.resource != self._stack.name:
                state = "failed" if event.failed else "step"
                yield Progress(state, event.reason, event.resource, event.status)

    def _failure(self, reason: str) -> DevboxError:
        """The first failure is the cause; the others are what it took along."""
        cause = next((one for one in self._why if "cancelled" not in one.reason.lower()), None)
        text = f"{cause.resource}: {cause.reason}" if cause is not None else reason
        if (missing := missing_permission(text)) is not None:
            action, on = missing
            return Denied(
                f"AWS does not allow {action}" + (f" on {on}" if on else "") + " for this deployment",
                hint="the whole list: devboxctl iam policy --for admin",
            )
        return WrongState(f"the stack could not be deployed: {text}", hint="nothing of it is left half done")

    def _name(self, parameters: Mapping[str, str | None]) -> str:
        """The same wish has the same change set, so that a second start finds that of the first."""
        wish = json.dumps([self._template, dict(parameters), dict(self._tags), self._dry_run], sort_keys=True)
        return f"devbox-{hashlib.sha256(wish.encode()).hexdigest()[:16]}"


def _told(change: Change) -> Progress:
    text = f"{change.kind}" + (" (replaced)" if change.replaces else "")
    return Progress("change", text, change.resource, change.action)
