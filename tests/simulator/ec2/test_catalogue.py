"""What the simulator has of public images: all that devbox knows by name, and all that its own examples name."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from devboxd.model import offer
from devboxd.model.offer import ARM, INTEL, Parameter
from devboxd.simulator.ec2 import catalogue
from tests.simulator.ec2.kit import Account

ROOT = Path(__file__).parents[3]
NAMED = re.compile(r"devboxctl [^\n`]*--(?:onto|base)[ =]([a-z][a-z0-9.-]*)")


def examples() -> dict[str, str]:
    """The names of base images in the examples of the help, of the documents and of hints, and where one is."""
    found = {}
    for path in (ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "devboxctl").rglob("*.py")):
        for name in NAMED.findall(path.read_text("utf-8")):
            if not name.startswith("ami-"):
                found[name] = path.name
    return found


def test_the_examples_are_found() -> None:
    found = examples()
    assert {"ubuntu-26.04", "debian-13"} <= set(found)


@pytest.mark.parametrize("architecture", [ARM, INTEL])
@pytest.mark.parametrize("name", sorted({*offer.NAMES, *examples()}))
def test_each_base_image_that_is_known_or_named_in_an_example_is_there(name: str, architecture: str) -> None:
    account = Account()
    where = offer.where(name, architecture)
    if isinstance(where, Parameter):
        query: dict[str, Any] = {"ImageIds": [catalogue.parameters("us-east-1")[where.path]]}
    else:
        query = {"Owners": [where.owner], "Filters": [{"Name": "name", "Values": [where.pattern]}]}
    images = account.call("DescribeImages", **query)["Images"]
    assert images
    assert {image["Architecture"] for image in images} == {architecture}
