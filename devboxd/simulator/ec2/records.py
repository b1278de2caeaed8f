"""What EC2 keeps about each thing. Frozen: a change makes a new record, so old views cost nothing.

Times are Unix seconds. ``content`` is the oracle's: the number of the newest write that is on the medium.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

Tags = Mapping[str, str]


class InstanceState(StrEnum):
    """Of an instance; the API shows a number, too."""

    PENDING = "pending"
    RUNNING = "running"
    SHUTTING_DOWN = "shutting-down"
    TERMINATED = "terminated"
    STOPPING = "stopping"
    STOPPED = "stopped"

    @property
    def code(self) -> int:
        """The number in ``InstanceState``."""
        return _CODES[self]


_CODES: Final = {
    InstanceState.PENDING: 0,
    InstanceState.RUNNING: 16,
    InstanceState.SHUTTING_DOWN: 32,
    InstanceState.TERMINATED: 48,
    InstanceState.STOPPING: 64,
    InstanceState.STOPPED: 80,
}


@dataclass(frozen=True, slots=True)
class System:
    """What is installed on a medium: decides whether a machine boots from it, whatever the image claims."""

    architecture: str
    firmware: str  # bios, uefi or both
    has_ena_driver: bool = True

    def boots_on(self, architecture: str, boot_mode: str, *, needs_ena: bool) -> bool:
        """Whether a machine of this kind comes up from it. ``boot_mode`` is the one it starts in."""
        firmware_fits = self.firmware == "both" or self.firmware == (
            "uefi" if "uefi" in boot_mode else "bios"
        )
        return self.architecture == architecture and firmware_fits and (self.has_ena_driver or not needs_ena)


@dataclass(frozen=True, slots=True)
class BootAttributes:
    """What an image tells EC2 about itself and an instance inherits."""

    architecture: str
    boot_mode: str | None  # None: the processor's default
    ena: bool
    tpm: str | None
    imds: str | None
    platform_details: str
    usage_operation: str
    virtualization: str = "hvm"
    root_device: str = "/dev/xvda"
    sriov: str | None = "simple"

    @property
    def firmware_started(self) -> str:
        """The mode a machine starts in."""
        return self.boot_mode or ("uefi" if self.architecture == "arm64" else "legacy-bios")


@dataclass(frozen=True, slots=True)
class Attachment:
    """A volume on an instance."""

    instance: str
    device: str
    since: float
    delete_on_termination: bool
    state: str = "attached"  # attaching, attached, detaching


@dataclass(frozen=True, slots=True)
class Modification:
    """The last ModifyVolume of a volume."""

    started: float
    state: str  # modifying, optimizing, completed
    before: Mapping[str, Any]
    after: Mapping[str, Any]
    ended: float | None = None


@dataclass(frozen=True, slots=True)
class Volume:
    """An EBS volume."""

    id: str
    zone: str
    size: int  # GiB
    type: str
    iops: int | None
    throughput: int | None  # MiB/s
    encrypted: bool
    kms_key: str | None
    snapshot: str | None
    created: float
    state: str  # creating, available, in-use, deleting, error
    tags: Tags = field(default_factory=dict)
    attachment: Attachment | None = None
    modification: Modification | None = None
    system: System | None = None
    content: int = 0
    unsynced: int | None = None  # written by the box and still in its memory


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A point-in-time copy of a volume."""

    id: str
    volume: str
    size: int
    encrypted: bool
    kms_key: str | None
    started: float
    state: str  # pending, completed, error
    owner: str
    description: str = ""
    tags: Tags = field(default_factory=dict)
    due: float = 0.0  # when it completes
    completed: float | None = None
    state_message: str | None = None
    batch: str | None = None  # the first of those that were taken in one call: one fails, all fail
    is_public: bool = False
    is_deleted: bool = False  # takes effect when it has completed
    system: System | None = None
    content: int = 0
    clean: bool = True  # False: taken from a volume that was being written


@dataclass(frozen=True, slots=True)
class Device:
    """One device of an image."""

    device: str
    snapshot: str | None
    size: int | None
    type: str
    delete_on_termination: bool
    iops: int | None = None
    throughput: int | None = None
    encrypted: bool = False


@dataclass(frozen=True, slots=True)
class Image:
    """An AMI."""

    id: str
    name: str
    owner: str
    boot: BootAttributes
    mappings: tuple[Device, ...]
    created: float
    state: str  # pending, available, failed, deregistered
    description: str = ""
    tags: Tags = field(default_factory=dict)
    is_public: bool = False
    alias: str | None = None  # of the owner: amazon
    source_instance: str | None = None
    reason: tuple[str, str] | None = None  # code and text of StateReason
    mappings_shown: float = 0.0  # from then on describes show the snapshots
    gone: float | None = None  # when it was deregistered
    shown_until: float = 0.0  # after that


@dataclass(frozen=True, slots=True)
class Instance:
    """A virtual machine."""

    id: str
    reservation: str
    image: str
    type: str
    zone: str
    subnet: str
    vpc: str
    groups: tuple[str, ...]
    private_address: str
    public_address: str | None
    launched: float  # changes with every start; whole seconds, as EC2 shows it
    state: InstanceState
    boot: BootAttributes
    tags: Tags = field(default_factory=dict)
    serial: int = 0  # of the state: what was due before a change of plan does not happen
    running_since: float | None = None
    reason: tuple[str, str] | None = None  # code and text of StateReason
    transition_reason: str = ""
    client_token: str = ""
    launch_index: int = 0
    is_protected: bool = False  # DisableApiTermination
    is_stop_protected: bool = False
    shutdown_behavior: str = "stop"
    profile: str | None = None  # ARN
    key_name: str | None = None
    user_data: str | None = None  # base64, as it came
    metadata: Mapping[str, Any] = field(default_factory=dict)
    spot: str | None = None  # what happens at an interruption: terminate or stop
    spot_is_persistent: bool = False
    is_interrupted: bool = False  # by EC2, which alone can start it again
    ebs_optimized: bool = False
    is_monitored: bool = False
    source_dest_check: bool = True
    gone: float | None = None  # when it was terminated
    boots: bool = True
    sudden_end: tuple[InstanceState, str] | None = None  # it will not run: how it ends, and the code why
    hangs: bool = False  # its OS ignores the power button


@dataclass(frozen=True, slots=True)
class Zone:
    """An availability zone."""

    name: str
    id: str


@dataclass(frozen=True, slots=True)
class Vpc:
    """A network."""

    id: str
    cidr: str
    is_default: bool = False
    tags: Tags = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Subnet:
    """A part of a network, in one zone."""

    id: str
    vpc: str
    zone: str
    cidr: str
    is_default: bool = False
    maps_public: bool = False
    tags: Tags = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SecurityGroup:
    """A firewall."""

    id: str
    name: str
    vpc: str
    description: str = ""
    ingress: tuple[Mapping[str, Any], ...] = ()
    tags: Tags = field(default_factory=dict)
