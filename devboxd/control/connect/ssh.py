"""Make ``ssh`` to a box work with no key pair and no blind trust.

A key of the user's own is made here once and put on the box over the authenticated session; the box's
host keys come back the same way and are pinned. Where the session may not write the user's
``authorized_keys``, EC2 Instance Connect is asked to; where that is denied, too, ssh goes on with the keys
that its user has, and is told why.

Whether what was found before is still believed is decided in ``model.ssh``.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol

import msgspec

from devboxd.boxside.script import load, squeeze
from devboxd.control.base.shared import Shared
from devboxd.control.connect.audience import Capture
from devboxd.control.connect.execute import ExecSpec
from devboxd.control.connect.terminal import Terminal
from devboxd.errors import BadRequest, DevboxError, WrongState
from devboxd.model.box import Account, BoxRef
from devboxd.model.names import check_user, host_key, is_user
from devboxd.model.ssh import (
    NO_DOUBTS,
    Doubts,
    Ended,
    Looked,
    is_doubted,
    may_replace,
    must_look,
    worth_saying,
)
from devboxd.model.terminal import Leaving
from devboxd.text import one_line

log = logging.getLogger(__name__)

MOST_HOST_KEYS: Final = 16  # of one sshd; it has one of each kind


class Access(msgspec.Struct, frozen=True):
    """What was put in place on a box. ``at`` is Unix seconds; ``for_doubt``: ssh seemed to have failed before.

    ``news`` is what the user should be told now, in sentences.
    """

    target: str
    user: str
    port: int
    has_key: bool
    host_keys: list[str]
    problems: list[str]
    at: float
    for_doubt: bool = False
    news: tuple[str, ...] = ()

    @property
    def looked(self) -> Looked:
        """The look at the box that found this."""
        return Looked(self.at, bool(self.host_keys) and not self.problems, self.for_doubt)


class Keys(Protocol):
    """This machine's side: our key and the pinned host keys."""

    async def public_key(self) -> str:
        """Our public key, one line; made on first use."""

    async def pin(self, boxes: list[str], port: int, keys: list[str]) -> None:
        """Replace what is pinned for these boxes: lines of key type and key."""

    def pinned_for(self, box: str, port: int) -> Sequence[str]:
        """What is pinned for a box."""

    async def note_user(self, name: str, user: str) -> None:
        """Let the generated configuration log in to this box as ``user``."""


_Key = tuple[Account, str, str, int]


def _key(box: BoxRef, user: str | None, port: int) -> _Key:
    """Who may become whom on a box is a matter of the account that asks, too."""
    return box.account, box.target, user or "", port


Run = Callable[[ExecSpec, Terminal], Awaitable[Leaving]]
SendKey = Callable[[BoxRef, str, str], Awaitable[None]]


class SshAccess:
    """Prepares boxes for ssh and remembers which ones are."""

    def __init__(self, shared: Shared, keys: Keys, run: Run, send_key: SendKey) -> None:
        self._shared = shared
        self._keys = keys
        self._run = run
        self._send_key = send_key
        self._known: dict[_Key, Access] = {}
        self._failed: dict[_Key, DevboxError] = {}
        self._locks: dict[_Key, asyncio.Lock] = {}
        self._doubts: dict[tuple[str, int], Doubts] = {}  # by instance and port
        self._said: dict[_Key, tuple[str, ...]] = {}  # problems that were told

    async def prepare(
        self,
        box: BoxRef,
        *,
        user: str | None,
        port: int,
        hosts: Sequence[str] = (),
        fresh: bool = False,
        hasty: bool = True,
    ) -> Access:
        """Put our key on the box and its host keys here.

        Callers that come while the same is under way wait for it and share what comes of it.

        Args:
            user: who will log in; None: whoever a session of ours is on the box.
            hosts: under which names ssh looks for the host key, without their suffix.
            fresh: do it even if it was done lately.
            hasty: False: where something was wrong, do it again even if that was a moment ago.

        Raises:
            BadRequest: a user name that cannot be one.
            DevboxError: the box cannot be reached at all.
        """
        wanted = user if user is not None else box.user
        if wanted is not None:
            check_user(wanted)
        access = await self._prepared(box, wanted, port, fresh=fresh, hasty=hasty)
        # Each time: another box may have had this name since, or nobody has used it for this one yet.
        names = sorted({*hosts, box.target})
        news = self._news(box, wanted, port, access)
        if access.host_keys:
            await self._keys.pin(names, port, access.host_keys)
        for name in names:
            await self._keys.note_user(name, access.user)
        return msgspec.structs.replace(access, news=news) if news else access

    def ended(self, box: BoxRef, port: int, ended: Ended) -> None:
        """A connection of ssh is over."""
        sshd, now = (box.target, port), self._shared.time.wall()
        log.debug("ssh to %s is over: %r", box.name, ended)
        self._doubts[sshd] = self._doubts.get(sshd, NO_DOUBTS).after(ended, now)

    def _news(self, box: BoxRef, wanted: str | None, port: int, access: Access) -> tuple[str, ...]:
        """What the user should read: problems, as far as they are new, and a host key that is another one now."""
        key, problems = _key(box, wanted, port), tuple(access.problems)
        said = self._said.get(key, ())
        is_said = worth_saying(problems, said, is_doubted=access.for_doubt)
        self._said[key] = problems
        before = self._keys.pinned_for(box.target, port)
        if not access.host_keys or not before or set(before) == set(access.host_keys):
            return problems if is_said else ()
        renewed = f"{box.name} has other host keys than before; it says so itself, over its session"
        return (*(problems if is_said else ()), renewed)

    async def _prepared(
        self, box: BoxRef, wanted: str | None, port: int, *, fresh: bool, hasty: bool
    ) -> Access:
        """What is on the box; looked at where that was not done lately."""
        key = _key(box, wanted, port)
        before, failed_before = self._known.get(key), self._failed.get(key)
        async with self._locks.setdefault(key, asyncio.Lock()):
            known, failed = self._known.get(key), self._failed.get(key)
            if failed is not None and failed is not failed_before:
                raise failed
            doubts = self._doubts.get((box.target, port), NO_DOUBTS)
            last, now = known.looked if known is not None else None, self._shared.time.wall()
            if known is not None and (
                known is not before or not must_look(last, now, doubts, fresh=fresh, hasty=hasty)
            ):
                if not known.has_key and known is before:
                    with contextlib.suppress(DevboxError):  # the problem was told when it was looked at
                        await self._ask_instance_connect(box, known.user)
                return known
            kept = known.host_keys if known and not may_replace(last, now, doubts, fresh=fresh) else []
            access = await self._looked_at(box, wanted, port, known, kept, doubts, fresh=fresh)
            for name in {wanted, access.user}:
                self._known[_key(box, name, port)] = access
            return access

    async def _looked_at(
        self,
        box: BoxRef,
        wanted: str | None,
        port: int,
        known: Access | None,
        kept: list[str],
        doubts: Doubts,
        *,
        fresh: bool,
    ) -> Access:
        """What is on the box now. A failure is kept for those who wait for the same."""
        key = _key(box, wanted, port)
        try:
            access = await self._prepare(box, wanted, port, kept)
        except DevboxError as error:
            self._failed[key] = error
            raise
        self._failed.pop(key, None)
        if known is not None and not fresh and is_doubted(known.looked, doubts):
            return msgspec.structs.replace(access, for_doubt=True)
        return access

    async def _prepare(self, box: BoxRef, user: str | None, port: int, kept: list[str]) -> Access:
        """Put the key on the box. ``kept``: host keys that stay; where there are some, its sshd is left alone."""
        public = await self._keys.public_key()
        problems: list[str] = []
        asked = "" if kept else str(port)
        answers = await self._ask(box, user, asked, public, problems)
        if answers is None:
            # As that user nothing can run; the host keys are the same for everybody.
            answers = [] if kept else await self._ask(box, None, asked, public, problems) or []
            answers = [(word, value) for word, value in answers if word == "host"] + [("user", user or "")]
        words = dict(answers)
        # What a box prints ends on the command line of ssh and in its configuration.
        login = user or words.get("user") or "root"
        if not is_user(login):
            raise BadRequest(
                f"{box.name} says that its user is {login[:64]!r}, which cannot be a user's name",
                hint="name one: devboxctl ssh --user NAME",
            )
        has_key = words.get("key") == "yes"
        if not has_key:
            try:
                await self._ask_instance_connect(box, login)
            except DevboxError as error:
                problems.append(f"devbox's key could not be put on {box.name} for {login}: {error.message}")
        host_keys = (
            kept
            or [key for word, value in answers if word == "host" and (key := host_key(value)) is not None][
                :MOST_HOST_KEYS
            ]
        )
        if not host_keys:
            problems.append(f"no host key could be learned: does sshd listen on port {port} of {box.name}?")
        return Access(box.target, login, port, has_key, host_keys, problems, self._shared.time.wall())

    async def _ask(
        self, box: BoxRef, user: str | None, port: str, public: str, problems: list[str]
    ) -> list[tuple[str, str]] | None:
        terminal = Capture((public.strip() + "\n").encode())
        spec = ExecSpec(
            box=box,
            argv=["sh", "-c", squeeze(load("prepare_ssh.sh", common=False)), "devbox", port],
            user=user,
        )
        leaving = await self._run(spec, terminal)
        text = terminal.stdout.decode("utf-8", "replace")
        answers = [(word, value) for line in text.splitlines() for word, _, value in [line.partition(" ")]]
        if ("done", "yes") in answers:
            return answers
        if leaving.error is not None and (user is None or not isinstance(leaving.error, WrongState)):
            raise leaving.error
        why = leaving.error.message if leaving.error else one_line(terminal.stderr.decode("utf-8", "replace"))
        problems.append(why or f"the preparation ended with status {leaving.status}")
        return None

    async def _ask_instance_connect(self, box: BoxRef, user: str) -> None:
        await self._send_key(box, user, await self._keys.public_key())
