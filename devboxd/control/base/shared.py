"""What all drivers share: time, bells, gates, news and the task tree."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Self

from devboxd.control.base.bells import Bells
from devboxd.control.base.gate import Gates
from devboxd.control.base.handing import Handing
from devboxd.control.base.logins import Logins
from devboxd.control.base.needs import Clock
from devboxd.control.base.news import News
from devboxd.control.base.supervisor import Supervisor
from devboxd.control.base.time import Time


@dataclass(frozen=True, slots=True)
class Shared:
    """The common ground of one daemon."""

    time: Time
    bells: Bells
    gates: Gates
    news: News
    tasks: Supervisor
    logins: Logins
    handing: Handing = field(default_factory=Handing)

    @classmethod
    def of(cls, clock: Clock, *, dice: Callable[[], float] = random.random, api_width: int = 4) -> Self:
        """Make one. ``api_width``: calls about sessions that one account sees at once."""
        time = Time(clock, dice)
        return cls(time, Bells(), Gates(api_width), News(time), Supervisor("devboxd"), Logins(time))
