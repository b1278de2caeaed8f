"""The Terraform door: well formed, and every variable is used and explained."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "iac" / "terraform"


def test_the_files_are_as_the_tool_would_write_them() -> None:
    """Its formatter reads all of the syntax; the provider that ``validate`` wants is not there offline."""
    program = shutil.which("tofu") or shutil.which("terraform")
    if program is None:
        pytest.skip("needs tofu or terraform")
    done = subprocess.run(
        [program, "fmt", "-check", "-recursive", FOLDER], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_every_variable_is_used_explained_and_there() -> None:
    variables = (FOLDER / "variables.tf").read_text("utf-8")
    blocks = dict(re.findall(r'^variable "(\w+)" \{\n(.*?)^\}', variables, re.MULTILINE | re.DOTALL))
    used = set(re.findall(r"\bvar\.(\w+)", (FOLDER / "main.tf").read_text("utf-8")))
    assert used == set(blocks)
    assert [
        name for name, block in blocks.items() if "description" not in block or "type " not in block
    ] == []


def test_the_example_uses_what_the_module_has() -> None:
    example = (FOLDER / "examples" / "basic" / "main.tf").read_text("utf-8")
    block = re.search(r'^module "devbox" \{\n(.*?)^\}', example, re.MULTILINE | re.DOTALL)
    assert block is not None
    given = set(re.findall(r"^  (\w+) +=", block[1], re.MULTILINE)) - {"source"}
    assert given <= set(
        re.findall(r'^variable "(\w+)"', (FOLDER / "variables.tf").read_text("utf-8"), re.MULTILINE)
    )
    outputs = set(re.findall(r'^output "(\w+)"', (FOLDER / "outputs.tf").read_text("utf-8"), re.MULTILINE))
    assert set(re.findall(r"module\.devbox\.(\w+)", example)) <= outputs
