"""Session documents: which exist, which parameters they declare, and what the agent is told.

Substitution is textual and unquoted, as the real agent does it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from devboxd.simulator.gateway.session import Task

DEFAULT_DOCUMENT: Final = "SSM-SessionManagerRunShell"

_PORT: Final = (
    "^([1-9]|[1-9][0-9]{1,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])$"
)
_LOCAL_PORT: Final = _PORT.replace("^([1-9]|", "^([0-9]|")
_PREFIX: Final = r"^[0-9a-zA-Z\r\n_:-]{0,30}$"
_NAME: Final = re.compile(r"[a-zA-Z0-9_\-.:/]{3,128}")


class DocumentError(Exception):
    """A document or its parameters are wrong. ``code`` is the API's error code."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def _text(**more: str) -> dict[str, Any]:
    return {"type": "String", **more}


def standard_documents() -> dict[str, dict[str, Any]]:
    """The documents every account has, as far as Session Manager uses them."""
    ports = {
        "portNumber": _text(default="80", allowedPattern=_PORT),
        "localPortNumber": _text(default="0", allowedPattern=_LOCAL_PORT),
    }
    forward = {
        "portNumber": "{{ portNumber }}",
        "type": "LocalPortForwarding",
        "localPortNumber": "{{ localPortNumber }}",
    }
    return {
        DEFAULT_DOCUMENT: {"schemaVersion": "1.0", "sessionType": "Standard_Stream", "inputs": {}},
        "AWS-StartInteractiveCommand": {
            "schemaVersion": "1.0",
            "sessionType": "InteractiveCommands",
            "parameters": {"command": _text()},
            "properties": {"linux": {"commands": "{{ command }}", "runAsElevated": False}},
        },
        "AWS-StartNonInteractiveCommand": {
            "schemaVersion": "1.0",
            "sessionType": "NonInteractiveCommands",
            "parameters": {
                "command": _text(),
                "separateOutputStream": _text(default="false", allowedPattern="^(true|false|True|False)$"),
                "stdOutSeparatorPrefix": _text(default="", allowedPattern=_PREFIX),
                "stdErrSeparatorPrefix": _text(default="", allowedPattern=_PREFIX),
            },
            "properties": {
                "linux": {
                    "commands": "{{ command }}",
                    "runAsElevated": False,
                    "separateOutputStream": "{{ separateOutputStream }}",
                    "stdOutSeparatorPrefix": "{{ stdOutSeparatorPrefix }}",
                    "stdErrSeparatorPrefix": "{{ stdErrSeparatorPrefix }}",
                }
            },
        },
        "AWS-StartPortForwardingSession": {
            "schemaVersion": "1.0",
            "sessionType": "Port",
            "parameters": ports,
            "properties": forward,
        },
        "AWS-StartPortForwardingSessionToRemoteHost": {
            "schemaVersion": "1.0",
            "sessionType": "Port",
            "parameters": {**ports, "host": _text()},
            "properties": {**forward, "host": "{{ host }}"},
        },
        "AWS-StartSSHSession": {
            "schemaVersion": "1.0",
            "sessionType": "Port",
            "parameters": {"portNumber": _text(default="22", allowedPattern=_PORT)},
            "properties": {"portNumber": "{{ portNumber }}"},
        },
    }


def resolve(
    documents: Mapping[str, Mapping[str, Any]], name: str | None, parameters: Mapping[str, Any] | None
) -> Task:
    """Check a StartSession against its document and fill the document in.

    Raises:
        DocumentError: InvalidDocument, InvalidParameters or ValidationException.
    """
    name = DEFAULT_DOCUMENT if name is None else name
    if not _NAME.fullmatch(name):
        raise DocumentError(
            "ValidationException", f"Value '{name}' at 'documentName' failed to satisfy constraint"
        )
    document = documents.get(name)
    if document is None:
        raise DocumentError("InvalidDocument", f"Document with name {name} does not exist.")
    values = _values(document.get("parameters") or {}, parameters or {}, name)
    return Task(
        document=name,
        session_type=str(document["sessionType"]),
        properties=_filled(document.get("properties") or {}, values),
        inputs=_filled(document.get("inputs") or {}, values),
        pacing=document.get("x-pacing"),
    )


def _values(declared: Mapping[str, Any], given: Mapping[str, Any], name: str) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, value in given.items():
        if not isinstance(value, list) or not all(isinstance(v, str) and 1 <= len(v) <= 65535 for v in value):
            raise DocumentError(
                "ValidationException", f"parameters.{key} must be a list of 1..65535 characters"
            )
        if key not in declared:
            raise DocumentError("InvalidParameters", f'Parameter "{key}" is not declared by document {name}.')
        is_list = declared[key].get("type") == "StringList"
        if not is_list and len(value) != 1:
            raise DocumentError("InvalidParameters", f'Parameter "{key}" takes exactly one value.')
        pattern = declared[key].get("allowedPattern")
        if pattern and not all(re.search(pattern, v) for v in value):
            raise DocumentError("InvalidParameters", f'Parameter "{key}" does not match {pattern}.')
        values[key] = value if is_list else value[0]
    for key, declaration in declared.items():
        if key in values:
            continue
        if "default" not in declaration:
            raise DocumentError("InvalidParameters", f'Parameter "{key}" requires a value.')
        values[key] = declaration["default"]
    return values


def _filled(node: Any, values: Mapping[str, Any]) -> Any:
    if isinstance(node, Mapping):
        return {key: _filled(value, values) for key, value in node.items()}
    if isinstance(node, list):
        return [_filled(value, values) for value in node]
    if isinstance(node, str):
        return re.sub(r"\{\{\s*(\w+)\s*\}\}", lambda m: str(values.get(m[1], m[0])), node)
    return node
