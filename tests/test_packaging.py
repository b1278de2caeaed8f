"""What is published: versions that fit together, and a wheel with everything in it."""

from __future__ import annotations

import importlib
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
SETUPTOOLS = "77"  # the first that knows the license expression of pyproject.toml
# In the wheel, every file of these folders.
DATA = ("devboxd/data", "devboxd/boxside/programs", "devboxctl/completion")


def direct() -> list[Requirement]:
    """Everything that pyproject.toml asks for, in any group."""
    lines = list(PROJECT["project"]["dependencies"])
    for group in (
        *PROJECT["project"]["optional-dependencies"].values(),
        *PROJECT["dependency-groups"].values(),
    ):
        lines += [line for line in group if not line.startswith("devboxd")]
    return [Requirement(line) for line in lines]


def pinned(text: str) -> dict[str, Requirement]:
    """The lines ``name==version; marker`` of a constraints or lock file, by name."""
    lines = [line.partition("\\")[0].strip() for line in text.splitlines() if line[:1].isalnum()]
    found = [Requirement(line) for line in lines]
    return {canonicalize_name(requirement.name): requirement for requirement in found}


CONSTRAINTS = pinned((ROOT / "constraints.txt").read_text("utf-8"))


def window(package: str, of: str) -> SpecifierSet:
    """What an installed distribution asks of another one."""
    for line in metadata.requires(of) or ():
        requirement = Requirement(line)
        if canonicalize_name(requirement.name) == package and not requirement.marker:
            return requirement.specifier
    raise AssertionError(f"{of} does not ask for {package}")


def test_boto3_moves_with_aiobotocore() -> None:
    """Without this, pip walks back through hundreds of versions, for minutes."""
    (asked,) = (one.specifier for one in direct() if one.name == "boto3")
    assert asked == window("botocore", "aiobotocore")


def test_what_is_installed_is_what_is_asked_for() -> None:
    wrong = []
    for requirement in map(Requirement, PROJECT["project"]["dependencies"]):
        version = metadata.version(requirement.name)
        if version not in requirement.specifier:
            wrong.append(f"{requirement}: {version} is installed")
    assert not wrong


@pytest.mark.parametrize("requirement", direct(), ids=str)
def test_a_constraint_lies_in_its_range(requirement: Requirement) -> None:
    constraint = CONSTRAINTS[canonicalize_name(requirement.name)]
    (pin,) = constraint.specifier
    assert pin.operator == "=="
    assert Version(pin.version) in requirement.specifier


def test_constraints_and_lock_name_the_same_versions() -> None:
    lock = pinned((ROOT / "requirements.lock").read_text("utf-8"))
    assert {name: str(one) for name, one in lock.items()} == {
        name: str(one) for name, one in CONSTRAINTS.items()
    }


def test_every_locked_version_has_a_hash() -> None:
    entries = re.split(r"\n(?=\w)", (ROOT / "requirements.lock").read_text("utf-8"))
    assert [entry.split()[0] for entry in entries if "--hash=sha256:" not in entry] == []


@pytest.mark.parametrize("name", ["constraints.txt", "requirements.lock", "pyproject.toml"])
def test_no_version_comes_from_an_address(name: str) -> None:
    text = (ROOT / name).read_text("utf-8")
    assert "://" not in text
    assert " @ " not in text


def test_the_classifiers_are_the_versions_that_are_locked_for() -> None:
    versions = re.findall(r":: (3\.\d+)", "\n".join(PROJECT["project"]["classifiers"]))
    assert versions == ["3.11", "3.12", "3.13"]
    assert PROJECT["project"]["requires-python"] == f">={versions[0]}"


@pytest.mark.parametrize(("name", "target"), PROJECT["project"]["scripts"].items())
def test_a_script_starts_something_that_is_there(name: str, target: str) -> None:
    module, _, attribute = target.partition(":")
    assert callable(getattr(importlib.import_module(module), attribute))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """A wheel, built offline from a copy of the source."""
    try:
        found = metadata.version("setuptools")
    except metadata.PackageNotFoundError:
        found = "0"
    if Version(found) < Version(SETUPTOOLS):
        pytest.skip(f"setuptools {SETUPTOOLS} or newer is not installed here: make setup")
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for folder in ("devboxd", "devboxctl"):
        shutil.copytree(ROOT / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, source / file)
    code = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
    done = subprocess.run(
        [sys.executable, "-c", code, out], cwd=source, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    (built,) = out.glob("*.whl")
    return zipfile.ZipFile(built)


def test_the_wheel_has_every_module_and_data_file(wheel: zipfile.ZipFile) -> None:
    there = set(wheel.namelist())
    wanted = {
        str(path.relative_to(ROOT))
        for package in ("devboxd", "devboxctl")
        for path in (ROOT / package).rglob("*.*")
        if path.suffix == ".py" or path.name == "py.typed" or str(path.parent.relative_to(ROOT)) in DATA
    }
    assert wanted - there - {name for name in wanted if "__pycache__" in name} == set()


def test_the_wheel_has_nothing_else(wheel: zipfile.ZipFile) -> None:
    tops = {name.partition("/")[0] for name in wheel.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"devboxd", "devboxctl"}
    assert [name for name in wheel.namelist() if "__pycache__" in name or name.endswith(".pyc")] == []


def test_the_wheel_says_what_it_is(wheel: zipfile.ZipFile) -> None:
    (folder,) = {name.partition("/")[0] for name in wheel.namelist() if ".dist-info/" in name}
    text = wheel.read(f"{folder}/METADATA").decode()
    assert "License-Expression: Apache-2.0" in text
    assert [line for line in text.splitlines() if line.startswith("Requires-Dist") and "://" in line] == []
    entry_points = wheel.read(f"{folder}/entry_points.txt").decode()
    for name, target in PROJECT["project"]["scripts"].items():
        assert f"{name} = {target}" in entry_points
    assert f"{folder}/licenses/LICENSE" in wheel.namelist()


def test_an_unpacked_wheel_finds_its_own_files(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    wheel.extractall(tmp_path)
    code = (
        "import devboxd\n"
        "from devboxctl.commands.service import UNITS, unit\n"
        "from devboxctl.commands.about import SHELLS, script\n"
        "from devboxd.boxside.script import load\n"
        "assert all(map(unit, UNITS)) and all(map(script, SHELLS)) and load('attach.sh')\n"
        "print(devboxd.__file__)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd="/",
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith(str(tmp_path))
