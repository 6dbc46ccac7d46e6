from pathlib import Path

import pytest
from pydantic import Field, SecretStr

from shared.errors import ConfigurationError
from shared.settings import KNOWN_NAMES, CommonSettings, Listen, ListenAddress, load_settings, secret_values


class Settings(CommonSettings):
    listen: Listen = Field(ListenAddress("127.0.0.1", 8082), alias="R3MES_LISTEN")
    redis_url: SecretStr = Field(SecretStr("redis://127.0.0.1:6379/0"), alias="R3MES_REDIS_URL")
    api_keys: SecretStr | None = Field(None, alias="R3MES_API_KEYS")


def test_without_any_setting_the_defaults_of_the_contract_hold(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    settings = load_settings(Settings, {})
    assert settings.store_root == tmp_path / ".r3mes/models"
    assert (settings.store_kind, settings.node, settings.log_level, settings.debug) == ("host", "local", "info", False)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("R3MES_STORE_KIND", "cloud"),
        ("R3MES_NODE", "Local"),
        ("R3MES_NODE", "a_b"),
        ("R3MES_NODE", "a" * 64),
        ("R3MES_NODE", "a\n"),
        ("R3MES_LOG_LEVEL", "loud"),
        ("R3MES_DEBUG", "perhaps"),
        ("R3MES_LISTEN", "8082"),
        ("R3MES_LISTEN", "127.0.0.1:"),
        ("R3MES_LISTEN", "127.0.0.1:65536"),
        ("R3MES_LISTEN", ":8082"),
    ],
)
def test_a_value_that_does_not_fit_names_its_variable(name: str, value: str) -> None:
    with pytest.raises(ConfigurationError, match=name):
        load_settings(Settings, {name: value})


@pytest.mark.parametrize(
    ("text", "address"),
    [("0.0.0.0:80", ("0.0.0.0", 80)), ("[::1]:8082", ("::1", 8082)), ("localhost:0", ("localhost", 0))],  # noqa: S104
)
def test_an_address_to_listen_on_is_split(text: str, address: tuple[str, int]) -> None:
    assert load_settings(Settings, {"R3MES_LISTEN": text}).listen == address


def test_a_name_that_nobody_knows_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(ConfigurationError, match="R3MES_MODEL_DIR") as caught:
        load_settings(Settings, {"R3MES_MODEL_DIR": "/models"})
    assert "R3MES_MODELS_DIR" in caught.value.next_step


def test_names_of_other_processes_are_ignored_and_an_empty_value_is_unset() -> None:
    others = dict.fromkeys(KNOWN_NAMES, "") | {"R3MES_N_CTX": "nonsense", "PATH": "/bin"}
    assert load_settings(Settings, others).node == "local"


def test_a_secret_comes_from_its_file_without_the_newline(tmp_path: Path) -> None:
    (tmp_path / "url").write_text("redis://:x@127.0.0.1:1/0\n")
    settings = load_settings(Settings, {"R3MES_REDIS_URL_FILE": str(tmp_path / "url")})
    assert settings.redis_url.get_secret_value() == "redis://:x@127.0.0.1:1/0"


def test_a_secret_given_both_ways_is_refused(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("one")
    both = {"R3MES_API_KEYS": "one", "R3MES_API_KEYS_FILE": str(tmp_path / "keys")}
    with pytest.raises(ConfigurationError, match="both"):
        load_settings(Settings, both)


def test_a_secret_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="R3MES_API_KEYS_FILE"):
        load_settings(Settings, {"R3MES_API_KEYS_FILE": str(tmp_path / "absent")})


def test_no_secret_shows_in_an_error_or_in_the_settings() -> None:
    settings = load_settings(Settings, {"R3MES_API_KEYS": "hunter2"})
    assert "hunter2" not in repr(settings)
    with pytest.raises(ConfigurationError) as caught:
        load_settings(Settings, {"R3MES_API_KEYS": "hunter2", "R3MES_NODE": "A"})
    assert "hunter2" not in caught.value.diagnostics()


def test_several_secrets_are_separated_by_commas_or_lines() -> None:
    assert secret_values(SecretStr("one, two\nthree,\n")) == ("one", "two", "three")
    assert secret_values(None) == ()
