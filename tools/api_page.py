"""Write the table of routes into docs/api.md, out of devboxd/api/routes.py."""

from __future__ import annotations

import re
from pathlib import Path

from devboxd.api.describe import table

PAGE = Path(__file__).resolve().parents[1] / "docs" / "api.md"


def main() -> None:
    """Replace the table that is there."""
    page = PAGE.read_text("utf-8")
    PAGE.write_text(
        re.sub(r"^\| method \|.*?\n(?=\n)", table(), page, count=1, flags=re.DOTALL | re.MULTILINE), "utf-8"
    )


if __name__ == "__main__":
    main()
