"""The configuration in force, and when nobody may act on it."""

from __future__ import annotations

import asyncio

import pytest

from devboxd.control.base.settings import Settings
from devboxd.control.base.shared import Shared
from devboxd.model.config import Config, ConfigInvalid, Defaults
from tests.control.fakes import LoopClock

pytestmark = pytest.mark.looptime

BAD = ConfigInvalid(["config.toml: is not TOML"], hint="mend it")
WORK, HOME = Config(defaults=Defaults(profile="work")), Config(defaults=Defaults(profile="home"))


async def test_without_any_good_configuration_nothing_is_asked_of_aws() -> None:
    """What is built in could be another account, and another box of that name."""
    news = Shared.of(LoopClock()).news
    settings = Settings(news, Config())
    settings.take(Config(), BAD, is_whole=False)
    await asyncio.sleep(2)
    with pytest.raises(ConfigInvalid) as caught:
        settings.for_aws()
    assert caught.value is BAD
    (condition,) = news.conditions()
    assert "nothing is asked of AWS" in condition.text
    assert condition.hint == "mend it"
    assert settings.take(WORK, None)
    assert settings.for_aws() == WORK
    assert news.conditions() == []


async def test_the_last_good_one_is_good_enough() -> None:
    news = Shared.of(LoopClock()).news
    settings = Settings(news, WORK)
    assert not settings.take(WORK, BAD)
    await asyncio.sleep(2)
    assert settings.for_aws() == WORK
    (condition,) = news.conditions()
    assert "last good" in condition.text
    assert not settings.take(WORK, None), "nothing to do where nothing is another"
    assert settings.take(HOME, None)
