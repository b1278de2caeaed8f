"""What EC2 does to the machines and media themselves; who plays them on real directories performs it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class VolumeMade:
    """A medium appears: empty, or as a copy of a snapshot."""

    volume: str
    snapshot: str | None


@dataclass(frozen=True, slots=True)
class VolumeShown:
    """Volumes were attached to a machine, or detached: its system sees others now."""

    instance: str


@dataclass(frozen=True, slots=True)
class VolumeGone:
    """A medium is destroyed."""

    volume: str


@dataclass(frozen=True, slots=True)
class SnapshotTaken:
    """The content of a volume is copied, as it is now."""

    snapshot: str
    volume: str


@dataclass(frozen=True, slots=True)
class SnapshotGone:
    """A copy is destroyed."""

    snapshot: str


@dataclass(frozen=True, slots=True)
class PowerOn:
    """The machine runs: its volumes are mounted, its system comes up."""

    instance: str


@dataclass(frozen=True, slots=True)
class PowerOff:
    """The machine goes down: everything that ran on it is gone."""

    instance: str


@dataclass(frozen=True, slots=True)
class Rebooted:
    """Down and up again."""

    instance: str


Effect = VolumeMade | VolumeShown | VolumeGone | SnapshotTaken | SnapshotGone | PowerOn | PowerOff | Rebooted
