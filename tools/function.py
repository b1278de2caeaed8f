"""Make the code of the always-on reconciler: dist/devbox-reconciler-VERSION-DIGEST.zip, for AWS Lambda.

    make function                                   # Python 3.13 on arm64, as iac/devbox.yaml runs it
    python tools/function.py --python 3.13 --machine x86_64

What goes in is our own code and the wheels that ``requirements.lock`` names, by hash. The same commit gives the same
files in the same order with the same times, so with the same zlib the same bytes; the digest in the name is theirs.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
# What ``devboxd.headless`` imports, and what that imports (tests/iac/test_function.py).
PACKAGES: Final = (
    "aiobotocore", "aiohappyeyeballs", "aiohttp", "aioitertools", "aiosignal", "anyio", "attrs", "botocore", "cffi",
    "cryptography", "frozenlist", "idna", "jmespath", "msgspec", "multidict", "propcache", "pycparser",
    "python-dateutil", "six", "typing-extensions", "urllib3", "watchfiles", "wrapt", "yarl",
)  # fmt: skip
SERVICES: Final = ("dynamodb", "ec2", "sts")  # botocore has a description of four hundred
LEFT_OUT: Final = ("simulator", "api")  # of devboxd: never imported there
_NOT_WANTED: Final = re.compile(r"(RECORD|INSTALLER|REQUESTED|direct_url\.json|.*\.pyc)$")
_TIME: Final = (1980, 1, 1, 0, 0, 0)  # the first that a zip can say


def main(words: Sequence[str]) -> int:
    """Make the file; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", default="3.13", help="version of the function's runtime")
    parser.add_argument("--machine", default="aarch64", choices=["aarch64", "x86_64"])
    asked = parser.parse_args(words)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if fetch(folder, asked.python, asked.machine) != 0:
            return 1
        prune(folder)
        own(folder)
        made = pack(folder)
    target = ROOT / "dist" / f"devbox-reconciler-{version()}-{hashlib.sha256(made).hexdigest()[:12]}.zip"
    target.parent.mkdir(exist_ok=True)
    target.write_bytes(made)
    sys.stdout.write(f"{target.relative_to(ROOT)}\n")
    return 0


def locked(text: str) -> str:
    """The part of requirements.lock that is needed. Raises KeyError for a package that is not locked."""
    entries = dict(re.findall(r"^(\S+?)(==(?:.*\\\n)*.*\n)", text, re.MULTILINE))
    return "".join(name + entries[name] for name in PACKAGES)


def fetch(folder: Path, python: str, machine: str) -> int:
    """Unpack the wheels for the function's machine, each by its hash; returns pip's exit status."""
    lock = folder / "needed.txt"
    lock.write_text(locked((ROOT / "requirements.lock").read_text("utf-8")), "utf-8")
    line = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"]
    line += ["--no-deps", "--require-hashes", "--only-binary", ":all:", "--implementation", "cp"]
    line += ["--python-version", python, "--target", str(folder), "-r", str(lock)]
    for tag in ("manylinux2014", "manylinux_2_17", "manylinux_2_28", "manylinux_2_31", "manylinux_2_34"):
        line += ["--platform", f"{tag}_{machine}"]
    status = subprocess.run(line, check=False).returncode
    lock.unlink()
    return status


def prune(folder: Path) -> None:
    """Take out what the function does not use, and what differs from machine to machine."""
    for found in (folder / "botocore" / "data").iterdir():
        if found.is_dir() and found.name not in SERVICES:
            shutil.rmtree(found)
    for name in ("bin", "include"):
        shutil.rmtree(folder / name, ignore_errors=True)
    for found in [one for one in folder.rglob("*") if one.is_file() and _NOT_WANTED.fullmatch(one.name)]:
        found.unlink()


def own(folder: Path) -> None:
    """Our own modules, and what lies beside them."""
    source = ROOT / "devboxd"
    for path in sorted(source.rglob("*")):
        below = path.relative_to(source)
        is_ours = path.is_file() and "__pycache__" not in below.parts
        if is_ours and not any(below.is_relative_to(one) for one in LEFT_OUT):
            target = folder / "devboxd" / below
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())


def pack(folder: Path) -> bytes:
    """All files of a folder as a zip that depends on nothing but their names and contents."""
    with tempfile.TemporaryFile() as file:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
            for path in sorted(folder.rglob("*"), key=lambda one: one.relative_to(folder).as_posix()):
                if path.is_file():
                    entry = zipfile.ZipInfo(path.relative_to(folder).as_posix(), _TIME)
                    entry.compress_type = zipfile.ZIP_DEFLATED
                    entry.create_system = 3
                    entry.external_attr = 0o100644 << 16
                    archive.writestr(entry, path.read_bytes(), compresslevel=9)
        file.seek(0)
        return file.read()


def version() -> str:
    """Of this checkout."""
    found = re.search(r'^version = "(.*)"$', (ROOT / "pyproject.toml").read_text("utf-8"), re.MULTILINE)
    assert found is not None
    return found[1]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
