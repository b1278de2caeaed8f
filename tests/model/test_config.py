"""What a configuration may say, and what it says to whoever errs."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devboxd.model.config import Config, ConfigInvalid, Layer, environment_layer, merge


def layer(data: Any, origin: str = "config.toml") -> Layer:
    return Layer(origin, data)


def test_without_any_source_everything_is_built_in() -> None:
    merged = merge([])
    assert merged.config == Config()
    assert {setting.origin for setting in merged.settings()} == {"default"}
    assert "link.heartbeat" in {setting.name for setting in merged.settings()}


def test_the_table_is_called_as_the_set_up_unless_it_has_a_name_of_its_own() -> None:
    assert merge([]).config.table == "devbox"
    assert merge([layer({"projects": {"prefix": "team-b"}})]).config.table == "team-b"
    named = layer({"projects": {"prefix": "team-b"}, "store": {"table": "rows"}})
    assert merge([named]).config.table == "rows"


def test_the_last_layer_wins_key_by_key_and_each_value_knows_its_origin() -> None:
    merged = merge(
        [
            layer({"defaults": {"profile": "a", "region": "eu-a-1"}, "boxes": {"gpu": {"user": "u"}}}),
            layer({"defaults": {"profile": "b"}, "boxes": {"gpu": {"mux": "tmux"}}}, "devbox.toml"),
            environment_layer({"DEVBOX_REGION": "eu-e-1", "DEVBOX_LOG": "debug", "DEVBOX_USER": ""}),
        ]
    )
    assert merged.config.defaults.profile == "b"
    assert merged.config.defaults.region == "eu-e-1"
    assert merged.config.boxes["gpu"].user == "u"
    assert merged.config.boxes["gpu"].mux == "tmux"
    assert merged.config.log.level == "debug"
    origins = {setting.name: setting.origin for setting in merged.settings()}
    assert origins["defaults.profile"] == "devbox.toml"
    assert origins["defaults.region"] == "environment"
    assert origins["boxes.gpu.user"] == "config.toml"
    assert origins["defaults.user"] == "default"


@pytest.mark.parametrize(
    ("data", "parts"),
    [
        ({"link": {"heartbeat": "soon"}}, ["link.heartbeat", "Expected float, got str"]),
        ({"link": {"heartbeat": 0.1}}, ["link.heartbeat", ">= 1"]),
        ({"projects": {"prefix": "Team"}}, ["projects.prefix"]),
        ({"projects": {"prefix": "a" * 22}}, ["projects.prefix"]),
        ({"link": 5}, ["link: Expected a table, got int"]),
        ({"boxes": {"gpu": {"mux": "screen"}}}, ["boxes.gpu.mux", "zellij, tmux, none"]),
        ({"bridge": {"use": "sometimes"}}, ["bridge.use", "one of: auto, never"]),
        ({"boxes": {"gpu": 5}}, ["boxes.gpu: Expected a table, got int"]),
        ({"boxes": {" ": {}}}, ["' '", "name of a box"]),
        ({"boxes": {"gpu": {"target": " "}}}, ["boxes.gpu.target"]),
        ({"boxes": {"a.b c": {"mux": "screen"}}}, ["boxes.a.b c.mux"]),
        ({"boxes": {"gpu": {"warm": [22, "x", 70000]}}}, ["boxes.gpu.warm, number 2", "1 more"]),
        ({"boxes": {"gpu": {"warm": 22}}}, ["boxes.gpu.warm"]),
        ({"boxes": []}, ["boxes"]),
        ({"boxes": {"gpu": {"document": "a b"}}}, ["boxes.gpu.document", "ARN of a session document"]),
        ({"boxes": {"gpu": {"document": ""}}}, ["boxes.gpu.document"]),
        ({"defaults": {"document": "mine"}}, ["defaults.document"]),
        ({"boxes": {"gpu": {"user": 5}}}, ["boxes.gpu.user", "got int"]),
        ({"defaults": {"keep_alive": "sometimes"}}, ["defaults.keep_alive", "auto, always, never"]),
        ({"defaults": {"user": "a b"}}, ["defaults.user: 'a b' cannot be a user's name"]),
        ({"log": {"level": "loud"}}, ["log.level", "debug, info, warning, error"]),
        ({"defaults": {"regoin": "x"}}, ["defaults.regoin", "did you mean defaults.region?"]),
        ({"forwards": {}}, ["forwards", "did you mean forward?"]),
        ({"boxes": {"gpu": {"taget": "x"}}}, ["boxes.gpu.taget", "did you mean boxes.gpu.target?"]),
        ({"xyz": 1}, ["xyz", "known are defaults, boxes"]),
    ],
)
def test_an_error_names_file_key_and_what_was_expected(data: dict[str, Any], parts: list[str]) -> None:
    with pytest.raises(ConfigInvalid) as invalid:
        merge([layer({"log": {"level": "info"}}, "good.toml"), layer(data, "bad.toml")])
    for part in ["bad.toml", *parts]:
        assert part in str(invalid.value)
    assert "good.toml" not in str(invalid.value)


def test_all_errors_are_told_at_once() -> None:
    with pytest.raises(ConfigInvalid) as invalid:
        merge(
            [
                layer({"link": {"heartbeat": "x", "frames_per_second": -1}, "log": {"level": 5}}, "a"),
                layer({"nope": 1}, "b"),
            ]
        )
    assert len(invalid.value.problems) == 4
    assert "and 3 more" in str(invalid.value)


def test_instance_ids_and_names_are_targets() -> None:
    boxes = {"a": {"target": "i-0123456789abcdef0"}, "b": {"target": "build-server"}, "c": {}}
    assert merge([layer({"boxes": boxes})]).config.boxes["c"].target is None


keys = st.sampled_from(
    ["defaults", "boxes", "link", "log", "forward", "profile", "mux", "heartbeat", "level", "gpu", "x y"]
)
json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(keys, json, max_size=4))
def test_whatever_a_file_holds_the_answer_is_a_configuration_or_a_typed_error(data: dict[str, Any]) -> None:
    problems: tuple[str, ...] = ()
    try:
        merge([layer(data)]).settings()
    except ConfigInvalid as invalid:
        problems = invalid.problems
    assert all("config.toml" in problem for problem in problems)


def test_every_name_tag_can_be_configured_and_aimed_at() -> None:
    """``My Dev Box`` is what the console calls it; one such line must not invalidate the whole file."""
    for tag in ("My Dev Box", "web/prod", "büro", "ann@corp", "開発", "-x", "a.b", "#1", "x" * 256, "a'b\"c"):
        boxes = merge(
            [Layer("x.toml", {"boxes": {tag: {"target": tag, "user": "ann@corp.example"}}})]
        ).config.boxes
        assert boxes[tag].target == tag
        assert boxes[tag].user == "ann@corp.example"


@pytest.mark.parametrize(
    ("idle", "parts"),
    [
        ({"after": "soon"}, ["idle.after", "'soon' is no time span", "1h30m"]),
        ({"after": 30}, ["idle.after", "Expected str, got int"]),
        ({"then": "delete"}, ["idle.then", "warm, cold, notify"]),
        ({"never": ["22-7"]}, ["idle.never", "'22-7' is no time of the week", "Europe/Berlin"]),
        ({"never": [7]}, ["idle.never", "7 is no time of the week"]),
        ({"hours": "mon-fri 9:00-18:00"}, ["idle.hours", "no time of the week"]),
        ({"warn": "2h"}, ["idle.warn", "not longer than idle.after"]),
        ({"lid": "shut"}, ["idle.lid", "no time span"]),
        ({"delete": "7d"}, ["idle.delete is at least 30d"]),
        ({"lid": "1m"}, ["idle.lid is at least 5m"]),
        ({"afer": "1h"}, ["idle.afer", "did you mean idle.after?"]),
    ],
)
def test_settings_of_idle_boxes_that_can_not_be_say_so(idle: dict[str, Any], parts: list[str]) -> None:
    with pytest.raises(ConfigInvalid) as error:
        merge([layer({"idle": idle})])
    for part in parts:
        assert part in error.value.message


def test_idle_settings_become_a_policy() -> None:
    given = {"after": "1h", "warn": "5m", "then": "cold", "never": ["sat,sun 00:00-24:00"], "max_run": "12h"}
    given |= {"lid": "15m", "delete": "90d"}
    policy = merge([layer({"idle": given})]).config.idle.policy()
    assert (policy.after, policy.warn, policy.then, policy.max_run) == (3600.0, 300.0, "cold", 43200.0)
    assert policy.never == ("sat,sun 00:00-24:00",)
    assert policy.lid == 900.0
    assert policy.delete == 90 * 86400.0
