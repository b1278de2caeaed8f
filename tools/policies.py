"""Write the policies of ``devboxd.model.policy`` into ``iac/devbox.yaml``, between its marks.

Run it after a change of that module: ``make policies``. A test fails while the two differ.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any, Final

from devboxd.model.policy import OWNER, Audience, Place, policy

TEMPLATE: Final = Path(__file__).parents[1] / "iac" / "devbox.yaml"
PACKAGED: Final = Path(__file__).parents[1] / "devboxd" / "data" / "devbox.yaml"  # what init account deploys
IN_TEMPLATE: Final = Place("${AWS::Partition}", "${AWS::Region}", "${AWS::AccountId}", "${Prefix}")
_BLOCK: Final = re.compile(r"^( *)# policy (\w+)\n.*?^ *# end of policy$", re.MULTILINE | re.DOTALL)


def scalar(text: str) -> str:
    """A string as YAML. CloudFormation fills in what it knows; what IAM fills in is left to IAM."""
    own = text.replace(OWNER, "${!" + OWNER[2:])
    known = IN_TEMPLATE.prefix in own or "${AWS::" in own
    return f"!Sub {json.dumps(own)}" if known else json.dumps(text)


def lines(value: Any) -> list[str]:
    """A policy as lines of YAML: lists of strings flow, the rest stands in blocks."""
    found: list[str] = []
    match value:
        case dict():
            for key, one in value.items():
                name = json.dumps(key) if key == "Null" or not key.isalnum() else key  # YAML has a null
                if isinstance(one, str):
                    found.append(f"{name}: {scalar(one)}")
                else:
                    found += [f"{name}:", *("  " + line for line in lines(one))]
        case list() if all(isinstance(one, str) for one in value):
            found += [f"- {scalar(one)}" for one in value]
        case list():
            for one in value:
                first, *rest = lines(one)
                found += [f"- {first}", *("  " + line for line in rest)]
        case _:
            raise TypeError(f"{value!r} has no place in a policy")
    return found


def rendered(template: str) -> str:
    """The template with every marked block renewed."""

    def block(match: re.Match[str]) -> str:
        indent, audience = match[1], Audience(match[2])
        body = lines(policy(audience, IN_TEMPLATE))
        return "\n".join(indent + line for line in [f"# policy {audience}", *body, "# end of policy"])

    return _BLOCK.sub(block, template)


def main() -> int:
    """Renew the file; with ``--check`` only say whether it is up to date."""
    old = TEMPLATE.read_text("utf-8")
    new = rendered(old)
    if "--check" in sys.argv[1:]:
        return int(new != old)
    for path in (TEMPLATE, PACKAGED):
        path.write_text(new, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
