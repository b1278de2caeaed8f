"""What the configuration says of new projects."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from msgspec.structs import replace

from devboxd.api.handlers.project import _policy
from devboxd.model.config import Config, ProjectSettings
from devboxd.model.project import Policy


def test_what_new_projects_keep_to_is_read_from_the_configuration() -> None:
    """A generation is tried before its box may go only where somebody asked for it."""
    context: Any = SimpleNamespace(daemon=SimpleNamespace(config=Config()))
    assert _policy(context) == Policy()
    wanted = ProjectSettings(verify=True, warm_for=60.0)
    context.daemon.config = replace(Config(), projects=wanted)
    assert (_policy(context).verify, _policy(context).warm_for) == (True, 60.0)
