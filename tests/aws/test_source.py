"""Where credentials come from, told from the settings: it decides what a person is told to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from devboxd.aws.clients import Callers
from devboxd.errors import BadRequest
from devboxd.model.login import Method, Source
from tests.aws.conftest import FixedClock

CONFIG = """
[default]
region = eu-north-1
[profile keys]
[profile noted]
[profile inline]
aws_access_key_id = AKID
aws_secret_access_key = x
[profile process]
credential_process = /bin/true
[profile sso]
sso_session = corp
sso_account_id = 1
sso_role_name = R
[sso-session corp]
sso_start_url = https://corp.awsapps.com/start
sso_region = eu-west-1
[profile console]
login_session = arn:aws:iam::1:user/x
[profile web]
role_arn = arn:aws:iam::1:role/x
web_identity_token_file = /var/token
[profile role]
role_arn = arn:aws:iam::1:role/x
source_profile = keys
[profile chained]
role_arn = arn:aws:iam::1:role/y
source_profile = role
[profile role-sso]
role_arn = arn:aws:iam::1:role/x
source_profile = sso
[profile itself]
role_arn = arn:aws:iam::1:role/x
source_profile = itself
aws_access_key_id = AKID
aws_secret_access_key = x
[profile circle]
role_arn = arn:aws:iam::1:role/x
source_profile = circle2
[profile circle2]
role_arn = arn:aws:iam::1:role/x
source_profile = circle
[profile no-role]
source_profile = sso
[profile keys-and-role]
role_arn = arn:aws:iam::1:role/x
source_profile = sso
aws_access_key_id = AKID
aws_secret_access_key = x
[profile over-keys]
role_arn = arn:aws:iam::1:role/y
source_profile = keys-and-role
[profile from-environment]
role_arn = arn:aws:iam::1:role/x
credential_source = Environment
[profile machine]
role_arn = arn:aws:iam::1:role/x
credential_source = Ec2InstanceMetadata
[profile nothing]
"""
CREDENTIALS = """
[keys]
aws_access_key_id = AKID
aws_secret_access_key = x
aws_session_token = t
[noted]
aws_access_key_id = AKID
aws_secret_access_key = x
x_security_token_expires = 2027-01-15T08:10:00+00:00
"""


@pytest.fixture(autouse=True)
def configured(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / ".aws" / "config").write_text(CONFIG)
    (home / ".aws" / "credentials").write_text(CREDENTIALS)
    monkeypatch.setenv("AWS_REGION", "eu-north-1")


@pytest.mark.parametrize(
    ("profile", "source"),
    [
        (None, Source(Method.NONE, "default")),
        ("nothing", Source(Method.NONE, "nothing")),
        ("keys", Source(Method.KEYS, "keys")),
        ("noted", Source(Method.KEYS, "noted", 600.0)),
        ("inline", Source(Method.KEYS, "inline")),
        ("process", Source(Method.PROCESS, "process", renews=True)),
        ("sso", Source(Method.SSO, "corp")),
        ("console", Source(Method.CONSOLE, "console", renews=True)),
        ("web", Source(Method.WEB_IDENTITY, "web", renews=True)),
        ("role", Source(Method.KEYS, "keys")),
        ("chained", Source(Method.KEYS, "keys")),
        ("role-sso", Source(Method.SSO, "corp")),
        ("itself", Source(Method.KEYS, "itself")),
        ("no-role", Source(Method.NONE, "no-role")),
        ("over-keys", Source(Method.KEYS, "keys-and-role")),
        ("from-environment", Source(Method.ENVIRONMENT, "environment")),
        ("machine", Source(Method.MACHINE, "machine")),
    ],
)
def test_a_profile_says_where_its_credentials_come_from(
    callers: Callers, clock: FixedClock, profile: str | None, source: Source
) -> None:
    clock.now = 1_800_000_000.0  # 2027-01-15T08:00:00Z
    assert callers.caller(profile).source() == source


def test_profiles_that_lead_in_a_circle_are_refused_before_they_are_asked(callers: Callers) -> None:
    """Also by what asks no provider, as the status of a login."""
    for name in ("circle", "circle2"):
        with pytest.raises(BadRequest, match=f"source_profile links of profile '{name}' form a circle"):
            callers.caller(name).source()


def test_the_environment_wins_unless_a_profile_is_asked_for(
    callers: Callers, clock: FixedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with botocore: AWS_PROFILE alone does not count as asking."""
    clock.now = 1_800_000_000.0
    monkeypatch.setenv("AWS_PROFILE", "keys")
    assert callers.caller().source() == Source(Method.KEYS, "keys")
    assert callers.caller().profile_name == "keys"
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKID")
    assert callers.caller().source() == Source(Method.ENVIRONMENT, "environment")
    monkeypatch.setenv("AWS_CREDENTIAL_EXPIRATION", "2027-01-15T08:10:00Z")
    assert callers.caller().source().expires_in == 600.0
    monkeypatch.setenv("AWS_CREDENTIAL_EXPIRATION", "soon")
    assert callers.caller().source().expires_in is None
    assert callers.caller("keys").source() == Source(Method.KEYS, "keys")


def test_a_web_identity_may_come_from_the_environment(
    callers: Callers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a pod of EKS."""
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", "/var/token")
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::1:role/x")
    assert callers.caller().source().method is Method.WEB_IDENTITY
    monkeypatch.delenv("AWS_WEB_IDENTITY_TOKEN_FILE")
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/x")
    assert callers.caller().source().method is Method.MACHINE
