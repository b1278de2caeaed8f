"""What an ARN says of who we are."""

from __future__ import annotations

import pytest

from devboxd.model.identity import Identity, Principal, principal
from devboxd.model.login import Method, Source


@pytest.mark.parametrize(
    ("arn", "expected"),
    [
        ("arn:aws:sts::123456789012:assumed-role/dev/ann", Principal("role", "dev", "ann")),
        (
            "arn:aws:sts::123456789012:assumed-role/AWSReservedSSO_Power_User_0123456789abcdef/ann@corp.example",
            Principal("role", "Power_User", "ann@corp.example"),
        ),
        ("arn:aws:sts::1:assumed-role/AWSReservedSSO_x/ann", Principal("role", "AWSReservedSSO_x", "ann")),
        ("arn:aws-us-gov:iam::123456789012:user/ann", Principal("user", "ann")),
        ("arn:aws-cn:iam::123456789012:user/path/to/ann", Principal("user", "ann")),
        ("arn:aws:iam::123456789012:root", Principal("root", "root")),
        ("arn:aws:sts::123456789012:federated-user/ann", Principal("federated-user", "ann")),
        ("arn:aws:iam::1:something/new", Principal("", "something/new")),
        ("", Principal("", "")),
        ("no arn at all", Principal("", "no arn at all")),
    ],
)
def test_an_arn_is_read_for_people(arn: str, expected: Principal) -> None:
    """Who is in the wrong account sees it by the role first."""
    assert principal(arn) == expected


@pytest.mark.parametrize(
    ("arn", "expected"),
    [
        ("arn:aws-cn:iam::123456789012:root", "aws-cn"),
        ("arn:aws:iam::123456789012:root", "aws"),
        ("", "aws"),
        ("no arn at all", "aws"),
    ],
)
def test_an_identity_without_an_arn_is_of_the_usual_partition(arn: str, expected: str) -> None:
    """An emulator may name none, and its policies are shown all the same."""
    assert Identity("p", "us-east-1", "1", arn, Source(Method.KEYS, "p")).partition == expected
