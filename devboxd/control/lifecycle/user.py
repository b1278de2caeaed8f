"""What a user needs before the first launch: looked at one by one, made where that is asked for, and written down.

Nothing is remembered between two calls: what is there already is found and left alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, Final, Protocol

import msgspec

from devboxd.control.base.needs import Offers
from devboxd.control.base.time import Time
from devboxd.control.lifecycle.order import LaunchWish
from devboxd.control.lifecycle.projects import Plan
from devboxd.errors import BadRequest, Denied, DevboxError
from devboxd.model.answer import names_profile
from devboxd.model.box import Account
from devboxd.model.config import Config
from devboxd.model.identity import Identity, principal
from devboxd.model.offer import DEFAULT_TYPE
from devboxd.model.policy import Audience, Place, policy
from devboxd.model.project import Network
from devboxd.model.states import Result, StoreEngine

PROPAGATION: Final = 60.0  # seconds until EC2 knows of a new instance profile (IAM: "eventually consistent")
AGAIN: Final = 3.0
REHEARSED: Final = "init-user"  # the name of the project that is rehearsed, and never written down


class Finding(msgspec.Struct, frozen=True):
    """What one check found, or what was done."""

    name: str
    result: Result
    text: str
    hint: str | None = None


class UserApi(Protocol):
    """IAM and EC2, as far as this needs them."""

    async def rehearse(self, request: Mapping[str, Any]) -> None: ...
    async def roles_of(self, profile: str) -> list[str] | None: ...
    async def make_profile(self, name: str, policy: Mapping[str, Any]) -> None: ...


class Asked(msgspec.Struct, frozen=True):
    """What was asked of ``init user``. ``store``: which one to use from now on; None: as it is."""

    account: Account
    create_profile: bool = False
    profile: str | None = None
    store: StoreEngine | None = None
    dry_run: bool = False


class UserSetUp:
    """One look at one account and region; ``config`` says what new projects are like and where they stand.

    ``read_table`` reads the shared table, and raises where it can not; ``write`` puts settings into the configuration
    and names the file.
    """

    def __init__(
        self,
        asked: Asked,
        time: Time,
        *,
        api: Callable[[], UserApi],
        offers: Callable[[], Offers],
        identity: Callable[[], Awaitable[Identity]],
        plan: Callable[[str, LaunchWish], Awaitable[Plan]],
        read_table: Callable[[], Awaitable[object]],
        write: Callable[[Mapping[str, Mapping[str, Any]]], Awaitable[str | None]],
        config: Config,
    ) -> None:
        self._asked = asked
        self._time = time
        self._api = api
        self._offers = offers
        self._identity = identity
        self._plan = plan
        self._read_table = read_table
        self._write = write
        self._defaults = config.defaults
        self._usual = config.projects
        self._store = config.store
        self._prefix = config.projects.prefix
        self._table_name = config.table

    async def run(self) -> AsyncIterator[Finding]:
        """Each finding as it comes. What follows from a failure is not looked at. Raises nothing of AWS's."""
        try:
            who = await self._identity()
        except DevboxError as error:
            yield _failed("login", error)
            return
        named = principal(who.arn)
        text = f"account {who.number}, {named.kind} {named.name}, region {who.region or 'none'}"
        yield Finding("login", Result.OK, text)
        profile = self._asked.profile or self._usual.instance_profile
        try:
            types = (self._usual.type or DEFAULT_TYPE,)
            chosen = Network(self._usual.zone, self._usual.subnets, self._usual.security_groups)
            ground = await self._offers().ground(types, chosen)
        except DevboxError as error:
            yield _failed("network", error)
            return
        zones = ", ".join(dict.fromkeys(place.zone or "" for place in ground.places))
        where = (
            "the default VPC"
            if ground.is_default
            else "the network of init account"
            if ground.profile
            else "subnets"
        )
        yield Finding("network", Result.OK, f"{where}, {types[0]} in {zones}")
        if not any(one.is_public for one in ground.subnets):
            yield Finding(
                "addresses",
                Result.WARNING,
                "boxes get no public address there",
                "Session Manager then needs a NAT gateway or SSM endpoints in that network",
            )
        wanted = profile or ground.profile or f"{self._prefix}-box"
        found = await self._with_profile(wanted, who)
        yield found
        if found.result is Result.FAILED:
            return
        async for finding in self._rehearsed(wanted, is_there=found.result is not Result.SKIPPED):
            yield finding
        engine = self._asked.store or self._store.engine
        if engine is StoreEngine.DYNAMODB:
            table = await self._table()
            yield table
            if table.result is Result.FAILED:
                engine = self._store.engine
        async for finding in self._written(wanted if wanted != ground.profile else None, who, engine):
            yield finding

    async def _with_profile(self, name: str, who: Identity) -> Finding:
        """The instance profile: there, or made."""
        bare = name.rpartition("/")[2]
        hint = "devboxctl init user --create-profile makes one; or devboxctl init account, or name one: --instance-profile"
        try:
            roles = await self._api().roles_of(bare)
        except Denied as error:
            return Finding(
                "profile", Result.WARNING, f"{name} can not be looked at: {error.message}", error.hint
            )
        except DevboxError as error:
            return _failed("profile", error)
        if roles:
            return Finding("profile", Result.OK, f"{name}, with the role {', '.join(roles)}")
        missing = (
            f"there is no instance profile {name}"
            if roles is None
            else f"the instance profile {name} has no role"
        )
        if not self._asked.create_profile:
            return Finding("profile", Result.FAILED, missing, hint)
        if self._asked.dry_run:
            return Finding(
                "profile", Result.SKIPPED, f"{missing}: it would be made, with a role of the same name"
            )
        place = Place(who.partition, "*", who.number, self._prefix)
        try:
            await self._api().make_profile(bare, policy(Audience.BOX, place))
        except DevboxError as error:
            return _failed("profile", error, "whoever may can do it: devboxctl iam policy --for admin")
        return Finding(
            "profile", Result.OK, f"made {name}, with a role that lets the SSM Agent in and nothing else"
        )

    async def _rehearsed(self, profile: str, *, is_there: bool) -> AsyncIterator[Finding]:
        """A launch of what a new project would be, as far as EC2 lets one try."""
        usual = self._usual
        wish = LaunchWish(
            types=(usual.type,) if usual.type else (),
            gib=usual.disk,
            base=usual.base,
            zone=usual.zone,
            subnets=usual.subnets,
            groups=usual.security_groups,
            kms=usual.key,
            profile=profile,
            user_data=usual.user_data,
            tags=dict(usual.tags),
            account=self._asked.account,
        )
        try:
            plan = await self._plan(REHEARSED, wish)
        except DevboxError as error:
            yield _failed("image", error)
            return
        spec = plan.project.spec
        yield Finding("image", Result.OK, f"{spec.base} is {spec.image}")
        if not is_there:
            yield Finding("launch", Result.SKIPPED, "it is tried once the instance profile is there")
            return
        (request,) = [parameters for operation, parameters in plan.calls if operation == "run_instances"]
        until = self._time.monotonic() + PROPAGATION
        while True:
            try:
                await self._api().rehearse(request)
            except BadRequest as error:
                # A profile that was made a moment ago is not known everywhere yet.
                if names_profile(error.message) and self._made and self._time.monotonic() < until:
                    await asyncio.sleep(AGAIN)
                    continue
                yield _failed("launch", error)
            except DevboxError as error:
                yield _failed("launch", error, "the whole list: devboxctl iam policy --for user")
            else:
                yield Finding("launch", Result.OK, "EC2 would launch it (nothing was launched)")
            return

    @property
    def _made(self) -> bool:
        return self._asked.create_profile and not self._asked.dry_run

    async def _table(self) -> Finding:
        try:
            await self._read_table()
        except DevboxError as error:
            return _failed("store", error)
        return Finding("store", Result.OK, f"the table {self._table_name} can be read")

    async def _written(
        self, profile: str | None, who: Identity, engine: StoreEngine
    ) -> AsyncIterator[Finding]:
        """Write down what is not said elsewhere."""
        settings: dict[str, dict[str, Any]] = {}
        if profile is not None and self._usual.instance_profile != profile:
            settings.setdefault("projects", {})["instance_profile"] = profile
        if engine is not self._store.engine:
            settings.setdefault("store", {})["engine"] = engine.value
            settings["store"]["region"] = self._store.region or who.region
        asked = self._asked.account
        if asked.profile is not None and self._defaults.profile is None:
            settings.setdefault("defaults", {})["profile"] = asked.profile
        if asked.region is not None and self._defaults.region is None:
            settings.setdefault("defaults", {})["region"] = asked.region
        shown = ", ".join(
            f'{section}.{name} = "{value}"'
            for section, table in settings.items()
            for name, value in table.items()
        )
        if not settings:
            yield Finding("settings", Result.OK, "nothing has to be written")
        elif self._asked.dry_run:
            yield Finding("settings", Result.SKIPPED, f"would be written: {shown}")
        else:
            try:
                file = await self._write(settings)
            except DevboxError as error:
                yield _failed("settings", error)
                return
            if file is None:
                yield Finding("settings", Result.WARNING, f"write this into your configuration: {shown}")
            else:
                yield Finding("settings", Result.OK, f"wrote {shown} into {file}")
            if "store" in settings:
                text = f"{engine} is used from the next start of devboxd on"
                yield Finding("store", Result.WARNING, text, "devboxctl daemon restart")


def _failed(name: str, error: DevboxError, hint: str | None = None) -> Finding:
    hints = "; ".join(dict.fromkeys(filter(None, (error.hint, hint))))
    return Finding(name, Result.FAILED, error.message, hints or None)
