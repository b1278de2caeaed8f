"""Answers that are not of the model: a captive portal, a proxy, an emulator, or somebody who means harm.

Every call comes to a typed failure, or takes them as nothing: never to a bug.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web

from devboxd.aws.clients import Callers
from devboxd.aws.instances import InstanceApi
from devboxd.aws.sessions import SessionApi
from devboxd.errors import DevboxError
from tests.aws.fake import FakeAws

BODIES = [
    b"", b"[]", b'"x"', b"5", b"null", b"true", b"{", b"[[[[", b"\xff\xfe", b"<html>log in here</html>", b'{"a":' * 3000,
    b'{"Sessions": 5}', b'{"Sessions": [5]}', b'{"Sessions": ["x"]}', b'{"Sessions": {"a": 1}}',
    b'{"Sessions": [{"SessionId": [1], "Owner": {}, "StartDate": "x", "Reason": 5}]}',
    b'{"Sessions": [{"SessionId": "a", "StartDate": 1e99, "MaxSessionDuration": "9"}]}',
    b'{"Sessions": [], "NextToken": 5}', b'{"Status": []}', b'{"SessionId": 1, "TokenValue": []}',
    b'{"Plaintext": "!!", "CiphertextBlob": 5}', b'{"Plaintext": 5}', b'{"Plaintext": "QQ==", "CiphertextBlob": "QQ=="}',
    b"<DescribeInstancesResponse/>", b"<DescribeInstancesResponse><reservationSet><item>x</item></reservationSet>",
    b"<a><b/></a>", b"<!DOCTYPE a [<!ENTITY x 'y'>]><a>&x;</a>",
]  # fmt: skip
Call = Callable[[SessionApi, InstanceApi], Awaitable[Any]]
CALLS: dict[str, Call] = {
    "start": lambda sessions, _: sessions.start("i-0123456789abcdef0"),
    "resume": lambda sessions, _: sessions.resume("me-1"),
    "terminate": lambda sessions, _: sessions.terminate("me-1"),
    "active": lambda sessions, _: sessions.active(reason_prefix=""),
    "is_active": lambda sessions, _: sessions.is_active("me-1"),
    "longest": lambda sessions, _: sessions.longest("a"),
    "connection": lambda sessions, _: sessions.connection_status("i-0123456789abcdef0"),
    "data key": lambda sessions, _: sessions.generate_data_key("alias/x", {}),
    "account": lambda sessions, _: sessions.account_id("me-1"),
    "list": lambda _, instances: instances.list(),
    "get": lambda _, instances: instances.get("i-0123456789abcdef0"),
}


@pytest.mark.parametrize("call", CALLS)
async def test_an_odd_answer_is_a_typed_failure_or_nothing(aws: FakeAws, callers: Callers, call: str) -> None:
    """The daemon says in a sentence that it was not AWS that answered, and goes on."""
    said: list[DevboxError] = []
    sessions, instances = SessionApi(callers.caller()), InstanceApi(callers.caller())
    for body in BODIES:
        for status in (200, 400):
            reply = web.Response(body=body, status=status, content_type="application/x-amz-json-1.1")
            for operation in (
                *("StartSession", "ResumeSession", "TerminateSession", "DescribeSessions"),
                *("GetConnectionStatus", "GenerateDataKey", "DescribeInstances", "GetCallerIdentity"),
            ):
                aws.on(operation, reply)
            try:
                await CALLS[call](sessions, instances)
            except DevboxError as error:
                said.append(error)
    assert [one.message for one in said if one.code == "internal" or "\n" in one.message] == []
