"""The architecture as the imports show it, and nothing of one machine in what is published."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# What the command line must never load, at any command.
FORBIDDEN_IN_CTL = {
    "boto3": "the AWS SDK takes 200 ms to import and belongs to the daemon",
    "botocore": "the same",
    "aiobotocore": "the same, and 470 ms",
    "aiohttp": "280 ms; the client speaks HTTP by itself",
    "cryptography": "keys are the daemon's",
    "keyring": "secrets are the daemon's",
    "watchfiles": "files are watched by the daemon",
    "devboxd.main": "devboxctl knows the daemon through its API only",
    "devboxd.control": "the same",
    "devboxd.aws": "the same",
    "devboxd.net": "the same",
    "devboxd.host": "the same",
    "devboxd.model": "the same",
    "devboxd.ssm": "the same",
    "devboxd.simulator": "a product part of its own",
}

# What the pure packages must not say, beyond what the import contracts forbid.
IMPURE_NAMES = {
    "open": "pure code reads no files; the scripts of model are read as resources",
    "environ": "settings come in as arguments",
    "getenv": "the same",
    "uuid4": "ids come in as a function",
    "now": "the time comes in as an argument",
    "today": "the same",
    "print": "output is an effect",
}

# Folders of one person's machine. Two homes are made up, for tests of paths, and one is Homebrew's.
ONE_MACHINE = re.compile(r"(?<![\w.-])/(?:root|work|Users|home(?!/(?:u|me|linuxbrew)\b))/[A-Za-z]")
REGISTRY = re.compile(
    r"(?i)\w+://[^\s\"'<>]*(?:pypi|/simple\b|artifactory|nexus|registry|mirror)"
    r"|--(?:extra-)?index-url|--find-links|--trusted-host"
)


def tracked() -> Iterator[tuple[str, str]]:
    """Path and text of every file that git knows."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True)
    for name in listed.stdout.decode().split("\0"):
        path = ROOT / name
        if name and path.is_file():
            yield name, path.read_text("utf-8")


def test_the_import_contracts_hold() -> None:
    program = Path(sys.executable).with_name("lint-imports")
    if not program.exists():
        pytest.skip("import-linter is not installed: make setup")
    done = subprocess.run([program, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_devboxctl_loads_no_aws_sdk_and_no_daemon() -> None:
    code = (
        "import pkgutil, devboxctl\n"
        "for module in pkgutil.walk_packages(devboxctl.__path__, 'devboxctl.'):\n"
        "    module.name.endswith('__main__') or exec(f'import {module.name}')\n"  # importlib is not timed
    )
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "devboxctl.app" in loaded
    assert "devboxctl.fast.proxy" in loaded
    wrong = {
        name: reason
        for name, reason in FORBIDDEN_IN_CTL.items()
        if any(module == name or module.startswith(f"{name}.") for module in loaded)
    }
    assert not wrong


@pytest.mark.parametrize("package", ["ssm", "model", "boxside"])
def test_pure_packages_reach_for_nothing_outside(package: str) -> None:
    found = []
    for path in sorted((ROOT / "devboxd" / package).glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            match node:
                case ast.Call(func=ast.Name(id=name)) | ast.Attribute(attr=name) if name in IMPURE_NAMES:
                    if name != "open" or isinstance(node, ast.Call):  # ``state.open`` is no file
                        found.append(f"{path.name}:{node.lineno}: {name}: {IMPURE_NAMES[name]}")
    assert not found


def test_no_file_names_a_folder_of_one_machine() -> None:
    assert [(name, hit[0]) for name, text in tracked() if (hit := ONE_MACHINE.search(text))] == []


def test_no_file_names_a_package_registry() -> None:
    own = Path(__file__).name
    found = [(name, hit[0]) for name, text in tracked() if (hit := REGISTRY.search(text))]
    assert [(name, hit) for name, hit in found if not name.endswith(own)] == []


def test_the_two_copies_of_each_unit_are_the_same() -> None:
    """``systemd/`` is for people who package; ``devboxd/data`` is what ``daemon install`` uses."""
    names = sorted(os.listdir(ROOT / "systemd"))
    installed = ["devboxd.service", "devboxd.socket"]
    assert names == ["devboxd-reconcile.service", "devboxd-reconcile.timer", *installed]
    for name in installed:
        assert (ROOT / "systemd" / name).read_bytes() == (ROOT / "devboxd" / "data" / name).read_bytes()


def test_every_folder_with_modules_is_a_package() -> None:
    """Else the import contracts do not look into it, and the wheel leaves it out."""
    roots = [ROOT / "devboxd", ROOT / "devboxctl"]
    folders = {path.parent for root in roots for path in root.rglob("*.py")}
    programs = ROOT / "devboxd" / "boxside" / "programs"  # run on a box, never imported here
    ours = [folder for folder in sorted(folders) if not folder.is_relative_to(programs)]
    assert [folder for folder in ours if not (folder / "__init__.py").exists()] == []
