"""The tags of everything we make at AWS: an index of the rows, enough to make them anew.

All tags are set in the call that makes the resource. ``devbox:gen`` and Name are for people only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from devboxd.errors import BadRequest
from devboxd.model.project import Generation, Project, Run

OWNER: Final = "devbox:owner"
PROJECT: Final = "devbox:project"  # the name at that time, for people and bills; the identity is:
UID: Final = "devbox:id"
MANAGED: Final = "devbox:managed"  # what the policies and the account's dead-man switch go by
RUN: Final = "devbox:run"
LAUNCH: Final = "devbox:launch"  # launch token
SAVE: Final = "devbox:save"  # save number
STAMP: Final = "devbox:stamp"  # LaunchTime that the save is of; empty: a running box, or a rescue
REBASE: Final = (
    "devbox:rebase"  # on a copy of an old root, there until the home is taken from it: its client token
)
GENERATION: Final = "devbox:gen"
GARBAGE: Final = (
    "devbox:gc"  # Unix time in seconds since when it is left over; IAM lets nothing else be deleted
)


MOST: Final = (
    50 - 10
)  # of the user's own: EC2 takes 50 on a resource (API: TagSpecification), and some are ours


def checked(own: Mapping[str, str]) -> dict[str, str]:
    """The user's own tags, if EC2 and we can take them.

    Raises:
        BadRequest: one is too long, reserved, or they are too many.
    """
    for key, value in own.items():
        if not 1 <= len(key) <= 128 or len(value) > 256:
            raise BadRequest(
                f"the tag {key[:64]!r} is too long", hint="a key has 1 to 128 characters, a value 256"
            )
        if _is_reserved(key):
            raise BadRequest(
                f"the tag {key!r} is not yours to set", hint="devbox sets Name and devbox:…, AWS aws:…"
            )
    if len(own) > MOST:
        raise BadRequest(f"these are {len(own)} tags: {MOST} are the most")
    return dict(own)


def of_user(found: Mapping[str, str]) -> dict[str, str]:
    """What somebody has put on an instance that we did not launch: as much of it as a project can carry."""
    own = {key: value for key, value in found.items() if not _is_reserved(key)}
    return dict(sorted(own.items())[:MOST])


def _is_reserved(key: str) -> bool:
    return key.lower().startswith(("aws:", "devbox:")) or key == "Name"


def of_project(project: Project, own: Mapping[str, str]) -> dict[str, str]:
    """What every resource carries, the user's own tags among them: those can not replace ours."""
    return {
        **own,
        "Name": project.name,
        MANAGED: "devbox",
        OWNER: project.owner,
        PROJECT: project.name,
        UID: project.uid,
    }


def of_launch(project: Project, run: Run, token: str) -> dict[str, str]:
    """Instance, volumes and network interface of one attempt. A repeat must say the same: no clock, no count."""
    return {**of_project(project, run.tags), RUN: str(run.number), LAUNCH: token}


def of_save(project: Project, number: int) -> dict[str, str]:
    """Image and snapshots of one save."""
    stamp = "" if project.stamp is None else f"{project.stamp:.0f}"
    return {**of_project(project, project.spec.tags), RUN: str(project.run), SAVE: str(number), STAMP: stamp}


def of_old_root(project: Project, token: str) -> dict[str, str]:
    """A copy of the root volume that homes are taken from. It has no launch token: it is no volume of the box."""
    return {**of_project(project, project.spec.tags), RUN: str(project.run), REBASE: token}


def of_generation(generation: Generation) -> dict[str, str]:
    """For people who look at the image in the console."""
    return {GENERATION: str(generation.number)}


def of_garbage(at: float) -> dict[str, str]:
    """The mark that comes before a deletion."""
    return {GARBAGE: f"{at:.0f}"}
