"""What the routes do, one noun a module. Handlers are functions: ask control, return a view."""

# Importing a module enters its functions into the table.
from devboxd.api.handlers import (
    agent,
    box,
    daemon,
    forward,
    idle,
    job,
    money,
    moves,
    notice,
    page,
    pane,
    project,
    session,
    store,
)

__all__ = [
    "agent",
    "box",
    "daemon",
    "forward",
    "idle",
    "job",
    "money",
    "moves",
    "notice",
    "page",
    "pane",
    "project",
    "session",
    "store",
]
