"""An empty AWS configuration, an endpoint on loopback and dummy credentials."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from botocore.credentials import SSOProvider
from botocore.retries.standard import ExponentialBackoff
from botocore.tokens import SSOTokenProvider

from devboxd.aws.clients import Callers
from devboxd.aws.http import DENIED
from tests.aws.fake import FakeAws, fake_aws


@dataclass
class FixedClock:
    """A wall clock that stands where a test puts it."""

    now: float = 1_800_000_000.0

    def wall(self) -> float:
        return self.now


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock()


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No AWS setting of this machine can reach a test."""
    for name in list(os.environ):
        if name.startswith("AWS_") or name.lower() in ("http_proxy", "https_proxy", "no_proxy", "all_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    cache = tmp_path / ".aws" / "sso" / "cache"
    # botocore expands ~ when it is imported.
    monkeypatch.setattr(SSOTokenProvider, "_SSO_TOKEN_CACHE_DIR", str(cache))
    monkeypatch.setattr(SSOProvider, "_SSO_TOKEN_CACHE_DIR", str(cache))
    (tmp_path / ".aws").mkdir()
    DENIED.forget()
    return tmp_path


@pytest.fixture(autouse=True)
def _retry_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries happen as configured, but nobody waits for them."""
    monkeypatch.setattr(ExponentialBackoff, "delay_amount", lambda self, context: 0.0)


@pytest.fixture
def dummy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Static credentials and a region, from the environment."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDTEST")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret-of-the-test")
    monkeypatch.setenv("AWS_REGION", "eu-north-1")


@pytest.fixture
async def aws(monkeypatch: pytest.MonkeyPatch, dummy: None) -> AsyncIterator[FakeAws]:
    """The endpoint of every service."""
    async with fake_aws() as fake:
        monkeypatch.setenv("AWS_ENDPOINT_URL", fake.url)
        yield fake


@pytest.fixture
async def callers(clock: FixedClock) -> AsyncIterator[Callers]:
    callers = Callers(clock)
    yield callers
    await callers.close()
