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
WIDTH: Final = 110
_PLAIN: Final = re.compile(
    r"[A-Za-z]\w*(-\w+)*(:\*?[A-Za-z]\w*\*?)?"
)  # means itself in YAML, also in brackets
_BLOCK: Final = re.compile(r"^( *)# policy (\w+)\n.*?^ *# end of policy$", re.MULTILINE | re.DOTALL)


def scalar(text: str) -> str:
    """A string as YAML. CloudFormation fills in what it knows; what IAM fills in is left to IAM."""
    own = text.replace(OWNER, "${!" + OWNER[2:])
    known = IN_TEMPLATE.prefix in own or "${AWS::" in own
    if known:
        return f"!Sub {json.dumps(own)}"
    return text if _PLAIN.fullmatch(text) and text not in ("true", "false") else json.dumps(text)


def key(name: str) -> str:
    """A key as YAML, which has a null of its own."""
    return name if name.isalnum() and name != "Null" else json.dumps(name)


def flow(value: Any) -> str:
    """A value on one line."""
    match value:
        case str():
            return scalar(value)
        case dict():
            return "{" + ", ".join(f"{key(name)}: {flow(one)}" for name, one in value.items()) + "}"
        case list():
            return "[" + ", ".join(flow(one) for one in value) + "]"
        case _:
            raise TypeError(f"{value!r} has no place in a policy")


def lines(value: Any) -> list[str]:
    """A policy as lines of YAML: what fits on a line stands on one."""
    if isinstance(value, str) or len(flow(value)) <= WIDTH:
        return [flow(value)]
    found: list[str] = []
    match value:
        case dict():
            for name, one in value.items():
                first, *rest = lines(one)
                if isinstance(one, str) or first[0] in "[{":
                    found += [f"{key(name)}: {first}", *("  " + line for line in rest)]
                else:
                    found += [f"{key(name)}:", *("  " + line for line in (first, *rest))]
        case list() if all(isinstance(one, str) for one in value):
            found += flowing([scalar(one) for one in value])
        case list():
            for one in value:
                first, *rest = lines(one)
                found += [f"- {first}", *("  " + line for line in rest)]
    return found


def flowing(words: list[str]) -> list[str]:
    """A list in brackets, as many to a line as fit: CloudFormation bounds the size of a template."""
    found = [""]
    for word in words:
        if found[-1] and len(found[-1]) + len(word) > WIDTH:
            found.append("")
        found[-1] += f" {word}," if found[-1] else f"{word},"
    found[0] = "[" + found[0]
    return [*found[:-1], found[-1].rstrip(",") + "]"]


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
