"""The EC2 query protocol over the model: form parameters in, XML out, real enough for botocore's parsers."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final
from xml.etree import ElementTree as ET

from devboxd.simulator.ec2.boxes import Change, Ec2, Ec2Error, Filters, Instance, State
from devboxd.text import rfc3339

NAMESPACE: Final = "http://ec2.amazonaws.com/doc/2016-11-15/"
OWNER: Final = "123456789012"

Form = Mapping[str, str]

_NOT_XML: Final = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def values(form: Form, prefix: str) -> list[str]:
    """The members of a list parameter, in the order of their numbers: ``InstanceId.1``, ``InstanceId.2``."""
    numbered = (
        (key[len(prefix) + 1 :], value) for key, value in form.items() if key.startswith(prefix + ".")
    )
    return [value for number, value in sorted((int(n), v) for n, v in numbered if n.isdigit())]


def filters(form: Form) -> Filters:
    """The ``Filter.N`` of a request.

    Raises:
        Ec2Error: a filter without a name or without values.
    """
    numbers = sorted({int(m[1]) for key in form if (m := re.match(r"Filter\.(\d+)\.", key))})
    found = []
    for number in numbers:
        name, wanted = form.get(f"Filter.{number}.Name"), values(form, f"Filter.{number}.Value")
        if not name or not wanted:
            raise Ec2Error("InvalidParameterValue", "The filter 'null' is invalid")
        found.append((name, wanted))
    return found


def tags(form: Form) -> dict[str, str]:
    """The ``Tag.N`` of a request."""
    numbers = sorted({int(m[1]) for key in form if (m := re.match(r"Tag\.(\d+)\.", key))})
    return {form.get(f"Tag.{n}.Key", ""): form.get(f"Tag.{n}.Value", "") for n in numbers}


class Ec2Http:
    """Answers EC2 calls, and says what they changed."""

    def __init__(self, model: Ec2) -> None:
        self._model = model
        self._actions: dict[str, Callable[[Form], tuple[ET.Element, list[Change]]]] = {
            "DescribeInstances": self._describe,
            "DescribeInstanceStatus": self._status,
            "StartInstances": lambda form: self._change(form, self._model.start),
            "StopInstances": lambda form: self._change(form, self._model.stop),
            "TerminateInstances": lambda form: self._change(form, self._model.terminate),
            "RebootInstances": self._reboot,
            "CreateTags": self._create_tags,
            "DeleteTags": self._delete_tags,
        }

    def knows(self, action: str) -> bool:
        """Whether a call is ours."""
        return action in self._actions

    def answer(self, form: Form, request_id: str) -> tuple[int, bytes, list[Change]]:
        """Process one call: HTTP status, XML, and what changed."""
        action = form.get("Action", "")
        try:
            if form.get("DryRun", "").lower() == "true":
                raise Ec2Error(
                    "DryRunOperation", "Request would have succeeded, but DryRun flag is set.", 412
                )
            body, changes = self._actions[action](form)
        except Ec2Error as error:
            return error.status, error_xml(error.code, str(error), request_id), []
        root = ET.Element(f"{action}Response", {"xmlns": NAMESPACE})
        _text(root, "requestId", request_id)
        root.extend(body)
        return 200, _serialized(root), changes

    def _describe(self, form: Form) -> tuple[ET.Element, list[Change]]:
        page = self._model.describe(
            values(form, "InstanceId"),
            filters(form),
            max_results=_number(form, "MaxResults"),
            next_token=form.get("NextToken"),
        )
        body = ET.Element("body")
        reservations = ET.SubElement(body, "reservationSet")
        for instance in page.instances:
            item = ET.SubElement(reservations, "item")
            _text(item, "reservationId", "r-" + instance.id[2:])
            _text(item, "ownerId", OWNER)
            ET.SubElement(item, "groupSet")
            ET.SubElement(item, "instancesSet").append(_instance(instance))
        if page.next_token:
            _text(body, "nextToken", page.next_token)
        return body, []

    def _status(self, form: Form) -> tuple[ET.Element, list[Change]]:
        ids = values(form, "InstanceId")
        page = self._model.describe(
            ids, filters(form), max_results=_number(form, "MaxResults"), next_token=form.get("NextToken")
        )
        body = ET.Element("body")
        statuses = ET.SubElement(body, "instanceStatusSet")
        for instance in page.instances:
            if instance.state is not State.RUNNING and form.get("IncludeAllInstances") != "true":
                continue
            item = ET.SubElement(statuses, "item")
            _text(item, "instanceId", instance.id)
            _text(item, "availabilityZone", instance.zone)
            _state(item, "instanceState", instance.state)
            word = "ok" if instance.state is State.RUNNING else "not-applicable"
            for name in ("systemStatus", "instanceStatus"):
                _text(ET.SubElement(item, name), "status", word)
        if page.next_token:
            _text(body, "nextToken", page.next_token)
        return body, []

    def _change(
        self, form: Form, call: Callable[[list[str]], list[Change]]
    ) -> tuple[ET.Element, list[Change]]:
        changes = call(values(form, "InstanceId"))
        body = ET.Element("body")
        items = ET.SubElement(body, "instancesSet")
        for change in changes:
            item = ET.SubElement(items, "item")
            _text(item, "instanceId", change.id)
            _state(item, "currentState", change.current)
            _state(item, "previousState", change.previous)
        return body, changes

    def _reboot(self, form: Form) -> tuple[ET.Element, list[Change]]:
        return _done(), self._model.reboot(values(form, "InstanceId"))

    def _create_tags(self, form: Form) -> tuple[ET.Element, list[Change]]:
        self._model.tag(values(form, "ResourceId"), tags(form))
        return _done(), []

    def _delete_tags(self, form: Form) -> tuple[ET.Element, list[Change]]:
        self._model.untag(values(form, "ResourceId"), tags(form))
        return _done(), []


def error_xml(code: str, message: str, request_id: str) -> bytes:
    """EC2's form of an error."""
    root = ET.Element("Response")
    error = ET.SubElement(ET.SubElement(root, "Errors"), "Error")
    _text(error, "Code", code)
    _text(error, "Message", message)
    _text(root, "RequestID", request_id)
    return _serialized(root)


def _serialized(root: ET.Element) -> bytes:
    text: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return text


def _instance(instance: Instance) -> ET.Element:
    item = ET.Element("item")
    _text(item, "instanceId", instance.id)
    _text(item, "imageId", instance.image)
    _state(item, "instanceState", instance.state)
    _text(item, "privateDnsName", f"ip-{instance.private_address.replace('.', '-')}.ec2.internal")
    _text(item, "reason", instance.reason)
    _text(item, "amiLaunchIndex", "0")
    _text(item, "instanceType", instance.type)
    _text(item, "launchTime", rfc3339(int(instance.launched)))
    placement = ET.SubElement(item, "placement")
    _text(placement, "availabilityZone", instance.zone)
    _text(placement, "tenancy", "default")
    if instance.state is not State.TERMINATED:
        _text(item, "privateIpAddress", instance.private_address)
        _text(item, "subnetId", "subnet-0123456789abcdef0")
        _text(item, "vpcId", "vpc-0123456789abcdef0")
    if instance.reason_code:
        reason = ET.SubElement(item, "stateReason")
        _text(reason, "code", instance.reason_code)
        _text(reason, "message", instance.reason)
    _text(item, "architecture", "arm64")
    _text(item, "rootDeviceType", "ebs")
    _text(item, "rootDeviceName", "/dev/xvda")
    _text(item, "virtualizationType", "hvm")
    _text(item, "hypervisor", "xen")
    tag_set = ET.SubElement(item, "tagSet")
    for key, value in instance.tags.items():
        tag = ET.SubElement(tag_set, "item")
        _text(tag, "key", key)
        _text(tag, "value", value)
    return item


def _state(parent: ET.Element, name: str, state: State) -> None:
    node = ET.SubElement(parent, name)
    _text(node, "code", str(state.code))
    _text(node, "name", state.label)


def _text(parent: ET.Element, name: str, value: str) -> None:
    ET.SubElement(parent, name).text = xml_text(value)


def xml_text(value: str) -> str:
    """The text with ``?`` for what XML 1.0 cannot hold (a parser would refuse the whole answer)."""
    return _NOT_XML.sub("?", value)


def _done() -> ET.Element:
    body = ET.Element("body")
    _text(body, "return", "true")
    return body


def _number(form: Form, name: str) -> int | None:
    text = form.get(name)
    if text is None:
        return None
    if not text.lstrip("-").isdigit():
        raise Ec2Error("InvalidParameterValue", f"Value ( {text} ) for parameter {name} is invalid.")
    return int(text)
