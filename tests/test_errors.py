"""Every error that we report has a code of its own, and docs/errors.md says what it means."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import devboxctl
import devboxd
from devboxctl.fast.reply import UsageError
from devboxd.api.client import ClientError
from devboxd.errors import DevboxError, exit_status

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "errors.md").read_text("utf-8")
# Programs, not libraries: importing them runs them, or they belong on a box.
PROGRAMS = ("__main__", "_program")
# Codes that are written down where they are raised, without a class of their own.
INLINE = {
    "project-not-up": (1, False),
    "not-rebased": (1, False),
    "login-failed": (4, False),
    "not-enabled": (1, False),
    "editor-failed": (1, False),
    "exec-lost": (255, False),
    "interrupted": (255, False),
}

Row = tuple[int, bool]  # exit status, retryable
Kind = type[DevboxError] | type[ClientError]


def import_everything() -> None:
    for package in (devboxd, devboxctl):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if module.name.startswith("devboxd.simulator") or module.name.endswith(PROGRAMS):
                continue
            importlib.import_module(module.name)


def kinds(root: Kind) -> Iterator[Kind]:
    yield root
    for kind in root.__subclasses__():
        yield from kinds(kind)


def classes_of_the_daemon() -> list[type[DevboxError]]:
    import_everything()
    found = [kind for kind in kinds(DevboxError) if issubclass(kind, DevboxError)]
    return [kind for kind in found if kind.__module__.partition(".")[0] in ("devboxd", "devboxctl")]


def classes_of_the_client() -> list[type[ClientError]]:
    import_everything()
    return [kind for kind in kinds(ClientError) if issubclass(kind, ClientError)]


def all_classes() -> list[Kind]:
    return [*classes_of_the_daemon(), *classes_of_the_client()]


def section(title: str) -> str:
    match = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE)
    assert match is not None, title
    return match[1]


def rows(title: str) -> dict[str, Row]:
    found = re.findall(r"^\| `([a-z0-9-]+)` \| (\d+) \| (yes|no) \| \S", section(title), re.MULTILINE)
    repeated = [code for code, count in Counter(code for code, *_ in found).items() if count > 1]
    assert not repeated
    return {code: (int(status), retryable == "yes") for code, status, retryable in found}


def test_each_code_belongs_to_one_class() -> None:
    codes = Counter(kind.code for kind in classes_of_the_daemon())
    assert [code for code, count in codes.items() if count > 1] == []


def test_a_code_is_lower_case_words_joined_by_hyphens() -> None:
    assert [kind.code for kind in all_classes() if not re.fullmatch(r"[a-z]+(-[a-z0-9]+)*", kind.code)] == []


def test_the_page_lists_the_daemons_codes_with_their_exit_status() -> None:
    classes = {kind.code: (exit_status(kind.kind), kind.retryable) for kind in classes_of_the_daemon()}
    assert rows("From the daemon") == classes


def test_the_page_lists_the_clients_codes_with_their_exit_status() -> None:
    classes: dict[str, Row] = {
        kind.code: (exit_status(kind.kind), kind.retryable) for kind in classes_of_the_client()
    }
    classes[UsageError.code] = (exit_status(UsageError.kind), False)
    assert rows("From devboxctl itself") == classes | INLINE


def test_codes_without_a_class_are_really_raised() -> None:
    source = "".join(path.read_text("utf-8") for path in (ROOT / "devboxctl").rglob("*.py"))
    assert [code for code in INLINE if f'"{code}"' not in source] == []


def test_the_page_names_every_exit_status_that_an_error_has() -> None:
    statuses = {int(status) for status in re.findall(r"^\| (\d+) \|", section("Exit statuses"), re.MULTILINE)}
    used = {exit_status(kind.kind) for kind in all_classes()}
    assert used <= statuses


@pytest.mark.parametrize("kind", classes_of_the_daemon(), ids=lambda kind: kind.code)
def test_every_error_says_what_it_is(kind: type[DevboxError]) -> None:
    assert kind.__doc__, "an error without a docstring cannot be documented"
