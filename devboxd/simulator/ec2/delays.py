"""How long things take in EC2. All in seconds, each a range from which one value is drawn."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Self

Range = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Delays:
    """The defaults are what one sees in an ordinary account; documentation gives no figures."""

    pending: Range = (4.0, 25.0)  # until running
    stopping: Range = (8.0, 60.0)  # the system shuts down
    hanging: Range = (600.0, 1200.0)  # it does not, and the power is cut at last
    forced: Range = (2.0, 10.0)  # with Force
    shutting_down: Range = (8.0, 60.0)
    rebooting: Range = (10.0, 40.0)
    checks: Range = (60.0, 180.0)  # until the status checks have an opinion
    volume_created: Range = (1.0, 5.0)
    attaching: Range = (1.0, 5.0)
    detaching: Range = (1.0, 10.0)
    volume_deleted: Range = (1.0, 60.0)
    modifying: Range = (5.0, 60.0)
    optimizing: Range = (60.0, 3600.0)
    snapshot: Range = (20.0, 900.0)
    image: Range = (2.0, 60.0)  # after its last snapshot
    registering: Range = (0.0, 20.0)
    deregistered_shown: Range = (0.0, 60.0)  # it still appears in describes
    tags_fade: Range = (900.0, 3000.0)  # after termination; the record itself stays for an hour

    def scaled(self, factor: float) -> Self:
        """The same proportions, faster or slower."""
        return replace(
            self,
            **{f.name: tuple(bound * factor for bound in getattr(self, f.name)) for f in fields(self)},
        )
