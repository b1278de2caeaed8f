"""Try a generation before its box may go: boot it on a small machine, wait until a session answers, throw it away.

Only where the policy says so. The probe is no run: its token has run 0, which is never bound, so whatever is left
of it is surplus. A generation that does not come up leaves the box as it is, for a person to look at.
"""

from __future__ import annotations

from typing import Final

from msgspec.structs import replace

from devboxd.model import tags
from devboxd.model.change import BRISK, broken
from devboxd.model.project import Generation, Phase, Place, Project, Run, as_ordered
from devboxd.model.seen import Seen
from devboxd.model.states import InstanceState
from devboxd.model.step import Launch, Step, TryBox, Wait, Write

TYPES: Final = {"arm64": "t4g.small", "x86_64": "t3.small"}  # cheap, and boot what Nitro types boot
PATIENCE: Final = 11  # tries of a session, each later than the one before: about half an hour


def is_probe(token: str | None, project: Project) -> bool:
    """Say whether this is the token of the probe that is on."""
    return (
        project.probe is not None
        and project.phase is Phase.WARM
        and token == probe_token(project, project.probe)
    )


def probe_token(project: Project, number: int) -> str:
    """The launch token of the probe of a generation."""
    return f"{project.uid}-0-{number}"


def needs_probe(project: Project, head: Generation | None) -> bool:
    """Say whether the newest generation has to be tried yet."""
    return project.policy.verify and head is not None and not head.tested


def probing(seen: Seen, head: Generation) -> Step:
    """The next thing to do about a probe of the head."""
    project = seen.project
    if project.probe != head.number:
        return Write("probe", replace(project, probe=head.number), f"trying generation {head.number}")
    token = probe_token(project, head.number)
    box = next((one for one in seen.ec2.boxes if one.token == token), None)
    if box is None:
        return _launched(project, head, token)
    match box.state:
        case InstanceState.RUNNING:
            return TryBox(box.id, head.number)
        case InstanceState.PENDING:
            return Wait(BRISK, f"generation {head.number} is being tried")
        case _:
            return failed(seen, head.number, f"its instance is {box.state} {box.reason}".rstrip())


def _launched(project: Project, head: Generation, token: str) -> Step:
    spec = project.spec
    kind = TYPES.get(head.boot.architecture or "", "")
    if not kind or not spec.places:
        return Wait(BRISK, f"generation {head.number} can not be tried: there is no small type for it")
    place = spec.places[0]
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
    """It did not come up. Nothing is released."""
    return broken(seen, f"generation {number} does not boot: {why}")
