"""Git work on a box that is nowhere else: as its report has it, and as an error where a clean box was asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from devboxd.errors import WrongState
from devboxd.text import one_line

SHOWN: Final = 5  # repositories in a sentence
DIGITS: Final = 9  # of a count that a box reports


class Unsaved(msgspec.Struct, frozen=True):
    """A git repository on the box with work that is nowhere else."""

    path: str
    files: int  # not committed
    commits: int  # on no remote
    stashes: int

    def __str__(self) -> str:
        parts = [(self.files, "uncommitted"), (self.commits, "unpushed"), (self.stashes, "stashed")]
        return f"{self.path}: " + ", ".join(f"{count} {word}" for count, word in parts if count)


class NotSaved(WrongState):
    """There is git work on the box that is nowhere else, and a clean box was asked for. ``work`` lists it."""

    code = "work-not-saved"

    def __init__(self, name: str, work: Sequence[Unsaved]) -> None:
        listed = "; ".join(str(one) for one in work[:SHOWN])
        super().__init__(
            f"{name} has git work that is nowhere else: {listed}",
            hint="it is saved all the same without --require-clean",
        )
        self.work = tuple(work)


def reported(text: str) -> list[Unsaved]:
    """Read what ``unsaved.sh`` printed; other lines a box may print are left out."""
    return [found for line in text.splitlines() if (found := _line(line)) is not None]


def _line(line: str) -> Unsaved | None:
    path, *counts = line.rsplit("\t", 3)
    if len(counts) != 3 or not all(one.isascii() and one.isdigit() and len(one) <= DIGITS for one in counts):
        return None
    files, commits, stashes = map(int, counts)
    return Unsaved(one_line(path), files, commits, stashes)
