"""The tests are tested: each of these bad edits must be caught."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.lifecycle.mutants import MUTANTS, ROOT


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
