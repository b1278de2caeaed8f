"""Times that are typed mean the clock of this machine, by which times are shown, too."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from devboxctl import ask, zone
from devboxctl.commands import idle
from devboxctl.fast.reply import UsageError
from devboxd.api import wire


@pytest.fixture
def tz(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Sets TZ; the clock of this process is as it was afterwards."""
    try:
        yield monkeypatch
    finally:
        monkeypatch.undo()
        time.tzset()


def put(tz: pytest.MonkeyPatch, name: str) -> None:
    tz.setenv("TZ", name)
    time.tzset()


@pytest.mark.parametrize(
    ("told", "name"),
    [
        ("America/New_York", "America/New_York"),
        (":Europe/Berlin", "Europe/Berlin"),
        ("/usr/share/zoneinfo/Asia/Kolkata", "Asia/Kolkata"),
        ("", "UTC"),
        ("CET-1CEST,M3.5.0,M10.5.0/3", None),
        ("../../etc/passwd", None),
    ],
)
def test_the_zone_is_the_one_that_the_environment_names(
    tz: pytest.MonkeyPatch, told: str, name: str | None
) -> None:
    tz.setenv("TZ", told)
    assert zone.here() == name


def test_or_the_one_of_the_machine(tz: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tz.delenv("TZ", raising=False)
    local, named = tmp_path / "localtime", tmp_path / "timezone"
    tz.setattr(zone, "LOCALTIME", local)
    tz.setattr(zone, "NAME_FILE", named)
    assert zone.here() == "UTC"
    real = tmp_path / "zoneinfo" / "Europe" / "Paris"
    real.parent.mkdir(parents=True)
    real.touch()
    local.symlink_to(real)
    assert zone.here() == "Europe/Paris"
    local.unlink()
    local.write_bytes(b"TZif")  # a copy has no name
    assert zone.here() is None
    named.write_text("Asia/Tokyo\n")
    assert zone.here() == "Asia/Tokyo"


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("22:00", "22:00 America/New_York"),
        ("22:00 Europe/Berlin", "22:00 Europe/Berlin"),
        ("2030-01-31T18:30", "2030-01-31T18:30:00-05:00"),
        ("2030-07-31 18:30", "2030-07-31T18:30:00-04:00"),
        ("2030-01-31T18:30:00Z", "2030-01-31T18:30:00Z"),
        ("soon", "soon"),
    ],
)
def test_a_moment_is_one_of_this_machine(tz: pytest.MonkeyPatch, typed: str, meant: str) -> None:
    put(tz, "America/New_York")
    assert zone.moment(typed) == meant


def test_a_lease_a_window_and_hours_have_the_zone_of_this_machine(tz: pytest.MonkeyPatch) -> None:
    put(tz, "America/New_York")
    asked: list[object] = []

    class Asked(Exception):
        pass

    def take(route: object, request: object, **_: object) -> None:
        asked.append(request)
        raise Asked

    tz.setattr(ask, "ask", take)
    calls: tuple[Callable[[], None], ...] = (
        lambda: idle.keep_alive("api", until="22:00"),
        lambda: idle.idle("api", never=["mon-fri 22:00-07:00", "08:00-09:00 UTC", "nonsense"]),
        lambda: idle.schedule("api", start="08:30", stop="19:00"),
        lambda: idle.schedule("api", stop="19:00", tz="UTC"),
        lambda: idle.schedule("api", off=True),
    )
    for call in calls:
        with pytest.raises(Asked):
            call()
    lease, window, hours, named, off = asked
    assert isinstance(lease, wire.LeaseRequest)
    assert lease.until == "22:00 America/New_York"
    assert isinstance(window, wire.IdleChange)
    assert window.never == ["mon-fri 22:00-07:00 America/New_York", "08:00-09:00 UTC", "nonsense"]
    assert [one.hours for one in (hours, named, off) if isinstance(one, wire.IdleChange)] == [
        "mon-fri 08:30-19:00 America/New_York",
        "mon-fri 00:00-19:00 UTC",
        "",
    ]


def test_a_zone_without_a_name_is_asked_for(tz: pytest.MonkeyPatch) -> None:
    put(tz, "CET-1CEST")
    with pytest.raises(UsageError, match="has no name"):
        zone.moment("18:30")
    assert zone.moment("2030-01-31T18:30") == "2030-01-31T18:30:00+01:00"
    with pytest.raises(UsageError):
        idle.schedule("api", stop="19:00")
