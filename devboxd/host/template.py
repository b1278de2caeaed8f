"""The CloudFormation template of an account, as it is installed with the program."""

from __future__ import annotations

from importlib import resources


def template() -> str:
    """The text of ``iac/devbox.yaml``: a copy of it is part of the package, and a test compares the two."""
    return (resources.files("devboxd") / "data" / "devbox.yaml").read_text("utf-8")
