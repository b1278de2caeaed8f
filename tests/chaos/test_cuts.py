"""Random cuts over everything at once: nothing lost, nothing repeated, nothing reordered."""

from __future__ import annotations

import time

import pytest

from tests.chaos.kit import Run, Traffic, rig

pytestmark = pytest.mark.chaos


async def run(seed: int, cuts: int, *, scale: float = 1.0, bridge: bool = True) -> None:
    """Traffic, cuts, and the checks."""
    began = time.monotonic()
    async with rig(seed, bridge=bridge) as (sim, daemon):
        traffic = Traffic(sim, daemon, seed)
        await traffic.start()
        cutting = Run(sim, daemon)
        try:
            await cutting.cut(seed, cuts, traffic, scale=scale)
            quiet = time.monotonic()
            await traffic.finish()
        except BaseException:
            print("\n".join(cutting.story[-12:]))
            print("problems:", traffic.problems, [echo.problem for echo in traffic.echoes if echo.problem])
            print(
                "sessions:",
                [(s.plan.kind, s.state.value, s.detail, s.tally.resumes) for s in daemon.sessions()],
            )
            print(f"replay with --chaos-seed {seed}")
            raise
        print(
            f"seed {seed}: {sum(cutting.made.values())} cuts {dict(cutting.made)}, {cutting.resumes} links resumed, "
            f"{time.monotonic() - began:.1f} s, caught up in {time.monotonic() - quiet:.1f} s; {traffic.summary()}"
        )
    assert not [one for one in sim.gateway.sessions.values() if not one.is_over], "sessions were left open"


@pytest.mark.timeout(150)
@pytest.mark.parametrize("bridge", [True, False])
async def test_sixty_random_cuts_lose_nothing(seed: int, bridge: bool) -> None:
    """The short run, in every ``make test``: over a bridge, and where there can be none."""
    await run(seed, 60, scale=0.5, bridge=bridge)


@pytest.mark.soak
@pytest.mark.parametrize("part", range(5))
async def test_a_thousand_random_cuts_lose_nothing(seed: int, part: int) -> None:
    """The long one: five runs of 240 cuts, two of them without a bridge."""
    await run(seed + part, 240, bridge=part % 2 == 0)
