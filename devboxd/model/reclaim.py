"""What EC2 says to a spot box that it takes back, and what is done with the time that is left.

The instance metadata of a spot box has a *notice* some two minutes before it is stopped, hibernated or terminated, and before
that, not always, a *recommendation to rebalance*: it is likelier than before. Both are made at best effort (EC2 User Guide, "Spot
Instance interruption notices"). The same text runs in the daemon and on the box: it is plain Python 3.6, and all it takes and
gives is JSON.

What is known::

    life      how the box is paid for, in the words of the metadata: spot, on-demand; null: not known
    notice    {action, time, since}: null: there is none. ``time``: when it is taken; null: it can not be read
    rebalance since when it is likelier; null: it is not
    did       {at, hooks, failed}: what was done when the notice came; null: not yet
    missing   looks in a row that found no notice any more
    problem   why nothing can be known; empty where it can

Times are Unix seconds by the clock of the box; that of a notice is by the clock of EC2.
"""

import datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

SPOT = "spot"
TAKEN, KEPT, LIKELIER = "taken", "kept", "likelier"
HIBERNATE = "hibernate"  # begins with its notice

NOTICE = 120.0  # seconds between a notice and its time
RESERVE = 10.0  # of those, for what the hooks wrote to come onto the disk
LEAST = 15.0  # seconds for the hooks of a box whose time is over, and that still runs: its clock may be wrong
EARLIER = 60.0  # seconds before the boot from which on a notice was that of an earlier life
MISSING = 2  # looks without a notice after which it was withdrawn
EPOCH = 719163  # what toordinal says of 1970-01-01
ACTION_MOST = 32  # characters of what is done with the box


def unknown() -> "dict[str, Any]":
    """Nothing is known."""
    return {"life": None, "notice": None, "rebalance": None, "did": None, "missing": 0, "problem": ""}


def fold(
    known: "Mapping[str, Any]",
    answers: "Mapping[str, Any]",
    notice: "Any",
    rebalance: "Any",
    now: float,
    up: float,
) -> "tuple[dict[str, Any], list[str]]":
    """What is known after one more look, and what is new: TAKEN, KEPT (a notice was withdrawn), LIKELIER.

    ``answers``: the HTTP status of each question (``notice``, ``rebalance``), null where there was none; ``notice`` and
    ``rebalance``: what was said, as JSON has it; null: that is none. ``up``: seconds since the boot.
    """
    found, what = dict(known, problem=_problem(answers["notice"])), []  # type: dict[str, Any], list[str]
    if answers["notice"] == 200:
        _noticed(found, notice, now, up, what)
    elif answers["notice"] == 404 and known["notice"] is not None:
        found["missing"] = known["missing"] + 1
        if found["missing"] >= MISSING:
            found.update(notice=None, did=None, missing=0)
            what.append(KEPT)
    if answers["rebalance"] == 404:
        found["rebalance"] = None
    elif answers["rebalance"] == 200 and isinstance(rebalance, dict) and known["rebalance"] is None:
        found["rebalance"] = now
        if found["notice"] is None:
            what.append(LIKELIER)
    return found, what


def _problem(status: "int | None") -> str:
    if status in (200, 404):
        return ""
    return "the metadata service " + ("does not answer" if status is None else "answers with " + str(status))


def _noticed(found: "dict[str, Any]", said: "Any", now: float, up: float, what: "list[str]") -> None:
    action = said.get("action") if isinstance(said, dict) else None
    if not isinstance(action, str) or not action.isalpha() or len(action) > ACTION_MOST:
        found["problem"] = "the metadata service says something that is no notice"
        return
    at = moment(said.get("time"))
    if at is not None and at < now - up - EARLIER:
        return
    if found["notice"] is None:
        what.append(TAKEN)
    since = now if found["notice"] is None else found["notice"]["since"]
    found.update(notice={"action": action, "time": at, "since": since}, missing=0)


def end_of(notice: "Mapping[str, Any]") -> float:
    """When the box is taken, at the latest: never later than EC2 gives, whatever clocks say."""
    latest = float(notice["since"]) + NOTICE
    return latest if notice["time"] is None else min(latest, float(notice["time"]))


def hook_time(notice: "Mapping[str, Any]", now: float) -> float:
    """Seconds that all hooks together have."""
    if notice["action"] == HIBERNATE:
        return 0.0  # what is in memory is kept, and nothing more is written before
    return max(LEAST, end_of(notice) - now - RESERVE)


def clock(at: float) -> str:
    """``22:14:03 UTC``."""
    second = int(at) % 86400
    return f"{second // 3600:02d}:{second // 60 % 60:02d}:{second % 60:02d} UTC"


def words(what: str, notice: "Mapping[str, Any] | None", now: float) -> str:
    """What the terminals of the box are told."""
    if what == TAKEN and notice is not None:
        end = end_of(notice)
        left = "now" if end <= now else "at " + clock(end) + ", in " + str(int(end - now)) + " s"
        return (
            "EC2 takes this spot box back " + left + ". Its disk is kept: write to it what is not there yet."
        )
    if what == KEPT:
        return "EC2 does not take this spot box back after all."
    return "EC2 is likelier than before to take this spot box back: what is not on its disk could be lost."


def moment(text: "Any") -> "float | None":
    """``2026-01-31T22:14:03Z`` as Unix time; None where it is not written so."""
    if not isinstance(text, str) or len(text) != 20:
        return None
    marks, digits = text[4::3], text[:4] + text[5::3] + text[6::3]
    if marks != "--T::Z" or any(one not in "0123456789" for one in digits):
        return None
    year, month, day = int(text[:4]), int(text[5:7]), int(text[8:10])
    hour, minute, second = int(text[11:13]), int(text[14:16]), int(text[17:19])
    if not (
        year >= 1970 and 1 <= month <= 12 and 1 <= day <= 31 and hour < 24 and minute < 60 and second < 61
    ):
        return None
    days = datetime.date(year, month, 1).toordinal() + day - 1 - EPOCH
    return days * 86400.0 + hour * 3600 + minute * 60 + second
