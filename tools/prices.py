"""Renew the prices that devbox carries with it: ``tools/prices.py [PROFILE]`` asks the Price List API for each region.

The types and regions of ``devboxd/model/price_table.py`` stay; ``--add TYPE`` takes one more in. The API is free, and
wants credentials that may call pricing:GetProducts. Without ``--write`` it prints the differences only.
"""

from __future__ import annotations

import argparse
import asyncio
import difflib
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

from devboxd.aws.clients import Callers
from devboxd.aws.prices import SOURCE, AwsPrices
from devboxd.host.clock import Clock
from devboxd.model import price_table
from devboxd.model.box import Account
from devboxd.model.price import Rates, TypeRate, built_in

TABLE = Path(__file__).parents[1] / "devboxd/model/price_table.py"
HEAD = '''\
"""Prices that we carry with us, for while AWS can not be asked. Written by tools/prices.py; do not edit.

US dollars, on demand, Linux, shared hardware; ``-``: not known. See docs/cost.md for where they come from.
"""

from __future__ import annotations

from typing import Final
'''


def figure(value: Decimal | None) -> str:
    """A price as it stands in the table."""
    return "-" if value is None else format(value.normalize(), "f")


def render(rates: Mapping[str, Rates], names: Sequence[str], date: str, types: str, disks: str) -> str:
    """The table as a module. ``date``: of the oldest figure; ``types``, ``disks``: where they come from."""
    addresses = {figure(one.address) for one in rates.values()}
    assert len(addresses) == 1, "a public address costs the same everywhere, so far"
    lines = [
        HEAD,
        f'DATE: Final = "{date}"  # the oldest of the figures on types',
        f'SOURCE: Final = "{types}"',
        f'DISK_SOURCE: Final = "{disks}"',
        "REGIONS: Final = (",
        *(f'    "{region}",' for region in rates),
        ")",
        f'ADDRESS: Final = "{addresses.pop()}"  # hour of a public IPv4 address, the same in all of these regions',
        "",
        "# GiB-month of the standard tier.",
        "SNAPSHOTS: Final = {",
        *(f'    "{region}": "{figure(one.snapshot)}",' for region, one in rates.items()),
        "}",
        "",
        "# GiB-months of the types of VOLUMES | gp3: IOPS-month, MiB/s-month |"
        " io2: IOPS-month up to 32,000, 64,000, above | io1.",
        "VOLUMES: Final = (" + ", ".join(f'"{name}"' for name in price_table.VOLUMES) + ")",
        "DISKS: Final = {",
        *(f'    "{region}": "{_disks(one)}",' for region, one in rates.items()),
        "}",
        "",
        "# Name, vCPUs, GiB of memory, architecture, GPUs or -, and the price of an hour in each of REGIONS.",
        'TYPES: Final = """\\',
        *(_type(name, rates) for name in names),
        '"""',
        "",
    ]
    return "\n".join(lines)


def _disks(one: Rates) -> str:
    """The volumes of a region in a line: see ``model.price``."""
    gibs = " ".join(figure(one.volumes[n].gib if n in one.volumes else None) for n in price_table.VOLUMES)
    tiers = {name: [figure(tier.price) for tier in rate.iops] or ["-"] for name, rate in one.volumes.items()}
    gp3 = f"{tiers['gp3'][0]} {figure(one.volumes['gp3'].throughput)}"
    return f"{gibs} | {gp3} | {' '.join(tiers.get('io2', ['-']))} | {tiers.get('io1', ['-'])[0]}"


def _type(name: str, rates: Mapping[str, Rates]) -> str:
    known = next(one.types[name] for one in rates.values() if name in one.types)
    said = (
        f"{name} {known.vcpus} {known.memory_gib:g} {known.architecture} {known.gpu.replace(' ', 'x') or '-'}"
    )
    return " ".join([said, *(figure(one.hourly(name)) for one in rates.values())])


def carried() -> dict[str, Rates]:
    """What the table says now."""
    return {region: built_in(region) for region in price_table.REGIONS}


def current() -> str:
    """The table as this tool would write what it says now: a test compares it with the file."""
    rates = carried()
    names = list(next(iter(rates.values())).types)
    return render(rates, names, price_table.DATE, price_table.SOURCE, price_table.DISK_SOURCE)


async def fetched(profile: str | None, names: Sequence[str], today: str) -> dict[str, Rates]:
    """The same regions, as the API has them today; what it lacks stays as it was."""
    callers = Callers(Clock())
    found = {}
    try:
        for region, old in carried().items():
            new = (await AwsPrices(callers).rates(Account(profile, region), region, today)).over(old)
            kept = {name: _named(new.types[name], old) for name in names if name in new.types}
            found[region] = Rates(region, today, SOURCE, False, kept, new.volumes, new.snapshot, new.address)
            sys.stderr.write(f"{region}: {len(kept)} types\n")
    finally:
        await callers.close()
    return found


def _named(one: TypeRate, old: Rates) -> TypeRate:
    """The API counts GPUs and does not name them: the names that we have stay."""
    known = old.types.get(one.name)
    return (
        one
        if known is None
        else TypeRate(one.name, one.hourly, known.vcpus, known.memory_gib, known.architecture, known.gpu)
    )


def main() -> int:
    """Compare, or write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("profile", nargs="?")
    parser.add_argument("--add", action="append", default=[], metavar="TYPE")
    parser.add_argument("--write", action="store_true")
    asked = parser.parse_args()
    today = f"{datetime.fromtimestamp(Clock().wall(), UTC):%Y-%m-%d}"
    names = [line.split()[0] for line in price_table.TYPES.splitlines()]
    names += [name for name in asked.add if name not in names]
    rates = asyncio.run(fetched(asked.profile, names, today))
    text = render(rates, names, today, f"{SOURCE} of {today}", f"{SOURCE} of {today}")
    before = TABLE.read_text("utf-8")
    if asked.write:
        TABLE.write_text(text, "utf-8")
    else:
        sys.stdout.writelines(difflib.unified_diff(before.splitlines(True), text.splitlines(True)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
