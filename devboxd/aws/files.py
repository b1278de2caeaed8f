"""The files of AWS settings and logins: what they are called, and where that is. The rules are botocore's."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from botocore.utils import get_login_token_cache_directory


def config_file(environment: Mapping[str, str]) -> str:
    """The file that profiles stand in, as it is written."""
    return environment.get("AWS_CONFIG_FILE") or "~/.aws/config"


def credentials_file(environment: Mapping[str, str]) -> str:
    """The file that keys stand in, as it is written."""
    return environment.get("AWS_SHARED_CREDENTIALS_FILE") or "~/.aws/credentials"


def expanded(name: str) -> Path:
    """Where such a file is."""
    return Path(os.path.expanduser(os.path.expandvars(name)))


def sso_logins() -> Path:
    """The folder of the tokens of SSO; botocore offers no setting for it."""
    return Path.home() / ".aws" / "sso" / "cache"


def console_logins() -> Path:
    """The folder of the logins of ``aws login``."""
    return Path(get_login_token_cache_directory())
