"""Which KMS keys a box may choose."""

from __future__ import annotations

import pytest

from devboxd.model.sealing import KeyRefused, account_of, check_key

OWN, OTHER = "111122223333", "444455556666"
ID = "11111111-2222-3333-4444-555555555555"


def arn(account: str, resource: str = f"key/{ID}", partition: str = "aws") -> str:
    return f"arn:{partition}:kms:eu-central-1:{account}:{resource}"


@pytest.mark.parametrize(
    "key",
    [ID, "mrk-1234abcd12ab34cd56ef1234567890ab", "alias/sessions", "alias/aws/ssm", "key-1"],
)
def test_a_key_without_an_account_is_one_of_our_own(key: str) -> None:
    """KMS looks for it in the caller's account, and nowhere else."""
    assert account_of(key) is None
    check_key(key, OWN, ())
    check_key(key, None, ())


@pytest.mark.parametrize(
    "key",
    [
        arn(OWN),
        arn(OWN, "alias/sessions"),
        arn(OWN, "key/mrk-1234abcd12ab34cd56ef1234567890ab"),
        arn(OWN, partition="aws-cn"),
        arn(OWN, partition="aws-us-gov"),
        arn(OWN, partition="aws-iso-b"),
    ],
)
def test_a_key_of_the_sessions_account_is_accepted(key: str) -> None:
    assert account_of(key) == OWN
    check_key(key, OWN, ())
    with pytest.raises(KeyRefused, match=f"account {OWN}, and it cannot be told"):
        check_key(key, None, ())


@pytest.mark.parametrize("resource", [f"key/{ID}", "alias/sessions", "alias/aws/ssm"])
def test_a_key_of_another_account_has_to_be_configured(resource: str) -> None:
    """Whoever owns it could read the session, and learns who opened it."""
    key = arn(OTHER, resource)
    with pytest.raises(KeyRefused) as caught:
        check_key(key, OWN, ("777788889999",))
    assert OTHER in caught.value.message
    assert f'link.kms_accounts = ["{OTHER}"]' in (caught.value.hint or "")
    check_key(key, OWN, (OTHER,))
    check_key(key, None, (OTHER,))


@pytest.mark.parametrize(
    "key",
    [
        "",
        " ",
        "arn:",
        arn("12345"),
        arn("1" * 13),
        arn("x" * 12),
        arn(OWN, "key/"),
        arn(OWN, "key/a b"),
        arn(OWN, "key/x\n"),
        arn(OWN) + "\x00",
        arn(OWN) + ":" + OTHER,
        arn(OWN).replace(":kms:", ":s3:"),
        arn(OWN).replace("arn:aws:", "arn:evil:"),
        "alias/x y",
        "alias/é",
        "../../x",
        "https://kms.evil.example/key",
        "k" * 300,
        "\x1b[31m",
        "\u202ekey",
    ],
)
def test_what_cannot_be_a_key_is_refused_without_a_call(key: str) -> None:
    """Nothing of it is shown, either: it is the box's text."""
    with pytest.raises(KeyRefused) as caught:
        check_key(key, OWN, (OTHER,))
    assert "cannot be a KMS key" in caught.value.message
