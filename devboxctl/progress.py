"""Follow a project until it is as wanted: a line for each step, with the time, on standard error."""

from __future__ import annotations

import sys
import time
from typing import Any, Final

from devboxctl import ask, show
from devboxctl.fast import reply
from devboxctl.options import settings
from devboxd.api import client, routes, wire
from devboxd.errors import Kind, exit_status
from devboxd.text import printable

TRIES: Final = 5  # to find a daemon again, in a row
SHOWN: Final = 5  # repositories in a sentence
PAUSE: Final = 1.0  # seconds between them


def finish(name: str, found: wire.Project | None, *, wait: bool, up: bool = False) -> int:
    """Wait for what was asked of a project, or do not; print it, and return the exit status.

    Args:
        found: the project as it was when it was asked.
        wait: False returns at once, with exit status 8 while it is under way.
        up: whether its box is to run at the end.
    """
    unsaved = (found.unsaved, found.unsaved_problem) if found is not None else ([], "")
    if text := git_work("what is saved has git work that is nowhere else", *unsaved):
        _say(text)
    if wait:
        step = follow(name)
        if step.failure is not None:
            return reply.show_failure(show.plain(step.failure))
        found = step.project
        if found is not None:
            found.unsaved, found.unsaved_problem = unsaved
        if up and (found is None or found.phase != "running"):
            return _not_up(name, found)
    if found is None:
        if settings.json:
            show.print_json({"project": None})
        return 0
    show_project(found)
    return 0 if wait or not found.pending else exit_status(Kind.PENDING)


def after_rebase(name: str, status: int) -> int:
    """Say the way back; a failure where the homes did not come over. Returns the exit status."""
    if status:
        return status
    found = ask.ask(routes.SHOW_PROJECT, wire.ProjectName(name))
    word = reply.shell_word(name)
    if found.rebase_problem:
        hint = f"devboxctl rebase {word} --onto {found.base} goes on"
        if found.way_back is not None:
            hint += f"; devboxctl launch {word} --from {found.way_back} goes back"
        why = f"the homes of generation {found.way_back} are not copied: {found.rebase_problem}"
        failure = wire.Failure("not-rebased", f"{name} is not rebased: {why}", hint)
        return reply.show_failure(show.plain(failure))
    if found.way_back is not None and show.is_terminal() and not settings.json:
        show.say(
            f"generation {found.way_back} is kept; to go back: devboxctl launch {word} --from {found.way_back}; "
            f"to let it go in its time: devboxctl generations unpin {word} {found.way_back}"
        )
    return 0


def _not_up(name: str, found: wire.Project | None) -> int:
    """Say why a project did not come up; returns the exit status."""
    why = found.reason if found is not None else "it was deleted"
    text = f"{name} does not run: {why or 'somebody took it down'}"
    return reply.show_failure(show.plain(wire.Failure("project-not-up", text, _instead(name, found))))


def _instead(name: str, found: wire.Project | None) -> str | None:
    """What to do about a project that did not come up."""
    if found is None:
        return None
    if "capacity" in found.reason or "no such machine" in found.reason:
        hint = f"devboxctl launch {name} --retry-until-up goes on trying; --type names others that would do"
    elif "does not allow" in found.reason:
        hint = "devboxctl iam policy --for user prints what it takes"
    else:
        hint = f"devboxctl launch {name} tries again, with other options where they are given"
    if found.way_back is not None and found.rebase:
        hint += f"; devboxctl launch {name} --from {found.way_back} goes back"
    return hint + (f"; devboxctl delete {name} forgets it" if found.phase == "absent" else "")


def offer(name: str, error: client.Refused, *, up: bool = False) -> int | None:
    """Offer a person on a terminal to bring a project up that an attach was refused for; returns the exit status.

    None: it was refused for another reason, nobody is there to ask, or the answer was no. ``up``: nobody is asked.
    """
    failure = reply.failure_of(error)
    hint = str(failure.get("hint") or "")
    if failure.get("code") != "project-down" or not hint.startswith("devboxctl up"):
        return None
    if up:
        _say(f"{failure.get('message')}: bringing it up")
    elif not _is_agreed(f"{failure.get('message')}. Bring it up? [Y/n] "):
        return None
    try:
        ask.ask(routes.UP, wire.ProjectName(name))
        step = follow(name)
    except KeyboardInterrupt:
        return 130
    if step.failure is not None:
        return reply.show_failure(show.plain(step.failure))
    if step.project is None or step.project.phase != "running":
        return _not_up(name, step.project)
    return 0


def _is_agreed(question: str) -> bool:
    """Ask a person; nobody there is a no."""
    if settings.json or not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    sys.stderr.write(printable(question))
    sys.stderr.flush()
    answer = sys.stdin.readline()
    return bool(answer) and answer.strip().lower() in ("", "y", "yes")


def follow(name: str) -> wire.ProjectStep:
    """Tell every step until the last one, which is returned. The daemon may die meanwhile: the next one goes on."""
    began, tries, told = time.monotonic(), 0, ""
    while True:
        try:
            for step in ask.ask_lines(routes.FOLLOW_PROJECT, wire.ProjectName(name)):
                tries = 0
                if step.done or step.failure is not None:
                    return step
                if (text := _text(step)) != told:
                    _tell(text, time.monotonic() - began)
                    if step.hint:
                        _say(f"hint: {step.hint}")
                    told = text
        except KeyboardInterrupt:
            _say("the work goes on in devboxd: devboxctl ops ls shows it, the same command waits again")
            raise
        except client.DaemonLost:
            tries += 1
            if tries > TRIES:
                raise
        else:
            tries += 1  # it ended without a last word
            if tries > TRIES:
                raise client.DaemonLost("devboxd ends in the middle of an answer, again and again")
        _tell("devboxd went away; the next one goes on", time.monotonic() - began)
        time.sleep(PAUSE)


def show_project(found: wire.Project) -> None:
    """Print one project, a field a line."""
    if settings.json:
        show.print_json(found)
        return
    show.deletes(found.name, found.deletes)
    fields = {name: getattr(found, name) for name in found.__struct_fields__ if name != "version"}
    if show.is_terminal():
        fields = _for_a_person(fields)
    show.print_fields([(name.replace("_", " "), value) for name, value in fields.items()])
    if show.is_terminal() and (text := next_step(found)):
        show.say(text)


def _for_a_person(fields: dict[str, Any]) -> dict[str, Any]:
    """What a person wants to know of a project that was just acted on: state, place, size, what is saved."""
    # ``rebase`` says the problem, too.
    hidden = ("id", "pending", "want", "base", "rebase_problem", "unsaved", "unsaved_problem")
    shown = {name: value for name, value in fields.items() if name not in hidden}
    if shown["waits"] == shown["phase"]:
        del shown["waits"]
    shown["generation"] = shown["generation"] or "none yet"
    if shown["disk"] is not None:
        shown["disk"] = f"{shown['disk']} GiB"
    if shown["since"] is not None:
        shown["since"] = show.moment(shown["since"])
    return shown


def next_step(found: wire.Project) -> str:
    """What there is to type, as a project is now; empty where that depends on what it was looked at for."""
    name = reply.shell_word(found.name)
    if found.pending:
        return "it goes on: devboxctl ops ls shows it, devboxctl events --follow every step"
    if found.phase == "running" and (text := next_type(found)):
        return text
    if found.phase == "running":
        return f"next: devboxctl attach {name}; when it goes for being idle: devboxctl why {name}"
    if found.phase in ("warm", "ready"):
        costs = "its disks go on costing" if found.phase == "warm" else "only what is saved goes on costing"
        return f"the box does not run, and {costs}; to have it back: devboxctl up {name}"
    return ""


def git_work(what: str, unsaved: list[str], problem: str) -> str:
    """A sentence about git work that is on a box only: what there is, or why that is not known; empty: there is none."""
    if problem:
        return f"it is not known whether there is git work that is nowhere else: {problem}"
    if not unsaved:
        return ""
    more = len(unsaved) - SHOWN
    return f"{what}: {'; '.join(unsaved[:SHOWN])}" + (f"; and {more} more" if more > 0 else "")


def next_type(found: wire.Project) -> str:
    """That its box is to be of another type, and from when on; empty where it is not."""
    if found.next_type is None:
        return ""
    now = f"devboxctl resize {reply.shell_word(found.name)} --type {reply.shell_word(found.next_type)}"
    return f"it is {found.type} until its next start, and {found.next_type} then; {now} restarts it now"


def _text(step: wire.ProjectStep) -> str:
    project = step.project
    phase = project.phase if project is not None else ""
    text = step.text
    if not text and project is not None and phase == "launching" and project.reason:
        text = project.reason.partition(": ")[0]  # AWS says the rest at length, if this comes to nothing
        text += f"; next: {project.zone}" if project.zone else ""
    return f"{phase}: {text}" if text not in ("", phase) else phase


def _tell(text: str, seconds: float) -> None:
    _say(f"{seconds:7.1f} s  {text}")


def _say(text: str) -> None:
    if not settings.json:
        show.say(text)
