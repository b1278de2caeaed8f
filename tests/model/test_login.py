"""When a person has to log in, what mends it, and that it is said once."""

from __future__ import annotations

import pytest

from devboxd.model.login import WARN_BEFORE, Method, Seen, Source, Verdict, logins, mend

ALL = list(Method)


def seen(
    method: Method = Method.KEYS,
    *,
    left: float | None = None,
    renews: bool = False,
    profile: str = "work",
    name: str = "work",
    refused: str | None = None,
    waiting: int = 0,
    worked: bool = True,
) -> Seen:
    return Seen(profile, Source(method, name, left, renews), refused, waiting, worked)


def verdict(account: Seen) -> Verdict:
    [login] = logins([account])
    return login.verdict


@pytest.mark.parametrize("method", ALL)
def test_whatever_kind_of_credentials_is_refused_a_login_is_needed_and_the_mend_named(method: Method) -> None:
    """Twenty sessions sat in "reconnecting" over an expired key, without a word of what to do."""
    assert verdict(seen(method)) is Verdict.FINE
    [login] = logins([seen(method, refused="the token has expired", waiting=20)])
    assert login.verdict is Verdict.NEEDED
    assert "work" in login.problem or method is Method.ENVIRONMENT
    assert login.mend == mend(method, "work", "work")
    assert login.mend


@pytest.mark.parametrize(
    ("account", "expected"),
    [
        (seen(Method.SSO, left=8 * 3600), Verdict.FINE),
        (seen(Method.SSO, left=WARN_BEFORE + 1), Verdict.FINE),
        (seen(Method.SSO, left=WARN_BEFORE), Verdict.EXPIRING),
        (seen(Method.SSO, left=1), Verdict.EXPIRING),
        (seen(Method.SSO, left=0), Verdict.NEEDED),
        (seen(Method.SSO, left=-3600), Verdict.NEEDED),
        (seen(Method.SSO, left=-3600, renews=True), Verdict.FINE),  # with the next call
        (seen(Method.SSO, left=60, renews=True), Verdict.FINE),
        (seen(Method.SSO, left=-1, renews=True, refused="x", waiting=1), Verdict.NEEDED),
        (seen(Method.SSO, left=None), Verdict.FINE),
        (seen(Method.SSO, left=3600, refused="x"), Verdict.NEEDED),  # ended early, by an administrator
        (seen(Method.ENVIRONMENT, left=60), Verdict.EXPIRING),
        (seen(Method.ENVIRONMENT, left=0), Verdict.NEEDED),
        (seen(Method.KEYS, left=60), Verdict.EXPIRING),
        (seen(Method.KEYS, left=-60), Verdict.FINE),  # a note of another tool, and nobody was refused
    ],
    ids=str,
)
def test_the_time_that_is_left_decides_where_it_is_known(account: Seen, expected: Verdict) -> None:
    assert verdict(account) is expected


def test_who_mistypes_a_profile_once_leaves_no_condition_behind() -> None:
    """The command has said it."""
    typo = seen(Method.NONE, refused="there are no AWS credentials", worked=False)
    assert verdict(typo) is Verdict.REFUSED, "status says it, and no condition stands"
    (login,) = logins([typo])
    assert (login.problem, bool(login.mend)) == ("there are no AWS credentials", True)
    assert verdict(seen(Method.NONE, refused="no", worked=False, waiting=1)) is Verdict.NEEDED
    assert verdict(seen(Method.NONE, refused="no", worked=True)) is Verdict.NEEDED


def test_one_login_behind_many_accounts_is_one_login() -> None:
    """Five profiles of one SSO session in two regions: one page to visit, one condition."""
    accounts = [
        seen(Method.SSO, name="corp", profile=profile, left=-1)
        for profile in ("b", "a", "c")
        for _ in range(2)
    ]
    [login] = logins(accounts)
    assert login.problem == "the login of profiles a, b, c has ended"
    assert login.mend == "run: devboxctl login --profile a"
    two = logins([seen(refused="x"), seen(profile="other", name="other", refused="y")])
    assert len(two) == 2


def test_the_worst_account_decides() -> None:
    accounts = [seen(profile="a"), seen(profile="b", refused="x"), seen(profile="c")]
    [login] = logins(accounts)
    assert login.verdict is Verdict.NEEDED


@pytest.mark.parametrize(
    ("method", "profile", "word"),
    [
        (Method.SSO, None, "run: devboxctl login"),
        (Method.SSO, "default", "run: devboxctl login"),
        (Method.SSO, "work", "run: devboxctl login --profile work"),
        (Method.CONSOLE, "work", "run: aws login --profile work"),
        (Method.ENVIRONMENT, "work", "AWS_SESSION_TOKEN"),
        (Method.KEYS, "work", "~/.aws/credentials"),
        (Method.PROCESS, "work", "credential_process of profile 'work'"),
        (Method.WEB_IDENTITY, "work", "web identity"),
        (Method.MACHINE, None, "role of this machine"),
        (Method.NONE, None, "AWS_PROFILE"),
        (Method.NONE, "work", "aws configure sso --profile work"),
    ],
)
def test_the_mend_is_the_one_of_that_kind(method: Method, profile: str | None, word: str) -> None:
    assert word in mend(method, profile)


def test_of_a_role_the_profile_that_holds_its_keys_is_named() -> None:
    assert "'base'" in mend(Method.KEYS, "role", "base")
