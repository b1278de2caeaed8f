"""The directory of boxes: which box a name means, and what is known of each."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from devboxd.control.base.memory import Memory
from devboxd.control.base.needs import Cloud
from devboxd.control.base.time import Time
from devboxd.errors import BadRequest, BoxAmbiguous, BoxNotFound, Denied, DevboxError, Missing, Unreachable
from devboxd.model.box import Account, BoxRef, Instance
from devboxd.model.config import Config
from devboxd.model.names import (
    Listing,
    Meaning,
    Nothing,
    Several,
    called,
    host_label,
    is_host_name,
    is_instance_id,
    is_name,
    is_pinnable,
    listings,
    long_label,
    meaning,
    strip_suffix,
)
from devboxd.model.states import Connection

log = logging.getLogger(__name__)

KEPT: Final = 30.0  # seconds that a name keeps its instance without asking EC2 again
NAMES_MAX: Final = 1000  # names that are kept
LISTED: Final = 12  # names in one sentence


@dataclass(frozen=True, slots=True)
class Old:
    """Instances are of a moment (Unix seconds) and not of now, for this reason."""

    since: float
    why: DevboxError


class Boxes:
    """Names and what they stand for. ``config`` gives the one that holds now."""

    def __init__(self, time: Time, cloud: Cloud, memory: Memory, config: Callable[[], Config]) -> None:
        self._time = time
        self._cloud = cloud
        self._memory = memory
        self._config = config
        self._names: dict[tuple[str, Account], tuple[float, BoxRef]] = {}
        self._last: dict[Account, tuple[float, list[Instance]]] = {}

    def forget(self) -> None:
        """Look every name up anew: the configuration has changed."""
        self._names.clear()

    async def resolve(self, name: str, account: Account) -> BoxRef:
        """Find the box that ``name`` means: by id, in the configuration, by its tag, host name or beginning.

        Raises:
            BadRequest: it cannot be a name.
            BoxAmbiguous: it means several boxes.
            BoxNotFound: nothing is called so.
        """
        if not is_name(name):
            raise BadRequest(
                f"{name[:64]!r} cannot be a box", hint="give a name from devboxctl ls, or an instance id"
            )
        config = self._config()
        for asked in dict.fromkeys((name, strip_suffix(name))):
            target = asked
            if (configured := config.boxes.get(asked)) is not None:
                target = configured.target or asked
            if is_instance_id(target):
                return self._seen(config.box_ref(asked, target, config.account_of(account, asked)))
            if configured is not None:
                return await self._kept(asked, target, account)
        return await self._kept(name, None, account)

    async def _kept(self, name: str, target: str | None, asked: Account) -> BoxRef:
        """Look a name up at EC2, unless that was done a moment ago.

        Args:
            target: the Name tag that the configuration gives this name; None: it is in no configuration.
        """
        account = self._config().account_of(asked, name)
        now = self._time.monotonic()
        for said in dict.fromkeys((name, strip_suffix(name))):
            if (known := self._names.get((said, account))) is not None and now - known[0] < KEPT:
                return known[1]
        live = [instance for instance in await self._look(name, account) if not instance.state.is_gone]
        if target is not None:
            found: Meaning = called(target, live) or meaning(target, [], {})
            if isinstance(found, Nothing):
                raise BoxNotFound(
                    f"there is no box named {target!r}, which [boxes.{name}] is aimed at",
                    hint="devboxctl config edit, or devboxctl ls",
                )
        else:
            found = meaning(name, live, self._targets())
        match found:
            case Several():
                raise _ambiguous(target or name, found)
            case Nothing():
                raise _not_found(name, found)
        if target is None and found.name in self._config().boxes:
            return await self.resolve(found.name, asked)  # it may be in an account of its own
        if len(self._names) > NAMES_MAX:
            self._names.clear()
        called_so = found.name if target is None else name
        box = self._seen(self._config().box_ref(called_so, found.target, account))
        self._names[(name, account)] = self._names[(called_so, account)] = (now, box)
        return box

    async def _look(self, name: str, account: Account) -> list[Instance]:
        try:
            return await self._list(account)
        except (Denied, Unreachable) as error:
            raise type(error)(
                f"the name {name!r} cannot be looked up: {error.message}",
                hint="an instance id (i-…) works without EC2 permissions; or configure [boxes.NAME] target",
            ) from error

    def _targets(self) -> dict[str, str]:
        return {name: box.target or name for name, box in self._config().boxes.items()}

    async def all(self, account: Account) -> tuple[list[Instance], Account, Old | None]:
        """All boxes of an account, which one that is, and how they are old (None: fresh).

        Raises:
            DevboxError: AWS cannot be asked and nothing is remembered.
        """
        account = self._config().account_of(account)
        try:
            return await self._list(account), account, None
        except DevboxError as error:
            if (last := self._last.get(account)) is None:
                raise
            return last[1], account, Old(last[0], error)

    def listings(self, instances: Iterable[Instance]) -> dict[str, Listing]:
        """By id: how to show these instances, and what the configuration names beside them."""
        live = [instance for instance in instances if not instance.state.is_gone]
        return listings(live, self._targets())

    def host(self, box: BoxRef) -> str:
        """The host name that ssh is given for a box. It leads back to this box, whatever else there is."""
        _, instances = self._last.get(box.account, (0.0, ()))
        listing = self.listings(instances).get(box.target)
        if listing is not None and listing.ref == box.name:
            return strip_suffix(listing.host)
        # Not among what EC2 showed: nothing else can have this label but by its long form.
        return host_label(box.name) if is_host_name(box.name) else long_label(box.name)

    def hosts(self, box: BoxRef, asked: str) -> list[str]:
        """Under which names ssh may look for this box: its host name, and the one that somebody typed."""
        typed = strip_suffix(asked)
        return [self.host(box), *([typed] if is_pinnable(typed) else ())]

    async def instance(self, box: BoxRef) -> Instance | None:
        """The instance behind a box; None where EC2 may not be asked.

        Raises:
            BoxNotFound: EC2 and Session Manager both know none of that id.
        """
        try:
            found = await self._cloud.instances(box.account).get(box.target)
        except Missing:
            found = None
        except DevboxError as error:
            log.debug("%s cannot be looked at: %s", box.name, error)
            return None
        if found is None and await self.connection(box) is not Connection.CONNECTED:
            raise BoxNotFound(
                f"there is no instance {box.target} in this account and region", hint="see: devboxctl ls"
            )
        return found

    async def connections(self, account: Account) -> Mapping[str, Connection]:
        """Whether the agents of an account's boxes are connected, by instance id; empty if nobody can tell."""
        try:
            return await self._cloud.sessions(self._config().account_of(account)).connections()
        except DevboxError as error:
            log.debug("no connections: %s", error)
            return {}

    async def connection(self, box: BoxRef) -> Connection:
        """Whether the agent of a box is connected."""
        try:
            return await self._cloud.sessions(box.account).connection_status(box.target) or Connection.UNKNOWN
        except DevboxError:
            return Connection.UNKNOWN

    async def _list(self, account: Account) -> list[Instance]:
        instances = await self._cloud.instances(account).list()
        self._last[account] = (self._time.wall(), instances)
        return instances

    def _seen(self, box: BoxRef) -> BoxRef:
        self._memory.used(box.account)
        return box


def _ambiguous(name: str, found: Several) -> BoxAmbiguous:
    means = "is the beginning of" if found.begun else "means"
    return BoxAmbiguous(
        f"{name!r} {means} {len(found.names)} boxes: {_listed(found.names)}",
        hint="write more of the name, or an instance id" if found.begun else "use one of these",
    )


def _not_found(name: str, found: Nothing) -> BoxNotFound:
    if found.close:
        hint = f"did you mean {_listed(found.close)}?"
    else:
        hint = f"known boxes: {_listed(found.known)}" if found.known else "devboxctl ls shows what exists"
    return BoxNotFound(f"there is no box named {name!r}", hint=hint)


def _listed(names: tuple[str, ...]) -> str:
    """Names as one would type them into a shell."""
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(shlex.quote(name) for name in names[:LISTED]) + more
