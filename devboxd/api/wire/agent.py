"""Coding agents on boxes: their hooks, and what they do now."""

from __future__ import annotations

import msgspec

from devboxd.api.wire.common import API_VERSION, Line, Target


class AgentSetUpRequest(Target, omit_defaults=True):
    """Put hooks in place, or with ``undo`` take exactly those away. ``agent``: claude, codex, generic, all."""

    agent: Line = "all"
    undo: bool = False
    dry_run: bool = False
    user: Line | None = None


class AgentStatusRequest(Target, omit_defaults=True):
    """Which box; none: what is known of all projects, without asking their boxes."""

    user: Line | None = None


class AgentFile(msgspec.Struct, omit_defaults=True):
    """One file of a box, and what became of it. ``changed``: it is, or would be, other than it was."""

    agent: str
    file: str
    said: str
    changed: bool = False
    problem: bool = False


class AgentState(msgspec.Struct, omit_defaults=True):
    """One agent. ``state``: working, waiting, done, unknown (its process is gone); ``where``: the session it runs in.

    ``text``: what it asks, or said last.
    """

    box: str
    name: str
    state: str
    since: str
    pid: int = 0
    text: str = ""
    where: str = ""


class AgentReport(msgspec.Struct, omit_defaults=True):
    """Files of hooks (of one box only), and agents. Of all projects it is as it was seen last.

    ``told``: the box is a project's, so that its user is told when an agent waits.
    """

    files: list[AgentFile] = []
    agents: list[AgentState] = []
    told: bool = True
    version: int = API_VERSION
