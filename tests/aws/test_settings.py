"""AWS settings as people write them: each mistake is one sentence with file, profile, setting and mend."""

from __future__ import annotations

from pathlib import Path

import pytest

from devboxd.aws.clients import Callers
from devboxd.aws.errors import ProxyUnusable
from devboxd.aws.settings import Files
from devboxd.errors import BadRequest, DevboxError, LoginNeeded
from tests.aws.fake import FakeAws
from tests.net.loopback import connect_proxy

ROLE = "role_arn = arn:aws:iam::1:role/r\nsource_profile = base\n"
KEYS = "aws_access_key_id = AKID\naws_secret_access_key = secret-of-the-test\n"


@pytest.mark.parametrize(
    ("written", "mend"),
    [
        ("us-east-1 # home", "us-east-1?"),
        ("us-east-1 ; home", "us-east-1?"),
        ("us-east-1   #home", "own"),
        ('"us-east-1"', "us-east-1?"),
        ("'eu-west-3'", "eu-west-3?"),
        ("\u201ceu-west-3\u201d", "eu-west-3?"),
        ("us east 1", "us-east-1?"),
        ("us_east_1", "us-east-1?"),
        ("US-EAST-1", "us-east-1?"),
        ("us-east1", "us-east-1?"),
        ("us-east-1a", "us-east-1?"),
        ("us-gov-west-1a", "us-gov-west-1?"),
        ("us-east-1,", "us-east-1?"),
        ("Frankfurt", "as in eu-west-1"),
        ("-", "as in eu-west-1"),
    ],
)
async def test_a_region_that_is_none_names_its_place_and_what_was_meant(
    callers: Callers, home: Path, written: str, mend: str
) -> None:
    """A comment behind the value is the mistake that everybody makes once."""
    (home / ".aws" / "config").write_text(f"[profile work]\nregion = {written}\n", encoding="utf-8")
    with pytest.raises(BadRequest) as bad:
        assert callers.caller("work").region
    assert "~/.aws/config, profile 'work': region" in bad.value.message
    assert mend in (bad.value.hint or "")


@pytest.mark.parametrize(
    "region", ["eu-west-1", "us-gov-east-1", "cn-north-1", "us-iso-east-1", "us-isob-east-1", "eusc-de-east-1", "mx-central-1", "ap-southeast-7"]
)  # fmt: skip
async def test_a_region_that_can_be_is_taken(callers: Callers, region: str) -> None:
    """Also one that did not exist when this was written."""
    assert callers.caller(None, region).region == region


async def test_the_place_of_a_region_that_can_be_is_not_looked_for(
    callers: Callers, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every new session would read both files once more, for a sentence that nobody sees."""
    (home / ".aws" / "config").write_text("[profile work]\nregion = eu-west-1\n")
    monkeypatch.setattr(Files, "place", lambda *_: pytest.fail("the files are read"))
    assert callers.caller("work").region == "eu-west-1"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ("aws_access_key_id = AKID\n", ("aws_access_key_id without aws_secret_access_key",)),
        ("aws_secret_access_key = hidden-value\n", ("aws_secret_access_key without aws_access_key_id",)),
        (KEYS.replace("AKID", '"AKID"'), ("aws_access_key_id", "no quotes")),
        (
            KEYS.replace("secret-of-the-test", "hidden-value # old"),
            ("aws_secret_access_key", "line of its own"),
        ),
        (KEYS + "retry_mode = fast\n", ("retry_mode", "'fast'", "adaptive")),
        (KEYS + "max_attempts = many\n", ("max_attempts", "'many'", "number")),
        (KEYS + "max_attempts = 0\n", ("max_attempts", "'0'")),
        (KEYS + "sts_regional_endpoints = global\n", ("sts_regional_endpoints", "regional")),
        (KEYS + "defaults_mode = best\n", ("defaults_mode", "'best'")),
        (KEYS + "metadata_service_timeout = 1s\n", ("metadata_service_timeout", "'1s'")),
        (KEYS + "account_id_endpoint_mode = yes\n", ("account_id_endpoint_mode", "'yes'")),
        (KEYS + "endpoint_url = localhost:4566\n", ("endpoint_url", "https://")),
        (KEYS + "endpoint_url = http://127.0.0.1:notaport\n", ("endpoint_url", "notaport", "https://")),
        (KEYS + "endpoint_url = http://127.0.0.1:99999\n", ("endpoint_url", "99999")),
        (KEYS + "endpoint_url = http://[::1:4566\n", ("endpoint_url", "https://")),
        (KEYS + "endpoint_url = http://:4566\n", ("endpoint_url", "https://")),
        (KEYS + "services = gone\n", ("services = 'gone'", "[services gone]")),
        (KEYS + "ca_bundle = /no/where.pem\n", ("ca_bundle", "no file")),
        (KEYS + "ca_bundle = ~/.aws/config\n", ("ca_bundle = '~/.aws/config'", "no certificate", "PEM")),
        (KEYS + "request_min_compression_size_bytes = lots\n", ("'lots'", "number of bytes")),
        (ROLE + "external_id =\n", ("external_id", "2 to 1224")),
        (ROLE + "role_session_name = a b\n", ("role_session_name", "'a b'")),
        ("web_identity_token_file = /no/token\n", ("no role_arn", "add role_arn")),
        ("role_arn = admin\nsource_profile = base\n", ("role_arn", "ARN")),
        ("role_arn = arn:aws:iam::1:role/r\n", ("role_arn", "source_profile or credential_source")),
        ("role_arn = arn:aws:iam::1:role/r\nsource_profile = gone\n", ("source_profile", "'gone'")),
        ("role_arn = arn:aws:iam::1:role/r\ncredential_source = Laptop\n", ("credential_source", "'Laptop'")),
        (
            "role_arn = arn:aws:iam::1:role/r\ncredential_source = Environment\nsource_profile = base\n",
            ("both source_profile and credential_source",),
        ),
        ("sso_session = corp\n", ("[sso-session corp]", "aws configure sso")),
        (
            "sso_start_url = https://x.awsapps.com/start\nsso_region = eu-west-1\n",
            ("sso_account_id and sso_role_name",),
        ),
        (
            "sso_start_url = x.awsapps.com\nsso_region = eu-west-1\nsso_account_id = 1\nsso_role_name = r\n",
            ("sso_start_url", "https://"),
        ),
    ],
)
async def test_a_setting_that_cannot_be_names_file_profile_setting_and_mend(
    callers: Callers, home: Path, settings: str, words: tuple[str, ...]
) -> None:
    """botocore says the name of a class, or nothing until much later."""
    (home / ".aws" / "config").write_text(
        f"[profile base]\n{KEYS}\n[profile work]\nregion = eu-west-1\n{settings}"
    )
    with pytest.raises(BadRequest) as bad:
        await callers.caller("work").credentials()
    said = f"{bad.value.message} {bad.value.hint}"
    for word in (*words, "~/.aws/config", "profile 'work'"):
        assert word in said
    assert bad.value.hint
    assert "hidden-value" not in said


@pytest.mark.parametrize(
    ("session", "own", "words"),
    [
        ("sso_region = eu west\n", "", ("[sso-session corp]: sso_region", "'eu west'", "as in eu-west-1")),
        ("sso_start_url = d-1.awsapps.com\n", "", ("[sso-session corp]: sso_start_url", "https://")),
        ("sso_region = eu-west-1\n", "sso_region = us-east-1\n", ("'us-east-1'", "'eu-west-1'", "out of the profile")),
    ],
)  # fmt: skip
async def test_the_section_of_an_sso_session_is_looked_at_too(
    callers: Callers, home: Path, session: str, own: str, words: tuple[str, ...]
) -> None:
    (home / ".aws" / "config").write_text(
        f"[sso-session corp]\n{session}[profile work]\nregion = eu-west-1\nsso_session = corp\n{own}"
        "sso_account_id = 1\nsso_role_name = r\n"
    )
    with pytest.raises(BadRequest) as bad:
        await callers.caller("work").credentials()
    said = f"{bad.value.message} {bad.value.hint}"
    for word in (*words, "~/.aws/config"):
        assert word in said


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"[profile work]\n" * 2, ("[profile work] twice", "line 2")),
        (
            b"[profile work]\nregion = a\nregion = hidden-value\n",
            ("region of [profile work] twice", "line 3"),
        ),
        (b"\xef\xbb\xbf[profile work]\n", ("byte order mark", "without BOM")),
        (b"region = hidden-value\n", ("belongs to no section", "line 1", "[profile NAME]")),
        (b"[profile work\nregion = hidden-value\n", ("line 1",)),
        (b"[profile work]\nregion\nhidden-value\n", ("line 2, 3", "region = eu-west-1")),
        (b"[profile w\xf6rk]\n", ("not UTF-8",)),
        ("[profile work]\n".encode("utf-16"), ("not UTF-8",)),
    ],
)
@pytest.mark.parametrize("name", ["config", "credentials"])
async def test_a_file_that_cannot_be_understood_is_named_with_the_line(
    callers: Callers, home: Path, text: bytes, words: tuple[str, ...], name: str
) -> None:
    """botocore says that it cannot be parsed, and no more. Nothing of it is quoted but names."""
    (home / ".aws" / name).write_bytes(text)
    with pytest.raises(BadRequest) as bad:
        await callers.caller("work").credentials()
    said = f"{bad.value.message} {bad.value.hint}"
    for word in (*words, f"~/.aws/{name}"):
        assert word in said, said
    assert "hidden-value" not in said


@pytest.mark.parametrize(
    ("source", "word", "mend"),
    [
        ("Environment", "the environment of devboxd", "daemon restart"),
        ("Ec2InstanceMetadata", "an EC2 instance", "source_profile"),
        ("EcsContainer", "a container", "source_profile"),
    ],
)
async def test_a_source_of_a_role_that_gives_nothing_is_no_login_that_has_expired(
    callers: Callers, home: Path, monkeypatch: pytest.MonkeyPatch, source: str, word: str, mend: str
) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    (home / ".aws" / "config").write_text(
        f"[profile work]\nregion = eu-west-1\nrole_arn = arn:aws:iam::1:role/r\ncredential_source = {source}\n"
    )
    with pytest.raises(LoginNeeded, match=word) as needed:
        await callers.caller("work").credentials()
    assert "expired" not in needed.value.message
    assert mend in (needed.value.hint or "")


async def test_a_token_file_that_is_missing_is_a_login_that_names_it(callers: Callers, home: Path) -> None:
    """It may come yet: whoever waits for it goes on then."""
    (home / ".aws" / "config").write_text(
        "[profile work]\nregion = eu-west-1\nrole_arn = arn:aws:iam::1:role/r\nweb_identity_token_file = /no/token\n"
    )
    with pytest.raises(LoginNeeded, match="/no/token") as needed:
        await callers.caller("work").credentials()
    assert "web identity file" in (needed.value.hint or "")


async def test_the_file_is_the_one_where_the_setting_stands(callers: Callers, home: Path) -> None:
    """There are two of them, and people look into the other."""
    (home / ".aws" / "config").write_text("[profile work]\nregion = eu-west-1\n")
    (home / ".aws" / "credentials").write_text("[work]\naws_access_key_id = AKID\n")
    with pytest.raises(BadRequest, match=r"~/\.aws/credentials, profile 'work'"):
        await callers.caller("work").credentials()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AWS_REGION", "us-east-1 # home"),
        ("AWS_DEFAULT_REGION", '"us-east-1"'),
        ("AWS_RETRY_MODE", "fast"),
        ("AWS_MAX_ATTEMPTS", "x"),
        ("AWS_ACCESS_KEY_ID", "AKID"),
        ("AWS_SECRET_ACCESS_KEY", "hidden-value"),
        ("AWS_ENDPOINT_URL", "localhost:4566"),
        ("AWS_CA_BUNDLE", "/no/where.pem"),
        ("AWS_CA_BUNDLE", __file__),
    ],
)
async def test_a_variable_that_cannot_be_is_named(
    callers: Callers, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    """It is the daemon's environment, which nobody sees."""
    monkeypatch.setenv(name, value)
    with pytest.raises(BadRequest, match=name) as bad:
        await callers.caller().credentials()
    assert "devboxd" in bad.value.message
    assert "hidden-value" not in f"{bad.value.message} {bad.value.hint}"


async def test_settings_that_work_are_left_alone(callers: Callers, home: Path) -> None:
    """Half a pair beside SSO, sections of other tools, unknown settings: botocore takes them."""
    (home / ".aws" / "config").write_text(
        f"[default]\nregion = eu-west-1\n{KEYS}output = yaml-stream\ncli_pager =\ns3 =\n  max_concurrent_requests = 20\n"
        "[plugins]\nx = y\n[sso-session corp]\nsso_start_url = https://c.awsapps.com/start/#\nsso_region = eu-west-1\n"
        "[profile sso]\nregion = eu-west-1\nsso_session = corp\nsso_account_id = 1\nsso_role_name = r\n"
        "aws_access_key_id = LEFTOVER\n"
    )
    assert (await callers.caller().credentials()).access_key == "AKID"
    assert callers.caller("sso").region == "eu-west-1"


async def test_a_wrong_password_is_shown_to_the_proxy_once(
    callers: Callers, monkeypatch: pytest.MonkeyPatch, aws: FakeAws
) -> None:
    """A hundred attempts lock the account of a person."""
    async with connect_proxy("user:secret") as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", "https://aws.invalid")
        monkeypatch.setenv("HTTPS_PROXY", f"http://user:wrong@127.0.0.1:{proxy.port}")
        for _ in range(20):
            with pytest.raises(ProxyUnusable, match="407") as refused:
                await callers.caller().call("ssm", "get_connection_status", Target="i-1")
            assert not refused.value.retryable
            assert "wrong" not in f"{refused.value.message} {refused.value.hint}"
        await callers.refresh()
        with pytest.raises(ProxyUnusable):
            await callers.caller().call("ssm", "get_connection_status", Target="i-1")
        assert len(proxy.asked) == 1


@pytest.mark.parametrize(
    "proxy",
    ["socks5://127.0.0.1:1080", "socks5h://u:secret@127.0.0.1:1080", "SOCKS4://127.0.0.1:1", "ftp://x:1"],
)
async def test_a_proxy_that_is_not_http_is_said_to_be_unsupported(
    callers: Callers, monkeypatch: pytest.MonkeyPatch, dummy: None, proxy: str
) -> None:
    """Else it is two minutes of silence, and an address that cannot be reached."""
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    with pytest.raises(ProxyUnusable, match="not supported") as refused:
        await callers.caller().call("ssm", "get_connection_status", Target="i-1")
    assert not refused.value.retryable
    assert "secret" not in f"{refused.value.message} {refused.value.hint}"


async def test_no_proxy_holds_for_an_unsupported_one_too(
    callers: Callers, monkeypatch: pytest.MonkeyPatch, aws: FakeAws
) -> None:
    """Who goes past the proxy does not care for its kind."""
    aws.on("GetConnectionStatus", {"Target": "i-1", "Status": "connected"})
    monkeypatch.setenv("HTTPS_PROXY", "socks5://127.0.0.1:1")
    monkeypatch.setenv("HTTP_PROXY", "socks5://127.0.0.1:1")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    await callers.caller().call("ssm", "get_connection_status", Target="i-1")
    monkeypatch.delenv("NO_PROXY")
    await callers.refresh()
    with pytest.raises(DevboxError, match="not supported"):
        await callers.caller().call("ssm", "get_connection_status", Target="i-1")


@pytest.mark.parametrize(
    ("written", "asked", "mend"),
    [
        ("[work]\nregion = eu-west-1\n", "work", "a section [work] in ~/.aws/config is no profile: call it [profile work]"),
        ("[Profile work]\nregion = eu-west-1\n", "work", "a section [Profile work] in ~/.aws/config is no profile: call it [profile work]"),
        ("[PROFILE  work]\n", "work", "call it [profile work]"),
        ("[sso-session acme]\nsso_region = eu-west-1\n", "acme", "acme is an SSO session in ~/.aws/config: a profile that uses it says sso_session = acme"),
        ("[profile Work]\n", "work", "did you mean Work?"),
        ("[profile work]\n", "profile work", "did you mean work?"),
        ("[profile work-dev]\n[profile work-prod]\n", "work-dve", "did you mean work-dev or work-prod?"),
        ("[profile a]\n[profile b]\n", "somebody", "there are a, b; where the name comes from: devboxctl config show --origin"),
        ("", "work", "~/.aws/config has no profile"),
        ("[profile a]\nrole_arn = arn:aws:iam::111122223333:role/r\nsource_profile = work\n[work]\n", "a", "call it [profile work]"),
    ],
)  # fmt: skip
async def test_a_profile_that_is_none_is_told_with_what_was_meant(
    callers: Callers, home: Path, written: str, asked: str, mend: str
) -> None:
    """``[work]`` where ``[profile work]`` has to stand is the mistake of everybody who knew ~/.aws/credentials first."""
    (home / ".aws" / "config").write_text(written, encoding="utf-8")
    with pytest.raises(BadRequest) as bad:
        assert callers.caller(asked, "eu-west-1").region
    assert mend in (bad.value.hint or ""), bad.value
    assert "\x1b" not in str(bad.value.hint)


async def test_a_profile_of_the_environment_is_looked_for_too(
    callers: Callers, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And one in ~/.aws/credentials stands there without the word "profile"."""
    monkeypatch.setenv("AWS_PROFILE", "work")
    with pytest.raises(BadRequest, match="no AWS profile named 'work'"):
        assert callers.caller(None, "eu-west-1").region
    (home / ".aws" / "credentials").write_text(f"[work]\n{KEYS}", encoding="utf-8")
    assert callers.caller(None, "eu-west-2").region == "eu-west-2"


@pytest.mark.parametrize(
    "variable", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_EC2", "AWS_ENDPOINT_URL_DYNAMODB"]
)
async def test_an_address_of_the_environment_that_cannot_be_is_named(
    callers: Callers, home: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    (home / ".aws" / "config").write_text(f"[profile work]\nregion = eu-west-1\n{KEYS}")
    monkeypatch.setenv(variable, "http://127.0.0.1:notaport")
    with pytest.raises(BadRequest, match=f"{variable} can not be 'http://127.0.0.1:notaport'"):
        await callers.caller("work").credentials()


async def test_the_section_of_services_may_name_addresses(callers: Callers, home: Path) -> None:
    config = f"[profile work]\nregion = eu-west-1\nservices = here\n{KEYS}\n[services here]\nec2 =\n  endpoint_url = "
    (home / ".aws" / "config").write_text(config + "http://127.0.0.1:notaport\n")
    with pytest.raises(BadRequest, match=r"\[services here\]: ec2: endpoint_url can not be"):
        await callers.caller("work").credentials()
    (home / ".aws" / "config").write_text(config + "http://127.0.0.1:4566\n")
    assert await callers.caller("work").credentials()
