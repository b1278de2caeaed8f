"""Make what travels to a box of the readable programs in devboxd/boxside/programs.

``NAME.min`` beside each ``NAME.py``: python-minifier shortens it, because it is part of a start command that has
a limit, and that ``ps`` shows. Done here and not in the daemon: no library and no delay at run time, and what
runs on a box can be looked at. ``--check`` writes nothing and fails where a file is stale.
"""

from __future__ import annotations

import ast
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


def gathered(text: str) -> str:
    """The program with each of its imports once, in front; each part came with its own."""
    lines = text.splitlines()
    plain: set[str] = set()
    named: dict[str | None, set[str]] = {}
    for node in ast.parse(text).body:
        if isinstance(node, ast.Import):
            plain |= {ast.unparse(alias) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            named.setdefault(node.module, set()).update(ast.unparse(alias) for alias in node.names)
        else:
            continue
        for at in range(node.lineno - 1, node.end_lineno or node.lineno):
            lines[at] = ""
    named.get("typing", set()).discard("TYPE_CHECKING")
    front = [f"import {', '.join(sorted(plain))}"] if plain else []
    front += [f"from {module} import {', '.join(sorted(names))}" for module, names in named.items() if names]
    return "\n".join([*front, *lines, ""])


def main() -> int:
    """Write the files, or look at them."""
    stale = []
    for source in sorted(FOLDER.glob("*.py")):
        target = source.with_suffix(".min")
        text = shortened(gathered(whole(source)))
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
