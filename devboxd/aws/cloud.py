"""AWS by account: what control asks for, out of the pieces of this package."""

from __future__ import annotations

from dataclasses import dataclass, field

from devboxd.aws.clients import Callers
from devboxd.aws.connect_keys import send_ssh_public_key
from devboxd.aws.identity import identity
from devboxd.aws.instances import InstanceApi
from devboxd.aws.sessions import SessionApi
from devboxd.model.box import Account
from devboxd.model.identity import Identity


@dataclass(slots=True, eq=False)
class AwsCloud:
    """Session Manager and EC2 of every account that is in use."""

    callers: Callers
    _sessions: dict[Account, SessionApi] = field(default_factory=dict)

    def sessions(self, account: Account) -> SessionApi:
        """Session Manager; the same object for the same account, always."""
        if account not in self._sessions:
            self._sessions[account] = SessionApi(self.callers.caller(account.profile, account.region))
        return self._sessions[account]

    def instances(self, account: Account) -> InstanceApi:
        """EC2."""
        return InstanceApi(self.callers.caller(account.profile, account.region))

    async def identity(self, account: Account) -> Identity:
        """STS: who we are there."""
        return await identity(self.callers.caller(account.profile, account.region))

    async def send_ssh_key(self, account: Account, instance_id: str, user: str, public_key: str) -> None:
        """EC2 Instance Connect: the key logs in for a minute."""
        where = self.callers.caller(account.profile, account.region)
        await send_ssh_public_key(where, instance_id, user, public_key)
