"""Print the calls of AWS that a launch would make."""

from __future__ import annotations

from devboxctl import progress, show
from devboxctl.options import settings
from devboxd.api import wire


def print_plan(found: wire.LaunchPlan | wire.RebasePlan) -> None:
    """Print each call with its parameters below it; what is in one stands two columns further in."""
    if settings.json:
        show.print_json(found)
        return
    if not found.calls:
        name = show.cell(found.project.name)
        show.say(f"nothing is called: {name} runs already")
        if text := progress.next_type(found.project):
            show.say(text)
    for call in found.calls:
        show.write(show.cell(call.operation) + "\n")
        for name, value in call.parameters.items():
            _print_parameter(show.cell(name), value, "  ")


def _print_parameter(name: str, value: object, indent: str) -> None:
    if isinstance(value, dict) and value.keys() == {"Key", "Value"}:  # a tag
        show.write(f"{indent}{show.cell(value['Key'])} = {show.cell(value['Value'])}\n")
    elif isinstance(value, dict):
        show.write(f"{indent}{name}:\n")
        for key, part in value.items():
            _print_parameter(show.cell(key), part, indent + "  ")
    elif isinstance(value, list) and any(isinstance(part, dict) for part in value):
        show.write(f"{indent}{name}:\n")
        for at, part in enumerate(value, 1):
            _print_parameter(str(at), part, indent + "  ")
    else:
        text = ", ".join(map(show.cell, value)) if isinstance(value, list) else show.cell(value)
        show.write(f"{indent}{name}: {text}\n")
