"""What EC2 offers: base images by name, machine types, and places to launch into."""

from __future__ import annotations

import re
from typing import Final

import msgspec

from devboxd.errors import BadRequest
from devboxd.model.project import Boot, Disk, Network, Place

DEFAULT_TYPE: Final = "t4g.medium"
DEFAULT_BASE: Final = "ubuntu-24.04"
DEFAULT_GIB: Final = 40  # of the root volume

ANY: Final = "any"  # in place of a zone, subnet or security group: no choice any more

ARM: Final = "arm64"
INTEL: Final = "x86_64"


class Base(msgspec.Struct, frozen=True):
    """An image to begin with. ``disks`` are the volumes it makes, each with the snapshot it comes from."""

    image: str
    name: str
    boot: Boot
    disks: tuple[Disk, ...]


class MachineType(msgspec.Struct, frozen=True):
    """An instance type."""

    name: str
    architectures: tuple[str, ...]
    vcpus: int = 0
    memory_gib: float = 0.0
    boot_modes: tuple[str, ...] = ()  # empty: EC2 does not say
    needs_ena: bool = False


class Ground(msgspec.Struct, frozen=True):
    """Where boxes can be launched into, and with what. No group: the network's default one."""

    places: tuple[Place, ...]
    groups: tuple[str, ...] = ()
    profile: str | None = None
    subnets: tuple[Subnet, ...] = ()
    is_default: bool = False  # the default network of the account, not one of ``init account``


class Subnet(msgspec.Struct, frozen=True):
    """A subnet. ``is_public``: what is launched there gets an address by which it reaches AWS."""

    id: str
    zone: str
    vpc: str
    is_public: bool


class Search(msgspec.Struct, frozen=True):
    """The newest image of this owner whose name fits this pattern."""

    owner: str
    pattern: str


class Parameter(msgspec.Struct, frozen=True):
    """A public SSM parameter that holds an image id; where there is none, or nobody may read it, the image is searched."""

    path: str
    otherwise: Search


_AMI: Final = re.compile(r"ami-[0-9a-f]{8}(?:[0-9a-f]{9})?\Z")
_DPKG: Final = {ARM: "arm64", INTEL: "amd64"}
_UNAME: Final = {ARM: "aarch64", INTEL: "x86_64"}
_UBUNTU: Final = "/aws/service/canonical/ubuntu/server/{version}/stable/current/{dpkg}/hvm/ebs-{disk}/ami-id"
# Owners and names of images: Canonical's, Debian's and AWS's pages on finding theirs.
_CANONICAL, _DEBIAN, _AMAZON, _NIXOS = "099720109477", "136693071363", "amazon", "427812963091"


def _ubuntu(version: str, disk: str) -> Parameter:
    path = _UBUNTU.replace("{version}", version).replace("{disk}", disk)
    return Parameter(path, Search(_CANONICAL, f"ubuntu/images/hvm-ssd*/ubuntu-*-{version}-{{dpkg}}-server-*"))


def _debian(release: int) -> Parameter:
    path = f"/aws/service/debian/release/{release}/latest/{{dpkg}}"
    return Parameter(path, Search(_DEBIAN, f"debian-{release}-{{dpkg}}-*"))


_NAMES: Final[dict[str, Parameter | Search]] = {
    "ubuntu-26.04": _ubuntu("26.04", "gp3"),
    "ubuntu-24.04": _ubuntu("24.04", "gp3"),
    "ubuntu-22.04": _ubuntu("22.04", "gp2"),
    "debian-12": _debian(12),
    "debian-13": _debian(13),
    "al2023": Parameter(
        "/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-{arch}",
        Search(_AMAZON, "al2023-ami-2023.*-kernel-*-{arch}"),
    ),
    "nixos-25.05": Search(_NIXOS, "nixos/25.05*-{uname}-linux"),
    "nixos-25.11": Search(_NIXOS, "nixos/25.11*-{uname}-linux"),
    "deep-learning": Parameter(
        "/aws/service/deeplearning/ami/{arch}/base-oss-nvidia-driver-gpu-ubuntu-22.04/latest/ami-id",
        Search(_AMAZON, "Deep Learning {dlami}Base OSS Nvidia Driver GPU AMI (Ubuntu 22.04) *"),
    ),
}
NAMES: Final = tuple(_NAMES)
_SHORT: Final = {
    "ubuntu": "ubuntu-24.04",
    "debian": "debian-13",
    "amazon-linux": "al2023",
    "nixos": "nixos-25.11",
    "dlami": "deep-learning",
}


def is_named(base: str) -> bool:
    """Say whether this is a base image that has a newest one for each architecture."""
    return _SHORT.get(base, base) in _NAMES


def is_image_id(text: str) -> bool:
    """Say whether this is an image's id."""
    return _AMI.match(text) is not None


def where(name: str, architecture: str) -> Parameter | Search:
    """Say where the newest base image of this name is found.

    Raises:
        BadRequest: nobody knows such a name.
    """
    known = _NAMES.get(_SHORT.get(name, name))
    if known is None:
        raise BadRequest(
            f"there is no base image named {name!r}", hint=f"an image id, or one of: {', '.join(NAMES)}"
        )
    words = {
        "dpkg": _DPKG[architecture],
        "arch": architecture,
        "uname": _UNAME[architecture],
        "dlami": "ARM64 " if architecture == ARM else "",
    }
    if isinstance(known, Parameter):
        return Parameter(known.path.format(**words), _for(known.otherwise, words))
    return _for(known, words)


def _for(search: Search, words: dict[str, str]) -> Search:
    return Search(search.owner, search.pattern.format(**words))


def architecture_of(types: tuple[MachineType, ...], wanted: str | None) -> str:
    """The architecture that all these types have.

    Args:
        wanted: that of the generation that is to run, where there is one.

    Raises:
        BadRequest: they have none in common, or not that of the generation.
    """
    common = set.intersection(*(set(one.architectures) for one in types)) & {ARM, INTEL}
    names = ", ".join(one.name for one in types)
    if wanted is not None:
        if wanted not in common:
            raise BadRequest(
                f"{names} can not run what was saved on {wanted}", hint=f"choose a type with {wanted}"
            )
        return wanted
    if not common:
        raise BadRequest(f"{names} have no architecture in common")
    return ARM if ARM in common else INTEL


def check_fit(what: str, boot: Boot, machines: tuple[MachineType, ...], hint: str | None = None) -> None:
    """Raises BadRequest where one of these types can not boot what boots so. ``what``: it, in words; ``hint``: what to do."""
    for one in machines:
        if boot.architecture is not None and boot.architecture not in one.architectures:
            raise BadRequest(f"{what} is for {boot.architecture}, and {one.name} is not", hint=hint)
        wanted = {"uefi": "uefi", "legacy-bios": "legacy-bios"}.get(boot.boot_mode or "")
        if wanted is not None and one.boot_modes and wanted not in one.boot_modes:
            raise BadRequest(f"{what} boots by {wanted}, which {one.name} can not", hint=hint)
        if one.needs_ena and boot.ena is False:
            raise BadRequest(
                f"{what} has no driver for the network of {one.name}: it lacks ENA support", hint=hint
            )


def chosen(old: Network, zone: str | None, subnets: tuple[str, ...], groups: tuple[str, ...]) -> Network:
    """What is chosen of the network now: what is not said stays; ``any`` gives a choice back."""

    def said(now: tuple[str, ...], before: tuple[str, ...]) -> tuple[str, ...]:
        return () if now == (ANY,) else now or before

    return Network(
        None if zone == ANY else zone or old.zone, said(subnets, old.subnets), said(groups, old.groups)
    )


def ordered_disks(base: Base, root_gib: int | None, kms: str | None = None) -> tuple[Disk, ...]:
    """The volumes of a first launch: encrypted, gp3 unless the image says better, the root large enough.

    Args:
        kms: the key to encrypt with; None: the account's own for EBS.
    """
    return tuple(
        msgspec.structs.replace(
            disk,
            type=disk.type if disk.type in ("io1", "io2") else "gp3",
            size_gib=max(disk.size_gib, root_gib or 0)
            if disk.device == base.boot.root_device
            else disk.size_gib,
            iops=disk.iops if disk.type in ("io1", "io2") else None,
            throughput=None,
            encrypted=True,
            kms=kms,
            volume=None,
            snapshot=None,
            source=disk.snapshot,
        )
        for disk in base.disks
    )
