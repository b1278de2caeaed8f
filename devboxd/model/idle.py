"""Whether somebody or something works on a box, and when a box on which nobody does is stopped.

A *sample* is what the collector saw in one minute; ``judge`` folds it into what is known so far and gives the minute a
verdict: active, idle or unknown, with the evidence. ``decide`` says whether to rest, to warn or to stop. The same text
runs in the daemon and on the box (``boxside/programs/activity.py``), so that both come to the same end: it is plain
Python 3.6, and all it takes and gives is JSON.

What never counts: a connection, a browser tab, a forward without traffic, an idle shell, what our own probes, keep-alives
and reconnects do. What could not be seen is unknown, and unknown never stops a box.

A sample::

    at        Unix time of its end            span     seconds that it covers; 0: the first one after a boot
    boot      id of the boot                  input    seconds since a person's last input; null: no terminal
    cpu       share of a core that other user programs took (1.0 is a whole core)
    system    the same of services, but for updates of the system and its housekeeping
    gpu       percent; null: none             net      bytes in and out, not over loopback
    disk      bytes that user programs wrote or read
    tools     [{id, name, kind, cpu, io, tty, child, state, since, born}]: programs known by name, and all jobs of a terminal
    agents    [{name, pid, state, since, alive}]: what coding agents say of themselves; null: no hooks are set up
    containers  {name: share of a core}       leases   [{id, why, until}] that hold
    inhibitors  [text]                        missing  [text]: what did not answer

Kinds of tools: ``agent`` (a coding agent), ``finite`` (ends by itself: a build, a test run), ``transfer``, ``kernel`` (of a
notebook), ``editor`` (the far side of an IDE), ``debugger``, ``job`` (any other program of a terminal), ``server`` (listens, or
watches files: counts only as work), ``exec`` (a command that somebody waits for, without a terminal), ``background`` (any other
program without one that is no service).
``state`` of an agent: ``working``, ``waiting`` (for a person), ``done``; null: it has no hooks. ``since``: when that began; of an
``exec``: when it began. ``born``: when the youngest process below it began.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

ACTIVE, IDLE, UNKNOWN = "active", "idle", "unknown"
LID = "lid"

GAP = 150.0  # seconds between two samples after which what lies between them is unknown
MINUTE = 60.0
AGAIN = 5.0  # seconds after which what an agent starts shows that it works again: not its hook itself
GRAIN = 8.0  # seconds: Linux rounds the times of terminals so
FRESH = 120.0  # seconds that a sample is good for, where a box is to be stopped
CPU_LEAST = 0.05  # share of a core: what idle editors, servers and desktops stay below
CONTAINER_LEAST = 0.05
SYSTEM_LEAST = 0.5  # of services: what the system does for itself stays below, but for its updates
GPU_LEAST = 5.0  # percent
NET_LEAST = 3 << 20  # bytes a minute: more than a forgotten tab, a redrawn terminal and our own traffic
DISK_LEAST = 32 << 20  # bytes a minute
TOOL_CPU = 0.01  # share of a core, of a program known by name
TOOL_IO = 16 << 10  # bytes a minute
EDITOR_CPU = 0.04
JOB_CPU = 0.02
JOB_IO = 1 << 20
TOOL_HOLD = 600.0  # seconds that a sign of life of an agent, a kernel, a transfer or a job counts
WAIT_HOLD = 7200.0  # seconds that a stopped debugger holds its box
STUCK = 12 * 3600.0  # seconds without any sign of life after which even a build is not waited for
TOOLS_MOST = 64
TEXT_MOST = 120  # characters of what a box calls something
EVIDENCE_MOST = 100
MINUTES_KEPT = 24 * 60  # verdicts that are remembered, a letter for each minute
SPANS_MOST = 400  # times of a never-window in the rules of a box
LEAST_RATE = 30.0  # seconds: a shorter sample is not blown up to a minute
LAPTOPS_MOST = 16  # whose signs are kept
NOT_KNOWN, NO_LOOK = "not known", "no look in the time before"


def empty() -> "dict[str, Any]":
    """Nothing is known."""
    return {"seen": {}, "at": None, "boot": None, "verdict": UNKNOWN, "idle_since": None, "began": None,
            "warned": None, "minutes": "", "evidence": [], "last": None, "leases": [], "here": {}}  # fmt: skip


def judge(state: "Mapping[str, Any]", sample: "Mapping[str, Any]") -> "dict[str, Any]":
    """What is known after one more sample. Samples come in the order of their time.

    ``verdict`` of the minute; ``evidence``: rows of ``[signal, what was seen, whether it counts]``; ``last``: the row
    that counted last, with its time; ``idle_since``: since when every minute is idle; null: it is not; ``warned``: when the
    box was warned, and of what; ``here``: of each laptop that was here in this life of the box, when it last said so,
    and until when that holds.
    """
    at = float(sample["at"])
    before = state["at"]
    known = state if state["boot"] == sample.get("boot") and before is not None and at >= before else empty()
    gap = known["at"] is None or at - known["at"] > GAP or not sample.get("span")
    seen, rows = _signals(known["seen"], sample, at)
    missing = [_text(one) for one in sample.get("missing") or ()]
    if gap:
        missing = [NO_LOOK, *missing]
    counting = [row for row in rows if row[2]]
    verdict = ACTIVE if counting else UNKNOWN if missing else IDLE
    rows = rows + [[NOT_KNOWN, one, False] for one in missing]
    since = None
    if verdict == IDLE:
        since = known["idle_since"] if known["idle_since"] is not None else known["at"]
    return {
        "seen": seen,
        "at": at,
        "boot": sample.get("boot"),
        "verdict": verdict,
        "idle_since": since,
        "began": known["began"] if known["began"] is not None else at,
        "warned": known["warned"] if verdict == IDLE or (known["warned"] or [0, IDLE])[1] not in (IDLE, LID) else None,
        "minutes": _minutes(known, verdict, at),
        "evidence": rows[:EVIDENCE_MOST],
        "leases": [str(one.get("id")) for one in sample.get("leases") or ()][:TOOLS_MOST],
        "last": [at, counting[0][0], counting[0][1]] if counting else known["last"],
        "here": known.get("here") or {},
    }  # fmt: skip


def _minutes(known: "Mapping[str, Any]", verdict: str, at: float) -> str:
    """The verdicts of the last day, with one more: a letter for each minute, also for those without a look."""
    skipped = 0 if known["at"] is None else int((at - known["at"]) / 60.0 + 0.5) - 1
    minutes = known["minutes"] + "u" * min(max(skipped, 0), MINUTES_KEPT)  # type: str
    if known["at"] is None or skipped >= 0 or not minutes:
        minutes = minutes + verdict[0]
    elif verdict == ACTIVE:
        minutes = minutes[:-1] + "a"  # a look between two minutes
    return minutes[-MINUTES_KEPT:]


def _signals(
    old: "Mapping[str, float]", sample: "Mapping[str, Any]", at: float
) -> "tuple[dict[str, float], list[list[Any]]]":
    """When each program last showed a sign of life, and all that was looked at."""
    minute = 60.0 / max(float(sample.get("span") or 60.0), LEAST_RATE)
    rows = [_input(sample)]
    seen = {}  # type: dict[str, float]
    for tool in list(sample.get("tools") or ())[:TOOLS_MOST]:
        key = str(tool.get("id"))
        row, seen[key] = _tool(tool, old.get(key, at), at, minute)
        rows.append(row)
    rows += [
        _stale(one, at) for one in list(sample.get("agents") or ())[:TOOLS_MOST] if not one.get("alive", True)
    ]
    cpu, gpu = _number(sample.get("cpu")), sample.get("gpu")
    rows.append(["cpu", _share(cpu), cpu >= CPU_LEAST])
    if sample.get("system") is not None:
        system = _number(sample["system"])
        rows.append(["services", _share(system), system >= SYSTEM_LEAST])
    if gpu is not None:
        rows.append(["gpu", f"{_number(gpu):.0f} %", _number(gpu) >= GPU_LEAST])
    for name, least in (("net", NET_LEAST), ("disk", DISK_LEAST)):
        rate = _number(sample.get(name)) * minute
        rows.append([name, _size(rate) + " a minute", rate >= least])
    for name, share in sorted((sample.get("containers") or {}).items())[:TOOLS_MOST]:
        share = _number(share)
        rows.append(["container " + _text(name), _share(share), share >= CONTAINER_LEAST])
    leases = list(sample.get("leases") or ())[:TOOLS_MOST]
    rows += [["lease " + _text(lease.get("id")), _text(lease.get("why")), True] for lease in leases]
    rows += [["inhibitor", _text(one), True] for one in list(sample.get("inhibitors") or ())[:TOOLS_MOST]]
    return seen, sorted(rows, key=lambda row: not row[2])


def _input(sample: "Mapping[str, Any]") -> "list[Any]":
    age = sample.get("input")
    if age is None:
        return ["input", "nobody has a terminal", False]
    age = _number(age)
    return ["input", "last key " + ago(age), age <= _number(sample.get("span")) + GRAIN]


# What a minute of a program needs to be a sign of life: share of a core, bytes. Idle IDEs talk all the time.
_LEAST = {
    "job": (JOB_CPU, JOB_IO),
    "server": (CPU_LEAST, JOB_IO),
    "editor": (EDITOR_CPU, 1 << 40),
    "exec": (JOB_CPU, JOB_IO),
    "background": (CPU_LEAST, JOB_IO),
}  # type: dict[Any, tuple[float, int]]


def _tool(tool: "Mapping[str, Any]", last: float, at: float, minute: float) -> "tuple[list[Any], float]":
    """The row of a program, and when it last showed a sign of life. One that is new has just shown one."""
    kind, state = tool.get("kind"), tool.get("state")
    least_cpu, least_io = _LEAST.get(kind, (TOOL_CPU, TOOL_IO))
    signs = []
    if _number(tool.get("cpu")) >= least_cpu:
        signs.append("cpu")
    if _number(tool.get("io")) * minute >= least_io:
        signs.append("reads or writes")
    if kind in ("agent", "finite", "kernel", "job", "exec", "background"):
        signs += [name for name, on in (("runs something", "child"), ("prints", "tty")) if tool.get(on)]
    if kind == "job" and signs == ["prints"]:
        signs = []  # a clock, a dashboard, a watcher that prints to stay alive
    alive = at if signs else min(last, at)
    silent = at - alive
    name = _text(tool.get("name"))
    if kind == "server":
        return [name, "serves", _number(tool.get("cpu")) >= CPU_LEAST], alive
    since = _number(tool.get("since"))
    # Not every agent says that it begins; and none says that it was allowed to go on before that has come to an end.
    again = state == "done" and alive > since + MINUTE
    again = again or (state in ("waiting", "done") and _number(tool.get("born")) > since + AGAIN)
    if kind == "agent" and state in ("working", "waiting", "done") and not again:
        return _hooked(name, tool, at, silent), alive
    if kind == "debugger":
        age = at - _number(tool.get("since")) if tool.get("since") is not None else silent
        return [
            name,
            "is stopped at a breakpoint, last used " + ago(age),
            bool(signs) or age < WAIT_HOLD,
        ], alive
    said = ", ".join(signs) if signs else "silent for " + span(silent)
    if kind == "finite":
        return [name, "runs; " + said, silent < STUCK], alive
    if kind == "exec":
        return [name, "is waited for; " + said, silent < TOOL_HOLD or at - since < STUCK], alive
    return [name, said, silent < TOOL_HOLD], alive


def _hooked(name: str, tool: "Mapping[str, Any]", at: float, silent: float) -> "list[Any]":
    """An agent whose hooks say how it is. Who waits for a person does nothing meanwhile; that person was told."""
    age = max(0.0, at - _number(tool.get("since")))
    if tool.get("state") == "working":
        if min(silent, age) >= STUCK:
            return [
                name,
                "said that it works, and shows no sign of life since " + span(silent) + ": not known",
                False,
            ]
        return [name, "works, since " + span(age), True]
    if tool.get("state") == "waiting":
        return [name, "waits for you, since " + span(age), False]
    return [name, "is done, since " + span(age), False]


def _stale(note: "Mapping[str, Any]", at: float) -> "list[Any]":
    """A note whose agent is not there any more: nobody knows what became of it."""
    age = span(max(0.0, at - _number(note.get("since"))))
    return [
        _text(note.get("name")),
        "said " + _text(note.get("state")) + " " + age + " ago, and is gone: not known",
        False,
    ]


# ------------------------------------------------------------------------------------------------------------------

REST, WARN, STOP = "rest", "warn", "stop"


def decide(state: "Mapping[str, Any]", rules: "Mapping[str, Any]", now: float) -> "dict[str, Any]":
    """What to do with a box: ``do`` (rest, warn, stop), when (``at``, ``warn_at``), of what ``cause``, and ``why``.

    ``rules``: ``after`` and ``warn`` in seconds; ``never``: pairs of times in which it is not stopped; ``hours``: pairs
    of times in which it is wanted (outside of them ``after`` is ``warn``); ``max_run`` in seconds, ``started``, ``held``:
    it is not stopped before, as is ``kept``, of a hook that the box has asked; ``leases``: those that the daemon knows; ``lid``: seconds after which it goes when every
    laptop has left it.

    It stops only when every minute of the last ``after`` seconds was idle (``lid`` seconds, where no laptop was here for
    so long, either), the last look is fresh, nothing holds it, and it was warned ``warn`` seconds ago (half of ``lid``
    at most). ``alone``: it follows the lid, and no laptop is here: nobody else will stop it.
    """
    warn, left = float(rules["warn"]), _left(state, rules, now)
    found = _ends(state, rules, left, now)
    if not found:
        why = (
            "something works on it" if state["verdict"] == ACTIVE else "it cannot be told whether it is idle"
        )
        return {"do": REST, "at": None, "warn_at": None, "cause": None, "why": why, "alone": left is not None}
    at, cause, why = min(found)
    if cause == LID:
        warn = min(warn, float(rules["lid"]) / 2)
    warned = state["warned"] if state["warned"] is not None and state["warned"][1] == cause else None
    if warned is not None:
        at = max(at, float(warned[0]) + warn)
    elif at - warn <= now:
        at = now + warn  # it has not been warned in time
    at, held_by = _held(at, state, rules, now)
    if warned is not None and at - float(warned[0]) > 2 * warn:
        warned = None  # something held it meanwhile: nobody remembers that warning
    why = why + ("; held by " + held_by if held_by else "")
    do = REST
    if warned is None and now >= at - warn:
        do = WARN
    elif warned is not None and now >= at and 0 <= now - state["at"] <= FRESH:
        do = STOP if _held(now, state, rules, now)[0] <= now else REST
    return {"do": do, "at": at, "warn_at": at - warn, "cause": cause, "why": why, "alone": left is not None}


def _ends(
    state: "Mapping[str, Any]", rules: "Mapping[str, Any]", left: "float | None", now: float
) -> "list[tuple[float, str, str]]":
    """When the box is to go if nothing holds it, of what cause, and why. ``left``: when the last laptop left it."""
    after, warn = float(rules["after"]), float(rules["warn"])
    found = []
    if state["verdict"] == IDLE and state["idle_since"] is not None:
        since = float(state["idle_since"])
        idle = "idle since " + span(now - since)
        found.append((_with_hours(since, after, warn, rules.get("hours")), IDLE, idle))
        if left is not None:
            text = "no laptop was here for " + span(now - left) + ", and it is " + idle
            found.append((max(left, since) + float(rules["lid"]), LID, text))
    started, most = rules.get("started"), rules.get("max_run")
    if most and started is not None:
        end = float(started) + float(most)
        found.append((end, "max-run", "the longest time that it may run ends: " + span(float(most))))
    return found


def warn(state: "Mapping[str, Any]", decision: "Mapping[str, Any]", now: float) -> "dict[str, Any]":
    """What is known once everybody on the box has been warned."""
    return dict(state, warned=[now, decision["cause"]])


def signed(state: "Mapping[str, Any]", who: str, seconds: float, now: float) -> "dict[str, Any]":
    """What is known once a laptop has said that it is here, and is so for ``seconds`` unless it says it again."""
    here = {name: times for name, times in (state.get("here") or {}).items() if name != who}
    here[_text(who)] = [now, now + seconds]
    newest = sorted(here, key=lambda name: here[name][0])[-LAPTOPS_MOST:]
    warned = state["warned"] if (state["warned"] or [0, IDLE])[1] != LID else None
    return dict(state, here={name: here[name] for name in newest}, warned=warned)


def unattended(state: "Mapping[str, Any]", rules: "Mapping[str, Any]", now: float) -> "dict[str, Any]":
    """What ``decide`` would say if every laptop went now."""
    return decide(dict(state, here={"": [now, now]}), rules, now)


def _left(state: "Mapping[str, Any]", rules: "Mapping[str, Any]", now: float) -> "float | None":
    """When the last laptop said that it is here; None: one still is, none ever was, or it is nobody's business."""
    here = state.get("here")
    if not rules.get("lid") or not here or any(float(until) > now for _, until in here.values()):
        return None
    return max(float(at) for at, _ in here.values())


def _with_hours(since: float, after: float, warn: float, hours: "Any") -> float:
    """When a box that is idle since then is to go; outside of its hours it waits only as long as it warns."""
    if not hours:
        return since + after
    usual, soon = since + after, since + min(after, warn)
    for begin, end in sorted(hours)[:SPANS_MOST]:
        if begin <= soon < end:
            return min(usual, max(soon, float(end)))
    return soon


def _held(
    at: float, state: "Mapping[str, Any]", rules: "Mapping[str, Any]", now: float
) -> "tuple[float, str]":
    """The earliest time from ``at`` on at which nothing holds the box."""
    by = ""
    for name, who in (("held", "you (extend)"), ("kept", "a hook")):
        if rules.get(name) and float(rules[name]) > at:
            at, by = float(rules[name]), who
    for lease in rules.get("leases") or ():
        watches = lease.get("command") is not None or lease.get("pid") is not None
        if watches and str(lease.get("id")) not in state["leases"]:
            continue  # what it watches has ended
        if float(lease["until"]) > max(at, now):
            at, by = float(lease["until"]), "the lease " + _text(lease.get("id"))
    for begin, end in sorted(rules.get("never") or ())[:SPANS_MOST]:
        if begin <= at < end:
            at, by = float(end), "a time in which it is never stopped"
    return at, by


# Words ------------------------------------------------------------------------------------------------------------


def span(seconds: float) -> str:
    """``47 min``, ``3 h 5 min``, ``2 d 4 h``."""
    minutes = int(max(0.0, seconds) / 60.0)
    if minutes < 1:
        return f"{int(max(0.0, seconds))} s"
    hours, rest = minutes // 60, minutes % 60
    if not hours:
        return f"{minutes} min"
    if hours < 48:
        return f"{hours} h {rest} min" if rest else f"{hours} h"
    return f"{hours // 24} d {hours % 24} h"


def ago(seconds: float) -> str:
    """``just now``, ``47 min ago``."""
    return "just now" if seconds < 60 else span(seconds) + " ago"


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count = count / 1000
    return f"{count:.3g} GB"


def _share(cores: float) -> str:
    return f"{100 * cores:.1f} % of a core"


def _number(value: "Any") -> float:
    return float(value) if isinstance(value, (int, float)) and value == value else 0.0


def _text(value: "Any") -> str:
    text = str(value)[:TEXT_MOST]
    return "".join(one if one.isprintable() else " " for one in text)
