"""cost, types and the price before a launch: what is data, what is said beside it, and what is refused."""

from __future__ import annotations

import json
import os

import pytest

from devboxctl.app import run
from tests.ctl.fake_daemon import FakeDaemon
from tests.ctl.terminal import Tty

Capture = pytest.CaptureFixture[str]

API = {
    "name": "api", "id": "u1", "phase": "running", "type": "m7g.large", "region": "eu-central-1",
    "hour": "0.1163", "today": "1.40", "month": "31.20", "most": "33.00", "forecast": "60.00",
    "forecast_days": 7.0, "running": "83.74", "stopped": "9.72", "archived": "2.16",
    "parts": {"compute": "25.00", "address": "1.20", "volume": "4.00", "snapshot": "1.00"},
}  # fmt: skip
OLD = {"name": "old", "id": "u2", "month": "3.00"}
NOTE = {"region": "eu-central-1", "date": "2025-11-03", "source": "built in", "built_in": True}
REPORT = {
    "costs": [API, OLD],
    "total": {"name": "total", "month": "34.20", "unknown": ["x99.huge in eu-central-1"]},
    "month": "2026-11",
    "days": [{"day": "2026-11-01", "compute": "1.00", "total": "1.20"}],
    "prices": [NOTE],
}


def test_cost_in_a_pipe_is_a_line_for_each_project(daemon: FakeDaemon, capsys: Capture) -> None:
    daemon.routes["GET cost"] = REPORT
    assert run(["cost"]) == 0
    out, err = capsys.readouterr()
    assert out == (
        "api\trunning\tm7g.large\t0.1163\t1.40\t31.20\t60.00\t9.72\t2.16\n"
        "old\tdeleted\t\t0.0000\t0.00\t3.00\t0.00\t0.00\t0.00\n"
    )
    assert "the price of x99.huge in eu-central-1 is not known" in err


def test_cost_of_one_is_a_page_that_explains_itself(daemon: FakeDaemon) -> None:
    daemon.routes["GET cost"] = {**REPORT, "costs": [API], "total": API}
    with Tty(["cost", "api"], {**os.environ, "NO_COLOR": "1", "COLUMNS": "0"}, size=(120, 40)) as tty:
        assert tty.wait() == 0
    text = tty.screen.decode()
    for words in (
        "0.1163 USD an hour", "31.20 to 33.00 USD so far", "60.00 USD, if it goes on as in the last 7 days",
        "9.72 USD for thirty days", "EBS does not say how much it stores", "built in, 2025-11-03",
    ):  # fmt: skip
        assert words in text, text


def test_cost_by_day_and_in_json(daemon: FakeDaemon, capsys: Capture) -> None:
    daemon.routes["GET cost"] = REPORT
    assert run(["cost", "--by", "day"]) == 0
    assert capsys.readouterr().out == "2026-11-01\t1.00\t0.00\t0.00\t0.00\t1.20\n"
    assert run(["cost", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["currency"], found["total"]["month"], found["costs"][0]["most"]) == (
        "USD",
        "34.20",
        "33.00",
    )


def test_what_aws_has_billed_is_said_beside_the_sums(daemon: FakeDaemon, capsys: Capture) -> None:
    known = {"owner": "me", "until": "2026-11-25", "usd": "12.34", "counted": "12.10", "most": "12.60"}
    daemon.routes["GET cost"] = {**REPORT, "billed": [known]}
    assert run(["cost"]) == 0
    err = capsys.readouterr().err.replace("\n  ", " ")
    assert "AWS billed 12.34 USD until 2026-11-25; we count 12.10 to 12.60 for the same days" in err
    silent = {**known, "usd": "0.00", "silent": True}
    other = {"owner": "you", "problem": "AWS does not allow ce:GetCostAndUsage"}
    daemon.routes["GET cost"] = {**REPORT, "billed": [silent, other]}
    assert run(["cost"]) == 0
    err = capsys.readouterr().err.replace("\n  ", " ")
    assert "until 2026-11-25 (me)" in err
    assert "cost allocation tags" in err
    assert "warning: what AWS has billed (you) is not known: AWS does not allow ce:GetCostAndUsage" in err


def test_prices_of_spot_boxes_say_of_when_they_are(daemon: FakeDaemon) -> None:
    known = {**NOTE, "spot": "2026-11-26T12:00:00Z"}
    lost = {**NOTE, "region": "us-east-1", "spot_problem": "EC2 does not answer"}
    daemon.routes["GET cost"] = {**REPORT, "prices": [known, lost]}
    with Tty(["cost"], {**os.environ, "NO_COLOR": "1", "COLUMNS": "0", "TZ": "UTC"}, size=(200, 40)) as tty:
        assert tty.wait() == 0
    text = " ".join(tty.screen.decode().split())
    assert "spot boxes in eu-central-1: the prices of the market, as of 2026-11-26 12:00" in text
    assert (
        "spot boxes in us-east-1: the prices of the market are not known (EC2 does not answer); at most as on demand"
        in text
    )


@pytest.mark.parametrize(
    ("words", "query"),
    [
        (["m7g.large"], "type=m7g.large"),
        (["176h"], "hours=176"),
        (["8x22"], "hours=176.00"),
        (["m7g.large", "7.5x20"], "type=m7g.large&hours=150.00"),
        (["archived"], "down=archived"),
    ],
)
def test_what_if_understands_types_hours_and_states(
    daemon: FakeDaemon, capsys: Capture, words: list[str], query: str
) -> None:
    daemon.routes["GET projects/api/what-if"] = {"now": "60.00", "then": "20.00", "saves": "40.00"}
    assert run(["cost", "api", *(part for word in words for part in ("--what-if", word))]) == 0
    assert daemon.requests[-1][1].partition("?")[2].replace("&down=", "") in (query, query + "&down=")
    assert "that saves\t40.00 USD" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words",
    [
        ["cost", "--what-if", "stopped"],
        ["cost", "api", "--what-if", "cheaper"],
        ["cost", "api", "--what-if", "stopped", "--what-if", "100h"],
    ],
)
def test_what_can_not_be_asked_is_usage(daemon: FakeDaemon, capsys: Capture, words: list[str]) -> None:
    assert run(words) == 2
    assert daemon.requests == []


def test_types(daemon: FakeDaemon, capsys: Capture) -> None:
    one = {
        "name": "g5.xlarge",
        "vcpu": 4,
        "mem": "16",
        "arch": "x86_64",
        "gpu": "1 A10G",
        "hour": "1.2580",
        "month": "905.76",
    }
    daemon.routes["GET types"] = {"types": [one], "price": NOTE}
    assert run(["types", "--gpu", "--max", "1.50", "-r", "eu-central-1"]) == 0
    assert capsys.readouterr().out == "g5.xlarge\t4\t16\tx86_64\t1 A10G\t1.2580\t905.76\n"
    assert daemon.requests[-1][1].startswith("types?")
    assert "max=1.50" in daemon.requests[-1][1]


def test_the_price_is_said_before_the_launch(daemon: FakeDaemon, capsys: Capture) -> None:
    quote = {
        "type": "t4g.medium",
        "region": "eu-central-1",
        "hour": "0.0434",
        "running": "35.06",
        "stopped": "3.81",
        "price": NOTE,
    }
    daemon.routes["POST projects/api/quote"] = quote
    daemon.routes["POST projects/api/launch"] = {
        "name": "api",
        "id": "u1",
        "phase": "launching",
        "want": "up",
        "pending": True,
    }
    assert run(["launch", "api", "--no-wait"]) == 8
    assert [request[1] for request in daemon.requests] == ["projects/api/quote", "projects/api/launch"]
    err = capsys.readouterr().err
    assert "t4g.medium in eu-central-1: 0.0434 USD an hour while it runs" in err
    assert "built in, of 2025-11-03" in err


@pytest.mark.parametrize("span", ["", "30", "30min", "90s", "1h30m", " 30m", "30M", "10000m", "1.5h", "-5m"])
def test_a_grace_that_is_no_plain_time_span_is_refused(span: str, capsys: Capture) -> None:
    """Nothing is asked of the daemon."""
    assert run(["budget", "set", "--limit=5", f"--grace={span}"]) == 2
    assert f"{span!r} is no time span" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        ([], {}),
        (["--spot", "--retry-until-up"], {"spot": True, "until_up": True}),
        (["--no-spot", "--no-retry-until-up"], {"spot": False, "until_up": False}),
        (["--no-tags", "--no-user-data"], {"tags": {}, "user_data": ""}),
        (["--tag", "Team=x"], {"tags": {"Team": "x"}}),
    ],
)
def test_what_a_launch_remembers_can_be_taken_back(
    daemon: FakeDaemon, words: list[str], asked: dict[str, object]
) -> None:
    """What is not said is not sent: it stays as it was."""
    money = {"hour": "0.0434", "running": "35.06", "stopped": "3.81", "price": NOTE}
    daemon.routes["POST projects/api/quote"] = {"type": "t4g.medium", "region": "eu-central-1", **money}
    daemon.routes["POST projects/api/launch"] = {
        "name": "api",
        "id": "u1",
        "phase": "launching",
        "want": "up",
        "pending": True,
    }
    assert run(["launch", "api", "--no-wait", *words]) == 8
    sent = daemon.requests[-1][2]
    kept = {name: sent[name] for name in ("spot", "until_up", "tags", "user_data") if name in sent}
    assert kept == asked


def test_a_launch_can_not_be_told_both(daemon: FakeDaemon, capsys: Capture) -> None:
    """One sentence, before anything is asked of the daemon."""
    assert run(["launch", "api", "--tag", "Team=x", "--no-tags"]) == 2
    assert run(["launch", "api", "--user-data", "/nowhere", "--no-user-data"]) == 2
    assert "--tag and --no-tags exclude each other" in capsys.readouterr().err
    assert daemon.requests == []
