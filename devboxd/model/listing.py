"""What a list of boxes shows: instances, whose they are, and the projects that have none now.

EC2 says which instances exist, the rows say which project each is the box of. A project without an instance is in
the list, too: it can be attached to, which offers to bring it up.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Sequence
from typing import Final

import msgspec

from devboxd.model import tags
from devboxd.model.box import Instance
from devboxd.model.project import Phase, Project, Want
from devboxd.model.states import InstanceState

NO_INSTANCE: Final = "none"  # what stands in the place of an instance's state


class Alone(msgspec.Struct, frozen=True):
    """A project that no instance in the list belongs to. ``instance``: the one it had when it was written down, where
    EC2 was not asked for it just now; None: it has none.
    """

    project: Project
    instance: str | None = None

    @property
    def state(self) -> str:
        """What is shown as the state of its instance."""
        return NO_INSTANCE if self.instance is None else InstanceState.UNKNOWN.value


class Listed(msgspec.Struct, frozen=True):
    """A list of boxes. ``projects``: by instance id."""

    instances: tuple[Instance, ...]
    projects: dict[str, Project]
    alone: tuple[Alone, ...]


def listed(
    instances: Sequence[Instance],
    projects: Iterable[Project],
    *,
    owner: str | None = None,
    was_asked: Callable[[Project], bool] = lambda project: True,
) -> Listed:
    """Say what a list of boxes shows.

    Args:
        owner: leave out the boxes that another one has launched; None: show everybody's.
        was_asked: whether EC2 has answered just now, where this project's box would be.
    """
    rows = list(projects)
    ours = {project.uid for project in rows}
    seen = {one.id: one for one in instances if one.state is not InstanceState.TERMINATED}
    gone = {one.id for one in instances if one.state is InstanceState.TERMINATED}
    of = {
        project.instance: project
        for project in rows
        if project.instance is not None and project.instance in seen
    }
    shown = tuple(one for one in seen.values() if one.id in of or not is_foreign(one, owner, ours))
    alone = tuple(
        Alone(project, None if project.instance in gone or was_asked(project) else project.instance)
        for project in rows
        if project.instance not in seen
    )
    return Listed(shown, of, alone)


def is_foreign(instance: Instance, owner: str | None, ours: Container[str] = ()) -> bool:
    """Say whether somebody else has launched this box with devbox. What carries no owner is everybody's."""
    of = instance.tags.get(tags.OWNER)
    return owner is not None and of is not None and of != owner and instance.tags.get(tags.UID) not in ours


def next_step(project: Project, *, is_pending: bool) -> str:
    """What happens next, or what a person can do, in a few words.

    ``is_pending``: it is not as wanted yet, and the daemon works on it.
    """
    name = project.name
    if project.phase is Phase.BROKEN:
        return f"devboxctl ops resume {name}, once that is mended"
    if is_pending:
        aims = {Want.UP: "it runs", Want.WARM: "it is saved", Want.COLD: "it is saved and gone"}
        return f"devboxd works on it until {aims.get(project.want, 'it is deleted')}"
    match project.phase:
        case Phase.ABSENT:
            return f"devboxctl launch {name} tries again; devboxctl delete {name} forgets it"
        case Phase.RUNNING:
            return f"devboxctl terminate {name} saves it, and lets its instance go"
        case Phase.WARM:
            return f"devboxctl up {name} starts it"
        case _:
            return f"devboxctl up {name} brings it up"
