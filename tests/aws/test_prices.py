"""Prices: the list of AWS through botocore's own parsers, what is foreign in it, the cache on the disk, the table we carry."""

from __future__ import annotations

import importlib.util
import json
import time
from collections.abc import Callable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from devboxd.aws.clients import Callers
from devboxd.aws.prices import ENTRY_MAX, AwsPrices, disks, entries, home, types
from devboxd.control.base.shared import Shared
from devboxd.control.lifecycle.prices import Prices
from devboxd.errors import BadRequest, Denied, DevboxError
from devboxd.host.prices import SIZE_MAX, PriceFiles
from devboxd.model.box import Account
from devboxd.model.price import Market, Rates, Tier, TypeRate, built_in
from devboxd.simulator.api.pricing import PricingApi
from tests.aws.fake import Call, FakeAws, error, xml
from tests.simulator.client import until

_SPEC = importlib.util.spec_from_file_location("prices_tool", Path(__file__).parents[2] / "tools/prices.py")
assert _SPEC is not None
assert _SPEC.loader is not None
tool: Any = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(tool)


def entry(usage: str, price: str, unit: str = "Hrs", **said: str) -> str:
    """One product as the API writes it: a JSON text inside of JSON."""
    dimension = {"unit": unit, "beginRange": "0", "endRange": "Inf", "pricePerUnit": {"USD": price}}
    return json.dumps(
        {
            "product": {"productFamily": "x", "attributes": {"usagetype": usage, **said}, "sku": "ABC"},
            "serviceCode": "AmazonEC2",
            "terms": {
                "OnDemand": {"ABC.JRT": {"priceDimensions": {"ABC.JRT.6YS": dimension}, "sku": "ABC"}},
                "Reserved": {
                    "ABC.4NA": {"priceDimensions": {}, "termAttributes": {"LeaseContractLength": "1yr"}}
                },
            },
            "version": "20261120",
            "publicationDate": "2026-11-20T00:00:00Z",
        }
    )


def test_usage_types_of_every_region_are_read() -> None:
    """Only us-east-1 has them without a prefix. Throughput is priced by the GiB/s, tiers are usage types."""
    found, snapshot = disks(
        entries(
            [
                entry("EUC1-EBS:VolumeUsage.gp3", "0.0952000000", "GB-Mo"),
                entry("EUC1-EBS:VolumeP-IOPS.gp3", "0.0060000000", "IOPS-Mo"),
                entry("EUC1-EBS:VolumeP-Throughput.gp3", "48.7424000000", "GiBps-mo"),
                entry("EBS:VolumeUsage.piops", "0.125", "GB-Mo"),
                entry("EBS:VolumeUsage.io2", "0.125", "GB-month"),
                entry("EBS:VolumeP-IOPS.io2.tier3", "0.03185", "IOPS-Mo"),
                entry("EBS:VolumeP-IOPS.io2", "0.065", "IOPS-Mo"),
                entry("EBS:VolumeP-IOPS.io2.tier2", "0.0455", "IOPS-Mo"),
                entry("EU-EBS:SnapshotUsage", "0.05", "GB-Mo"),
                entry("EU-EBS:SnapshotArchiveStorage", "0.0125", "GB-Mo"),
            ]
        )
    )
    assert (found["gp3"].gib, found["gp3"].throughput) == (Decimal("0.0952"), Decimal("0.0476"))
    assert found["io1"].gib == Decimal("0.125")
    assert found["io2"].iops == (
        Tier(0, Decimal("0.065")),
        Tier(32_000, Decimal("0.0455")),
        Tier(64_000, Decimal("0.03185")),
    )
    assert snapshot == Decimal("0.05")


def test_a_type_with_two_prices_has_none() -> None:
    """Nobody could say which of them is asked for."""
    said = {"instanceType": "m7g.large", "vcpu": "2", "memory": "8 GiB", "physicalProcessor": "AWS Graviton3"}
    one = entry("BoxUsage:m7g.large", "0.0816", **said)
    assert types(entries([one, one])) == {
        "m7g.large": TypeRate("m7g.large", Decimal("0.0816"), 2, 8.0, "arm64")
    }
    assert types(entries([one, entry("BoxUsage:m7g.large", "0.09", **said)])) == {}
    big = {**said, "memory": "1,952 GiB", "gpu": "8"}
    found = types(entries([entry("BoxUsage:m7g.large", "24.48", **big)]))["m7g.large"]
    assert (found.memory_gib, found.gpu) == (1952.0, "8 GPU")


@pytest.mark.parametrize(
    "foreign",
    [
        "",
        "nonsense",
        "[1, 2]",
        '{"product": {"attributes": {"usagetype": 7}}}',
        '{"product": 3}',
        17,
        None,
        entry("BoxUsage:x", "NaN", instanceType="x"),
        entry("BoxUsage:x", "-1", instanceType="x"),
        entry("BoxUsage:x", "1e99", instanceType="x"),
        entry("BoxUsage:x", "0.0000000000", instanceType="x"),
        "[" * 200_000,
        '"' + "x" * ENTRY_MAX + '"',
    ],
)
def test_what_is_no_price_is_left_out(foreign: object) -> None:
    began = time.monotonic()
    assert types(entries([foreign])) == {}
    assert disks(entries([foreign])) == ({}, None)
    assert time.monotonic() - began < 2.0


def test_the_endpoint_that_answers_for_a_region() -> None:
    assert [home(one) for one in ("eu-west-3", "ap-south-2", "us-west-2", "sa-east-1", "me-south-1")] == [
        "eu-central-1", "ap-south-1", "us-east-1", "us-east-1", "us-east-1",
    ]  # fmt: skip


def list_of(aws: FakeAws) -> None:
    """The API with the figures that the simulator has, page by page."""
    api = PricingApi()
    aws.on("GetProducts", lambda call: api.answer("GetProducts", {**call.body, "MaxResults": 40}))


async def test_a_region_through_botocore(aws: FakeAws, dummy: None, callers: Callers) -> None:
    """Signed for the region that answers, all pages of it, with the same figures at the end."""
    list_of(aws)
    found = await AwsPrices(callers).rates(Account(None, "eu-west-1"), "eu-west-1", "2026-11-26")
    carried = built_in("eu-west-1")
    assert found.types.keys() == {name for name, one in carried.types.items() if one.hourly is not None}
    assert {name: one.hourly for name, one in found.types.items()} == {
        name: one.hourly for name, one in carried.types.items() if one.hourly is not None
    }
    assert found.types["t4g.medium"].architecture == "arm64"
    assert found.volumes == carried.volumes
    assert (found.snapshot, found.address) == (carried.snapshot, carried.address)
    assert (found.date, found.built_in) == ("2026-11-26", False)
    calls = aws.made("GetProducts")
    assert {call.service for call in calls} == {"pricing"}
    assert all("eu-central-1/pricing" in call.headers["Authorization"] for call in calls)
    assert any(call.body.get("NextToken") for call in calls), "there is more than one page of types"


async def test_a_partition_without_dollars_is_not_asked(aws: FakeAws, dummy: None, callers: Callers) -> None:
    with pytest.raises(BadRequest):
        await AwsPrices(callers).rates(Account(), "cn-north-1", "2026-11-26")
    assert aws.calls == []


# The disk ---------------------------------------------------------------------------------------------------


def test_what_is_kept_comes_back_to_the_last_digit(tmp_path: Path) -> None:
    files, rates = PriceFiles(tmp_path / "prices"), built_in("sa-east-1")
    assert files.read("sa-east-1") is None
    files.save(12.5, rates)
    assert files.read("sa-east-1") == (12.5, rates)
    assert (tmp_path / "prices").stat().st_mode & 0o077 == 0
    assert (tmp_path / "prices" / "sa-east-1.json").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    "content", [b"", b"{", b"null", b"[]", b'{"fetched": 1, "rates": {}}', b"x" * (SIZE_MAX + 1)]
)
def test_a_spoilt_file_is_no_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "eu-west-1.json").write_bytes(content)
    assert PriceFiles(tmp_path).read("eu-west-1") is None


def test_no_name_leaves_the_folder(tmp_path: Path) -> None:
    files = PriceFiles(tmp_path / "prices")
    for name in ("../evil", "", "eu-west-1/../../x", "eu-west-1\n"):
        assert files.read(name) is None
        files.save(1.0, Rates(name, "2026-11-26", "x"))
    assert not (tmp_path / "prices").exists()


# At hand ----------------------------------------------------------------------------------------------------


class Lists:
    """The Price List API, as slow and as refusing as a test wants."""

    def __init__(self, answer: Callable[[str], Rates] | DevboxError) -> None:
        self.answer, self.asked = answer, 0

    async def rates(self, account: Account, region: str, today: str) -> Rates:
        self.asked += 1
        if isinstance(self.answer, DevboxError):
            raise self.answer
        return self.answer(today)

    async def markets(
        self, account: Account, region: str, types: Sequence[str], since: float
    ) -> tuple[Market, ...]:
        self.asked += 1
        self.since = since
        if isinstance(self.answer, DevboxError):
            raise self.answer
        return tuple(
            Market(one, region + "a", ((since, Decimal("0.03")),)) for one in types if one != "x1.odd"
        )


class Ticks:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def wall(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now


def dearer(today: str) -> Rates:
    one = TypeRate("m7g.large", Decimal("9.99"))
    return Rates("eu-west-1", today, "AWS Price List API", types={"m7g.large": one})


async def test_prices_are_asked_for_once_a_day_and_nobody_waits(tmp_path: Path) -> None:
    clock, lists = Ticks(), Lists(dearer)
    prices = Prices(shared := Shared.of(clock), lists, PriceFiles(tmp_path))
    assert prices.of("eu-west-1").built_in
    prices.freshen(Account(), ["eu-west-1", "eu-west-1", ""])
    assert prices.of("eu-west-1").built_in, "nobody waits"
    await until(lambda: not prices.of("eu-west-1").built_in)
    fresh = prices.of("eu-west-1")
    assert (str(fresh.hourly("m7g.large")), fresh.date) == ("9.99", "2027-01-15")
    assert fresh.hourly("t4g.medium") == built_in("eu-west-1").hourly("t4g.medium"), "what it lacks is ours"
    clock.now += 86399
    prices.freshen(Account(), ["eu-west-1"])
    again = Prices(shared, lists, PriceFiles(tmp_path))  # a daemon that starts anew
    again.freshen(Account(), ["eu-west-1"])
    assert str(again.of("eu-west-1").hourly("m7g.large")) == "9.99"
    assert lists.asked == 1
    clock.now += 2
    again.freshen(Account(), ["eu-west-1"])
    await until(lambda: lists.asked == 2)
    await shared.tasks.stop()


async def test_without_the_permission_the_table_stays_and_says_so(tmp_path: Path) -> None:
    clock, lists = Ticks(), Lists(Denied("AWS does not allow pricing:GetProducts"))
    prices = Prices(shared := Shared.of(clock), lists, PriceFiles(tmp_path))
    for _ in range(3):
        prices.freshen(Account(), ["eu-west-1"])
        await until(lambda: bool(prices.problem("eu-west-1")))
    assert lists.asked == 1, "refused is refused for a day"
    assert "pricing:GetProducts" in prices.problem("eu-west-1")
    assert prices.of("eu-west-1").built_in
    clock.now += 86401
    with pytest.raises(Denied):
        await prices.refresh(Account(), "eu-west-1")
    await shared.tasks.stop()


# The spot market --------------------------------------------------------------------------------------------


HISTORY = """<DescribeSpotPriceHistoryResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/"><requestId>r</requestId>
<spotPriceHistorySet>{}</spotPriceHistorySet><nextToken>{}</nextToken></DescribeSpotPriceHistoryResponse>"""


def change(price: str, at: str, zone: str = "eu-west-1a") -> str:
    return (
        f"<item><instanceType>m7g.large</instanceType><productDescription>Linux/UNIX</productDescription>"
        f"<spotPrice>{price}</spotPrice><timestamp>{at}</timestamp><availabilityZone>{zone}</availabilityZone></item>"
    )


async def test_the_spot_market_is_asked_by_type_and_read_page_by_page(aws: FakeAws, callers: Callers) -> None:
    """Requests that botocore's validator takes, answers that its parser has read."""
    first = change("0.0310", "2026-11-26T12:00:00.000Z") + change(
        "0.0299", "2026-11-26T09:00:00.000Z", "eu-west-1b"
    )
    second = change("0.0300", "2026-11-20T00:00:00.000Z") + change("free", "2026-11-21T00:00:00.000Z")
    aws.on("DescribeSpotPriceHistory", xml(HISTORY.format(first, "more")), xml(HISTORY.format(second, "")))
    found = await AwsPrices(callers).markets(Account(), "eu-west-1", ["m7g.large"], 1_795_000_000.0)
    assert [(one.type, one.zone, [str(price) for _, price in one.prices]) for one in found] == [
        ("m7g.large", "eu-west-1a", ["0.0300", "0.0310"]),
        ("m7g.large", "eu-west-1b", ["0.0299"]),
    ]
    asked = aws.made("DescribeSpotPriceHistory")
    assert len(asked) == 2
    assert asked[0].body["InstanceType.1"] == "m7g.large"
    assert asked[0].body["ProductDescription.1"] == "Linux/UNIX"
    assert asked[0].body["StartTime"].startswith("2026-11-18T")


async def test_spot_prices_are_asked_for_once_an_hour_and_say_of_when_they_are(tmp_path: Path) -> None:
    clock, lists = Ticks(), Lists(dearer)
    prices = Prices(shared := Shared.of(clock), lists, PriceFiles(tmp_path))
    assert prices.market("eu-west-1") == (None, "")
    for _ in range(3):
        prices.follow(Account(), "eu-west-1", ["m7g.large", "m7g.large", ""])
    await until(lambda: prices.market("eu-west-1")[0] is not None)
    (found,) = prices.of("eu-west-1").market("m7g.large", "eu-west-1a")
    assert str(found.prices[0][1]) == "0.03"
    assert prices.of("eu-west-1").market("m7g.large", "eu-west-1c") == ()
    assert (lists.asked, prices.market("eu-west-1")) == (1, (clock.now, ""))
    clock.now += 3599
    prices.follow(Account(), "eu-west-1", ["m7g.large"])
    clock.now += 2
    prices.follow(Account(), "eu-west-1", ["m7g.large"])
    await until(lambda: lists.asked == 2)
    prices.freshen(Account(), ["eu-west-1"])  # a new price list keeps the market
    await until(lambda: not prices.of("eu-west-1").built_in)
    assert prices.of("eu-west-1").market("m7g.large", "")
    prices.follow(Account(), "eu-west-1", ["x1.odd"])
    await until(lambda: "x1.odd" in prices.market("eu-west-1")[1])
    lists.answer = Denied("AWS does not allow ec2:DescribeSpotPriceHistory")
    clock.now += 3601
    prices.follow(Account(), "eu-west-1", ["m7g.large"])
    await until(lambda: "does not allow" in prices.market("eu-west-1")[1])
    assert prices.of("eu-west-1").market("m7g.large", ""), "what was known stays"
    await shared.tasks.stop()


# The table --------------------------------------------------------------------------------------------------


def test_the_table_is_as_its_tool_writes_it() -> None:
    """What tools/prices.py would write of what it says now is what stands there."""
    assert tool.TABLE.read_text("utf-8") == tool.current()


async def test_the_tool_renews_it(aws: FakeAws, dummy: None, callers: Callers, monkeypatch: Any) -> None:
    """From an API that has become dearer, names of GPUs kept."""
    api = PricingApi()

    def answer(call: Call) -> dict[str, Any]:
        found = api.answer("GetProducts", call.body)
        texts = [one.replace('{"USD": "', '{"USD": "1') for one in found["PriceList"]]
        return {**found, "PriceList": texts}

    aws.on("GetProducts", answer)
    monkeypatch.setattr(tool, "carried", lambda: {"eu-west-1": built_in("eu-west-1")})
    found = await tool.fetched(None, ["t4g.medium", "g5.xlarge"], "2026-11-26")
    text = tool.render(found, ["t4g.medium", "g5.xlarge"], "2026-11-26", "a", "b")
    usual = built_in("eu-west-1").hourly("t4g.medium")
    assert f"t4g.medium 2 4 arm64 - 1{usual}\n" in text
    assert "g5.xlarge 4 16 x86_64 1xA10G 1" in text
    assert 'DATE: Final = "2026-11-26"' in text


async def test_a_refusal_of_the_api_is_one_of_ours(aws: FakeAws, dummy: None, callers: Callers) -> None:
    aws.on("GetProducts", error("AccessDeniedException", "not authorized to perform: pricing:GetProducts"))
    with pytest.raises(Denied, match="GetProducts"):
        await AwsPrices(callers).rates(Account(), "eu-west-1", "2026-11-26")
