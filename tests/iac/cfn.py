"""Read the CloudFormation template as data: the short forms of its functions written out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

TEMPLATE = Path(__file__).parents[2] / "iac" / "devbox.yaml"


class _Loader(yaml.SafeLoader):
    """Knows CloudFormation's tags."""


def _short(loader: _Loader, suffix: str, node: yaml.Node) -> dict[str, Any]:
    name = suffix if suffix in ("Ref", "Condition") else f"Fn::{suffix}"
    value: Any
    if isinstance(node, yaml.ScalarNode):
        value = loader.construct_scalar(node)
        if name == "Fn::GetAtt":
            value = value.split(".", 1)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        assert isinstance(node, yaml.MappingNode)
        value = loader.construct_mapping(node, deep=True)
    return {name: value}


_Loader.add_multi_constructor("!", _short)


def template() -> dict[str, Any]:
    """The whole template."""
    found: dict[str, Any] = yaml.load(TEMPLATE.read_text("utf-8"), _Loader)
    return found


def of_type(kind: str) -> dict[str, dict[str, Any]]:
    """Resources of one type, by name: their properties."""
    resources = template()["Resources"].items()
    return {name: one.get("Properties", {}) for name, one in resources if one["Type"] == kind}


def filled(value: Any, values: dict[str, str]) -> Any:
    """A value with ``Fn::Sub`` carried out for these names; ``${!x}`` is IAM's and becomes ``${x}``."""
    match value:
        case {"Fn::Sub": str(text)}:
            for name, one in values.items():
                text = text.replace("${" + name + "}", one)
            return text.replace("${!", "${")
        case dict():
            return {key: filled(one, values) for key, one in value.items()}
        case list():
            return [filled(one, values) for one in value]
        case _:
            return value
