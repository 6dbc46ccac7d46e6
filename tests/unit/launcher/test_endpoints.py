"""Where a command looks for a stack."""

import pytest

from launcher.endpoints import ClientSettings, base_url, parse_base_url
from shared.errors import ConfigurationError, UsageError
from shared.settings import load_settings


@pytest.mark.parametrize(
    ("text", "base"),
    [
        ("http://host:8000", "http://host:8000"),
        ("http://host:8000/", "http://host:8000"),
        ("http://host:8000/v1", "http://host:8000"),
        ("https://host/openai/v1/", "https://host/openai"),
        (" http://[::1]:8000/v1 ", "http://[::1]:8000"),
        ("http://host/v12", "http://host/v12"),
    ],
)
def test_a_base_url_may_end_with_v1(text: str, base: str) -> None:
    assert parse_base_url(text) == base
    settings = load_settings(ClientSettings, {"R3MES_URL": text})
    assert base_url(settings, "miner") == base


@pytest.mark.parametrize(
    "text",
    [
        "host:8000",
        "ftp://host",
        "http://",
        "http://host:x",
        "http://[::1",
        "http://u:hunter2@host",
        "http://h/?a=b",
        "http://a..b",
        f"http://{'a' * 64}.example",
    ],
)
def test_what_is_no_base_url_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="R3MES_URL") as of_setting:
        load_settings(ClientSettings, {"R3MES_URL": text})
    with pytest.raises(UsageError, match="--url") as of_option:
        ClientSettings().at(text)
    assert "hunter2" not in of_setting.value.diagnostics() + of_option.value.diagnostics()


@pytest.mark.parametrize("keys", ["anahtarş", "good,schlüssel", "two\rlines"])
def test_a_key_that_no_header_carries_is_refused_and_not_shown(keys: str) -> None:
    with pytest.raises(ConfigurationError, match="R3MES_API_KEYS: found a secret") as caught:
        load_settings(ClientSettings, {"R3MES_API_KEYS": keys})
    assert keys not in caught.value.diagnostics()


def test_the_option_wins_over_the_variable() -> None:
    settings = load_settings(ClientSettings, {"R3MES_URL": "http://one", "R3MES_API_KEYS": "a,b"})
    assert base_url(settings.at("http://two/v1"), "miner") == "http://two"
    assert base_url(settings.at(None), "miner") == "http://one"
    assert settings.at("http://two").api_key == "a"
