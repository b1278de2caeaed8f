"""The simulated far end does what the real one was seen to do, and the channel copes with it.

``COVERED`` says for every recorded observation where it is used, so that none is forgotten.
"""

from __future__ import annotations

import random

import pytest

from devboxd.ssm import frame, payload
from devboxd.ssm.channel import Channel
from devboxd.ssm.effect import (
    Broken,
    Closed,
    ExitCode,
    FlagReceived,
    NeedDataKey,
    Notice,
    ProbeAnswered,
    Ready,
)
from devboxd.ssm.limits import PORT, SHELL, Limits
from devboxd.ssm.payload import Flag, PayloadType
from tests.kit.farend import FarEnd, World, closed, handshake_request, service_message
from tests.ssm.support import CLIENT, MESSAGE, SESSION, TARGET, vectors

BOX = "what the box does on its own; nothing for the data channel"
CONTROL = "for the layer that owns sessions"
SIMULATOR = "for the simulator's agent, which runs real shells and ports"

COVERED = {
    "shell-start": "test_a_shell_starts_and_types",
    "shell-exit": SIMULATOR,
    "shell-env": BOX,
    "shell-profile": BOX,
    "pty-default-size": SIMULATOR,
    "early-size": "test_channel.test_item_17_only_a_size_is_sent_before_the_first_output",
    "runas-missing-user": CONTROL,
    "runas-root": CONTROL,
    "interactive-fast": SIMULATOR,
    "properties-bool-as-string": BOX,
    "nonint-separate": "test_transcripts (noninteractive_exit_code)",
    "nonint-merged": "test_transcripts (noninteractive_command)",
    "nonint-missing-command": "test_channel.test_items_48_49_output_error_output_and_exit_code_are_apart",
    "nonint-ctrl-c-direct": "test_channel.test_item_48_minus_one_is_a_signal_and_nonsense_is_no_code",
    "nonint-ctrl-c-wrapper": SIMULATOR,
    "nonint-stdin": BOX,
    "nonint-pause": SIMULATOR,
    "nonutf8-tail": BOX,
    "basic-ssh": "test_transcripts (ssh)",
    "basic-refused": "test_item_46_a_far_end_that_dies_after_the_handshake_is_noticed",
    "basic-target-closes": SIMULATOR,
    "basic-local-forward-old-client": SIMULATOR,
    "mux-echo": "test_transcripts (port)",
    "mux-refused": "test_transcripts (port_closed)",
    "mux-half-close": CONTROL,
    "mux-download": "tests/bench/test_channel_speed.py",
    "shell-download": "tests/bench/test_channel_speed.py",
    "mux-upload": "tests/bench/test_channel_speed.py",
    "big-message": "test_channel.test_item_29_no_payload_is_larger_than_configured",
    "mux-keepalive-mismatch": "test_mux.test_item_45_keepalives_are_wanted_by_old_far_ends_only",
    "early-data": "test_data_before_the_response_is_acknowledged_and_lost",
    "data-right-after-complete": "test_item_18_data_after_the_handshake_is_never_lost",
    "no-handshake-response": CONTROL,
    "handshake-action-failed": "test_item_15_a_far_end_that_wants_more_ends_the_session",
    "handshake-empty-actions": "test_handshake.test_a_request_for_nothing_is_answered_with_the_version_alone",
    "second-handshake-response": "test_item_16_a_second_response_would_block_the_far_end",
    "out-of-order": "test_item_21_the_far_end_takes_any_order",
    "far-end-resend": "test_the_far_end_repeats_only_its_oldest_frame",
    "catch-up-after-silence": "test_item_32_a_new_link_clears_the_far_ends_backlog_at_once",
    "skip-ahead": "test_skipping_ahead_clears_a_backlog_at_once",
    "duplicate-on-loopback": "test_item_23_half_of_all_acknowledgements_may_be_lost",
    "pause-start": "test_item_28_a_paused_far_end_goes_on",
    "pause-then-client-data": "test_item_28_a_paused_far_end_goes_on",
    "far-end-reconnect": "test_transcripts (agent_drop)",
    "far-end-give-up": CONTROL,
    "channel-closed-to-far-end": SIMULATOR,
    "bad-header-length": "test_frame: we never send one; test_item_06 for those we receive",
    "wrong-digest": "test_frame: we never send one",
    "paste-into-stopped-reader": "test_item_36_a_paste_into_a_stopped_program_waits_and_arrives",
    "ctrl-c-behind-paste": "test_item_36_a_paste_into_a_stopped_program_waits_and_arrives",
    "no-op-probe": "test_a_shell_starts_and_types",
    "far-end-ping": "tests/net",
    "kms-with-challenge": "test_item_20_an_encrypted_shell_works",
    "kms-without-challenge": "test_channel.test_item_20_the_key_is_asked_for_with_the_exact_context",
    "kms-challenge-required": "test_item_20_an_encrypted_shell_works",
    "kms-clear-output": "test_channel.test_item_20_clear_output_in_an_encrypted_session_is_not_taken",
    "newline-rewrite": "test_channel.test_item_35_input_is_byte_exact",
    "empty-payload": "test_frame.test_item_08_an_empty_payload_is_never_encoded",
    "resend-schedule": "test_delivery.test_item_25_a_frame_is_sent_again_when_its_time_is_up",
    "duplicates": "test_channel.test_item_21_repeats_are_acknowledged_again_and_not_delivered",
    "ahead": "test_channel.test_item_21_repeats_are_acknowledged_again_and_not_delivered",
}


def world(far_end: FarEnd, limits: Limits = SHELL) -> World:
    channel = Channel(session_id=SESSION, target=TARGET, client_id=CLIENT, limits=limits)
    result = World(channel, far_end)
    result.connect()
    return result


def port(**settings: float) -> World:
    return world(FarEnd(handshake_request("Port", type="LocalPortForwarding"), **settings), PORT)  # type: ignore[arg-type]


def shell() -> World:
    result = world(FarEnd())
    result.write(b"$ ")
    assert result.run(1.0, lambda: result.channel.ready)
    result.run(0.1)
    return result


def data(sequence: int, text: bytes = b"x", type_: int = PayloadType.OUTPUT) -> bytes:
    return frame.Frame(frame.INPUT, sequence, text, int(type_), 0, MESSAGE, 1).encode()


def test_every_observation_has_its_place() -> None:
    recorded = vectors("observed")
    ids = {entry["id"] for side in ("far_end", "client") for entry in recorded[side]}
    assert ids == COVERED.keys()
    here = globals()
    for where in COVERED.values():
        if where.startswith("test_item") or (
            where.startswith("test_") and " " not in where and "." not in where
        ):
            assert where in here, where


# -- the kit alone


def test_item_21_the_far_end_takes_any_order() -> None:
    far = FarEnd(is_complete=True)
    for sequence in (3, 2, 1, 2, 10):
        assert len(far.received(data(sequence, b"%d" % sequence), 0.0)) == 1
    assert far.taken == b""
    far.received(data(0, b"0"), 0.0)
    assert far.taken == b"0123"
    assert len(far.received(data(0, b"0"), 0.0)) == 1


def test_the_far_end_repeats_only_its_oldest_frame() -> None:
    far = FarEnd(is_complete=True)
    frames = [far.output(b"%d" % number, 0.0)[0] for number in range(20)]
    assert far.tick(0.1) == []
    assert far.tick(0.3) == [frames[0]]
    assert far.tick(0.6) == [frames[0]]


def test_data_before_the_response_is_acknowledged_and_lost() -> None:
    far = FarEnd(handshake_request())
    far.start(0.0)
    assert len(far.received(data(0), 0.0)) == 1
    assert far.expected == 1
    assert not far.taken


def test_item_16_a_second_response_would_block_the_far_end() -> None:
    far = FarEnd(handshake_request())
    far.start(0.0)
    response = b'{"ClientVersion":"1.2.707.0","ProcessedClientActions":[],"Errors":null}'
    far.received(data(0, response, PayloadType.HANDSHAKE_RESPONSE), 0.0)
    far.received(data(1, response, PayloadType.HANDSHAKE_RESPONSE), 0.0)
    assert far.received(data(2), 0.0) == []


# -- channel and far end together


def test_a_shell_starts_and_types() -> None:
    run = shell()
    run.act(run.channel.send(PayloadType.SIZE, payload.size(80, 24), run.now))
    run.act(run.channel.probe(run.now))
    run.to_send += b"ls\r"
    run.pump()
    assert run.run(1.0, lambda: run.far_end.taken == b"ls\r")
    assert run.far_end.seen == [(PayloadType.SIZE, b'{"cols":80,"rows":24}'), (PayloadType.PARAMETER, b"{}")]
    assert run.run(1.0, lambda: any(isinstance(effect, ProbeAnswered) for effect in run.effects))
    assert run.output == b"$ "


def test_item_18_data_after_the_handshake_is_never_lost() -> None:
    """The far end rejects input for a moment after it has said that it is ready."""
    run = port(ready_after=0.35)
    run.to_send += b"hello"
    assert run.run(2.0, lambda: bytes(run.far_end.taken) == b"hello")
    assert run.now - 100.0 < 0.55, "a slow resend would be felt at every start"
    assert [type(effect) for effect in run.effects] == [Notice, Ready]
    assert run.far_end.problems == []


def test_item_15_a_far_end_that_wants_more_ends_the_session() -> None:
    request = handshake_request().replace(b"SessionType", b"Telepathy__", 1)
    run = world(FarEnd(request))
    assert run.run(5.0, lambda: run.is_over)
    assert run.effects == [Closed("Telepathy__ failed on client")]


def test_item_20_an_encrypted_shell_works() -> None:
    request = handshake_request("Standard_Stream", key_id="alias/x")
    run = world(FarEnd(request, data_key=bytes(range(64))))
    run.to_send += b"secret input" * 1000
    assert run.run(20.0, lambda: bytes(run.far_end.taken) == b"secret input" * 1000)
    run.write(b"secret output" * 1000)
    assert run.run(20.0, lambda: bytes(run.output) == b"secret output" * 1000)
    assert [type(effect) for effect in run.effects] == [NeedDataKey, Notice, Ready]
    assert run.far_end.problems == []


def test_item_46_a_far_end_that_dies_after_the_handshake_is_noticed() -> None:
    run = port(ready_after=1e9)
    assert run.run(60.0, lambda: run.is_over)
    assert run.now - 100.0 < 11.0
    assert isinstance(run.effects[-1], Broken)


def test_item_23_half_of_all_acknowledgements_may_be_lost() -> None:
    run = shell()
    source = random.Random(3)
    run.fate = lambda: [] if source.random() < 0.5 else [0.01]
    run.write(b"x" * 40 * 1024)
    run.to_send += b"y" * 40 * 1024
    run.pump()
    assert run.run(300.0, lambda: len(run.output) == 2 + 40 * 1024 and not run.far_end.unacknowledged)
    assert run.run(300.0, lambda: run.far_end.taken == b"y" * 40 * 1024)


def test_item_28_a_paused_far_end_goes_on() -> None:
    run = shell()
    run.far_end.received(service_message(frame.PAUSE_PUBLICATION), run.now)
    run.write(b"while paused")
    assert not run.run(5.0, lambda: b"while" in run.output)
    run.to_send += b"a key"
    run.pump()
    assert run.run(1.0, lambda: run.output == b"$ while paused")


def test_item_32_a_new_link_clears_the_far_ends_backlog_at_once() -> None:
    """400 frames whose acknowledgements died with the link would take the far end 40 s to repeat."""
    run = shell()
    run.write(b"x" * 400 * 1024)
    run.run(0.011)
    assert len(run.output) > 400 * 1024
    assert run.far_end.unacknowledged == 400
    run.cut()
    run.run(5.0)
    run.connect()
    assert run.run(0.5, lambda: not run.far_end.unacknowledged)
    assert run.far_end.resends <= 60


def test_skipping_ahead_clears_a_backlog_at_once() -> None:
    run = shell()
    run.write(b"x" * 400 * 1024)
    run.cut()
    run.run(2.0)
    run.connect()
    run.write(b"fresh")
    run.run(0.05)
    assert run.channel.missing > 390
    run.act(run.channel.skip_ahead(run.now))
    assert run.output.endswith(b"fresh")
    assert run.run(0.5, lambda: not run.far_end.unacknowledged)


def test_item_36_a_paste_into_a_stopped_program_waits_and_arrives() -> None:
    """Nothing is dropped while the program sleeps, no more than the window is on its way, and the
    repeats stay few: they would all have to be read later."""
    run = shell()
    run.far_end.blocked = True
    run.to_send += bytes(range(256)) * 4096
    run.pump()
    before = run.sent
    run.run(60.0)
    assert run.channel.bytes_unacknowledged <= SHELL.window_bytes
    assert run.sent - before < 200
    run.far_end.blocked = False
    assert run.run(600.0, lambda: len(run.far_end.taken) == 1 << 20)
    assert run.far_end.taken == bytes(range(256)) * 4096


def test_items_48_49_a_command_ends_and_its_last_words_are_heard() -> None:
    run = world(FarEnd(handshake_request("NonInteractiveCommands")))
    assert run.run(2.0, lambda: run.channel.ready)
    for text, type_ in ((b"EXIT_CODE: 7", PayloadType.EXIT_CODE), (b"why\n", PayloadType.STDERR)):
        run._fly(run.far_end.output(text, run.now, type_), to_client=True)
    run._fly([closed()], to_client=True)
    assert run.run(1.0, lambda: run.is_over)
    assert run.effects[-2:] == [ExitCode(7), Closed("")]
    assert run.errors == b"why\n"


def test_item_41_a_refused_target_is_told_by_a_flag() -> None:
    run = port()
    assert run.run(2.0, lambda: run.channel.ready)
    flag = payload.flag(Flag.CONNECT_TO_PORT_ERROR)
    run._fly(run.far_end.output(flag, run.now, PayloadType.FLAG), to_client=True)
    assert run.run(1.0, lambda: FlagReceived(3) in run.effects)


@pytest.mark.parametrize("how_long", [0.0, 600.0, 40_000.0])
def test_item_30_a_link_may_be_away_for_any_time(how_long: float) -> None:
    run = shell()
    run.write(b"a" * 5000)
    run.to_send += b"b" * 5000
    run.pump()
    run.cut()
    run.run(how_long)
    run.write(b"c" * 3000)
    run.connect()
    assert run.run(30.0, lambda: run.far_end.taken == b"b" * 5000)
    assert run.run(30.0, lambda: run.output == b"$ " + b"a" * 5000 + b"c" * 3000)
    assert not run.is_over
