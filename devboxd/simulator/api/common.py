"""What the APIs share: refused calls, what they need of the simulator, checks of members."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from devboxd.simulator.clock import Clock
from devboxd.simulator.gateway.gateway import Gateway
from devboxd.simulator.kms import Kms
from devboxd.simulator.machines import Machines
from devboxd.simulator.options import Options

ACCOUNT: Final = "123456789012"
OWNER: Final = f"arn:aws:sts::{ACCOUNT}:assumed-role/developer/dev"


class ApiError(Exception):
    """A refused call: error code, HTTP status, text."""

    def __init__(self, code: str, message: str = "", status: int = 400) -> None:
        super().__init__(message or code)
        self.code = code
        self.status = status


class World(Protocol):
    """What the APIs need of the simulator."""

    options: Options
    clock: Clock
    gateway: Gateway
    kms: Kms
    machines: Machines
    documents: dict[str, dict[str, Any]]

    def stream_base(self, host: str) -> str: ...

    def later(self, seconds: float, act: Callable[[], None]) -> None: ...


def required(body: Mapping[str, Any], name: str, longest: int = 96) -> str:
    """A text member of a request.

    Raises:
        ApiError: it is missing, no text, empty or longer than ``longest``.
    """
    value = body.get(name)
    if not isinstance(value, str) or not 1 <= len(value) <= longest:
        raise ApiError("ValidationException", f"Value at '{name}' failed to satisfy constraint")
    return value
