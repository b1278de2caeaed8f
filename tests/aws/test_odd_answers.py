"""Answers that are not of the model: a captive portal, a proxy, an emulator, or somebody who means harm.

Every call comes to a typed failure, or takes them as nothing: never to a bug.
"""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiobotocore.parsers import AioResponseParserFactory
from aiohttp import web
from botocore.parsers import ResponseParserError
from botocore.session import Session

from devboxd.aws import http
from devboxd.aws.clients import Callers
from devboxd.aws.instances import InstanceApi
from devboxd.aws.sessions import SessionApi
from devboxd.errors import DevboxError
from devboxd.simulator.ec2 import wire
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


async def test_a_large_answer_is_read_in_a_thread_and_is_the_same() -> None:
    """A page of a thousand instances takes a seventh of a second: the loop goes on meanwhile."""
    shape = Session().get_service_model("ec2").operation_model("DescribeInstances").output_shape
    instance = {"InstanceId": "i-1", "Tags": [{"Key": "k", "Value": "v" * 200}] * 10}
    answer = {"Reservations": [{"ReservationId": "r-1", "Instances": [instance]}] * 300}
    threads = set()

    class Watched:
        async def parse(self, response: Any, shape: Any) -> Any:
            threads.add(threading.current_thread())
            return await AioResponseParserFactory().create_parser("ec2").parse(response, shape)

    parser = http._Parser(Watched())
    body = wire.encode("DescribeInstances", answer, "id")
    assert len(body) > http.LARGE
    found = await parser.parse({"body": body, "headers": {}, "status_code": 200}, shape)
    assert found["Reservations"] == answer["Reservations"]
    assert threads - {threading.main_thread()}
    with pytest.raises(ResponseParserError):
        await parser.parse({"body": b"<" * (http.LARGE + 1), "headers": {}, "status_code": 200}, shape)
