"""What is there before anybody comes: public images with their SSM parameters, and the default network.

Names, owners and parameters are those of the real publishers; ids are made of the names, so they are
the same in every run.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import Final

from devboxd.simulator.ec2.records import (
    BootAttributes,
    Device,
    Image,
    SecurityGroup,
    Snapshot,
    Subnet,
    System,
    Vpc,
    Zone,
)
from devboxd.simulator.ec2.region import Region

_AMAZON, _CANONICAL, _DEBIAN, _NIXOS = "137112412989", "099720109477", "136693071363", "427812963091"
_DEEP_LEARNING, _RED_HAT = "898082745236", "309956199498"


@dataclass(frozen=True, slots=True)
class Published:
    """A line of public images. ``{a}``: the architecture's name, ``{d}``: the date of a version."""

    name: str
    owner: str
    words: dict[str, str]  # architecture -> how the publisher writes it
    parameter: str | None = None  # the SSM parameter that names the newest
    alias: str | None = None
    root: str = "/dev/xvda"
    size: int = 8
    boot_mode: str | None = "uefi-preferred"
    imds: str | None = "v2.0"
    details: str = "Linux/UNIX"
    operation: str = "RunInstances"
    dates: tuple[str, ...] = ("20250301", "20250915")


_PLAIN: Final = {"arm64": "arm64", "x86_64": "x86_64"}
_DPKG: Final = {"arm64": "arm64", "x86_64": "amd64"}
PUBLISHED: Final = (
    Published(
        "al2023-ami-2023.8.{d}.0-kernel-6.1-{a}", _AMAZON, _PLAIN,
        "/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-{a}", alias="amazon",
    ),
    Published(
        "ubuntu/images/hvm-ssd-gp3/ubuntu-noble-24.04-{a}-server-{d}", _CANONICAL, _DPKG,
        "/aws/service/canonical/ubuntu/server/24.04/stable/current/{a}/hvm/ebs-gp3/ami-id",
        alias="amazon", root="/dev/sda1",
    ),
    Published(
        "ubuntu/images/hvm-ssd/ubuntu-jammy-22.04-{a}-server-{d}", _CANONICAL, _DPKG,
        "/aws/service/canonical/ubuntu/server/22.04/stable/current/{a}/hvm/ebs-gp2/ami-id",
        alias="amazon", root="/dev/sda1", imds=None,
    ),
    Published(
        "debian-12-{a}-{d}-2100", _DEBIAN, _DPKG, "/aws/service/debian/release/12/latest/{a}",
        imds=None,
    ),
    Published(
        "debian-13-{a}-{d}-2200", _DEBIAN, _DPKG, "/aws/service/debian/release/13/latest/{a}",
    ),
    Published(
        "nixos/25.05.{d}.0000000-{a}", _NIXOS, {"arm64": "aarch64-linux", "x86_64": "x86_64-linux"},
        boot_mode=None, imds=None, size=5,
    ),
    Published(
        "Deep Learning Base OSS Nvidia Driver GPU AMI (Ubuntu 22.04) {d}", _DEEP_LEARNING, {"x86_64": "x86_64"},
        "/aws/service/deeplearning/ami/{a}/base-oss-nvidia-driver-gpu-ubuntu-22.04/latest/ami-id",
        alias="amazon", root="/dev/sda1", size=65,
    ),
    Published(
        "RHEL-9.4.0_HVM-{d}-{a}-82-Hourly2-GP3", _RED_HAT, _PLAIN, alias="amazon", root="/dev/sda1", size=10,
        details="Red Hat Enterprise Linux", operation="RunInstances:0010",
    ),
    Published(
        "ubuntu/images/hvm-ssd-gp3/ubuntu-resolute-26.04-{a}-server-{d}", _CANONICAL, _DPKG,
        "/aws/service/canonical/ubuntu/server/26.04/stable/current/{a}/hvm/ebs-gp3/ami-id",
        alias="amazon", root="/dev/sda1",
    ),
    Published(
        "nixos/25.11.{d}.0000000-{a}", _NIXOS, {"arm64": "aarch64-linux", "x86_64": "x86_64-linux"},
        boot_mode=None, imds=None, size=5,
    ),
    Published(
        "Deep Learning ARM64 Base OSS Nvidia Driver GPU AMI (Ubuntu 22.04) {d}", _DEEP_LEARNING, {"arm64": "arm64"},
        "/aws/service/deeplearning/ami/{a}/base-oss-nvidia-driver-gpu-ubuntu-22.04/latest/ami-id",
        alias="amazon", root="/dev/sda1", size=65,
    ),
)  # fmt: skip
_ZONE_IDS: Final = (6, 1, 2, 4, 3, 5)  # zone a is not use1-az1 in every account


def populate(region: Region, zones: int) -> None:
    """Put the public images and the default network in place."""
    for line, architecture, date in _versions():
        _publish(region, line, architecture, date)
    _default_network(region, zones)


def parameters(region: str) -> dict[str, str]:
    """The public SSM parameters: name to image id, for the newest of each line."""
    return {
        line.parameter.format(a=line.words[architecture]): _id("ami", region, _name(line, architecture, date))
        for line, architecture, date in _versions()
        if line.parameter is not None and date == line.dates[-1]
    }


def newest(region: str, line: int, architecture: str) -> str:
    """The id of the newest image of a line of ``PUBLISHED``."""
    published = PUBLISHED[line]
    return _id("ami", region, _name(published, architecture, published.dates[-1]))


def _versions() -> Iterator[tuple[Published, str, str]]:
    for line in PUBLISHED:
        for architecture in line.words:
            for date in line.dates:
                yield line, architecture, date


def _name(line: Published, architecture: str, date: str) -> str:
    return line.name.format(a=line.words[architecture], d=date)


def _id(prefix: str, region: str, name: str) -> str:
    return f"{prefix}-{sha256(f'{region}/{name}'.encode()).hexdigest()[:17]}"


def _publish(region: Region, line: Published, architecture: str, date: str) -> None:
    name = _name(line, architecture, date)
    born = datetime.strptime(date, "%Y%m%d").replace(tzinfo=UTC).timestamp()
    snapshot = Snapshot(
        id=_id("snap", region.name, name),
        volume="vol-ffffffff",
        size=line.size,
        encrypted=False,
        kms_key=None,
        started=born,
        state="completed",
        owner=line.owner,
        completed=born + 60,
        is_public=True,
        system=System(architecture, "both" if architecture == "x86_64" else "uefi"),
    )
    mode = None if architecture == "arm64" and line.boot_mode is None else line.boot_mode
    if architecture == "arm64" and mode is not None:
        mode = "uefi"
    boot = BootAttributes(
        architecture=architecture, boot_mode=mode, ena=True, tpm=None, imds=line.imds,
        platform_details=line.details, usage_operation=line.operation, root_device=line.root,
    )  # fmt: skip
    image = Image(
        id=_id("ami", region.name, name),
        name=name,
        owner=line.owner,
        boot=boot,
        mappings=(Device(line.root, snapshot.id, line.size, "gp3", delete_on_termination=True),),
        created=born,
        state="available",
        is_public=True,
        alias=line.alias,
    )
    region.put(snapshot)
    region.put(image)


def _default_network(region: Region, zones: int) -> None:
    nets = region.networks
    short = "".join(part[0] for part in region.name.split("-")[:2]) + region.name[-1]
    nets.zones = [
        Zone(f"{region.name}{letter}", f"{short}-az{number}")
        for letter, number in zip("abcdef"[:zones], _ZONE_IDS, strict=False)
    ]
    vpc = Vpc(_id("vpc", region.name, "default"), "172.31.0.0/16", is_default=True)
    nets.vpcs[vpc.id] = vpc
    for number, zone in enumerate(nets.zones):
        subnet_id = _id("subnet", region.name, zone.name)
        nets.subnets[subnet_id] = Subnet(
            subnet_id, vpc.id, zone.name, f"172.31.{number * 16}.0/20", is_default=True, maps_public=True
        )
    group = _id("sg", region.name, "default")
    nets.groups[group] = SecurityGroup(group, "default", vpc.id, "default VPC security group")
