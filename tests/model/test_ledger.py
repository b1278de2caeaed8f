"""Rows to items and back, and what a step changes."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest
from msgspec.structs import replace

from devboxd.model.idle_note import read_decisions, read_notes
from devboxd.model.ledger import (
    ABSENT,
    EVENTS_KEPT,
    Change,
    Event,
    Item,
    Ledger,
    StoreFailed,
    StoreNewer,
    after,
    body,
    created,
    erased,
    read,
    renamed,
    written,
)
from devboxd.model.project import GenerationState, Phase
from devboxd.model.step import Erase, Write
from tests.model.scenes import AT, RUN, generation, project

WHY = Event(AT, "8", "laptop", "saved as generation 1")


def stored(changes: list[Change], before: dict[str, Item] | None = None) -> dict[str, Item]:
    """What a store holds after these changes."""
    items = dict(before or {})
    for change in changes:
        assert (items[change.key].version if change.key in items else ABSENT) == change.expects
        if change.body is None:
            del items[change.key]
        else:
            items[change.key] = Item(
                change.key, change.expects + 1, msgspec.json.decode(msgspec.json.encode(change.body))
            )
    return items


def loaded(items: dict[str, Item]) -> Ledger:
    """What ``of_one`` finds in such a store."""
    ledger = read(item for key, item in items.items() if key[0] in "MRG")
    assert ledger is not None
    return ledger


def test_a_project_survives_the_store_as_it_was() -> None:
    """Every field, in every phase."""
    for phase in Phase:
        row = project(phase, label="x", fork_of=("other", 3), rollback=2)
        items = stored(created(row, "op-1", WHY, run=RUN))
        found = read(items.values())
        assert found is not None
        assert (found.project, found.run, found.op) == (row, RUN, "op-1")
        assert items["N#api"].body == {"uid": "uid"}


def test_a_step_changes_row_run_generations_and_events_in_one() -> None:
    """What the decision said is what is read back, and the versions are known without a read."""
    items = stored(created(project(Phase.SAVING), "op-1", WHY, run=RUN))
    ledger = loaded(items)
    one = generation()
    step = Write("8", project(Phase.WARM), "saved", run=replace(RUN, image="ami-9"), generations=(one,))
    items = stored(written(ledger, step, "op-2", WHY), items)
    again = loaded(items)
    assert again == after(ledger, step, "op-2")
    assert (again.project.phase, again.generations, again.op) == (Phase.WARM, (one,), "op-2")
    (event,) = [item for key, item in items.items() if key.startswith("E#") and key.endswith("op-2")]
    assert event.body["text"] == "saved as generation 1"
    gone = Write("17", again.project, "gone", erased=(1,))
    items = stored(written(again, gone, "op-3", WHY), items)
    assert loaded(items) == after(again, gone, "op-3")


def test_events_expire_and_nothing_else_does() -> None:
    """Ninety days of history, and rows for ever."""
    changes = created(project(Phase.READY), "op", WHY, run=RUN)
    assert {c.key[0]: c.expires for c in changes} == {"N": None, "M": None, "R": None, "E": AT + EVENTS_KEPT}


def test_what_was_committed_after_the_row_was_read_is_left_out() -> None:
    """A generation without the row that names it would be decided on by halves."""
    row = project(Phase.WARM)
    items = [
        Item("M#uid", 3, body(row, op="x")),
        Item("R#uid#00000002", 1, body(replace(RUN, number=2))),
        Item("G#uid#00000001", 1, body(generation(1))),
        Item("G#uid#00000002", 1, body(generation(2))),
    ]
    ledger = read(items)
    assert ledger is not None
    assert [one.number for one in ledger.generations] == [1]
    assert ledger.run is None
    assert read([]) is None


def test_a_name_is_given_up_with_the_one_that_replaces_it() -> None:
    """Two projects can never have one name, not even for a moment."""
    items = stored(created(project(Phase.READY), "op-1", WHY))
    ledger = read(items.values())
    assert ledger is not None
    items = stored(renamed(ledger, "web", "op-2", WHY, items["N#api"]), items)
    assert items["N#web"].body == {"uid": "uid"}
    assert "N#api" not in items
    found = read(items.values())
    assert found is not None
    assert found.project.name == "web"
    items = stored(renamed(found, "Web", "op-3", WHY, items["N#web"]), items)
    assert "N#web" in items


def test_erasing_drops_the_row_last() -> None:
    """What dies in between is begun again from the row."""
    items = stored(created(project(Phase.DELETING), "op-1", WHY, run=RUN))
    ledger = read(items.values())
    assert ledger is not None
    kept = [item for item in items.values() if not item.key.startswith("E#")]
    changes = erased(ledger, Erase(ledger.project, "deleted"), kept)
    assert changes[-1].key == "M#uid"
    assert {key for key in stored(changes, items) if not key.startswith("E#")} == set()


@pytest.mark.parametrize(
    ("content", "error"),
    [({"schema": 2}, StoreNewer), ({"uid": 7}, StoreFailed), ({"schema": "x"}, StoreNewer)],
)
def test_what_can_not_be_read_is_never_written_over(
    content: dict[str, object], error: type[StoreFailed]
) -> None:
    """A newer devbox, or a damaged item: both are said."""
    with pytest.raises(error):
        read([Item("M#uid", 1, content)])


@pytest.mark.parametrize("read_it", [read_notes, lambda item: read_decisions([item], 0.0)])
@pytest.mark.parametrize(
    ("content", "error"), [({"schema": 2}, StoreNewer), ({"at": "x", "held": "x"}, StoreFailed)]
)
def test_nor_is_what_is_known_of_an_idle_box(
    read_it: Callable[[Item], object], content: dict[str, object], error: type[StoreFailed]
) -> None:
    """It may hold the box in a way that is not known here. Tags have nothing of it, so nobody is sent there."""
    with pytest.raises(error) as refused:
        read_it(Item("I#uid", 1, content))
    assert "rebuild" not in (refused.value.hint or "")


def test_an_older_reader_of_the_same_schema_ignores_what_it_does_not_know() -> None:
    """A field that was added is no damage."""
    known = body(generation(1, state=GenerationState.DELETING), op="")
    row = Item("M#uid", 1, body(project(Phase.WARM)))
    found = read([row, Item("G#uid#00000001", 1, {**known, "later": True})])
    assert found is not None
    assert found.generations == (generation(1, state=GenerationState.DELETING),)
