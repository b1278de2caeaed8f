"""The reconciler where nobody sits: which projects it acts on, what it leaves to a person's daemon, when it is done.

It runs from a timer, in a container, in CI or as a function of the account, with credentials that may do less than
a person's. What it can not do it leaves as it is: whoever can goes on from there.
"""

from __future__ import annotations

from typing import Final

from devboxd.model.change import CALM
from devboxd.model.price import parent_region
from devboxd.model.project import Project
from devboxd.model.step import (
    Attach,
    ChangeType,
    GrowFileSystem,
    GrowVolume,
    Launch,
    MakeVolume,
    MoveIn,
    Reach,
    Reboot,
    Start,
    Step,
    TryBox,
    Wait,
)

REST: Final = 60.0  # seconds: a longer wait is not waited out, the next start of the reconciler looks again
_RAISES_BOXES: Final = (
    Launch,
    Start,
    Reboot,
    TryBox,
    ChangeType,
    GrowVolume,
    GrowFileSystem,
    MakeVolume,
    Attach,
    Reach,
    MoveIn,
)


def saving_only(step: Step) -> Step:
    """The same step, or a wait in place of one that lets a box run: that is for a person's credentials.

    The role of the function saves, releases and sweeps. Were it to try, and be refused, a launch that another
    daemon has begun would be given up.
    """
    if isinstance(step, _RAISES_BOXES):
        return Wait(CALM, f"{type(step).__name__} is left to a daemon of the owner")
    return step


def region_of(project: Project) -> str | None:
    """The region that a project is in, also where its owner's settings chose it; None: nothing says it."""
    if project.account.region is not None:
        return project.account.region
    zones = {place.zone for place in project.spec.places if place.zone is not None}
    regions = {parent_region(zone) for zone in zones}
    return regions.pop() if len(regions) == 1 else None


def not_here(project: Project, owner: str, region: str) -> str:
    """Why the projects of a table are not all acted on from its own account and region; empty: this one is.

    ``owner`` is whose items they are: ``aws:userid`` in the account of the table, and never the same in two
    accounts. A project whose tags carry it is therefore in this account, whatever profile its owner calls that.
    """
    if project.owner != owner:
        return "it is in another account than the table"
    found = region_of(project)
    if found is None:
        return "its region is not written down"
    return "" if found == region else f"it is in {found}"
