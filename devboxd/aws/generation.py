"""One botocore session with its clients: made when first needed, retired as a whole."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any, Final

from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession
from botocore.loaders import create_loader

from devboxd import __version__
from devboxd.aws.http import BoundedSession, Parsers, session_for
from devboxd.aws.providers import Kept, Providers
from devboxd.aws.watch import Stamps

CONNECT_TIMEOUT: Final = 5.0  # seconds
READ_TIMEOUT: Final = 20.0  # seconds; StartSession has been seen to take some
ATTEMPTS: Final = 3  # in all, by botocore's standard mode. The one retry level of a single call
# Service models are large and never change: one loader for all sessions of the process.
_LOADER: Final = create_loader()


def new_session(profile: str | None) -> AioSession:
    """A botocore session that reads answers as we do. Reads no file yet."""
    session = AioSession(profile=profile)
    session.register_component("data_loader", _LOADER)
    session.register_component("response_parser_factory", Parsers())
    # For the clients that providers of credentials make for themselves (sts, sso).
    session.set_default_client_config(
        AioConfig(connect_timeout=CONNECT_TIMEOUT, read_timeout=READ_TIMEOUT, http_session_cls=BoundedSession)
    )
    return session


def give_providers(
    session: AioSession, profile: str, region: str, kept: Kept, now: Callable[[], float]
) -> None:
    """Let a session get its credentials in our way. ``now``: Unix seconds."""
    session.register_component("credential_provider", Providers(session, profile, region, kept, now))


@dataclass(slots=True, eq=False)
class Generation:
    """One botocore session with its clients. Retired as a whole; closed when its last call is over."""

    session: AioSession
    region: str
    sources: Stamps
    account_id: str | None = None  # of the credentials, once it was asked for
    _stack: contextlib.AsyncExitStack = field(default_factory=contextlib.AsyncExitStack)
    _clients: dict[str, Any] = field(default_factory=dict)
    _making: asyncio.Lock = field(default_factory=asyncio.Lock)
    _users: int = 0
    _retired: bool = False

    @contextlib.asynccontextmanager
    async def client(self, service: str) -> AsyncIterator[Any]:
        """Lend a client."""
        self._users += 1
        try:
            yield self._clients.get(service) or await self._make(service)
        finally:
            self._users -= 1
            await self._close_if_unused()

    async def retire(self) -> None:
        """Close now, or when the calls that are under way have ended."""
        self._retired = True
        await self._close_if_unused()

    async def _close_if_unused(self) -> None:
        if self._retired and not self._users:
            self._clients.clear()
            await self._stack.aclose()

    async def _make(self, service: str) -> Any:
        async with self._making:
            if service in self._clients:
                return self._clients[service]
            config = AioConfig(
                connect_timeout=CONNECT_TIMEOUT,
                read_timeout=READ_TIMEOUT,
                retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
                user_agent_extra=f"devbox/{__version__}",
                # Reading a model takes up to 0.1 s of CPU: in a thread, not on the event loop.
                warm_up_loader_caches=True,
                http_session_cls=session_for(service),
            )
            make: Any = self.session.create_client  # its typed overloads want a literal name
            client = await self._stack.enter_async_context(
                make(service, region_name=self.region, config=config)
            )
            self._clients[service] = client
            return client
