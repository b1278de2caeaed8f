"""The EC2 query protocol: a form becomes the parameters of a call, an answer becomes XML.

Both ways follow botocore's service model, so every call is spoken without a line of its own.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final
from xml.etree import ElementTree as ET

from devboxd.simulator.ec2 import shapes
from devboxd.simulator.ec2.errors import Ec2Error, invalid
from devboxd.text import rfc3339

NAMESPACE: Final = "http://ec2.amazonaws.com/doc/2016-11-15/"
Form = Mapping[str, str]

_NOT_PARAMETERS: Final = ("Action", "Version")
_NOT_XML: Final = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_DEPTH: Final = 12  # of names in a form; the deepest of EC2's own has 8


def decode(form: Form) -> dict[str, Any]:
    """The parameters of the call that a form asks for.

    Raises:
        Ec2Error: unknown call or parameter, or a value that is none of its kind.
    """
    action = form.get("Action", "")
    shape = shapes.operation(action).input_shape
    tree: dict[str, Any] = {}
    for name, value in form.items():
        if name not in _NOT_PARAMETERS:
            _grow(tree, name.split("."), value)
    if shape is None:
        if tree:
            raise _unknown(next(iter(tree)))
        return {}
    parameters: dict[str, Any] = _structure(shape, tree)
    return parameters


def encode(operation: str, answer: Mapping[str, Any], request_id: str) -> bytes:
    """An answer as XML."""
    root = ET.Element(f"{operation}Response", {"xmlns": NAMESPACE})
    ET.SubElement(root, "requestId").text = request_id
    shape = shapes.operation(operation).output_shape
    if shape is None:
        ET.SubElement(root, "return").text = "true"
    else:
        _members(root, shape, answer)
    return _serialized(root)


def error_xml(code: str, message: str, request_id: str) -> bytes:
    """EC2's form of an error."""
    root = ET.Element("Response")
    error = ET.SubElement(ET.SubElement(root, "Errors"), "Error")
    ET.SubElement(error, "Code").text = xml_text(code)
    ET.SubElement(error, "Message").text = xml_text(message)
    ET.SubElement(root, "RequestID").text = request_id
    return _serialized(root)


def xml_text(value: str) -> str:
    """The text with ``?`` for what XML 1.0 cannot hold (a parser would refuse the whole answer)."""
    return _NOT_XML.sub("?", value)


# -- in ----------------------------------------------------------------------------------------------


def _grow(tree: dict[str, Any], path: list[str], value: str) -> None:
    """Put ``a.1.b = value`` into a tree of dicts."""
    if len(path) > _DEPTH:
        raise _unknown(".".join(path))
    for step in path[:-1]:
        branch = tree.setdefault(step, {})
        if not isinstance(branch, dict):
            raise _unknown(".".join(path))
        tree = branch
    if isinstance(tree.get(path[-1]), dict):
        raise _unknown(".".join(path))
    tree[path[-1]] = value


def _structure(shape: Any, tree: Mapping[str, Any]) -> dict[str, Any]:
    members = {_name_in_form(member, inner): member for member, inner in shape.members.items()}
    found = {}
    for name, branch in tree.items():
        member = members.get(name)
        if member is None:
            raise _unknown(name)
        found[member] = _value(shape.members[member], name, branch)
    return found


def _value(shape: Any, name: str, branch: Any) -> Any:
    if shape.type_name == "structure":
        if not isinstance(branch, dict):
            # An empty structure is sent as an empty value.
            if branch:
                raise invalid(f"Value ({branch}) for parameter {name} is invalid.")
            return {}
        return _structure(shape, branch)
    if shape.type_name == "list":
        if not isinstance(branch, dict):
            if branch:
                raise invalid(f"Value ({branch}) for parameter {name} is invalid.")
            return []
        if not all(key.isascii() and key.isdigit() for key in branch):
            raise _unknown(name)
        return [_value(shape.member, name, branch[key]) for key in sorted(branch, key=int)]
    if isinstance(branch, dict):
        raise _unknown(name)
    return _scalar(shape.type_name, name, branch)


def _scalar(kind: str, name: str, text: str) -> Any:
    try:
        if kind == "boolean":
            return {"true": True, "false": False}[text.lower()]
        if kind in ("integer", "long"):
            return int(text)
        if kind in ("float", "double"):
            return float(text)
        if kind == "timestamp":
            return datetime.fromisoformat(text)
        if kind == "blob":
            return base64.b64decode(text, validate=True)
    except (KeyError, ValueError, binascii.Error) as error:
        raise invalid(f"Invalid value '{text}' for {name}.") from error
    return text


def _name_in_form(member: str, shape: Any) -> str:
    """What botocore's EC2Serializer calls a member: queryName, or the XML name with a capital."""
    hints: Mapping[str, str] = shape.serialization
    if "queryName" in hints:
        return hints["queryName"]
    name = hints.get("name")
    return name[0].upper() + name[1:] if name else member


def _unknown(name: str) -> Ec2Error:
    return Ec2Error("UnknownParameter", f"The parameter {name} is not recognized")


# -- out ---------------------------------------------------------------------------------------------


def _members(parent: ET.Element, shape: Any, values: Mapping[str, Any]) -> None:
    for member, value in values.items():
        inner = shape.members[member]
        _write(parent, inner.serialization.get("name", member), inner, value)


def _write(parent: ET.Element, name: str, shape: Any, value: Any) -> None:
    node = ET.SubElement(parent, name)
    if shape.type_name == "structure":
        _members(node, shape, value)
    elif shape.type_name == "list":
        item = shape.member.serialization.get("name", "item")
        for one in value:
            _write(node, item, shape.member, one)
    elif shape.type_name == "boolean":
        node.text = "true" if value else "false"
    elif shape.type_name == "timestamp":
        node.text = rfc3339(value.timestamp())
    elif shape.type_name == "blob":
        node.text = base64.b64encode(value).decode()
    else:
        node.text = xml_text(str(value))


def _serialized(root: ET.Element) -> bytes:
    text: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return text
