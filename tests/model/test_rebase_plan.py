"""What a rebase would call, by the phase in which it is asked for."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from devboxd.model.ledger import Ledger
from devboxd.model.offer import MachineType
from devboxd.model.project import Boot, Phase
from devboxd.model.rebase_plan import NEW_BOX, NEW_VOLUME, SAVED, architecture, planned
from devboxd.model.step import Attach, Launch, MakeVolume
from tests.model.scenes import AT, RUN, generation, project
from tests.model.test_rebase import ASKED, BEGUN

AROUND = ["MakeVolume", "Attach", "TakeOff", "Tag", "DropVolume"]


def plan(phase: Phase, **changes: Any) -> tuple[Any, list[Any], list[str]]:
    changes.setdefault("rebase", ASKED)
    now = project(phase, head=1, instance=None if phase is Phase.READY else "i-1")
    known = Ledger(replace(now, **changes), RUN, (generation(1),))
    row, calls = planned(known, now, AT)
    return row, list(calls), [type(call).__name__ for call in calls]


@pytest.mark.parametrize(
    ("phase", "first", "source"),
    [
        (Phase.RUNNING, ["Stop", "MakeImage", "Release"], SAVED),
        (Phase.SAVING, ["MakeImage", "Release"], SAVED),
        (Phase.WARM, ["Release"], "snap-1-xvda"),
        (Phase.READY, [], "snap-1-xvda"),
    ],
)
def test_what_runs_is_saved_and_all_of_it_is_let_go_and_launched(
    phase: Phase, first: list[str], source: str
) -> None:
    row, calls, names = plan(phase)
    assert names == [*first, "Launch", *AROUND]
    assert (row.spec.image, row.instance) == ("ami-new", None)
    launch, made, attach = calls[len(first) : len(first) + 3]
    assert isinstance(launch, Launch)
    assert launch.run.image == "ami-new"
    assert isinstance(made, MakeVolume)
    assert made.disk.source == source
    assert isinstance(attach, Attach)
    assert (attach.volume, attach.instance) == (NEW_VOLUME, NEW_BOX)


def test_one_that_goes_on_while_its_box_runs_copies_only() -> None:
    _, calls, names = plan(Phase.RUNNING, rebase=BEGUN)
    assert names == AROUND
    assert calls[1].instance == "i-1"


def test_what_can_not_be_launched_has_no_plan() -> None:
    spec = replace(project(Phase.READY).spec, places=())
    assert plan(Phase.READY, spec=spec)[2] == []


ARM = MachineType("m8g.large", ("arm64",))
INTEL = MachineType("m7i.large", ("x86_64",))
BOTH = MachineType("virtual", ("arm64", "x86_64"))


@pytest.mark.parametrize(
    ("machines", "before", "wanted"),
    [
        ((), None, "arm64"),
        ((), "x86_64", "x86_64"),
        ((BOTH,), "x86_64", "x86_64"),
        ((BOTH,), None, "arm64"),
        ((BOTH, INTEL), "arm64", "x86_64"),
        ((ARM,), "x86_64", "arm64"),
    ],
)
def test_the_image_is_of_the_architecture_of_before_where_it_can_be(
    machines: tuple[MachineType, ...], before: str | None, wanted: str
) -> None:
    assert architecture(machines, Boot(architecture=before)) == wanted
