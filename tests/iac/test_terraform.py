"""The Terraform door: well formed, and every variable is used and explained."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "iac" / "terraform"


def test_the_files_are_as_the_tool_would_write_them() -> None:
    """Its formatter reads all of the syntax; for more it wants the provider (below)."""
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


@pytest.mark.heavy
@pytest.mark.timeout(300)
@pytest.mark.filterwarnings("ignore")  # moto names each type it does not know
def test_the_example_is_valid_and_makes_the_stack(tmp_path: Path) -> None:
    """With the real provider, which nobody fetches here: DEVBOX_TERRAFORM_MIRROR names a folder that has it.

    On moto. What it plans a second time says nothing: moto writes lists of parameters in its own way.
    """
    program, mirror = shutil.which("terraform"), os.environ.get("DEVBOX_TERRAFORM_MIRROR")
    if program is None or mirror is None:
        pytest.skip("needs terraform, and its provider in DEVBOX_TERRAFORM_MIRROR")
    pytest.importorskip("moto.cloudformation", reason="needs moto[cloudformation]")
    from moto.server import ThreadedMotoServer  # half a second, and only this test needs it

    shutil.copytree(FOLDER.parent, tmp_path / "iac")
    settings = tmp_path / "rc"
    settings.write_text(f'provider_installation {{\n  filesystem_mirror {{ path = "{mirror}" }}\n}}\n')
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    env = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "TF_"))} | {
        "TF_CLI_CONFIG_FILE": str(settings), "CHECKPOINT_DISABLE": "1",
        "AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }  # fmt: skip

    def run(*words: str) -> str:
        folder = tmp_path / "iac" / "terraform" / "examples" / "basic"
        done = subprocess.run(
            [program, *words, "-no-color"], cwd=folder, env=env, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    try:
        run("init", "-input=false")
        assert "Success" in run("validate")
        assert "1 added, 0 changed, 0 destroyed" in run("apply", "-auto-approve", "-input=false")
        assert ":policy/devbox-eu-central-1-user" in run("output")
    finally:
        server.stop()
