"""docker-compose.yml against the code: what a service reads it is given, and it mounts no more than it needs."""

import importlib
from pathlib import Path

import pytest
import yaml

from shared.settings import KNOWN_NAMES

REPOSITORY = Path(__file__).resolve().parents[2]
STACK = yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text())
SERVICES = STACK["services"]
IMPORT = yaml.safe_load((REPOSITORY / "compose.import.yml").read_text())
OURS = {"downloader": "DownloaderSettings", "verifier": "VerifierSettings", "miner": "MinerSettings"}
# The image sets these; a folder to import from needs a mount of its own.
NOT_PASSED = {"R3MES_MODELS_DIR", "R3MES_STORE_KIND", "R3MES_LISTEN", "R3MES_IMPORT_DIR"}


@pytest.mark.parametrize(("service", "name"), OURS.items())
def test_a_service_is_given_every_setting_that_it_reads(service: str, name: str) -> None:
    settings = getattr(importlib.import_module(f"services.{service}.settings"), name)
    read = {field.alias for field in settings.model_fields.values()} - NOT_PASSED
    assert read <= set(SERVICES[service]["environment"])


@pytest.mark.parametrize("service", OURS)
def test_every_name_that_is_passed_is_known(service: str) -> None:
    passed = {name for name in SERVICES[service]["environment"] if name.startswith("R3MES_")}
    assert passed <= KNOWN_NAMES


def test_init_is_given_no_settings_so_that_a_changed_one_recreates_nothing() -> None:
    assert not {"environment", "env_file"} & set(SERVICES["init"])


def test_no_volume_takes_owner_and_mode_from_an_image() -> None:
    mounts = [mount for service in SERVICES.values() for mount in service.get("volumes", ())]
    assert all(mount["volume"]["nocopy"] for mount in mounts if mount["type"] == "volume")


def test_only_the_gateway_publishes_and_on_loopback_unless_told_otherwise() -> None:
    assert {name for name, service in SERVICES.items() if "ports" in service} == {"gateway"}
    assert all(port.startswith("${R3MES_BIND:-127.0.0.1}:") for port in SERVICES["gateway"]["ports"])


def test_every_service_but_init_drops_all_capabilities() -> None:
    for name, service in SERVICES.items():
        assert service["cap_drop"] == ["ALL"], name
        assert ("cap_add" in service) is (name == "init")


def test_the_example_of_the_env_file_names_only_known_settings() -> None:
    lines = (REPOSITORY / ".env.example").read_text().splitlines()
    names = {line.lstrip("#").partition("=")[0] for line in lines if "=" in line}
    assert {name for name in names if name.startswith("R3MES_")} <= KNOWN_NAMES


def test_a_folder_to_import_from_is_the_downloader_s_alone_and_read_only() -> None:
    assert set(IMPORT["services"]) == {"downloader"}
    service = IMPORT["services"]["downloader"]
    (mount,) = service["volumes"]
    assert service["environment"] == {"R3MES_IMPORT_DIR": mount["target"]}
    assert mount["read_only"] is True
    assert mount["bind"] == {"create_host_path": False}
    assert not mount["target"].startswith("/models")


@pytest.mark.parametrize("service", ["downloader", "verifier"])
def test_the_image_of_r3mes_has_what_it_calls_of_a_service(service: str) -> None:
    assert f"COPY services/{service} /app/services/{service}\n" in (REPOSITORY / "launcher/Dockerfile").read_text()
