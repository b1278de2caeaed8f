"""The tests are tested: each of these bad edits must be caught."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.lifecycle.mutants import MUTANTS, ROOT


@pytest.mark.parametrize("name", sorted(MUTANTS))
def test_a_bad_edit_is_one_of_the_code_as_it_is(name: str) -> None:
    """Or the gate would let everything through."""
    for edit in MUTANTS[name]:
        assert (ROOT / "devboxd" / edit.file).read_text("utf-8").count(edit.old) >= 1, edit.old


@pytest.mark.chaos
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", sorted(MUTANTS))
def test_a_bad_edit_is_caught(name: str) -> None:
    """By the script with crashes, or by one of the first random histories."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.lifecycle.mutants", name],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
