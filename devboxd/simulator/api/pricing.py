"""GetProducts of the Price List API (JSON 1.1), with the figures that devbox carries with it.

Shapes as the API has them: each product a JSON text of its own, tiers as usage types, throughput by the GiB/s.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any, Final

from devboxd.model.price import Rates, built_in
from devboxd.simulator.api.common import ApiError

_MOST: Final = 100  # products a page
_VOLUMES: Final = {"io1": "piops"}


class PricingApi:
    """GetProducts."""

    def knows(self, call: str) -> bool:
        """Whether a call is ours."""
        return call == "GetProducts"

    def answer(self, call: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Process one call.

        Raises:
            ApiError: refused.
        """
        wanted = {str(one.get("Field")): str(one.get("Value")) for one in body.get("Filters", ())}
        token, most = str(body.get("NextToken") or "0"), int(body.get("MaxResults") or _MOST)
        if not token.isdecimal() or not 1 <= most <= _MOST:
            raise ApiError("InvalidParameterException", "NextToken or MaxResults is not valid")
        found = list(_products(str(body.get("ServiceCode")), wanted))
        start = int(token)
        answer: dict[str, Any] = {"FormatVersion": "aws_v1", "PriceList": found[start : start + most]}
        if len(found) > start + most:
            answer["NextToken"] = str(start + most)
        return answer


def _products(service: str, wanted: Mapping[str, str]) -> Iterator[str]:
    rates = built_in(wanted.get("regionCode", ""))
    family = wanted.get("productFamily")
    if service == "AmazonVPC" and rates.address is not None:
        yield _product("IP Address", {"usagetype": "USE1-PublicIPv4:InUseAddress"}, "Hrs", rates.address)
    elif family == "Compute Instance":
        yield from _types(rates)
    elif family == "Storage Snapshot" and rates.snapshot is not None:
        yield _product(family, {"usagetype": "USE1-EBS:SnapshotUsage"}, "GB-Mo", rates.snapshot)
    elif family is not None:
        yield from _disks(rates, family)


def _types(rates: Rates) -> Iterator[str]:
    for one in rates.types.values():
        if one.hourly is not None:
            said = {
                "instanceType": one.name,
                "vcpu": str(one.vcpus),
                "memory": f"{one.memory_gib:g} GiB",
                "physicalProcessor": "AWS Graviton" if one.architecture == "arm64" else "Intel Xeon",
                "usagetype": f"BoxUsage:{one.name}",
            }
            yield _product("Compute Instance", said, "Hrs", one.hourly)


def _disks(rates: Rates, family: str) -> Iterator[str]:
    for name, rate in rates.volumes.items():
        kind = _VOLUMES.get(name, name)
        if family == "Storage":
            yield _product(family, {"usagetype": f"EBS:VolumeUsage.{kind}"}, "GB-Mo", rate.gib)
        elif family == "System Operation":
            for tier in rate.iops:
                above = {0: "", 32_000: ".tier2", 64_000: ".tier3"}[tier.above]
                usage = f"EBS:VolumeP-IOPS.{kind}{above}"
                yield _product(family, {"usagetype": usage}, "IOPS-Mo", tier.price)
        elif family == "Provisioned Throughput" and rate.throughput is not None:
            usage = f"EBS:VolumeP-Throughput.{kind}"
            yield _product(family, {"usagetype": usage}, "GiBps-mo", rate.throughput * 1024)


def _product(family: str, attributes: Mapping[str, str], unit: str, price: Decimal) -> str:
    dimension = {"unit": unit, "beginRange": "0", "endRange": "Inf", "pricePerUnit": {"USD": str(price)}}
    return json.dumps(
        {
            "product": {"productFamily": family, "sku": "SIMULATED", "attributes": attributes},
            "terms": {"OnDemand": {"SIMULATED.JRTCKXETXF": {"priceDimensions": {"0": dimension}}}},
        }
    )
