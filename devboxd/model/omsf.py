"""Projects of github.com/omsf-eco-infra/devbox, as its DynamoDB table has them: to be taken over.

The table ``PREFIX-main`` has one item for each project: ``project``, ``Status`` (READY, RUNNING, …), ``AMI``,
``InstanceId``, ``LastInstanceType``, ``Architecture`` and others (src/devbox/launch.py there, at 1a63771).
Nothing of that project is changed or deleted: its images stay its own, and ours begin with the first save.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from devboxd.model.ledger import Ledger
from devboxd.model.offer import Base
from devboxd.model.project import Generation, Phase, Project, Quality, Spec
from devboxd.model.wish import NAME

_AMI: Final = re.compile(r"ami-[0-9a-f]+\Z")
_INSTANCE: Final = re.compile(r"i-[0-9a-f]+\Z")


class Legacy(msgspec.Struct, frozen=True):
    """One project of such a table."""

    name: str
    status: str
    image: str | None = None
    instance: str | None = None
    type: str | None = None
    architecture: str = "x86_64"

    @property
    def is_running(self) -> bool:
        """Say whether there is an instance to adopt."""
        return self.status == "RUNNING" and self.instance is not None

    @property
    def why_not(self) -> str:
        """Why it can not be taken over now; empty where it can."""
        if NAME.match(self.name) is None:
            return "its name can not be one of ours"
        if self.is_running or (self.status == "READY" and self.image is not None):
            return ""
        return f"it is {self.status or 'in no state'}: wait until it is READY or RUNNING"


def legacy(item: Mapping[str, Any]) -> Legacy | None:
    """Read one item, plain values; None for what is no project."""
    name = item.get("project")
    if not isinstance(name, str) or not name:
        return None
    image, instance = str(item.get("AMI") or ""), str(item.get("InstanceId") or "")
    return Legacy(
        name=name,
        status=str(item.get("Status") or "").upper(),
        image=image if _AMI.match(image) else None,
        instance=instance if _INSTANCE.match(instance) else None,
        type=str(item.get("LastInstanceType") or item.get("InstanceType") or "") or None,
        architecture=str(item.get("Architecture") or "x86_64"),
    )


def taken_over(project: Project, base: Base, spec: Spec, at: float) -> Ledger:
    """A project whose first generation is the image of the other one."""
    disks = tuple(replace(disk, volume=None) for disk in base.disks)
    first = Generation(
        number=1,
        image=base.image,
        run=0,
        save=0,
        disks=disks,
        boot=base.boot,
        quality=Quality.CRASH,  # it was taken while the system was shutting down
        created=at,
        pins=("user",),
        label=f"taken over: {base.name}",
    )
    return Ledger(replace(project, phase=Phase.READY, head=1, spec=spec), None, (first,))
