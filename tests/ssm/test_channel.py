"""The data channel as a table of situations; the numbers are those of the conformance list."""

from __future__ import annotations

import json
import random
from base64 import b64encode
from uuid import UUID

import pytest

from devboxd.ssm import frame, payload
from devboxd.ssm.channel import Channel, State
from devboxd.ssm.effect import (
    Broken,
    Closed,
    ErrorOutput,
    ExitCode,
    FlagReceived,
    NeedDataKey,
    Notice,
    Output,
    ProbeAnswered,
    Ready,
    SendText,
    Writable,
)
from devboxd.ssm.limits import PORT, Limits
from devboxd.ssm.payload import Flag, PayloadType
from tests.kit.farend import closed, handshake_request, service_message
from tests.ssm.support import (
    CLIENT,
    SESSION,
    TARGET,
    WALL_MS,
    acknowledged,
    acknowledgement,
    delivered,
    inputs,
    make_channel,
    open_channel,
    others,
    output,
    ready_shell,
    reopen,
    sent,
    vectors,
)

COMPLETE = b'{"HandshakeTimeToComplete":1500000000,"CustomerMessage":"Be careful."}'
SIZE = payload.size(80, 24)


def shaken(limits: Limits = PORT, session_type: str = "Port") -> Channel:
    """A channel after the whole handshake: frames 0 and 1 both ways."""
    channel = open_channel(limits)
    channel.received(output(0, handshake_request(session_type), PayloadType.HANDSHAKE_REQUEST), 0.0)
    channel.received(acknowledgement(0), 0.0)
    channel.received(output(1, COMPLETE, PayloadType.HANDSHAKE_COMPLETE), 0.0)
    channel.received(acknowledgement(1), 0.01)
    assert channel.ready
    return channel


# -- framing, as the channel sees it


def test_item_03_the_services_own_short_form_ends_the_session() -> None:
    channel = ready_shell()
    wire = bytes.fromhex(vectors("framing_quirks")["vectors"][0]["wire_hex"])
    [end] = channel.received(wire, 1.0)
    assert isinstance(end, Closed)


def test_item_05_a_frame_with_a_bad_digest_is_neither_acknowledged_nor_delivered() -> None:
    channel = ready_shell()
    bad = bytearray(output(1, b"hello"))
    bad[-1] ^= 1
    assert channel.received(bytes(bad), 1.0) == []
    assert channel.dropped == 1
    assert delivered(channel.received(output(1, b"hello"), 1.0)) == b"hello"


def test_item_06_broken_frames_are_counted() -> None:
    channel = ready_shell()
    for data in (b"", b"\0\0\0t", bytes(119), bytes(500), output(1, b"x")[:118]):
        assert channel.received(data, 1.0) == []
    assert channel.dropped == channel.drops["bad frame"] == 5


def test_item_07_unknown_message_types_are_ignored_and_unknown_payload_types_acknowledged() -> None:
    channel = ready_shell()
    assert channel.received(service_message("brand_new_message"), 1.0) == []
    assert channel.received(service_message(frame.AGENT_SESSION_STATE), 1.0) == []
    effects = channel.received(output(1, b"?", 99), 1.0)
    assert acknowledged(effects) == [1]
    assert others(effects) == []
    assert delivered(channel.received(output(2, b"on"), 1.0)) == b"on"


def test_item_08_nothing_empty_is_sent_and_something_empty_is_accepted() -> None:
    channel = ready_shell()
    assert channel.send(PayloadType.OUTPUT, b"", 1.0) == []
    effects = channel.received(output(1, b""), 1.0)
    assert acknowledged(effects) == [1]
    assert others(effects) == []
    assert delivered(channel.received(output(2, b"x"), 1.0)) == b"x"


def test_text_frames_are_ignored() -> None:
    channel = ready_shell()
    assert channel.received("hello", 1.0) == []
    assert channel.received(output(1, b"x").decode("latin-1"), 1.0) == []
    assert channel.dropped == 2


# -- opening


def test_item_09_the_open_message_comes_first_on_every_link() -> None:
    """The same client and a new request and token each time, or the gateway starts another stream."""
    channel = make_channel()
    texts = []
    for number in (1, 2, 3):
        effects = channel.opened(number, token=f"t{number}", request_id=UUID(int=number), wall_ms=WALL_MS)
        assert isinstance(effects[0], SendText)
        texts.append(json.loads(effects[0].text))
        channel.received(output(number - 1, b"x"), number)
        channel.lost(number + 0.5)
    assert [text["ClientId"] for text in texts] == [str(CLIENT)] * 3
    assert [text["RequestId"] for text in texts] == [str(UUID(int=number)) for number in (1, 2, 3)]
    assert [text["TokenValue"] for text in texts] == ["t1", "t2", "t3"]
    assert {text["ClientVersion"] for text in texts} == {payload.CLIENT_VERSION}


def test_item_50_the_token_is_in_no_repr() -> None:
    effects = reopen(make_channel(), 0.0, token="hunter2")
    assert "hunter2" not in repr(effects)


# -- handshake


def test_item_13_first_output_means_a_shell_without_handshake() -> None:
    channel = open_channel()
    assert channel.state == "opening"
    effects = channel.received(output(0, b"$ "), 1.1)
    assert others(effects) == [Ready(None, None, "", False), Writable(), Output(b"$ ")]
    assert acknowledged(effects) == [0]
    assert channel.ready


def test_item_13_a_shells_early_frames_wait_for_the_first() -> None:
    channel = open_channel()
    assert acknowledged(channel.received(output(1, b"b"), 1.0)) == [1]
    assert channel.state is State.OPENING
    assert delivered(channel.received(output(0, b"a"), 1.1)) == b"ab"


def test_items_14_17_18_the_handshake_and_nothing_else_before_its_end() -> None:
    channel = open_channel(PORT)
    request = handshake_request("Port", portNumber="80", type="LocalPortForwarding")
    effects = channel.received(output(0, request, PayloadType.HANDSHAKE_REQUEST), 1.0)
    assert acknowledged(effects) == [0]
    [response] = inputs(effects)
    assert (response.sequence, response.payload_type) == (0, PayloadType.HANDSHAKE_RESPONSE)
    assert [action["ActionStatus"] for action in json.loads(response.payload)["ProcessedClientActions"]] == [
        1
    ]
    assert channel.state == "handshake"
    assert channel.room == 0
    assert channel.send(PayloadType.FLAG, payload.flag(Flag.TERMINATE_SESSION), 1.0) == []
    assert channel.probe(1.0) == []
    channel.received(acknowledgement(0), 1.05)

    effects = channel.received(output(1, COMPLETE, PayloadType.HANDSHAKE_COMPLETE), 1.1)
    [no_op] = inputs(effects)
    assert (no_op.sequence, no_op.payload_type) == (1, PayloadType.PARAMETER)
    assert others(effects) == [Notice("Be careful.")]
    assert channel.room == 0, "data waits until the far end has taken the no-op"

    properties = {"portNumber": "80", "type": "LocalPortForwarding"}
    assert others(channel.received(acknowledgement(1), 1.2)) == [
        Ready("Port", properties, "3.3.987.0", False),
        Writable(),
    ]
    assert (channel.session_type, channel.properties, channel.agent_version) == (
        "Port",
        properties,
        "3.3.987.0",
    )
    [data] = inputs(channel.send(PayloadType.OUTPUT, b"GET /", 1.3))
    assert (data.sequence, data.payload) == (2, b"GET /")


def test_item_18_the_no_op_is_repeated_within_a_tenth_of_a_second() -> None:
    """The far end rejects its first input silently; waiting 300 ms for it is what ssh users feel."""
    channel = open_channel(PORT)
    channel.received(output(0, handshake_request(), PayloadType.HANDSHAKE_REQUEST), 0.0)
    channel.received(acknowledgement(0), 0.0)
    channel.received(output(1, COMPLETE, PayloadType.HANDSHAKE_COMPLETE), 0.0)
    deadline = channel.next_deadline()
    assert deadline is not None
    assert 0.05 <= deadline <= 0.1
    assert [message.sequence for message in inputs(channel.tick(deadline))] == [1]


def test_item_18_output_after_the_handshake_makes_it_ready_too() -> None:
    """sshd speaks first: its banner must not overtake ``Ready``."""
    channel = open_channel(PORT)
    channel.received(output(0, handshake_request(), PayloadType.HANDSHAKE_REQUEST), 0.0)
    channel.received(output(1, COMPLETE, PayloadType.HANDSHAKE_COMPLETE), 0.0)
    kinds = [type(effect) for effect in others(channel.received(output(2, b"SSH-2.0-x\r\n"), 0.1))]
    assert kinds == [Ready, Writable, Output]
    assert others(channel.received(acknowledgement(1), 0.2)) == []


def test_item_16_one_response_only_and_repeats_are_identical() -> None:
    """A second one with a new number blocks the far end's reader for good."""
    channel = open_channel()
    request = output(0, handshake_request(), PayloadType.HANDSHAKE_REQUEST)
    first = channel.received(request, 0.0)[-1]
    assert [message.payload_type for message in inputs([first])] == [PayloadType.HANDSHAKE_RESPONSE]
    assert inputs(channel.received(request, 0.1)) == []
    assert channel.tick(0.3) == [first]
    channel.lost(1.0)
    assert first in reopen(channel, 2.0)
    again = output(1, handshake_request(), PayloadType.HANDSHAKE_REQUEST)
    effects = channel.received(again, 3.0)
    assert inputs(effects) == []
    assert acknowledged(effects) == [1]


def test_item_17_only_a_size_is_sent_before_the_first_output() -> None:
    channel = open_channel()
    assert channel.room == 0
    with pytest.raises(ValueError, match="room"):
        channel.send(PayloadType.OUTPUT, b"ls", 0.1)
    [size] = inputs(channel.send(PayloadType.SIZE, SIZE, 0.1))
    assert (size.sequence, size.payload_type, size.payload) == (0, PayloadType.SIZE, SIZE)


def test_item_17_a_size_given_during_a_handshake_follows_it() -> None:
    channel = open_channel()
    request = handshake_request("Standard_Stream")
    channel.received(output(0, request, PayloadType.HANDSHAKE_REQUEST), 0.0)
    assert channel.send(PayloadType.SIZE, SIZE, 0.1) == []
    channel.received(output(1, COMPLETE, PayloadType.HANDSHAKE_COMPLETE), 0.2)
    [size] = inputs(channel.received(acknowledgement(1), 0.3))
    assert (size.payload_type, size.payload) == (PayloadType.SIZE, SIZE)


def test_item_19_the_administrators_text_is_no_output() -> None:
    channel = open_channel()
    channel.received(output(0, handshake_request(), PayloadType.HANDSHAKE_REQUEST), 0.0)
    effects = channel.received(output(1, COMPLETE, PayloadType.HANDSHAKE_COMPLETE), 0.0)
    assert delivered(effects) == b""
    assert Notice("Be careful.") in effects


def test_a_handshake_that_can_not_be_understood_ends_the_session() -> None:
    channel = open_channel()
    effects = channel.received(output(0, b"{not json", PayloadType.HANDSHAKE_REQUEST), 0.0)
    assert isinstance(effects[-1], Broken)
    assert channel.state is State.CLOSED


def test_output_during_the_handshake_ends_the_session() -> None:
    channel = open_channel()
    channel.received(output(0, handshake_request(), PayloadType.HANDSHAKE_REQUEST), 0.0)
    assert isinstance(channel.received(output(1, b"too early"), 0.1)[-1], Broken)


def test_a_handshake_that_does_not_end_ends_the_session() -> None:
    channel = open_channel()
    channel.received(output(0, handshake_request(), PayloadType.HANDSHAKE_REQUEST), 0.0)
    channel.received(acknowledgement(0), 0.1)
    assert channel.next_deadline() == 60.0
    assert channel.tick(59.9) == []
    assert channel.tick(60.0) == [Broken("the handshake did not complete")]


def test_item_46_a_far_end_that_takes_nothing_after_the_handshake_is_reported_within_seconds() -> None:
    """Its worker has crashed because nothing listens on the port; it says so a minute later."""
    channel = open_channel(PORT)
    channel.received(output(0, handshake_request(), PayloadType.HANDSHAKE_REQUEST), 0.0)
    channel.received(acknowledgement(0), 0.0)
    channel.received(output(1, COMPLETE, PayloadType.HANDSHAKE_COMPLETE), 0.0)
    while (deadline := channel.next_deadline()) is not None:
        assert deadline <= 10.0
        [*_, last] = channel.tick(deadline)
    assert isinstance(last, Broken)
    assert "port" in last.reason


# -- encryption

KEY = bytes.fromhex(vectors("kms")["data_key_plaintext_hex"])


def sealed_request(challenge: bool = True) -> bytes:
    parameters = {"KMSKeyId": "alias/x"} | ({"Challenge": "AAECAwQFBgcICQoLDA0ODw=="} if challenge else {})
    actions = [
        {"ActionType": "SessionType", "ActionParameters": {"SessionType": "Standard_Stream"}},
        {"ActionType": "KMSEncryption", "ActionParameters": parameters},
    ]
    body = {"AgentVersion": "3.3.987.0", "RequestedClientActions": actions}
    return output(0, json.dumps(body).encode(), PayloadType.HANDSHAKE_REQUEST)


def sealed(name: str) -> tuple[bytes, bytes]:
    """A recorded payload of the far end: on the wire, and in clear."""
    [vector] = [vector for vector in vectors("kms")["vectors"] if vector["name"] == name]
    return bytes.fromhex(vector["wire_payload_hex"]), bytes.fromhex(vector["plaintext_hex"])


@pytest.mark.parametrize("challenge", [True, False])
def test_item_20_the_key_is_asked_for_with_the_exact_context(challenge: bool) -> None:
    channel = open_channel()
    effects = channel.received(sealed_request(challenge), 0.0)
    context = {"aws:ssm:SessionId": SESSION, "aws:ssm:TargetId": TARGET}
    if challenge:
        context["aws:ssm:RandomChallenge"] = "AAECAwQFBgcICQoLDA0ODw=="
    assert others(effects) == [NeedDataKey("alias/x", context)]
    assert inputs(effects) == [], "no answer before the key is there"
    [response] = inputs(channel.data_key(KEY, b"sealed", 0.5))
    action = json.loads(response.payload)["ProcessedClientActions"][1]
    assert action["ActionStatus"] == 1
    assert ("ChallengeAcknowledgement" in action["ActionResult"]) is challenge
    assert channel.data_key(KEY, b"sealed", 0.6) == [], "one answer only"


def sealed_shell() -> Channel:
    """An encrypted shell that is ready: the far end's frames 0..3 are used."""
    channel = open_channel()
    channel.received(sealed_request(), 0.0)
    channel.data_key(KEY, b"sealed", 0.1)
    wire, _ = sealed("far-end-to-client-challenge-64")
    text = json.dumps({"Challenge": b64encode(wire).decode()}).encode()
    effects = channel.received(output(1, text, PayloadType.CHALLENGE_REQUEST), 0.2)
    assert [message.payload_type for message in inputs(effects)] == [PayloadType.CHALLENGE_RESPONSE]
    again = channel.received(output(1, text, PayloadType.CHALLENGE_REQUEST), 0.2)
    assert inputs(again) == [], "the challenge is answered once"
    again = channel.received(output(2, text, PayloadType.CHALLENGE_REQUEST), 0.2)
    assert acknowledged(again) == [2]
    assert inputs(again) == []
    effects = channel.received(output(3, COMPLETE, PayloadType.HANDSHAKE_COMPLETE), 0.3)
    [no_op] = inputs(effects)
    ready = channel.received(acknowledgement(no_op.sequence), 0.3)
    assert Ready("Standard_Stream", None, "3.3.987.0", True) in ready
    return channel


def test_item_20_output_is_opened_and_only_input_of_type_1_is_sealed() -> None:
    channel = sealed_shell()
    wire, plain = sealed("far-end-to-client-prompt")
    assert delivered(channel.received(output(4, wire), 1.0)) == plain
    wire, _ = sealed("far-end-to-client-exit-code")
    assert ExitCode(0) in channel.received(output(5, wire, PayloadType.EXIT_CODE), 1.0)
    wire, plain = sealed("far-end-to-client-1024-bytes")
    assert ErrorOutput(plain) in channel.received(output(6, wire, PayloadType.STDERR), 1.0)
    assert channel.received(output(7, payload.flag(Flag.CONNECT_TO_PORT_ERROR), PayloadType.FLAG), 1.0)[
        -1
    ] == (FlagReceived(3))
    [size] = inputs(channel.send(PayloadType.SIZE, SIZE, 1.0))
    assert size.payload == SIZE
    typed = inputs(channel.send(PayloadType.OUTPUT, b"x" * 3000, 1.0))
    assert b"xxxx" not in b"".join(message.payload for message in typed)
    assert max(len(message.payload) for message in typed) <= 1024
    assert len({message.payload[:12] for message in typed}) == len(typed)


def test_item_20_clear_output_in_an_encrypted_session_is_not_taken() -> None:
    channel = sealed_shell()
    assert channel.received(output(4, b"in clear"), 1.0) == []
    assert channel.received(output(5, b"in clear, early, and rather long", PayloadType.STDERR), 1.0) == []
    assert channel.drops["not sealed"] == 2
    wire, plain = sealed("far-end-to-client-prompt")
    assert delivered(channel.received(output(4, wire), 1.0)) == plain


def test_item_20_clear_output_before_the_request_for_encryption_ends_the_session() -> None:
    channel = open_channel()
    channel.received(output(3, b"in clear"), 0.0)
    assert isinstance(channel.received(sealed_request(), 0.1)[-1], Broken)


def test_item_20_a_refused_key_is_said_and_never_ignored() -> None:
    """A far end that goes on in clear after asking for encryption is not the one we know."""
    channel = open_channel()
    channel.received(sealed_request(), 0.0)
    [response] = inputs(channel.data_key_failed("AccessDenied", 0.1))
    action = json.loads(response.payload)["ProcessedClientActions"][1]
    assert (action["ActionStatus"], action["ActionResult"]) == (2, None)
    assert "AccessDenied" in action["Error"]
    assert isinstance(channel.received(output(1, COMPLETE, PayloadType.HANDSHAKE_COMPLETE), 0.2)[-1], Broken)


def test_item_20_a_key_of_the_wrong_size_is_refused() -> None:
    channel = open_channel()
    channel.received(sealed_request(), 0.0)
    [response] = inputs(channel.data_key(KEY[:32], b"sealed", 0.1))
    assert json.loads(response.payload)["ProcessedClientActions"][1]["ActionStatus"] == 2


def test_item_20_a_key_that_comes_while_the_link_is_down_is_used_on_the_next() -> None:
    channel = open_channel()
    channel.received(sealed_request(), 0.0)
    channel.lost(0.1)
    assert channel.data_key(KEY, b"sealed", 5.0) == []
    assert [message.payload_type for message in inputs(reopen(channel, 100.0))] == [6]
    assert channel.next_deadline() is not None
    assert channel.tick(101.0) != [Broken("the handshake did not complete")]


# -- receiving


def test_item_21_any_order_gives_every_byte_once() -> None:
    channel = ready_shell()
    order = list(range(1, 10_001))
    random.Random(7).shuffle(order)
    got, acks = bytearray(), []
    for sequence in order:
        effects = channel.received(output(sequence, b"%d," % sequence), 1.0)
        got += delivered(effects)
        acks += acknowledged(effects)
    assert got == b"".join(b"%d," % sequence for sequence in range(1, 10_001))
    assert acks == order


def test_item_21_repeats_are_acknowledged_again_and_not_delivered() -> None:
    """The far end repeats one frame for ever otherwise, and never repairs a later one."""
    channel = ready_shell()
    channel.received(output(1, b"x"), 1.0)
    for _ in range(3):
        effects = channel.received(output(1, b"x"), 2.0)
        assert acknowledged(effects) == [1]
        assert delivered(effects) == b""
    channel.received(output(3, b"z"), 2.0)
    assert acknowledged(channel.received(output(3, b"z"), 2.0)) == [3]


def test_item_21_far_ahead_is_dropped_unacknowledged() -> None:
    channel = ready_shell()
    assert acknowledged(channel.received(output(10_000, b"x"), 1.0)) == [10_000]
    assert channel.received(output(10_001, b"x"), 1.0) == []
    assert channel.drops["too far ahead"] == 1


def test_item_22_an_acknowledgement_names_the_message() -> None:
    channel = ready_shell()
    id_ = UUID("6ba7b810-9dad-41d1-80b4-00c04fd430c8")
    [message] = sent(channel.received(output(1, b"x", id_=id_), 1.0))
    assert (message.type, message.flags, message.sequence, message.payload_type) == (
        frame.ACKNOWLEDGE,
        3,
        0,
        0,
    )
    assert message.payload.decode() == (
        '{"AcknowledgedMessageType":"output_stream_data","AcknowledgedMessageId":'
        f'"{id_}","AcknowledgedMessageSequenceNumber":1,"IsSequentialMessage":true}}'
    )
    assert message.created_ms == WALL_MS + 1000


def test_item_22_what_needs_no_acknowledgement_gets_none() -> None:
    channel = ready_shell()
    for message in (acknowledgement(0), service_message(frame.PAUSE_PUBLICATION), closed()):
        assert sent(channel.received(message, 1.0)) == []


def test_item_24_a_frame_that_stays_away_while_others_come_ends_the_session() -> None:
    channel = ready_shell()
    for second in range(31):
        effects = channel.received(output(2 + second, b"x"), 1.0 + second)
        assert acknowledged(effects) == [2 + second]
    assert channel.missing == 1
    [end] = channel.tick(31.0)
    assert isinstance(end, Broken)
    assert channel.received(output(1, b"too late"), 32.0) == []


def test_item_24_the_gap_timer_wakes_the_owner() -> None:
    channel = ready_shell()
    channel.received(output(2, b"x"), 1.0)
    assert channel.next_deadline() is None, "silence is not a gap"
    channel.received(output(3, b"x"), 20.0)
    assert channel.next_deadline() == 31.0


# -- sending


def test_items_25_26_frames_are_repeated_byte_for_byte() -> None:
    channel = ready_shell()
    first = channel.send(PayloadType.OUTPUT, b"ls\r", 1.0)
    assert channel.next_deadline() == pytest.approx(1.2)
    assert channel.tick(1.2) == first
    channel.lost(2.0)
    assert channel.next_deadline() is None
    assert channel.tick(100.0) == []
    assert [effect for effect in reopen(channel, 200.0) if effect in first] == first
    channel.received(acknowledgement(0), 200.1)
    assert channel.unacknowledged == 0
    assert channel.next_deadline() is None


def test_item_25_the_round_trip_is_measured() -> None:
    channel = ready_shell()
    for number in range(40):
        channel.send(PayloadType.OUTPUT, b"x", float(number))
        channel.received(acknowledgement(number), number + 0.03)
    assert channel.round_trip == pytest.approx(0.03, abs=0.002)


def test_item_27_the_producer_is_held_back_and_woken() -> None:
    channel = ready_shell()
    assert channel.room == 16 * 1024
    frames = inputs(channel.send(PayloadType.OUTPUT, bytes(channel.room), 1.0))
    assert [len(message.payload) for message in frames] == [1024] * 16
    assert (channel.room, channel.unacknowledged, channel.bytes_unacknowledged) == (0, 16, 16 * 1024)
    with pytest.raises(ValueError, match="room"):
        channel.send(PayloadType.OUTPUT, b"x", 1.0)
    woken = [Writable() in channel.received(acknowledgement(number), 1.1) for number in range(16)]
    assert woken.count(True) == 1, "once, and not for a crumb"
    assert woken.index(True) == 3
    assert channel.room == 16 * 1024


def test_item_27_frames_are_bounded_too() -> None:
    channel = ready_shell(Limits(window_frames=5))
    for _ in range(5):
        channel.send(PayloadType.OUTPUT, b"x", 1.0)
    assert channel.room == 0
    assert Writable() not in channel.received(acknowledgement(2), 1.1)
    assert channel.room == 1024
    assert Writable() in channel.received(acknowledgement(0), 1.1)


@pytest.mark.parametrize("who", ["a size", "a probe", "a flag", "larger frames"])
def test_item_27_a_producer_is_woken_whoever_took_the_room(who: str) -> None:
    channel = ready_shell(Limits(window_bytes=2048, window_frames=100))
    channel.send(PayloadType.OUTPUT, bytes(1024), 1.0)
    assert channel.room == 1024
    match who:
        case "a size":
            channel.send(PayloadType.SIZE, SIZE, 1.0)
        case "a probe":
            channel.probe(1.0)
        case "a flag":
            channel.send(PayloadType.FLAG, payload.flag(Flag.TERMINATE_SESSION), 1.0)
        case _:
            channel.payload_size = 2048
    assert channel.room == 0
    effects = channel.received(acknowledgement(0), 1.1) + channel.received(acknowledgement(1), 1.1)
    assert Writable() in effects


def test_item_27_a_smaller_payload_size_does_not_starve_the_producer() -> None:
    channel = ready_shell(Limits(payload=32 * 1024, window_bytes=2 * 1024 * 1024, window_frames=16))
    channel.send(PayloadType.OUTPUT, bytes(channel.room), 1.0)
    assert channel.room == 0
    channel.payload_size = 100
    effects = [effect for number in range(16) for effect in channel.received(acknowledgement(number), 1.1)]
    assert Writable() in effects


def test_item_28_a_pause_stops_resends_and_its_end_flushes() -> None:
    channel = ready_shell()
    channel.send(PayloadType.OUTPUT, b"a" * 3000, 1.0)
    channel.received(service_message(frame.PAUSE_PUBLICATION), 1.1)
    assert channel.is_paused
    assert channel.tick(5.0) == []
    channel.send(PayloadType.OUTPUT, b"b", 5.0)
    flushed = inputs(channel.received(service_message(frame.START_PUBLICATION), 6.0))
    assert [message.sequence for message in flushed] == [0, 1, 2, 3]


@pytest.mark.parametrize("traffic", [output(1, b"x"), acknowledgement(0)])
def test_item_28_any_word_of_the_far_end_ends_a_pause(traffic: bytes) -> None:
    channel = ready_shell()
    channel.send(PayloadType.OUTPUT, b"a", 1.0)
    channel.send(PayloadType.OUTPUT, b"b", 1.0)
    channel.received(service_message(frame.PAUSE_PUBLICATION), 1.1)
    assert 1 in [message.sequence for message in inputs(channel.received(traffic, 2.0))]
    assert not channel.is_paused


def test_item_28_a_start_right_after_opening_repeats_nothing() -> None:
    """The gateway sends one on every new link, right after we have sent everything."""
    channel = ready_shell()
    channel.send(PayloadType.OUTPUT, b"a" * 3000, 1.0)
    channel.lost(1.1)
    assert len(inputs(reopen(channel, 2.0))) == 3
    assert channel.received(service_message(frame.START_PUBLICATION), 2.02) == []


@pytest.mark.parametrize("size", [29, 512, 1024, 32 * 1024])
def test_item_29_no_payload_is_larger_than_configured(size: int) -> None:
    channel = ready_shell(Limits(payload=size, window_bytes=10**6, window_frames=10**6))
    frames = inputs(channel.send(PayloadType.OUTPUT, bytes(5000), 1.0))
    assert max(len(message.payload) for message in frames) <= size
    assert sum(len(message.payload) for message in frames) == 5000


def test_item_35_input_is_byte_exact() -> None:
    """The official client turns a lone LF into CR, in every session type."""
    channel = ready_shell()
    for number, byte in enumerate(b"\n\r\x03\x1a\x1c\0\xff"):
        [message] = inputs(channel.send(PayloadType.OUTPUT, bytes([byte]), 1.0))
        assert (message.sequence, message.payload) == (number, bytes([byte]))
        assert (message.flags, message.payload_type) == (0, PayloadType.OUTPUT)


def test_a_frame_left_alone_for_too_much_link_time_ends_the_session() -> None:
    channel = ready_shell(Limits(give_up=300.0))
    channel.send(PayloadType.OUTPUT, b"x", 0.0)
    channel.lost(100.0)
    reopen(channel, 50_000.0)
    channel.tick(50_199.9)
    assert channel.state is State.READY
    [end] = channel.tick(50_200.0)
    assert isinstance(end, Broken)


# -- resume


def test_item_32_the_last_frames_are_acknowledged_again_on_a_new_link() -> None:
    """Without it, the far end clears what was on its way at ten frames a second."""
    channel = ready_shell()
    for sequence in range(1, 1000):
        channel.received(output(sequence, b"x"), 1.0)
    channel.lost(2.0)
    effects = reopen(channel, 3.0)
    assert isinstance(effects[0], SendText)
    assert acknowledged(effects) == list(range(1000 - 512, 1000))
    assert delivered(channel.received(output(1000, b"on"), 3.1)) == b"on"


def test_item_32_counters_go_on_across_links() -> None:
    channel = ready_shell()
    channel.send(PayloadType.OUTPUT, b"a", 1.0)
    channel.lost(2.0)
    assert channel.send(PayloadType.OUTPUT, b"written without a link", 2.5) == []
    assert [message.sequence for message in inputs(reopen(channel, 3.0))] == [0, 1]
    [message] = inputs(channel.send(PayloadType.OUTPUT, b"c", 4.0))
    assert message.sequence == 2


def test_a_link_that_replaces_one_whose_loss_was_not_noticed_is_as_good() -> None:
    channel = open_channel(now=50.0)
    channel.received(output(0, handshake_request(), PayloadType.HANDSHAKE_REQUEST), 50.0)
    assert [message.sequence for message in inputs(reopen(channel, 80.0))] == [0]
    channel.received(acknowledgement(0), 80.1)
    assert channel.next_deadline() == 50.0 + 60.0


def test_the_end_of_a_handshake_without_the_key_ends_the_session() -> None:
    channel = open_channel()
    channel.received(sealed_request(), 0.0)
    assert isinstance(channel.received(output(1, COMPLETE, PayloadType.HANDSHAKE_COMPLETE), 0.2)[-1], Broken)


def test_what_arrives_on_a_dead_link_is_not_taken() -> None:
    channel = ready_shell()
    channel.lost(1.0)
    assert channel.received(output(1, b"x"), 1.1) == []
    reopen(channel, 2.0)
    assert delivered(channel.received(output(1, b"x"), 2.1)) == b"x"


@pytest.mark.parametrize("reason", ["", "Your session timed out due to inactivity and has been terminated."])
def test_items_33_37_channel_closed_is_final_even_if_the_socket_stays_open(reason: str) -> None:
    channel = ready_shell()
    assert channel.received(closed(reason), 1.0) == [Closed(reason)]
    assert channel.state == "closed"
    assert channel.received(output(1, b"x"), 1.1) == []
    assert channel.send(PayloadType.OUTPUT, b"x", 1.1) == []
    assert channel.send(PayloadType.SIZE, SIZE, 1.1) == []
    assert channel.probe(1.1) == channel.tick(1000.0) == reopen(channel, 2.0) == []
    assert (channel.room, channel.next_deadline()) == (0, None)


def test_item_33_a_lost_link_is_not_the_end() -> None:
    channel = ready_shell()
    channel.lost(1.0)
    assert channel.state is State.READY
    assert channel.room > 0


def test_item_33_channel_closed_is_final_while_opening_and_with_nonsense_inside() -> None:
    for body in (b"{}", b"not json", b'{"Output":5}'):
        channel = open_channel()
        assert channel.received(service_message(frame.CHANNEL_CLOSED, body), 1.0) == [Closed("")]


# -- sizes, probes, terminals


def test_item_34_a_size_before_the_first_link_goes_out_with_it() -> None:
    channel = make_channel()
    assert channel.send(PayloadType.SIZE, SIZE, 0.0) == []
    [size] = inputs(reopen(channel, 1.0))
    assert size.payload == SIZE
    assert size.created_ms == WALL_MS


def test_item_34_the_last_size_is_said_again_at_the_first_output() -> None:
    """One sent before the pty exists is acknowledged and thrown away."""
    channel = open_channel()
    channel.send(PayloadType.SIZE, SIZE, 0.1)
    channel.received(acknowledgement(0), 0.2)
    [size] = inputs(channel.received(output(0, b"$ "), 1.0))
    assert size.payload == SIZE


def test_item_34_a_repeated_size_is_not_sent_while_it_is_on_its_way() -> None:
    channel = open_channel()
    assert inputs(channel.send(PayloadType.SIZE, SIZE, 0.1))
    assert channel.send(PayloadType.SIZE, SIZE, 0.3) == []
    channel.received(acknowledgement(0), 0.4)
    assert inputs(channel.send(PayloadType.SIZE, SIZE, 0.5))


def test_item_34_a_storm_of_sizes_ends_with_the_last_one() -> None:
    channel = ready_shell()
    channel.lost(0.5)
    for columns in range(80, 180):
        channel.send(PayloadType.SIZE, payload.size(columns, 24), 1.0)
    assert channel.unacknowledged <= 4
    reopen(channel, 2.0)
    [last] = inputs(channel.received(acknowledgement(0), 2.1))
    assert last.payload == payload.size(179, 24)


def test_a_probe_is_answered_by_the_far_end_itself() -> None:
    channel = ready_shell()
    [probe] = inputs(channel.probe(1.0))
    assert (probe.payload_type, probe.payload) == (PayloadType.PARAMETER, b"{}")
    assert channel.probe(1.1) == [], "one at a time"
    [answer] = others(channel.received(acknowledgement(probe.sequence), 1.25))
    assert isinstance(answer, ProbeAnswered)
    assert answer.seconds == pytest.approx(0.25)
    assert inputs(channel.probe(2.0))


def test_a_probe_survives_a_new_link_and_counts_link_time() -> None:
    channel = ready_shell()
    channel.probe(1.0)
    channel.lost(1.5)
    assert len(inputs(reopen(channel, 1000.0))) == 1
    [answer] = others(channel.received(acknowledgement(0), 1000.1))
    assert isinstance(answer, ProbeAnswered)
    assert answer.seconds == pytest.approx(0.6)


def test_skipping_ahead_acknowledges_what_is_missing_and_delivers_the_rest() -> None:
    channel = ready_shell()
    for sequence in (101, 103, 104):
        channel.received(output(sequence, b"%d;" % sequence), 1.0)
    assert channel.missing == 101
    effects = channel.skip_ahead(2.0)
    assert acknowledged(effects) == [*range(1, 101), 102]
    assert delivered(effects) == b"101;103;104;"
    assert channel.missing == 0
    assert delivered(channel.received(output(105, b"x"), 3.0)) == b"x"
    late = channel.received(output(50, b"late"), 3.0)
    assert (acknowledged(late), delivered(late)) == ([50], b"")
    assert channel.next_deadline() is None


def test_skipping_ahead_with_nothing_to_skip_does_nothing() -> None:
    channel = ready_shell()
    assert channel.skip_ahead(1.0) == []
    channel.lost(1.0)
    assert channel.skip_ahead(2.0) == []


def test_a_port_session_never_skips() -> None:
    with pytest.raises(ValueError, match="port"):
        shaken().skip_ahead(1.0)


# -- ports and commands


def test_item_47_a_flag_is_four_bytes_each_way() -> None:
    channel = shaken()
    [message] = inputs(channel.send(PayloadType.FLAG, payload.flag(Flag.TERMINATE_SESSION), 1.0))
    assert (message.payload_type, message.payload) == (PayloadType.FLAG, b"\0\0\0\2")
    effects = channel.received(output(2, b"\0\0\0\3", PayloadType.FLAG), 1.0)
    assert others(effects) == [FlagReceived(Flag.CONNECT_TO_PORT_ERROR)]
    for odd in (b"\0\0\3", b"\0\0\0\0\3"):
        assert others(channel.received(output(3, odd, PayloadType.FLAG), 1.0)) == []


def test_items_48_49_output_error_output_and_exit_code_are_apart_and_may_follow_each_other() -> None:
    """A command that can not start says its exit code first and the reason a second later."""
    channel = shaken(session_type="NonInteractiveCommands")
    effects = channel.received(output(2, b"out\n"), 1.0)
    effects += channel.received(output(3, b"EXIT_CODE: 1", PayloadType.EXIT_CODE), 1.0)
    effects += channel.received(output(4, b"no such file\n", PayloadType.STDERR), 2.0)
    effects += channel.received(output(5, b"late\n"), 2.0)
    effects += channel.received(closed(), 2.1)
    assert others(effects) == [
        Output(b"out\n"),
        ExitCode(1),
        ErrorOutput(b"no such file\n"),
        Output(b"late\n"),
        Closed(""),
    ]


def test_item_48_minus_one_is_a_signal_and_nonsense_is_no_code() -> None:
    channel = shaken(session_type="NonInteractiveCommands")
    assert ExitCode(-1) in channel.received(output(2, b"EXIT_CODE: -1", PayloadType.EXIT_CODE), 1.0)
    assert others(channel.received(output(3, b"EXIT_CODE: many", PayloadType.EXIT_CODE), 1.0)) == []
    assert channel.drops["bad exit code"] == 1


# -- message ids


def test_message_ids_are_unique_and_look_like_random_ones() -> None:
    channel = ready_shell()
    ids = {sent(channel.received(output(sequence, b"x"), 1.0))[0].id for sequence in range(1, 500)}
    ids |= {message.id for message in inputs(channel.send(PayloadType.OUTPUT, bytes(16 * 1024), 1.0))}
    assert len(ids) == 499 + 16
    assert {id_.version for id_ in ids} == {4}


def test_message_ids_may_be_given() -> None:
    channel = Channel(session_id=SESSION, target=TARGET, client_id=CLIENT, new_id=lambda: UUID(int=5))
    reopen(channel, 0.0)
    [message] = sent(channel.received(output(1, b"x"), 0.0))
    assert message.id == UUID(int=5)


def test_no_frame_has_the_date_that_both_real_peers_reject() -> None:
    channel = make_channel()
    channel.send(PayloadType.SIZE, SIZE, 0.0)
    [size] = inputs(channel.opened(0.0, token="t", request_id=UUID(int=1), wall_ms=0))
    assert size.created_ms > 0
