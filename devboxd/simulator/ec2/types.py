"""Instance types: a small choice of every kind that makes a difference to us.

Figures from the public instance type pages; what is left out is not imitated.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final


@dataclass(frozen=True, slots=True)
class InstanceType:
    """One type. ``ena``: required (Nitro), supported or unsupported."""

    name: str
    vcpus: int
    memory_mib: int
    architecture: str = "x86_64"
    ena: str = "required"
    boot_modes: tuple[str, ...] = ("legacy-bios", "uefi")
    has_tpm: bool = True
    hypervisor: str = "nitro"
    is_burstable: bool = False
    is_current: bool = True
    gpu: str | None = None
    not_in: str = ""  # letters of the zones that do not offer it


def _arm(name: str, vcpus: int, gib: float, **more: Any) -> InstanceType:
    return InstanceType(name, vcpus, int(gib * 1024), "arm64", boot_modes=("uefi",), **more)


def _intel(name: str, vcpus: int, gib: float, **more: Any) -> InstanceType:
    return InstanceType(name, vcpus, int(gib * 1024), **more)


_ALL: Final = (
    _intel("t2.micro", 1, 1, ena="unsupported", boot_modes=("legacy-bios",), has_tpm=False, hypervisor="xen",
           is_burstable=True, is_current=True),
    _intel("t3.nano", 2, 0.5, is_burstable=True),
    _intel("t3.micro", 2, 1, is_burstable=True),
    _intel("t3.small", 2, 2, is_burstable=True),
    _intel("t3.medium", 2, 4, is_burstable=True),
    _intel("t3.large", 2, 8, is_burstable=True),
    _intel("t3.xlarge", 4, 16, is_burstable=True),
    _intel("t3a.small", 2, 2, is_burstable=True),
    _intel("m5.large", 2, 8),
    _intel("m5.xlarge", 4, 16),
    _intel("m6i.large", 2, 8),
    _intel("m7i.large", 2, 8),
    _intel("m7i.xlarge", 4, 16),
    _intel("m7i.2xlarge", 8, 32),
    _intel("c7i.large", 2, 4),
    _intel("c7i.4xlarge", 16, 32, not_in="c"),
    _intel("r7i.large", 2, 16),
    _intel("g5.xlarge", 4, 16, gpu="A10G", not_in="b"),
    _arm("t4g.nano", 2, 0.5, is_burstable=True),
    _arm("t4g.micro", 2, 1, is_burstable=True),
    _arm("t4g.small", 2, 2, is_burstable=True),
    _arm("t4g.medium", 2, 4, is_burstable=True),
    _arm("t4g.large", 2, 8, is_burstable=True),
    _arm("m7g.medium", 1, 4),
    _arm("m7g.large", 2, 8),
    _arm("m7g.xlarge", 4, 16),
    _arm("m8g.large", 2, 8, not_in="c"),
    _arm("m8g.xlarge", 4, 16, not_in="c"),
    _arm("c7g.large", 2, 4),
    _arm("c7g.4xlarge", 16, 32),
    _arm("r7g.large", 2, 16),
    _arm("g5g.xlarge", 4, 8, gpu="T4g", not_in="bc"),
)  # fmt: skip
TYPES: Final = {one.name: one for one in _ALL}


def known(name: str) -> InstanceType | None:
    """A type by name."""
    return TYPES.get(name)


def is_offered(kind: InstanceType, zone: str) -> bool:
    """Whether a zone has this type."""
    return zone[-1] not in kind.not_in


def shown(kind: InstanceType) -> dict[str, Any]:
    """As DescribeInstanceTypes shows it."""
    item: dict[str, Any] = {
        "InstanceType": kind.name,
        "CurrentGeneration": kind.is_current,
        "FreeTierEligible": kind.name in ("t2.micro", "t3.micro", "t4g.small"),
        "SupportedUsageClasses": ["on-demand", "spot"],
        "SupportedRootDeviceTypes": ["ebs"],
        "SupportedVirtualizationTypes": ["hvm"],
        "BareMetal": False,
        "Hypervisor": kind.hypervisor,
        "ProcessorInfo": {
            "SupportedArchitectures": [kind.architecture],
            "Manufacturer": "AWS" if kind.architecture == "arm64" else "Intel",
        },
        "VCpuInfo": {"DefaultVCpus": kind.vcpus},
        "MemoryInfo": {"SizeInMiB": kind.memory_mib},
        "InstanceStorageSupported": False,
        "EbsInfo": {
            "EbsOptimizedSupport": "unsupported" if kind.hypervisor == "xen" else "default",
            "EncryptionSupport": "supported",
            "NvmeSupport": "unsupported" if kind.hypervisor == "xen" else "required",
        },
        "NetworkInfo": {"EnaSupport": kind.ena, "MaximumNetworkInterfaces": 3},
        "HibernationSupported": kind.architecture == "x86_64",
        "BurstablePerformanceSupported": kind.is_burstable,
        "SupportedBootModes": list(kind.boot_modes),
        "NitroTpmSupport": "supported" if kind.has_tpm else "unsupported",
    }
    if kind.gpu is not None:
        item["GpuInfo"] = {"Gpus": [{"Name": kind.gpu, "Manufacturer": "NVIDIA", "Count": 1}]}
    return item
