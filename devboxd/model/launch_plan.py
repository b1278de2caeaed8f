"""What a launch would call at AWS, in order: nothing is done, and what has no id yet is in brackets."""

from __future__ import annotations

from msgspec.structs import replace

from devboxd.model import launch, rebase_plan
from devboxd.model.ledger import Ledger
from devboxd.model.project import Cycle, Phase, Project
from devboxd.model.rebase_plan import Calls
from devboxd.model.seen import Observed, Seen
from devboxd.model.step import ChangeType, Start, Write


def planned(known: Ledger, now: Project, at: float) -> tuple[Project, Calls] | None:
    """The project as it would be, and the calls; None where it could not be launched.

    ``known``: with the wish in it; ``now``: the project as it was before. What is under way already is in no list.
    """
    row, run = known.project, known.run
    if row.is_to_rebase or row.is_moving:
        return rebase_plan.planned(known, now, at)
    if now.phase is Phase.LAUNCHING and run is not None and not row.is_let_go:
        return row, (launch.call(row, run),)
    if row.is_let_go or now.phase in (Phase.ABSENT, Phase.READY, Phase.RELEASING, Phase.RESCUE):
        return _anew(known, now, at)
    if now.phase is Phase.RUNNING and row.cycle is Cycle.NONE:
        return row, ()
    _, calls = rebase_plan.let_go(known, now, at)
    other = (ChangeType(row.instance or "", row.next_type),) if row.next_type is not None else ()
    return row, (*calls[:-1], *other, Start(row.instance or ""))


def _anew(known: Ledger, now: Project, at: float) -> tuple[Project, Calls] | None:
    """What is there is saved and let go, and it is launched from that, or from a generation of before."""
    known, calls = rebase_plan.let_go(known, now, at)
    seen = Seen(known.project, known.run, known.generations, Observed(), at)
    if known.project.rollback is not None:
        back = launch.roll_back(seen)
        if not isinstance(back, Write):
            return None
        seen = replace(seen, project=back.project, generations=(*known.generations, *back.generations))
    launched = launch.planned(seen)
    return None if launched is None else (launched[0], (*calls, launched[1]))
