"""In a container `init` reads the project's `.env` as a file; on a host nobody does."""

from __future__ import annotations

from pathlib import Path

import pytest

from shared.acceptance import InitSettings, load_init_settings
from shared.errors import ConfigurationError

PIN, OTHER_PIN = "a" * 64, "b" * 64
CONTAINER = {"R3MES_STORE_KIND": "container", "R3MES_MODELS_DIR": "/models"}


def load(folder: Path, text: str | bytes, **environ: str) -> InitSettings:
    (folder / ".env").write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_init_settings({**CONTAINER, **environ}, project=folder)[0]


def test_the_settings_of_the_file_count(tmp_path: Path) -> None:
    settings = load(
        tmp_path,
        "# ours\nR3MES_GENESIS=pins/mine.json\nexport R3MES_ALLOW_OPEN='1'\nR3MES_GENESIS_SHA256=\nOTHER=x\n",
    )

    assert settings.genesis == tmp_path / "pins" / "mine.json"
    assert settings.allow_open
    assert settings.genesis_sha256 is None


def test_a_project_without_the_file_has_the_defaults(tmp_path: Path) -> None:
    settings, _ = load_init_settings(CONTAINER, project=tmp_path)

    assert settings.genesis == tmp_path / "genesis" / "genesis.json"
    assert settings.bind == "127.0.0.1"


def test_the_environment_comes_before_the_file(tmp_path: Path) -> None:
    settings = load(tmp_path, "R3MES_MODELS_DIR=/elsewhere\nR3MES_STORE_KIND=host\n")

    assert settings.models_dir == Path("/models")
    assert settings.store_kind == "container"


def test_what_the_address_policy_needs_comes_along(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(
        "HF_ENDPOINT=https://mirror.org\nHTTPS_PROXY=http://proxy:3128\nR3MES_ALLOW_HTTP_SOURCES=1\n"
    )

    _, values = load_init_settings(CONTAINER, project=tmp_path)

    assert values["HF_ENDPOINT"] == "https://mirror.org"
    assert values["HTTPS_PROXY"] == "http://proxy:3128"
    assert values["R3MES_ALLOW_HTTP_SOURCES"] == "1"


def test_secret_files_of_other_services_are_not_read(tmp_path: Path) -> None:
    load(tmp_path, "R3MES_REDIS_URL_FILE=/run/secrets/redis\nR3MES_NODE=here\nHF_TOKEN_FILE=/run/secrets/token\n")


REFUSED: list[tuple[str, str | bytes, str]] = [
    ("an unknown name", "R3MES_GENESSIS=x\n", "R3MES_GENESIS?"),
    ("an unknown name without a value", "R3MES_TYPO\n", "R3MES_TYPO"),
    ("an open bind", "R3MES_BIND=0.0.0.0\n", "R3MES_API_KEYS"),
    ("a line that is no setting", "R3MES_NODE=a\n=x y\n", "line 2"),
    ("a line that is no setting after empty ones", "R3MES_NODE=a\n\n \n=x y\n", "line 4"),
    ("two pins", f"R3MES_GENESIS_SHA256={PIN}\n\nR3MES_GENESIS_SHA256={OTHER_PIN}\n", "line 3"),
    ("a pin that is taken back below", f"R3MES_GENESIS_SHA256={PIN}\nR3MES_GENESIS_SHA256=\n", "line 1 already"),
    ("a setting with and without export", "export R3MES_NODE=a\nR3MES_NODE=a\n", "R3MES_NODE"),
    ("a name twice that a pin refers to", f"A={PIN}\nA=\nR3MES_NODE=${{A}}\n", "line 2"),
    ("a pin that refers to what is not set", "R3MES_GENESIS_SHA256=${PIN_OF_NOBODY}\n", "R3MES_GENESIS_SHA256="),
    ("nodes behind an empty default", "\nR3MES_CHAIN_RPC='${NOBODY_S_NODES:-} '\n", "line 2: R3MES_CHAIN_RPC"),
    ("a proxy that refers to an empty name", "A=\nHTTPS_PROXY=${A}\n", "HTTPS_PROXY"),
    ("bytes that are not UTF-8", b"R3MES_NODE=\xff\n", ".env"),
    ("a secret given both ways", "HF_TOKEN=x\nHF_TOKEN_FILE=y\n", "HF_TOKEN"),
    ("a signature key", "R3MES_GENESIS_PUBKEY=RWQ\n", "R3MES_GENESIS_PUBKEY"),
    ("a file without end", "#" * (1024 * 1024 + 1), "larger than"),
]


@pytest.mark.parametrize(("what", "text", "named"), REFUSED, ids=[case[0] for case in REFUSED])
def test_a_file_that_cannot_stand_is_refused(tmp_path: Path, what: str, text: str | bytes, named: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(tmp_path, text)

    assert named in caught.value.diagnostics(), what


def test_what_is_empty_as_written_is_unset(tmp_path: Path) -> None:
    settings = load(tmp_path, "R3MES_GENESIS_SHA256=\nR3MES_CHAIN_RPC=''\nR3MES_GENESIS_PUBKEY=' '\nR3MES_BIND\n")

    assert (settings.genesis_sha256, settings.chain_rpc, settings.genesis_pubkey) == (None, None, None)
    assert settings.bind == "127.0.0.1"


def test_a_reference_to_what_is_set_counts_and_an_empty_one_of_a_foreign_name_is_nobody_s_matter(
    tmp_path: Path,
) -> None:
    settings = load(tmp_path, f"A={PIN}\nR3MES_GENESIS_SHA256=${{A}}\nOTHER=${{NOBODY_S_NAME}}\n")

    assert settings.genesis_sha256 == PIN


def test_on_a_host_the_file_is_not_read(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("R3MES_GENESIS=pins/mine.json\n")

    settings, _ = load_init_settings({}, project=tmp_path)

    assert settings.genesis == tmp_path / "genesis" / "genesis.json"


@pytest.mark.parametrize("name", ["R3MES_REDIS_URL", "R3MES_REDIS_URL_FILE"])
def test_a_redis_outside_of_the_stack_needs_a_name_for_this_host(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigurationError, match="no name") as error:
        load(tmp_path, f"{name}=redis://me:secret@far:6379/0\n")
    assert "R3MES_NODE" in error.value.next_step
    assert "secret" not in error.value.diagnostics()
    assert load(tmp_path, f"{name}=x\nR3MES_NODE=here\n").node == "here"


def test_on_a_host_redis_is_always_given_and_the_name_has_a_default(tmp_path: Path) -> None:
    settings, _ = load_init_settings({"R3MES_REDIS_URL": "redis://127.0.0.1:6379/0"}, project=tmp_path)
    assert settings.node == "local"
