"""Make what travels to a box of the readable programs in devboxd/boxside/programs.

``NAME.min`` beside each ``NAME.py``: python-minifier shortens it, because it is part of a start command that has
a limit, and that ``ps`` shows. Done here and not in the daemon: no library and no delay at run time, and what
runs on a box can be looked at. ``--check`` writes nothing and fails where a file is stale.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import python_minifier

ROOT = Path(__file__).parents[1]
OWN_IMPORT = re.compile(r"^from (devboxd\.[\w.]+) import (?:\([^)]*\)|[^(\n]*)\n", re.MULTILINE)
TYPES_ONLY = re.compile(r"^if TYPE_CHECKING:\n(?:(?: {4}.*)?\n)+", re.MULTILINE)
FOLDER = ROOT / "devboxd" / "boxside" / "programs"


def shortened(source: str) -> str:
    """The program without what only its reader needs, and with short names."""
    text: str = python_minifier.minify(
        source,
        remove_literal_statements=True,
        rename_globals=True,
        remove_annotations=python_minifier.RemoveAnnotationsOptions(remove_class_attribute_annotations=True),
    )
    return text + "\n"


def whole(source: Path, seen: set[Path] | None = None) -> str:
    """The program with the parts of ours that it imports in front of it, each once, in place of those imports."""
    seen = set() if seen is None else seen
    text, parts = TYPES_ONLY.sub("", source.read_text("utf-8")), ""
    for match in list(OWN_IMPORT.finditer(text)):
        part = ROOT / (match[1].replace(".", "/") + ".py")
        if part not in seen:
            seen.add(part)
            parts += whole(part, seen) + "\n"
        text = text.replace(match[0], "")
    return parts + text


def main() -> int:
    """Write the files, or look at them."""
    stale = []
    for source in sorted(FOLDER.glob("*.py")):
        target = source.with_suffix(".min")
        text = shortened(whole(source))
        if target.exists() and target.read_text("utf-8") == text:
            continue
        stale.append(target.name)
        if "--check" not in sys.argv:
            target.write_text(text, "utf-8")
            sys.stdout.write(f"wrote {target.relative_to(ROOT)}: {len(text)} bytes\n")
    if "--check" in sys.argv and stale:
        sys.stdout.write(f"stale: {', '.join(stale)}; run: make programs\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
