"""docs/limits.md says what the code does, and leaves no buffer out."""

from __future__ import annotations

import functools
import importlib
import inspect
import re
from pathlib import Path

import msgspec
import pytest

ROOT = Path(__file__).parents[2]
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in (ROOT / "docs" / "limits.md").read_text("utf-8").splitlines()
    if line.startswith("| ") and not line.startswith("| what | bound")
]
UNITS = {"KiB": 1 << 10, "MiB": 1 << 20}
IN_WORDS = {"one a second": 1.0}
NOT_A_NUMBER = ("what was given",)
BUFFER = re.compile(r"\b(deque|Queue|bytearray|OrderedDict)\(")
# Files with a buffer that nobody from outside fills without a bound named elsewhere.
ELSEWHERE = {
    "typed.py": "the owners bound it: model.attach.MOST_TYPED, devboxctl.fast.pump.TYPED_MAX",
    "model/bridge/end.py": "the bounds stand in model.bridge.wire",
    "model/bridge/lane.py": "the same",
    "model/bridge/stream.py": "the same",
    "model/bridge/turns.py": "the same",
    "model/bridge/words.py": "the same",
    "model/frozen.py": "what such an end held before",
    "net/loose.py": "what a transport has not sent, for which whoever writes waits, and the last write",
    "control/lifecycle/lines.py": "who reads says how long: control.lifecycle.agents.LONGEST_LINE, boxside.reclaim.LINE_MOST",
    "boxside/bridgehead.py": "a partial record of at most what one stream's credit lets in",
}


def number(text: str) -> float:
    """``16 MiB``, ``20,000``, ``256 bytes``, ``300 characters``."""
    if text in IN_WORDS:
        return IN_WORDS[text]
    digits, _, unit = text.partition(" ")
    return int(digits.replace(",", "")) * UNITS.get(unit, 1)


def find(path: str) -> object:
    """A constant, or the default of a field."""
    parts = path.split(".")
    if parts[0] != "devboxctl":
        parts = ["devboxd", *parts]
    for length in range(len(parts) - 1, 0, -1):
        try:
            found: object = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        rest = parts[length:]
        if (
            len(rest) == 2
            and inspect.isclass(owner := getattr(found, rest[0]))
            and issubclass(owner, msgspec.Struct)
        ):
            return next(f.default for f in msgspec.structs.fields(owner) if f.name == rest[1])
        return functools.reduce(getattr, rest, found)
    raise AssertionError(path)


@pytest.mark.parametrize("row", ROWS, ids=[row[2].strip("`") for row in ROWS])
def test_each_bound_is_the_one_in_the_code(row: list[str]) -> None:
    """A page that says another number is worse than none."""
    what, bound, where, then = row
    assert what
    assert then
    if where.strip("`").endswith(".pages"):
        limit = inspect.signature(find(where.strip("`"))).parameters["limit"]  # type: ignore[arg-type]
        assert limit.default == number(bound)
    elif where.strip("`").endswith(".given"):
        assert bound in NOT_A_NUMBER
    else:
        assert find(where.strip("`")) == number(bound)


def test_every_file_with_a_buffer_has_a_row() -> None:
    """Whoever adds a queue says what happens when it is full."""
    missing = []
    named = {row[2].strip("`") for row in ROWS}
    for path in sorted((ROOT / "devboxd").rglob("*.py")):
        name = path.relative_to(ROOT / "devboxd").as_posix()
        if name.startswith(("simulator/", "boxside/programs/")) or not BUFFER.search(path.read_text("utf-8")):
            continue
        module = name.removesuffix(".py").replace("/", ".")
        if name not in ELSEWHERE and not any(one.startswith(module + ".") for one in named):
            missing.append(name)
    assert missing == []
