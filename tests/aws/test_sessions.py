"""Session Manager's calls, through botocore's own serializers and parsers."""

from __future__ import annotations

import base64
import re
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials, ReadOnlyCredentials

from devboxd.aws import http
from devboxd.aws.clients import Callers
from devboxd.aws.codes import AwsFailed, KeyUnusable
from devboxd.aws.connect_keys import send_ssh_public_key
from devboxd.aws.instances import InstanceApi
from devboxd.aws.sessions import Grant, SessionApi, is_signed, upgrade_headers
from devboxd.errors import (
    BoxGone,
    BoxNotFound,
    BoxStopped,
    Denied,
    DevboxError,
    NotConnected,
    SessionOver,
    Unreachable,
    WrongState,
)
from devboxd.model.address import AddressRefused
from tests.aws.fake import FakeAws, ec2_error, error, fake_aws, xml
from tests.net.authority import make_authority

BOX = "i-0123456789abcdef0"
GRANT = {"SessionId": "me-1", "TokenValue": "T0KEN", "StreamUrl": "wss://gateway/v1/data-channel/me-1?role=x"}


@pytest.fixture
def sessions(callers: Callers) -> SessionApi:
    return SessionApi(callers.caller())


async def test_a_session_starts_with_every_parameter_as_a_list(aws: FakeAws, sessions: SessionApi) -> None:
    aws.on("StartSession", GRANT)
    grant = await sessions.start(
        BOX,
        "AWS-StartPortForwardingSession",
        {"portNumber": "22", "more": ["a", "b"]},
        reason="devbox: ssh",
    )
    assert (grant.session_id, grant.token, grant.stream_url) == ("me-1", "T0KEN", GRANT["StreamUrl"])
    assert aws.calls[0].body == {
        "Target": BOX,
        "DocumentName": "AWS-StartPortForwardingSession",
        "Reason": "devbox: ssh",
        "Parameters": {"portNumber": ["22"], "more": ["a", "b"]},
    }
    assert re.search(r"devbox/\d", aws.calls[0].headers["User-Agent"])
    assert "/eu-north-1/ssm/aws4_request" in aws.calls[0].headers["Authorization"]


async def test_a_plain_shell_names_no_document(aws: FakeAws, sessions: SessionApi) -> None:
    aws.on("StartSession", GRANT)
    await sessions.start(BOX, reason="devbox " + "x" * 300)
    assert aws.calls[0].body.keys() == {"Target", "Reason"}
    assert len(aws.calls[0].body["Reason"]) == 256


def test_a_grant_shows_no_secret() -> None:
    assert repr(Grant("me-1", "T0KEN", "wss://x?X-Amz-Signature=abc")) == "Grant(session_id='me-1')"


@pytest.mark.parametrize(
    "odd",
    [
        {"StreamUrl": "http://gateway/x"},
        {"StreamUrl": "wss://gateway:99999/x"},
        {"StreamUrl": "wss://user@gateway/x"},
        {"StreamUrl": ["wss://gateway/x"]},
        {"StreamUrl": {"a": 1}},
        {"StreamUrl": 5},
        {"StreamUrl": "wss://gateway/x\r\nA: b"},
        {"TokenValue": 5},
        {"TokenValue": ["T"]},
        {"TokenValue": "a b"},
        {"TokenValue": "T" * 9000},
        {"SessionId": {}},
        {"SessionId": ["me-1"]},
        {"SessionId": "me\x1b[31m"},
        {"SessionId": "m" * 300},
        {"SessionId": ""},
    ],
)
async def test_a_grant_that_cannot_be_is_a_typed_failure(
    aws: FakeAws, sessions: SessionApi, odd: dict[str, object]
) -> None:
    """Whatever stands in the answer: no bug, no traceback, and nothing of it in the message."""
    aws.on("StartSession", {**GRANT, **odd})
    with pytest.raises((AwsFailed, AddressRefused)) as caught:
        await sessions.start(BOX)
    assert "\x1b" not in caught.value.message
    aws.on("ResumeSession", {**GRANT, **odd, "SessionId": "me-1"})
    if "SessionId" not in odd:
        with pytest.raises((AwsFailed, AddressRefused)):
            await sessions.resume("me-1")


async def test_a_stream_without_tls_is_for_an_endpoint_without_tls_only(
    aws: FakeAws, sessions: SessionApi, callers: Callers, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """``ws:`` beside an https API would carry the signed request and the token in clear."""
    plain = {**GRANT, "StreamUrl": "ws://127.0.0.1:1/x"}
    aws.on("StartSession", plain)
    assert (await sessions.start(BOX)).stream_url == plain["StreamUrl"]
    authority = make_authority(tmp_path)
    async with fake_aws(authority.server) as secure:
        monkeypatch.setenv("AWS_ENDPOINT_URL", secure.url)
        monkeypatch.setenv("AWS_CA_BUNDLE", str(authority.bundle))
        secure.on("StartSession", plain)
        secure.on("ResumeSession", plain)
        await callers.refresh()
        with pytest.raises(AddressRefused, match="not with wss:"):
            await sessions.start(BOX)
        with pytest.raises(AddressRefused):
            await sessions.resume("me-1")


@pytest.mark.parametrize("announced", [True, False])
@pytest.mark.parametrize("status", [200, 400, 500])
async def test_an_endless_answer_is_cut_and_not_asked_for_again(
    aws: FakeAws, sessions: SessionApi, announced: bool, status: int
) -> None:
    """300 MB of an answer became 700 MB of daemon. The bound holds for errors, too."""
    body = b'{"x": "' + b"x" * (http.MOST + 1) + b'"}'
    reply = web.Response(body=body, status=status, content_type="application/x-amz-json-1.1")
    if not announced:
        reply.headers["X-Test-Chunked"] = "1"
    aws.on("StartSession", reply)
    with pytest.raises(AwsFailed, match="has more than 4 MiB"):
        await sessions.start(BOX)
    assert len(aws.calls) == 1
    aws.on("StartSession", GRANT)
    assert (await sessions.start(BOX)).token == "T0KEN", "the next one is read as ever"


async def test_a_body_that_drips_is_given_up(
    aws: FakeAws, sessions: SessionApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A byte now and then keeps every time-out between two bytes from striking."""
    monkeypatch.setattr(http, "WITHIN", 0.1)
    aws.on("StartSession", web.Response(headers={"X-Test-Drip": "1"}))
    with pytest.raises(Unreachable):
        await sessions.start(BOX)


async def test_a_page_of_many_instances_is_read(aws: FakeAws, callers: Callers) -> None:
    """The bound must not be in the way of a large account."""
    padding = "x" * (http.MOST + 1000)
    aws.on(
        "DescribeInstances",
        xml(RESERVATIONS.replace("<reservationSet>", f"<!--{padding}--><reservationSet>")),
    )
    assert await InstanceApi(callers.caller()).list()


IDENTITY = """<GetCallerIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><GetCallerIdentityResult>
<Arn>arn:aws:iam::111122223333:user/me</Arn><UserId>A</UserId><Account>111122223333</Account>
</GetCallerIdentityResult></GetCallerIdentityResponse>"""
OWNED = {"Sessions": [{"SessionId": "me-1", "Owner": "arn:aws:sts::444455556666:assumed-role/r/me"}]}


async def test_the_account_of_a_session_is_asked_for_once(aws: FakeAws, sessions: SessionApi) -> None:
    """Everybody may ask that."""
    aws.on("GetCallerIdentity", xml(IDENTITY))
    assert [await sessions.account_id("me-1") for _ in range(3)] == ["111122223333"] * 3
    assert aws.counts == {"GetCallerIdentity": 1}


@pytest.mark.parametrize(
    ("listed", "expected"),
    [
        (OWNED, "444455556666"),
        ({"Sessions": []}, None),
        ({"Sessions": [{"SessionId": "me-2", "Owner": "arn:aws:sts::444455556666:x"}]}, None),
        ({"Sessions": [{"SessionId": "me-1", "Owner": "nobody"}]}, None),
        (error("AccessDeniedException", "no", 400), None),
    ],
)
async def test_without_sts_the_list_of_sessions_tells_the_account(
    aws: FakeAws, sessions: SessionApi, listed: Any, expected: str | None
) -> None:
    """In a network that has a way to Session Manager only."""
    aws.on("GetCallerIdentity", web.Response(status=503))
    aws.on("DescribeSessions", listed)
    assert await sessions.account_id("me-1") == expected


async def test_a_start_without_a_token_is_a_failure(aws: FakeAws, sessions: SessionApi) -> None:
    aws.on("StartSession", {"SessionId": "me-1"})
    with pytest.raises(AwsFailed):
        await sessions.start(BOX)


async def test_a_box_that_is_not_connected_can_be_asked_again(aws: FakeAws, sessions: SessionApi) -> None:
    aws.on("StartSession", error("TargetNotConnected", f"{BOX} is not connected."))
    with pytest.raises(NotConnected, match=BOX) as refused:
        await sessions.start(BOX)
    assert refused.value.retryable


async def test_resuming_gives_a_new_token_and_a_new_address(aws: FakeAws, sessions: SessionApi) -> None:
    aws.on("ResumeSession", GRANT | {"StreamUrl": ""})
    assert await sessions.resume("me-1") == Grant("me-1", "T0KEN", "")


@pytest.mark.parametrize(
    "reply",
    [
        {"SessionId": "me-1"},
        {"SessionId": "me-1", "TokenValue": "", "StreamUrl": "wss://x"},
        error("DoesNotExistException", "Session me-1 does not exist"),
    ],
    ids=["no token", "empty token", "unknown"],
)
async def test_a_session_that_is_over_says_so(aws: FakeAws, sessions: SessionApi, reply: object) -> None:
    aws.on("ResumeSession", reply)  # type: ignore[arg-type]
    with pytest.raises(SessionOver):
        await sessions.resume("me-1")


async def test_ending_a_session_twice_is_no_error(aws: FakeAws, sessions: SessionApi) -> None:
    aws.on("TerminateSession", {"SessionId": "me-1"}, error("DoesNotExistException"))
    await sessions.terminate("me-1")
    await sessions.terminate("me-1")


async def test_our_open_sessions_are_found_on_every_page(aws: FakeAws, sessions: SessionApi) -> None:
    """Those of people must never be swept away."""

    def item(number: int, reason: str | None) -> dict[str, object]:
        about: dict[str, object] = {"SessionId": f"me-{number}", "Target": BOX, "Status": "Connected"}
        return about | ({"Reason": reason} if reason else {}) | {"StartDate": 1_790_000_000.5}

    aws.on(
        "DescribeSessions",
        {"Sessions": [item(1, "devbox a: ssh"), item(2, None)], "NextToken": "next"},
        {"Sessions": [item(3, "backup"), item(4, "devbox b: mux")]},
    )
    found = await sessions.active(owner="arn:aws:iam::1:user/me")
    assert [one.id for one in found] == ["me-1", "me-4"]
    assert found[0].started is not None
    assert found[0].started.timestamp() == 1_790_000_000.5
    assert aws.calls[0].body["State"] == "Active"
    assert aws.calls[0].body["Filters"] == [{"key": "Owner", "value": "arn:aws:iam::1:user/me"}]
    assert aws.calls[1].body["NextToken"] == "next"


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ({"Sessions": [{"SessionId": "me-1", "Status": "Disconnected"}]}, True),
        ({"Sessions": [{"SessionId": "me-1", "Status": "Terminating"}]}, False),
        ({"Sessions": [{"SessionId": "me-10", "Status": "Connected"}]}, False),
        ({"Sessions": []}, False),
        (error("AccessDeniedException", "no"), None),
    ],
)
async def test_whether_a_session_still_exists(
    aws: FakeAws, sessions: SessionApi, reply: object, expected: bool | None
) -> None:
    aws.on("DescribeSessions", reply)  # type: ignore[arg-type]
    assert await sessions.is_active("me-1", BOX) is expected


async def test_the_connection_status_may_be_forbidden_to_ask(aws: FakeAws, sessions: SessionApi) -> None:
    aws.on(
        "GetConnectionStatus", {"Target": BOX, "Status": "Connected"}, error("AccessDeniedException", "no")
    )
    assert await sessions.connection_status(BOX) == "connected"
    assert await sessions.connection_status(BOX) is None


async def test_all_connections_come_in_one_list(aws: FakeAws, sessions: SessionApi) -> None:
    """`ls` must not ask once for each box."""
    first = [
        {"InstanceId": "i-1", "PingStatus": "Online"},
        {"InstanceId": "mi-2", "PingStatus": "ConnectionLost"},
    ]
    second = [{"InstanceId": "i-3", "PingStatus": "Inactive"}]
    aws.on(
        "DescribeInstanceInformation",
        {"InstanceInformationList": first, "NextToken": "more"},
        {"InstanceInformationList": second},
        error("AccessDeniedException", "no"),
    )
    found = await sessions.connections()
    assert found == {"i-1": "connected", "mi-2": "notconnected", "i-3": "notconnected"}
    assert aws.counts["DescribeInstanceInformation"] == 2
    assert await sessions.connections() == {}, "not allowed to ask is no error"


async def test_a_data_key_is_64_bytes_for_the_given_context(aws: FakeAws, sessions: SessionApi) -> None:
    plain, sealed = bytes(range(64)), b"sealed"
    aws.on(
        "GenerateDataKey",
        {
            "Plaintext": base64.b64encode(plain).decode(),
            "CiphertextBlob": base64.b64encode(sealed).decode(),
            "KeyId": "arn:k",
        },
        error("DisabledException", "arn:k is disabled."),
    )
    context = {"aws:ssm:SessionId": "me-1", "aws:ssm:TargetId": BOX}
    assert await sessions.generate_data_key("arn:k", context) == (plain, sealed)
    assert aws.calls[0].body == {"KeyId": "arn:k", "NumberOfBytes": 64, "EncryptionContext": context}
    with pytest.raises(KeyUnusable, match="disabled"):
        await sessions.generate_data_key("arn:k", context)


URL = "wss://ssmmessages.eu-north-1.amazonaws.com/v1/data-channel/me-1?role=publish_subscribe"
FROZEN = ReadOnlyCredentials("AKIDTEST", "secret-of-the-test", "SESSION-TOKEN")


def recomputed(url: str, params: dict[str, str], amz_date: str) -> str:
    """The signature of an equivalent request, by botocore's steps, at the time the header names."""
    request = AWSRequest(method="GET", url=url, params=params)
    request.headers["X-Amz-Date"] = amz_date
    request.headers["X-Amz-Security-Token"] = "SESSION-TOKEN"
    request.context["timestamp"] = amz_date
    signer = SigV4Auth(
        Credentials("AKIDTEST", "secret-of-the-test", "SESSION-TOKEN"), "ssmmessages", "eu-north-1"
    )
    text = signer.string_to_sign(request, signer.canonical_request(request))
    return signer.signature(text, request)


@pytest.mark.parametrize(
    ("query", "params"),
    [
        ("", {"role": "publish_subscribe"}),
        ("&cell-number=AAEL/abc==", {"role": "publish_subscribe", "cell-number": "AAEL/abc=="}),
        ("&cell-number=AAEL%2Babc%3D", {"role": "publish_subscribe", "cell-number": "AAEL+abc="}),
        # Go's signer, which the service is used to, takes a raw plus for a space.
        ("&cell-number=AA+b", {"role": "publish_subscribe", "cell-number": "AA b"}),
    ],
)
def test_the_upgrade_is_signed_as_an_equivalent_request(query: str, params: dict[str, str]) -> None:
    headers = upgrade_headers(URL + query, FROZEN, "eu-north-1")
    assert headers.keys() == {"Authorization", "X-Amz-Date", "X-Amz-Security-Token"}
    assert headers["X-Amz-Security-Token"] == "SESSION-TOKEN"
    scope, signed, signature = headers["Authorization"].removeprefix("AWS4-HMAC-SHA256 ").split(", ")
    day = headers["X-Amz-Date"][:8]
    assert scope == f"Credential=AKIDTEST/{day}/eu-north-1/ssmmessages/aws4_request"
    assert signed == "SignedHeaders=host;x-amz-date;x-amz-security-token"
    expected = recomputed(URL.replace("wss:", "https:").partition("?")[0], params, headers["X-Amz-Date"])
    assert signature == f"Signature={expected}"


def test_long_lived_keys_sign_without_a_token() -> None:
    headers = upgrade_headers(URL, ReadOnlyCredentials("AKIDTEST", "secret", None), "eu-north-1")
    assert headers.keys() == {"Authorization", "X-Amz-Date"}


@pytest.mark.parametrize("name", ["X-Amz-Signature", "x-amz-security-token", "X-Amz-Date"])
async def test_a_presigned_url_is_left_alone(aws: FakeAws, sessions: SessionApi, name: str) -> None:
    assert is_signed(f"{URL}&{name}=x")
    assert await sessions.sign_upgrade(f"{URL}&{name}=x") == {}
    assert not is_signed(URL)
    assert "Authorization" in await sessions.sign_upgrade(URL)


RESERVATIONS = """<DescribeInstancesResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/">
<requestId>r</requestId><reservationSet><item><reservationId>r-1</reservationId><instancesSet><item>
<instanceId>{id}</instanceId><instanceState><code>16</code><name>running</name></instanceState>
<instanceType>m7g.large</instanceType><launchTime>2026-11-20T10:00:00.000Z</launchTime>
<placement><availabilityZone>eu-north-1a</availabilityZone></placement>
<privateIpAddress>10.0.0.7</privateIpAddress><platformDetails>Linux/UNIX</platformDetails>
<tagSet><item><key>Name</key><value>gpu</value></item><item><key>team</key><value/></item></tagSet>
</item></instancesSet></item></reservationSet>{next}</DescribeInstancesResponse>"""


async def test_instances_of_every_page_become_values(aws: FakeAws, callers: Callers) -> None:
    aws.on(
        "DescribeInstances",
        xml(RESERVATIONS.format(id=BOX, next="<nextToken>n</nextToken>")),
        xml(RESERVATIONS.format(id="i-00000000000000002", next="")),
    )
    first, second = await InstanceApi(callers.caller()).list(tags={"devbox": "", "team": "a"})
    assert (first.id, first.name, first.state, first.type) == (BOX, "gpu", "running", "m7g.large")
    assert (first.zone, first.private_address, first.platform) == ("eu-north-1a", "10.0.0.7", "Linux/UNIX")
    assert first.launched == 1795168800.0
    assert first.tags == {"Name": "gpu", "team": ""}
    assert second.id == "i-00000000000000002"
    assert aws.calls[0].body["Filter.1.Name"] == "tag-key"
    assert aws.calls[0].body["Filter.2.Name"] == "tag:team"


async def test_an_instance_that_is_not_there_is_none_and_a_denied_look_is_not(
    aws: FakeAws, callers: Callers
) -> None:
    instances = InstanceApi(callers.caller())
    aws.on(
        "DescribeInstances",
        xml(RESERVATIONS.format(id=BOX, next="")),
        ec2_error("InvalidInstanceID.NotFound", "The instance ID does not exist"),
        ec2_error(
            "UnauthorizedOperation",
            "You are not authorized. Encoded authorization failure message: AbCd",
            403,
        ),
    )
    found = await instances.get(BOX)
    assert found is not None
    assert found.name == "gpu"
    assert await instances.get(BOX) is None
    with pytest.raises(Denied, match="ec2:DescribeInstances") as denied:
        await instances.get(BOX)
    assert "AbCd" not in str(denied.value)


async def test_a_key_is_sent_for_a_minute(aws: FakeAws, callers: Callers) -> None:
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHkX5rVpDmJgZ1lQkzOqVxN8C6bUeA0sX8n0z4c1oHhB devbox"
    aws.on(
        "SendSSHPublicKey",
        {"RequestId": "r", "Success": True},
        {"RequestId": "r", "Success": False},
        error("EC2InstanceNotFoundException"),
        error("EC2InstanceStateInvalidException", "not running"),
    )
    await send_ssh_public_key(callers.caller(), BOX, "ubuntu", key, zone="eu-north-1a")
    assert aws.calls[0].body == {
        "InstanceId": BOX,
        "InstanceOSUser": "ubuntu",
        "SSHPublicKey": key,
        "AvailabilityZone": "eu-north-1a",
    }
    for expected in (AwsFailed, BoxNotFound, WrongState):
        with pytest.raises(expected):
            await send_ssh_public_key(callers.caller(), BOX, "ubuntu", key)


@pytest.mark.parametrize(
    ("state", "expected", "text"),
    [
        ("stopped", BoxStopped, "gpu is stopped"),
        ("stopping", BoxStopped, "gpu is stopping"),
        ("terminated", BoxGone, f"gpu ({BOX}) has been terminated"),
        ("shutting-down", BoxGone, f"gpu ({BOX}) has been terminated"),
        ("running", NotConnected, "is not connected"),
        ("pending", NotConnected, "is not connected"),
        ("strange", NotConnected, "is not connected"),
    ],
)
async def test_a_box_that_is_off_is_called_off(
    aws: FakeAws, sessions: SessionApi, state: str, expected: type[DevboxError], text: str
) -> None:
    """Session Manager says "not connected" of both; one of them is worth waiting for."""
    aws.on("StartSession", error("TargetNotConnected", f"{BOX} is not connected."))
    answer = RESERVATIONS.format(id=BOX, next="").replace("<name>running</name>", f"<name>{state}</name>")
    aws.on("DescribeInstances", xml(answer))
    with pytest.raises(expected, match=re.escape(text)) as failure:
        await sessions.start(BOX)
    assert type(failure.value) is expected
    if expected is BoxStopped:
        hint = str(failure.value.hint)
        assert hint.endswith(f"aws ec2 start-instances --instance-ids {BOX} --region eu-north-1"), hint
        assert not failure.value.retryable


@pytest.mark.parametrize(
    ("state", "hint"),
    [
        ("stopped", "start it: devboxctl start gpu"),
        ("stopping", "start it: devboxctl start gpu"),
        ("terminated", "bring it up: devboxctl up gpu"),
    ],
)
async def test_the_box_of_a_project_is_started_by_our_own_command(
    aws: FakeAws, sessions: SessionApi, state: str, hint: str
) -> None:
    """Started behind the daemon's back it would be saved again."""
    aws.on("StartSession", error("TargetNotConnected", f"{BOX} is not connected."))
    answer = RESERVATIONS.format(id=BOX, next="").replace("<name>running</name>", f"<name>{state}</name>")
    answer = answer.replace("<key>team</key><value/>", "<key>devbox:project</key><value>gpu</value>")
    aws.on("DescribeInstances", xml(answer))
    with pytest.raises(WrongState) as failure:
        await sessions.start(BOX)
    assert failure.value.hint == hint


async def test_a_box_that_is_nowhere_is_not_waited_for(aws: FakeAws, sessions: SessionApi) -> None:
    """An id with a slip in it, or of an instance that went yesterday: two minutes of waiting for nobody."""
    aws.on("StartSession", error("TargetNotConnected", f"{BOX} is not connected."))
    aws.on(
        "DescribeInstances",
        ec2_error("InvalidInstanceID.NotFound", f"The instance ID '{BOX}' does not exist", 400),
    )
    with pytest.raises(BoxNotFound, match=BOX):
        await sessions.start(BOX)


@pytest.mark.parametrize("target", [BOX, "mi-0123456789abcdef0"])
async def test_who_may_not_ask_ec2_hears_what_session_manager_says(
    aws: FakeAws, sessions: SessionApi, target: str
) -> None:
    """A hybrid machine is none of EC2's, either."""
    aws.on("StartSession", error("TargetNotConnected", "not connected"))
    aws.on("DescribeInstances", ec2_error("UnauthorizedOperation", "no", 403))
    with pytest.raises(NotConnected):
        await sessions.start(target)
