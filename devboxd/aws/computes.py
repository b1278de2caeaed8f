"""What the lifecycle asks of AWS, by account. Beside ``cloud``, which is all that connecting needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from devboxd.aws.clients import Callers
from devboxd.aws.ec2 import Ec2Api
from devboxd.aws.identity import identity
from devboxd.aws.offers import OffersApi
from devboxd.aws.scheduler import SchedulerApi
from devboxd.model.box import Account
from devboxd.model.stack import PREFIX


@dataclass(frozen=True, slots=True)
class AwsComputes:
    """EC2 of every account that is in use. ``prefix`` says that of ``init account`` as it is configured now."""

    callers: Callers
    prefix: Callable[[], str] = lambda: PREFIX

    def compute(self, account: Account) -> Ec2Api:
        """EC2, as the lifecycle needs it."""
        return Ec2Api(self.callers.caller(account.profile, account.region))

    def offers(self, account: Account) -> OffersApi:
        """What can be launched there, and where. Raises RegionMissing, ProfileUnknown or BadRequest."""
        where = self.callers.caller(account.profile, account.region)
        return OffersApi(where, where.region, self.prefix())


@dataclass(frozen=True, slots=True)
class AwsDeadman:
    """``control.base.needs.Deadman``: EventBridge Scheduler of every account that is in use. ``prefix``: as above."""

    callers: Callers
    prefix: Callable[[], str] = lambda: PREFIX

    async def stop_at(self, account: Account, instance: str, at: float) -> None:
        """See ``Deadman``."""
        await self._of(account).stop_at(instance, at)

    async def forget(self, account: Account, instance: str) -> None:
        """See ``Deadman``."""
        await self._of(account).forget(instance)

    def _of(self, account: Account) -> SchedulerApi:
        where = self.callers.caller(account.profile, account.region)
        return SchedulerApi(where, lambda: identity(where), self.prefix())
