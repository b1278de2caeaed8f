"""The NixOS configuration parses, with the tools of Debian's nix-bin where they are."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "iac" / "nixos"


@pytest.mark.parametrize("name", ["flake.nix", "box.nix"])
def test_it_parses(name: str) -> None:
    """A syntax error would show on the user's box, after the upload."""
    program = shutil.which("nix-instantiate")
    if program is None:
        pytest.skip("needs nix-instantiate (Debian: nix-bin)")
    done = subprocess.run([program, "--parse", FOLDER / name], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
