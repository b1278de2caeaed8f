"""``init account``: the stack of an account with what was asked for it, and for a new one what it needs."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Final, Protocol

from devboxd.control.base.time import Time
from devboxd.control.lifecycle.account import Progress, SetUp, Stack
from devboxd.errors import BadRequest
from devboxd.model.stack import network

NETWORK: Final = "10.219.0.0/16"
_PARAMETERS: Final = re.compile(r"^Parameters:\n((?:(?:  .*)?\n)+)", re.MULTILINE)
_NAME: Final = re.compile(r"^  (\w+):$", re.MULTILINE)


class ZonedStack(Stack, Protocol):
    """A stack, and the zones of its region."""

    async def zones(self) -> Sequence[str]: ...


async def deploy(
    stack: ZonedStack,
    time: Time,
    template: str,
    *,
    cidr: str | None,
    given: Mapping[str, str],
    prefix: str,
    dry_run: bool,
) -> AsyncIterator[Progress]:
    """Make the stack or bring it up to date. ``cidr``: the network; None: as it is, or else ``NETWORK``.

    ``given``: parameters by name, stronger than what follows from the network. ``prefix``: the stack's name, and what
    the names in it begin with.

    Errors are those of ``SetUp.run``, and ``BadRequest`` for a network or a parameter that can not be.
    """
    if (other := given.get("Prefix", prefix)) != prefix:
        raise BadRequest(
            f"the names of the set-up begin with {prefix}, as configured, and not with {other}",
            hint=f'set projects.prefix = "{other}" in the configuration: the daemon looks for those names, too',
        )
    is_new = not await stack.parameters()
    asked: dict[str, str] = {"Prefix": prefix} if is_new else {}
    if cidr is not None or is_new:
        asked |= network(cidr or NETWORK, await stack.zones())
    asked |= given
    made = SetUp(
        stack,
        time,
        template=template,
        known=parameters_of(template),
        asked=asked,
        tags={"devbox:managed": prefix},
        dry_run=dry_run,
    )
    async for line in made.run():
        yield line


def parameters_of(template: str) -> list[str]:
    """The names of the template's parameters: those two columns in, in its section of that name."""
    found = _PARAMETERS.search(template)
    assert found is not None, "the template has parameters"
    return _NAME.findall(found[1])
