"""Renew constraints.txt (versions) and requirements.lock (versions and hashes) from pyproject.toml.

One resolution for Python 3.11 to 3.13 on Linux and macOS. Neither file names a registry, so both work with
any mirror. ``uv`` resolves; pip cannot do it for platforms that it does not run on.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
WINDOWS_ONLY = ("colorama", "pywin32-ctypes")


def main() -> int:
    """Write both files; returns the exit status."""
    if shutil.which("uv") is None:
        sys.stderr.write("error: uv is not on the path\nhint: pip install uv, in an environment of its own\n")
        return 1
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        text = (ROOT / "pyproject.toml").read_text("utf-8")
        # The group names the project itself, which no registry has; the extra is asked for below.
        (folder / "pyproject.toml").write_text(text.replace('    "devboxd[demo]",\n', ""), "utf-8")
        for file, more in (("constraints.txt", ()), ("requirements.lock", ("--generate-hashes",))):
            line = ["uv", "pip", "compile", "--quiet", "--universal", "--python-version", "3.11"]
            line += ["--no-header", "--no-annotate", "--extra", "demo", "--group", "test", "--group", "lint"]
            for package in WINDOWS_ONLY:
                line += ["--no-emit-package", package]
            line += [*sys.argv[1:], *more, "-o", file, "pyproject.toml"]
            if subprocess.run(line, cwd=folder, check=False).returncode != 0:
                return 1
            found = (folder / file).read_text("utf-8")
            if "://" in found:
                sys.stderr.write(f"error: {file} would name a registry\n")
                return 1
            (ROOT / file).write_text(found, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
