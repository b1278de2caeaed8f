"""Try a generation before its box may go: boot it on a small machine, wait until a session answers, throw it away.

Only where the policy says so. The probe is no run: its token has run 0, which is never bound, so whatever is left
of it is surplus. A generation that does not come up leaves the box as it is, for a person to look at, and nothing else.
"""

from __future__ import annotations

from typing import Final

from msgspec.structs import replace

from devboxd.model import tags
from devboxd.model.change import BRISK, broken
from devboxd.model.project import Generation, Phase, Place, Project, Run, Spec, as_ordered
from devboxd.model.seen import Box, Seen
from devboxd.model.states import InstanceState
from devboxd.model.step import Launch, Release, Step, TryBox, Wait, Write

TYPES: Final = {"arm64": "t4g.small", "x86_64": "t3.small"}  # cheap, and boot what Nitro types boot
FIRST: Final = 1_000_000  # attempt of the first probe's token: they were once called by their generation
PATIENCE: Final = 11  # tries of a session, each later than the one before: about half an hour


def is_probe(token: str | None, project: Project) -> bool:
    """Say whether this is the token of the probe that is on."""
    return project.probe is not None and project.phase is Phase.WARM and token == probe_token(project)


def probe_token(project: Project) -> str:
    """The launch token of the probe that is on. Each try has its own: EC2 answers a used one with what is gone."""
    return f"{project.uid}-0-{FIRST + project.probe_tries}"


def needs_probe(project: Project, head: Generation | None) -> bool:
    """Say whether the newest generation has to be tried yet."""
    return project.policy.verify and head is not None and not head.tested


def probing(seen: Seen, head: Generation) -> Step:
    """The next thing to do about a probe of the head."""
    project = seen.project
    if project.probe != head.number:
        begun = replace(project, probe=head.number, probe_tries=project.probe_tries + 1, probe_problem="")
        return Write("probe", begun, f"trying generation {head.number}")
    boxes = [one for one in seen.ec2.boxes if one.token == probe_token(project)]
    if project.probe_problem:
        return _let_go(seen, boxes)
    if not boxes:
        return _launched(project, head)
    box = boxes[0]
    match box.state:
        case InstanceState.RUNNING:
            return TryBox(box.id, head.number)
        case InstanceState.PENDING:
            return Wait(BRISK, f"generation {head.number} is being tried")
        case _:
            return failed(seen, head.number, f"its instance is {box.state} {box.reason}".rstrip())


def _let_go(seen: Seen, boxes: list[Box]) -> Step:
    """A probe that failed goes first: nothing is called any more once the project needs a person."""
    for box in boxes:
        if box.is_alive:
            return Release(box.id, box.spot_request)
    step = broken(seen, seen.project.probe_problem)
    return replace(step, project=replace(step.project, probe=None, probe_problem=""))


def _where(spec: Spec) -> tuple[Place, ...]:
    """Where a probe can go: each zone or subnet once."""
    return tuple({(place.zone, place.subnet): place for place in spec.places}.values())


def _launched(project: Project, head: Generation) -> Step:
    spec, token = project.spec, probe_token(project)
    kind, where = TYPES.get(head.boot.architecture or "", ""), _where(spec)
    if not kind or not where:
        return Wait(BRISK, f"generation {head.number} can not be tried: there is no small type for it")
    place = where[project.probe_tries % len(where)]
    run = Run(
        number=0,
        source=head.number,
        image=head.image,
        places=(),
        disks=as_ordered(head.disks, None, None),
        tags=spec.tags,
        profile=spec.profile,
        groups=spec.groups,
    )
    return Launch(token, Place(kind, place.zone, place.subnet), run, tags.of_launch(project, run, token))


def passed(seen: Seen, number: int) -> Write | None:
    """It answered: the generation is good, and its box may go."""
    tried = seen.generation(number)
    if tried is None:
        return None
    good = replace(tried, tested=True)
    changed = replace(seen.project, probe=None)
    return Write("probe", changed, f"generation {number} boots", generations=(good,))


def failed(seen: Seen, number: int, why: str) -> Write:
    """It did not come up. The box is not released; the probe is."""
    problem = f"generation {number} does not boot: {why}"
    return Write("probe", replace(seen.project, probe_problem=problem), problem)


def elsewhere(seen: Seen, why: str, times: int) -> Write | None:
    """There is no room for the probe: the next zone. None after each round: it waits before the next one."""
    project = seen.project
    if times % max(1, len(_where(project.spec))) == 0:
        return None
    changed = replace(project, probe_tries=project.probe_tries + 1)
    return Write("probe", changed, f"{why}; generation {project.probe} is tried elsewhere")
