"""Notices: what travels on each way, and what may be a secret of one."""

from __future__ import annotations

import re

import pytest

from devboxd.errors import BadRequest
from devboxd.model.config import ConfigInvalid, Layer, merge
from devboxd.model.notice import NTFY, SECRET_MAX, SUBJECT_MAX, Way, check_secret, subject, to_ntfy, to_slack


def test_nothing_in_a_message_for_slack_is_markup_and_it_calls_nobody() -> None:
    post = to_slack("https://hooks.example/x", "api <!channel>", "a & <@U1>\x1b[2J\nnext")
    assert post.body == {"text": "api &lt;!channel&gt;: a &amp; &lt;@U1&gt; [2J next"}


def test_a_topic_of_ntfy_is_named_in_the_body() -> None:
    post = to_ntfy("https://ntfy.example/base/my-topic", None, "api", "stops")
    assert post.url == "https://ntfy.example/base/"
    assert post.body == {"topic": "my-topic", "title": "api", "message": "stops"}
    assert post.headers == {}
    assert to_ntfy("https://n.example/t", "tk_1", "a", "b").headers == {"Authorization": "Bearer tk_1"}


def test_what_is_secret_is_in_no_repr() -> None:
    post = to_ntfy("https://n.example/t", "tk_secret", "a", "b")
    assert "tk_secret" not in repr(post)
    assert "T0/B0" not in repr(to_slack("https://hooks.example/T0/B0", "a", "b"))


@pytest.mark.parametrize(
    ("title", "wanted"),
    [("api stops", "api stops"), ("büro", "bro"), ("", "devbox"), ("☂", "devbox"), (" -x", "devbox -x")],
)
def test_a_subject_is_what_sns_takes(title: str, wanted: str) -> None:
    assert subject(title) == wanted


def test_a_subject_is_short() -> None:
    assert len(subject("x" * 500)) == SUBJECT_MAX


@pytest.mark.parametrize(
    "value",
    ["", "  ", "http://hooks.example/x", "hooks.example", "https://", "https://[", "https://x y", "https://x\x00",
     "https://ex\u00e4mple/", "https://h.example/" + "x" * SECRET_MAX],
)  # fmt: skip
def test_what_cannot_be_a_webhook_is_refused_and_never_quoted(value: str) -> None:
    with pytest.raises(BadRequest) as refused:
        check_secret(Way.SLACK, value)
    if value.strip(" htps:/"):
        assert value not in f"{refused.value.message} {refused.value.hint}"


def test_a_secret_is_kept_without_the_line_it_came_in() -> None:
    assert check_secret(Way.SLACK, " https://hooks.example/T/B/x\n") == "https://hooks.example/T/B/x"
    assert check_secret(Way.NTFY, "tk_1\n") == "tk_1"


@pytest.mark.parametrize("way", [Way.SNS, Way.COMMAND, Way.DESKTOP])
def test_the_other_ways_have_none(way: Way) -> None:
    with pytest.raises(BadRequest, match="needs no secret"):
        check_secret(way, "x")


@pytest.mark.parametrize(
    ("url", "is_good"),
    [
        ("https://ntfy.sh/my-topic", True),
        ("https://ntfy.example:8443/base/t", True),
        ("http://ntfy.sh/t", False),
        ("https://ntfy.sh/", False),
        ("https://ntfy.sh", False),
        ("https://me:pass@ntfy.sh/t", False),
        ("https://ntfy.sh/t?x=1", False),
        ("https://ntfy.sh/a b", False),
        ("https://ntfy.sh/t\n", False),
    ],
)
def test_the_address_of_a_topic(url: str, is_good: bool) -> None:
    assert bool(re.search(NTFY, url)) == is_good
    layer = Layer("config.toml", {"notify": {"ntfy": url}})
    if is_good:
        assert merge([layer]).config.notify.ntfy == url
    else:
        with pytest.raises(ConfigInvalid):
            merge([layer])


@pytest.mark.parametrize(
    "arn", ["topic", "arn:aws:sns:eu-central-1:1:x", "arn:aws:sqs:eu-central-1:123456789012:x"]
)
def test_what_is_no_topic_of_sns_is_no_setting(arn: str) -> None:
    with pytest.raises(ConfigInvalid):
        merge([Layer("config.toml", {"notify": {"sns": arn}})])
