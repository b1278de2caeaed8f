"""The simulator's page lists the calls and the faults that there are, in their words."""

from __future__ import annotations

import re
from pathlib import Path

from devboxd.simulator.chaos import Chaos
from devboxd.simulator.ec2.faults import KINDS
from devboxd.simulator.ec2.model import OPERATIONS

PAGE = (Path(__file__).parents[2] / "docs/simulator.md").read_text("utf-8")
ELSEWHERE = {"DryRun", "Filters", "MaxResults", "NextToken"}


def rows(heading: str) -> dict[str, str]:
    """The table behind a heading of two columns: first to second."""
    table = PAGE.partition(heading)[2].partition("\n\n")[0]
    return dict(re.findall(r"^\| `([^`]+)` \| (.*?) ?\|$", table, re.MULTILINE))


def test_the_page_lists_every_call_of_ec2_with_what_it_understands() -> None:
    assert {call: set(re.findall(r"`(\w+)`", members)) for call, members in rows("| call | ").items()} == {
        call: set(operation.understands) - ELSEWHERE for call, operation in OPERATIONS.items()
    }


def test_the_page_lists_every_fault_in_its_own_words() -> None:
    listed = {name: text.replace("`", "") for name, text in rows("| name | ").items()}
    assert listed == {name: text.replace("`", "") for name, text in Chaos.catalogue().items()}


def test_the_page_lists_every_kind_of_ec2_fault() -> None:
    assert rows("| kind | ") == KINDS
