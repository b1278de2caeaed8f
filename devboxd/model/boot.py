"""From a running instance to a session that answers: what is said meanwhile, and when it is not waited for any more.

Ready means that a session answered. Until then the agent connects to Session Manager, and a shell is opened through
it. Time counts only while AWS says something: not a laptop's sleep, a lost network or an expired login.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import msgspec
from msgspec.structs import replace

from devboxd.errors import Denied, DevboxError, DocumentInvalid, LoginNeeded, NotConnected, Unreachable
from devboxd.model.states import Connection

PATIENCE: Final = 600.0  # seconds that a box has to answer: some images take five minutes to boot
LONG: Final = 180.0  # seconds after which we say that it takes long
MOST_AT_ONCE: Final = 40.0  # seconds that one try counts, at most: the machine may have slept
SURE: Final = 3  # refusals in a row before one is believed: AWS may not know the tags of a new instance yet


class Stage(StrEnum):
    """What a box that runs is waited for."""

    BOOT = "boot"
    AGENT = "agent"  # to connect to Session Manager
    SHELL = "shell"  # to be opened through the agent
    LOGIN = "login"  # of the user, at AWS
    NETWORK = "network"
    READY = "ready"  # a session answered
    DOWN = "down"  # it does not run any more


class Boot(msgspec.Struct, frozen=True):
    """How far a box is. ``waited``: seconds that counted; ``refused``: how often in a row AWS said no to a session."""

    stage: Stage = Stage.BOOT
    text: str = "the box boots"
    hint: str | None = None
    waited: float = 0.0
    refused: int = 0


def after(boot: Boot, name: str, took: float, agent: Connection | None, error: DevboxError) -> Boot:
    """What is known after a session was tried, and did not answer.

    Args:
        name: of the project.
        took: seconds since the last try; only what counts of them is counted.
        agent: what AWS says of the box's agent; None: AWS was not asked, or did not answer.
    """
    if isinstance(error, LoginNeeded):
        return replace(boot, stage=Stage.LOGIN, text=f"login needed: {error.message}", hint=error.hint)
    if agent is None:
        return replace(
            boot, stage=Stage.NETWORK, text=f"AWS can not be asked: {error.message}", hint=error.hint
        )
    waited = boot.waited + min(took, MOST_AT_ONCE)
    long = ""
    if waited >= LONG:
        long = f", after {int(waited // LONG * LONG // 60)} min; devboxctl doctor {name} looks closer"
    if _is_refusal(error):
        text = f"a session to the box is refused: {error.message}"
        return Boot(_stage(agent), text, error.hint, waited, boot.refused + 1)
    if agent is Connection.NOT_CONNECTED:
        text = f"the box boots: its agent is not connected to Session Manager yet{long}"
        return Boot(Stage.AGENT, text, waited=waited)
    if isinstance(error, NotConnected | Unreachable):
        what = "the agent is connected" if agent is Connection.CONNECTED else "the box boots"
        return Boot(_stage(agent), f"{what}: no shell answers yet{long}", waited=waited)
    return Boot(_stage(agent), f"no shell answers yet: {error.message}{long}", error.hint, waited)


def given_up(boot: Boot, name: str, agent: Connection | None, error: DevboxError) -> DevboxError | None:
    """What whoever waits is told, if it makes no sense to wait longer; None: it does."""
    if boot.stage in (Stage.LOGIN, Stage.NETWORK):
        return None
    if _is_refusal(error) and boot.refused >= SURE:
        return error
    if boot.waited < PATIENCE:
        return None
    minutes = f"{PATIENCE / 60:.0f} min"
    goes_on = f"the box runs on, and costs: devboxctl stop {name} stops it"
    if agent is Connection.NOT_CONNECTED:
        return NotConnected(
            f"{name} runs, and its agent has not connected to Session Manager within {minutes}",
            hint="does the image have an agent, does the instance profile allow Session Manager, does the network lead to it? "
            f"devboxctl doctor {name} looks closer; {goes_on}",
        )
    return Unreachable(
        f"{name} runs, and no session to it has answered within {minutes}: {error.message}",
        hint=f"devboxctl doctor {name} looks closer; {goes_on}",
    )


def _is_refusal(error: DevboxError) -> bool:
    """Say whether a person has to do something before a session can be opened."""
    return isinstance(error, Denied | DocumentInvalid)


def _stage(agent: Connection) -> Stage:
    return Stage.AGENT if agent is Connection.NOT_CONNECTED else Stage.SHELL
