"""The code of the always-on reconciler: all that it imports is in its zip, and the zip is the same each time."""

from __future__ import annotations

import importlib
import importlib.util
import io
import os
import subprocess
import sys
import zipfile
from pathlib import Path

from tests.iac.cfn import of_type

ROOT = Path(__file__).parents[2]
_SPEC = importlib.util.spec_from_file_location("devbox_function_tool", ROOT / "tools" / "function.py")
assert _SPEC is not None
assert _SPEC.loader is not None
function = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(function)
# Names of modules where they are not those of the package.
MODULES = {"attrs": ["attr", "attrs"], "cffi": ["cffi", "_cffi_backend"], "python-dateutil": ["dateutil"]}
IMPORTS = """
import sys
allowed = set(sys.argv[1].split(","))
finders = list(sys.meta_path)
class Gate:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        known = top in allowed or top in sys.stdlib_module_names or top.startswith(("__editable__", "_sysconfigdata"))
        if not known or name.startswith(("devboxd.simulator", "devboxd.api", "devboxd.reach")):
            return None
        return next((spec for one in finders if (spec := one.find_spec(name, path, target))), None)
sys.meta_path[:] = [Gate()]
import devboxd.headless
devboxd.headless.handler
"""


def test_what_the_function_imports_is_in_its_zip() -> None:
    """A module that is missing there shows only in the account, and only in the log."""
    modules = [one for name in function.PACKAGES for one in MODULES.get(name, [name.replace("-", "_")])]
    done = subprocess.run(
        [sys.executable, "-c", IMPORTS, ",".join([*modules, "devboxd"])],
        capture_output=True, text=True, check=False, cwd="/",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_every_package_is_locked_with_its_hashes() -> None:
    """Nothing gets into an account that was not looked at."""
    found = function.locked((ROOT / "requirements.lock").read_text("utf-8"))
    assert found.count("==") == len(function.PACKAGES)
    blocks = found.count("--hash=sha256:")
    assert blocks >= len(function.PACKAGES)


def test_the_same_files_make_the_same_zip(tmp_path: Path) -> None:
    """Whatever their times, modes and the order they were written in."""
    made: list[bytes] = []
    for name, order in (("a", ("x.py", "deep/y.py")), ("b", ("deep/y.py", "x.py"))):
        for file in order:
            path = tmp_path / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"# {file}\n" * 100)
            os.utime(path, (len(made), len(made)))
            path.chmod(0o600 if made else 0o644)
        made.append(function.pack(tmp_path / name))
    assert made[0] == made[1]
    with zipfile.ZipFile(io.BytesIO(made[0])) as archive:
        assert archive.namelist() == ["deep/y.py", "x.py"]


def test_what_differs_from_machine_to_machine_is_left_out(tmp_path: Path) -> None:
    for name in ("botocore/data/ec2/x.json", "botocore/data/s3/x.json", "botocore/data/endpoints.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("{}")
    for name in ("six-1.dist-info/RECORD", "six-1.dist-info/METADATA", "bin/x"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    function.prune(tmp_path)
    function.own(tmp_path)
    left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert left >= {"botocore/data/ec2/x.json", "botocore/data/endpoints.json", "six-1.dist-info/METADATA"}
    assert left >= {"devboxd/headless.py", "devboxd/boxside/programs/common.sh"}
    assert not [
        one for one in left if "s3" in one or "RECORD" in one or one.startswith(("bin/", "devboxd/sim"))
    ]


def test_the_template_calls_a_handler_that_is_there() -> None:
    """And the runtime is a Python that devbox supports."""
    (reconciler,) = of_type("AWS::Lambda::Function").values()
    module, _, name = reconciler["Handler"].rpartition(".")
    assert callable(getattr(importlib.import_module(module), name))
    assert reconciler["Runtime"] == "python3.13"
    assert reconciler["Timeout"] <= 900
