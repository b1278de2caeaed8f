"""What AWS asks for: rates of one region, in US dollars, as decimals. Nothing here is a float.

Source of the shapes: the Price List API (services AmazonEC2 and AmazonVPC) and aws.amazon.com/ebs/pricing. What is
not in a table is not known: it is named to whoever asks, and never taken to be free.
"""

from __future__ import annotations

import re
from decimal import Decimal
from functools import lru_cache
from typing import Final

import msgspec

from devboxd.model import price_table

HOUR: Final = 3600
GP3_IOPS: Final = 3000  # that gp3 has in its price (aws.amazon.com/ebs/pricing)
GP3_THROUGHPUT: Final = 125  # MiB/s


class TypeRate(msgspec.Struct, frozen=True):
    """An instance type. ``hourly``: on demand, Linux, shared hardware; None: not known, or not offered there."""

    name: str
    hourly: Decimal | None = None
    vcpus: int = 0
    memory_gib: float = 0.0
    architecture: str = ""
    gpu: str = ""  # as ``1 A10G``; empty: none


class Tier(msgspec.Struct, frozen=True):
    """What each provisioned I/O operation per second above ``above`` costs, a month."""

    above: int
    price: Decimal


class VolumeRate(msgspec.Struct, frozen=True):
    """A volume type. Months are calendar months. ``throughput``: of each MiB/s above what is in the price."""

    gib: Decimal
    iops: tuple[Tier, ...] = ()
    throughput: Decimal | None = None


class Market(msgspec.Struct, frozen=True):
    """What the spot market asked for a type in a zone: ``(from when on, dollars an hour)``, the oldest first."""

    type: str
    zone: str
    prices: tuple[tuple[float, Decimal], ...]


class Rates(msgspec.Struct, frozen=True):
    """All that is known of one region. ``date``: the day that the figures are of; ``source``: whose they are.

    ``markets``: of spot instances; they are of another hour than the rest.
    """

    region: str
    date: str
    source: str
    built_in: bool = False
    types: dict[str, TypeRate] = {}
    volumes: dict[str, VolumeRate] = {}
    snapshot: Decimal | None = None  # GiB-month, standard tier
    address: Decimal | None = None  # hour of a public IPv4 address
    markets: tuple[Market, ...] = ()

    def market(self, type_: str, zone: str) -> tuple[Market, ...]:
        """What is known of the spot market of a type: of that zone, or of every zone where it is empty."""
        return tuple(
            one for one in self.markets if one.type == type_ and zone in ("", one.zone) and one.prices
        )

    def hourly(self, type_: str) -> Decimal | None:
        """The hourly price of a type."""
        found = self.types.get(type_)
        return found.hourly if found is not None else None

    def volume(self, kind: str, gib: int, iops: int | None, throughput: int | None) -> Decimal | None:
        """A month of a volume; None where one of its prices is not known."""
        rate = self.volumes.get(kind)
        if rate is None:
            return None
        total = rate.gib * gib
        wanted = (iops or 0) - (GP3_IOPS if kind == "gp3" else 0)
        if wanted > 0 and kind in ("gp3", "io1", "io2"):
            if not rate.iops:
                return None
            total += _tiers(rate.iops, wanted)
        more = (throughput or 0) - GP3_THROUGHPUT
        if kind == "gp3" and more > 0:
            if rate.throughput is None:
                return None
            total += rate.throughput * more
        return total

    def over(self, older: Rates) -> Rates:
        """These rates, with what they lack taken from older ones."""
        known = {**older.types}
        for name, one in self.types.items():
            before = older.types.get(name)
            known[name] = one if before is None else _better(one, before)
        return Rates(
            self.region,
            self.date,
            self.source,
            self.built_in,
            known,
            {**older.volumes, **self.volumes},
            self.snapshot if self.snapshot is not None else older.snapshot,
            self.address if self.address is not None else older.address,
        )


def _better(one: TypeRate, before: TypeRate) -> TypeRate:
    """The newer price, where there is one. The API counts GPUs, and does not name them."""
    gpu = before.gpu if one.gpu.endswith(" GPU") and before.gpu else one.gpu
    return msgspec.structs.replace(one, gpu=gpu, hourly=before.hourly if one.hourly is None else one.hourly)


class Wanted(msgspec.Struct, frozen=True):
    """Which types somebody looks for: at least so much, at most that price of an hour. None: whatever."""

    architecture: str | None = None
    vcpus: int | None = None
    memory_gib: float | None = None
    gpu: bool | None = None
    most: Decimal | None = None
    name: str = ""  # how it begins


def matching(rates: Rates, wanted: Wanted) -> list[TypeRate]:
    """The types with a price there that are as wanted, the cheapest first."""
    found = [
        one
        for one in rates.types.values()
        if one.hourly is not None
        and wanted.architecture in (None, one.architecture)
        and one.vcpus >= (wanted.vcpus or 0)
        and one.memory_gib >= (wanted.memory_gib or 0)
        and (wanted.gpu is None or bool(one.gpu) is wanted.gpu)
        and (wanted.most is None or one.hourly <= wanted.most)
        and one.name.startswith(wanted.name)
    ]
    return sorted(found, key=lambda one: (one.hourly or Decimal(0), one.name))


def _tiers(tiers: tuple[Tier, ...], wanted: int) -> Decimal:
    """Each tier takes what is above its own beginning and below the next one's."""
    total, ordered = Decimal(0), sorted(tiers, key=lambda tier: tier.above)
    for number, tier in enumerate(ordered):
        end = ordered[number + 1].above if number + 1 < len(ordered) else wanted
        total += tier.price * max(0, min(wanted, end) - tier.above)
    return total


# us-east-1a; a local zone is us-west-2-lax-1a, a wavelength zone us-east-1-wl1-bos-wlz-1.
_ZONE: Final = re.compile(r"(?P<region>[a-z]{2,}(?:-[a-z]+)+-\d)(?:(?P<ordinary>[a-z])|-[a-z0-9-]+)\Z")


def region_of(zone: str | None) -> str | None:
    """The region of a zone; None for what is no ordinary zone (a local zone has prices of its own)."""
    match = _ZONE.match(zone or "")
    return match["region"] if match and match["ordinary"] else None


def parent_region(zone: str) -> str | None:
    """The region that any zone belongs to, also a local or a wavelength zone; None: that is no zone."""
    match = _ZONE.match(zone)
    return match["region"] if match else None


@lru_cache(maxsize=64)
def built_in(region: str) -> Rates:
    """What we carry with us of a region. One that we know nothing of has rates with nothing in them."""
    column = price_table.REGIONS.index(region) if region in price_table.REGIONS else None
    types = {}
    for name, vcpus, memory, architecture, gpu, *figures in map(str.split, price_table.TYPES.splitlines()):
        hourly = _figure(figures[column]) if column is not None else None
        gpus = "" if gpu == "-" else gpu.replace("x", " ", 1)
        types[name] = TypeRate(name, hourly, int(vcpus), float(memory), architecture, gpus)
    disks = price_table.DISKS.get(region)
    volumes = {} if disks is None else _volumes(disks)
    snapshot = _figure(price_table.SNAPSHOTS.get(region, "-"))
    address = Decimal(price_table.ADDRESS) if column is not None else None
    source = f"built in; types: {price_table.SOURCE}; disks: {price_table.DISK_SOURCE}"
    return Rates(region, price_table.DATE, source, True, types, volumes, snapshot, address)


def _volumes(row: str) -> dict[str, VolumeRate]:
    """``gp3 gp2 io2 io1 st1 sc1 | gp3 IOPS, throughput | io2 IOPS in three tiers | io1 IOPS``."""
    gibs, gp3, io2, io1 = (part.split() for part in row.split("|"))
    iops: dict[str, tuple[Tier, ...]] = {"gp3": (Tier(0, Decimal(gp3[0])),)}
    if io2 != ["-"]:
        iops["io2"] = tuple(Tier(at, Decimal(one)) for at, one in zip((0, 32_000, 64_000), io2, strict=True))
    iops["io1"] = (Tier(0, Decimal(io1[0])),)
    found = {}
    for name, text in zip(price_table.VOLUMES, gibs, strict=True):
        if (gib := _figure(text)) is not None:
            throughput = _figure(gp3[1]) if name == "gp3" else None
            found[name] = VolumeRate(gib, iops.get(name, ()), throughput)
    return found


def _figure(text: str) -> Decimal | None:
    return None if text == "-" else Decimal(text)
