"""What a list of boxes shows, and what a project's next step is."""

from __future__ import annotations

import pytest

from devboxd.model import tags
from devboxd.model.box import Instance
from devboxd.model.listing import Alone, is_foreign, listed, next_step
from devboxd.model.project import Phase, Want
from devboxd.model.states import InstanceState
from tests.model.scenes import project

RUNS = Instance("i-1", "api", InstanceState.RUNNING, tags={tags.OWNER: "me", tags.UID: "uid"})
PLAIN = Instance("i-9", "seed", InstanceState.RUNNING)
THEIRS = Instance("i-8", "theirs", InstanceState.RUNNING, tags={tags.OWNER: "them", tags.UID: "other"})


def test_an_instance_says_which_project_it_is_the_box_of() -> None:
    found = listed([RUNS, PLAIN], [project(Phase.RUNNING)])
    assert [one.id for one in found.instances] == ["i-1", "i-9"]
    assert {id_: one.name for id_, one in found.projects.items()} == {"i-1": "api"}
    assert found.alone == ()


@pytest.mark.parametrize("phase", [Phase.ABSENT, Phase.READY, Phase.LAUNCHING])
def test_a_project_without_an_instance_is_shown_all_the_same(phase: Phase) -> None:
    (alone,) = listed([PLAIN], [project(phase)]).alone
    assert (alone.project.phase, alone.instance, alone.state) == (phase, None, "none")


@pytest.mark.parametrize(
    ("instances", "was_asked", "instance", "state"),
    [
        ((), True, None, "none"),  # EC2 knows it no more
        ((Instance("i-1", state=InstanceState.TERMINATED),), True, None, "none"),
        ((Instance("i-1", state=InstanceState.TERMINATED),), False, None, "none"),  # nothing brings it back
        ((), False, "i-1", "unknown"),  # offline, or it is in another region
    ],
)
def test_an_instance_that_is_not_seen_is_gone_only_where_ec2_was_asked(
    instances: tuple[Instance, ...], was_asked: bool, instance: str | None, state: str
) -> None:
    row = project(Phase.RUNNING)
    found = listed(instances, [row], was_asked=lambda one: was_asked)
    assert found.instances == ()
    assert found.alone == (Alone(row, instance),)
    assert found.alone[0].state == state


def test_boxes_of_others_are_left_out_unless_they_are_asked_for() -> None:
    """What devbox has not launched is nobody's in particular, and our own stays ours after a change of roles."""
    for owner, expected in (
        ("me", ["i-1", "i-9"]),
        ("my-new-role", ["i-1", "i-9"]),
        (None, ["i-1", "i-9", "i-8"]),
    ):
        found = listed([RUNS, PLAIN, THEIRS], [project(Phase.RUNNING)], owner=owner)
        assert [one.id for one in found.instances] == expected
    surplus = Instance("i-2", "api", InstanceState.RUNNING, tags={tags.OWNER: "old", tags.UID: "uid"})
    assert not is_foreign(surplus, "me", {"uid"})


@pytest.mark.parametrize(
    ("phase", "want", "is_pending", "words"),
    [
        (Phase.ABSENT, Want.COLD, False, "devboxctl delete api"),
        (Phase.READY, Want.COLD, False, "devboxctl up api"),
        (Phase.WARM, Want.WARM, False, "devboxctl up api starts"),
        (Phase.RUNNING, Want.UP, False, "devboxctl terminate api"),
        (Phase.BROKEN, Want.UP, False, "devboxctl ops resume api"),
        (Phase.LAUNCHING, Want.UP, True, "devboxd works on it until it runs"),
        (Phase.SAVING, Want.WARM, True, "until it is saved"),
        (Phase.RELEASING, Want.COLD, True, "until it is saved and gone"),
        (Phase.DELETING, Want.GONE, True, "until it is deleted"),
    ],
)
def test_the_next_step_is_said(phase: Phase, want: Want, is_pending: bool, words: str) -> None:
    assert words in next_step(project(phase, want=want), is_pending=is_pending)
