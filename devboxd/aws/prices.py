"""The Price List API: what one region asks for instance types, volumes, snapshots and public addresses; and the spot market.

It answers in three regions only, for all of them (endpoints of the service ``pricing``). What an entry looks like:
Price List API, "Reading a price list"; usage types as the bulk files have them, with a prefix for all regions but
us-east-1. Entries are foreign text: bounded, decoded into what we read of them, and left out where they do not fit.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

import msgspec

from devboxd.aws.calls import Calls
from devboxd.aws.clients import Callers
from devboxd.errors import BadRequest
from devboxd.model.box import Account
from devboxd.model.price import Market, Rates, Tier, TypeRate, VolumeRate

MOST_PRODUCTS: Final = 5000  # of one family in one region: there are about 1,200 instance types
ENTRY_MAX: Final = 256 * 1024  # characters of one entry: with all its reservations, about 20,000
SOURCE: Final = "AWS Price List API"
_PAGE: Final = {"PageSize": 50}  # a page of a hundred may come near the bound of one answer (aws.http.MOST)


def home(region: str) -> str:
    """The region whose endpoint answers for this one."""
    if region.startswith("eu-"):
        return "eu-central-1"
    return "ap-south-1" if region.startswith("ap-") else "us-east-1"


class _Dimension(msgspec.Struct):
    unit: str
    pricePerUnit: dict[str, str]  # as the API spells it
    beginRange: str = "0"


class _Term(msgspec.Struct):
    priceDimensions: dict[str, _Dimension]


class _Terms(msgspec.Struct):
    OnDemand: dict[str, _Term] = {}


class _Product(msgspec.Struct):
    attributes: dict[str, str]


class Entry(msgspec.Struct):
    """One product with its terms, as far as we read it."""

    product: _Product
    terms: _Terms = msgspec.field(default_factory=_Terms)

    @property
    def usage(self) -> str:
        """The usage type without the prefix of the region."""
        return _PREFIX.sub("", self.product.attributes.get("usagetype", ""))

    def prices(self) -> list[tuple[int, str, Decimal]]:
        """Where each tier begins, its unit, and its price in dollars."""
        found = [
            (int(one.beginRange), one.unit, Decimal(price))
            for term in self.terms.OnDemand.values()
            for one in term.priceDimensions.values()
            if _FIGURE.match(price := one.pricePerUnit.get("USD", "")) and _COUNT.match(one.beginRange)
        ]
        return sorted(found)


_PREFIX: Final = re.compile(r"[A-Z]{2,4}\d?-(?=EBS:|PublicIPv4:)")
_FIGURE: Final = re.compile(r"\d{1,9}(?:\.\d{1,12})?\Z")
_COUNT: Final = re.compile(r"\d{1,12}\Z")


def entries(texts: Iterable[Any]) -> list[Entry]:
    """Decode entries; those that are none are left out."""
    found = []
    for text in texts:
        if isinstance(text, str) and len(text) <= ENTRY_MAX:
            try:
                found.append(_DECODER.decode(text))
            except (msgspec.DecodeError, RecursionError):
                continue
    return found


_DECODER: Final = msgspec.json.Decoder(Entry)
_MEMORY: Final = re.compile(r"(?P<gib>\d{1,6}(?:\.\d{1,3})?) GiB\Z")
_NUMBER: Final = re.compile(r"\d{1,5}\Z")


def types(found: Iterable[Entry]) -> dict[str, TypeRate]:
    """Instance types with their hourly price on demand. One with several prices has none: nobody could say which."""
    known: dict[str, TypeRate] = {}
    doubtful: set[str] = set()
    for entry in found:
        name = entry.product.attributes.get("instanceType", "")
        prices = {price for _, unit, price in entry.prices() if unit == "Hrs" and price > 0}
        if not name or len(prices) != 1:
            continue
        rate = _type(name, entry.product.attributes, prices.pop())
        if known.setdefault(name, rate).hourly != rate.hourly:
            doubtful.add(name)
    return {name: rate for name, rate in known.items() if name not in doubtful}


def _type(name: str, said: Mapping[str, str], hourly: Decimal) -> TypeRate:
    memory = _MEMORY.match(said.get("memory", "").replace(",", ""))
    vcpus = _NUMBER.match(said.get("vcpu", ""))
    gpus = _NUMBER.match(said.get("gpu", ""))
    processor = said.get("physicalProcessor", "")
    return TypeRate(
        name,
        hourly,
        int(vcpus[0]) if vcpus else 0,
        float(memory["gib"]) if memory else 0.0,
        "arm64" if "Graviton" in processor else "x86_64" if processor else "",
        f"{gpus[0]} GPU" if gpus and gpus[0] != "0" else "",
    )


_VOLUMES: Final = {
    "EBS:VolumeUsage.gp3": "gp3",
    "EBS:VolumeUsage.gp2": "gp2",
    "EBS:VolumeUsage.io2": "io2",
    "EBS:VolumeUsage.piops": "io1",
    "EBS:VolumeUsage.st1": "st1",
    "EBS:VolumeUsage.sc1": "sc1",
    "EBS:VolumeUsage": "standard",
}
_IOPS: Final = {
    "EBS:VolumeP-IOPS.gp3": ("gp3", 0),
    "EBS:VolumeP-IOPS.piops": ("io1", 0),
    "EBS:VolumeP-IOPS.io2": ("io2", 0),
    "EBS:VolumeP-IOPS.io2.tier2": ("io2", 32_000),
    "EBS:VolumeP-IOPS.io2.tier3": ("io2", 64_000),
}
_THROUGHPUT: Final = "EBS:VolumeP-Throughput.gp3"
_SNAPSHOT: Final = "EBS:SnapshotUsage"
_ADDRESS: Final = "PublicIPv4:InUseAddress"
_FAMILIES: Final = ("Storage", "System Operation", "Provisioned Throughput", "Storage Snapshot")


def disks(found: Iterable[Entry]) -> tuple[dict[str, VolumeRate], Decimal | None]:
    """Volume types, and a GiB-month of snapshots."""
    gibs: dict[str, Decimal] = {}
    iops: dict[str, list[Tier]] = {}
    throughput = snapshot = None
    for entry in found:
        usage, prices = entry.usage, entry.prices()
        if not prices:
            continue
        if (kind := _VOLUMES.get(usage)) is not None:
            gibs[kind] = prices[0][2]
        elif (tier := _IOPS.get(usage)) is not None:
            iops.setdefault(tier[0], []).extend(Tier(tier[1] + at, price) for at, _, price in prices)
        elif usage == _THROUGHPUT:
            _, unit, price = prices[0]
            throughput = price / 1024 if unit.lower().startswith("gib") else price
        elif usage == _SNAPSHOT:
            snapshot = prices[0][2]
    rates = {
        kind: VolumeRate(
            gib,
            tuple(sorted(iops.get(kind, ()), key=lambda one: one.above)),
            throughput if kind == "gp3" else None,
        )
        for kind, gib in gibs.items()
    }
    return rates, snapshot


@dataclass(frozen=True, slots=True)
class PricesApi:
    """The prices of one region. ``account`` calls the region that answers for it."""

    account: Calls
    region: str

    async def rates(self, today: str) -> Rates:
        """All of them; about thirty calls, which cost nothing. Errors are those of ``Calls``."""
        linux = {"operatingSystem": "Linux", "preInstalledSw": "NA", "capacitystatus": "Used"}
        usual = {
            **linux,
            "tenancy": "Shared",
            "marketoption": "OnDemand",
            "productFamily": "Compute Instance",
        }
        boxes = types(entries(await self._products("AmazonEC2", usual)))
        stored: list[Entry] = []
        for family in _FAMILIES:
            stored += entries(await self._products("AmazonEC2", {"productFamily": family}))
        volumes, snapshot = disks(stored)
        addresses = entries(await self._products("AmazonVPC", {"group": "VPCPublicIPv4Address"}))
        hours = [one.prices()[0][2] for one in addresses if one.usage == _ADDRESS and one.prices()]
        address = next((price for price in hours if price > 0), None)
        return Rates(self.region, today, SOURCE, False, boxes, volumes, snapshot, address)

    async def _products(self, service: str, wanted: Mapping[str, str]) -> list[Any]:
        filters = {"regionCode": self.region, **wanted}
        return await self.account.pages(
            "pricing",
            "get_products",
            "PriceList",
            limit=MOST_PRODUCTS,
            ServiceCode=service,
            FormatVersion="aws_v1",
            Filters=[{"Type": "TERM_MATCH", "Field": key, "Value": value} for key, value in filters.items()],
            PaginationConfig=_PAGE,
        )


_LINUX: Final = "Linux/UNIX"  # ProductDescription
MOST_MARKETS: Final = 20_000  # price changes of all zones that are read at once: some three a day and zone


def markets(found: Iterable[Mapping[str, Any]]) -> tuple[Market, ...]:
    """What DescribeSpotPriceHistory says, by type and zone, the oldest price first. What is no price is left out."""
    known: dict[tuple[str, str], dict[float, Decimal]] = {}
    for one in found:
        price, at = str(one.get("SpotPrice", "")), one.get("Timestamp")
        name, zone = str(one.get("InstanceType", "")), str(one.get("AvailabilityZone", ""))
        if name and zone and isinstance(at, datetime) and _FIGURE.match(price):
            known.setdefault((name, zone), {})[at.timestamp()] = Decimal(price)
    return tuple(Market(*key, tuple(sorted(prices.items()))) for key, prices in sorted(known.items()))


@dataclass(frozen=True, slots=True)
class SpotApi:
    """The spot market of one region."""

    account: Calls

    async def markets(self, types: Sequence[str], since: float) -> tuple[Market, ...]:
        """The prices of these types in every zone, from the one that held then on (API: the last change before
        ``StartTime`` comes, too). Free of charge. Errors are those of ``Calls``.
        """
        found = await self.account.pages(
            "ec2",
            "describe_spot_price_history",
            "SpotPriceHistory",
            limit=MOST_MARKETS,
            InstanceTypes=list(types),
            ProductDescriptions=[_LINUX],
            StartTime=datetime.fromtimestamp(since, UTC),
        )
        return markets(found)


@dataclass(frozen=True, slots=True)
class AwsPrices:
    """Prices of every region, with the credentials of an account."""

    callers: Callers

    async def rates(self, account: Account, region: str, today: str) -> Rates:
        """Ask for the prices of a region. Errors are those of ``Calls``, and BadRequest where nobody can say."""
        if region.startswith(("cn-", "us-gov-")):
            raise BadRequest(f"the Price List API of this partition has no prices of {region} in dollars")
        return await PricesApi(self.callers.caller(account.profile, home(region)), region).rates(today)

    async def markets(
        self, account: Account, region: str, types: Sequence[str], since: float
    ) -> tuple[Market, ...]:
        """Ask EC2 for the spot prices of types. Errors are those of ``Calls``."""
        return await SpotApi(self.callers.caller(account.profile, region)).markets(types, since)
