"""docker-compose.yml against the code: what a service reads it is given, and it mounts no more than it needs."""

import importlib
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from launcher.credentials import ACL_FILE, OWNERS, URL_FILE
from launcher.init_command import CREDENTIALS
from shared.redis_rights import HEALTH
from shared.settings import KNOWN_NAMES
from shared.store.layout import DOWNLOADER_UID, MINER_UID, REDIS_UID, STORE_GID, VERIFIER_UID

REPOSITORY = Path(__file__).resolve().parents[2]
STACK = yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text())
SERVICES = STACK["services"]
GPU = yaml.safe_load((REPOSITORY / "compose.gpu.yml").read_text())["services"]
IMPORT = yaml.safe_load((REPOSITORY / "compose.import.yml").read_text())
OURS = {"downloader": "DownloaderSettings", "verifier": "VerifierSettings", "miner": "MinerSettings"}
# The image sets these; a folder to import from needs a mount of its own.
REDIS_URL = "R3MES_REDIS_URL${"
NOT_PASSED = {"R3MES_MODELS_DIR", "R3MES_STORE_KIND", "R3MES_LISTEN", "R3MES_IMPORT_DIR"}
# Somebody else's programs, which keep what they write in volumes that are theirs alone.
THEIRS = {"prometheus": "prometheus-data", "grafana": "grafana-data"}
PUBLISHED = {"gateway": 8000, "prometheus": 9090, "grafana": 3000}


def has_compose() -> bool:
    if shutil.which("docker") is None:
        return False
    return subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode == 0


def names(service: str) -> set[str]:
    """Names that a service is given; where one depends on another setting, both that it may be."""
    found = SERVICES[service]["environment"]
    if isinstance(found, dict):
        return set(found)
    given = {line.partition("=")[0] for line in found}
    return {name for name in given if not name.startswith(REDIS_URL)} | {"R3MES_REDIS_URL", "R3MES_REDIS_URL_FILE"}


@pytest.mark.parametrize(("service", "name"), OURS.items())
def test_a_service_is_given_every_setting_that_it_reads(service: str, name: str) -> None:
    settings = getattr(importlib.import_module(f"services.{service}.settings"), name)
    read = {field.alias for field in settings.model_fields.values()} - NOT_PASSED
    assert read <= names(service)


@pytest.mark.parametrize("service", OURS)
def test_every_name_that_is_passed_is_known(service: str) -> None:
    passed = {name for name in names(service) if name.startswith("R3MES_")}
    assert passed <= KNOWN_NAMES


def test_init_is_given_no_settings_so_that_a_changed_one_recreates_nothing() -> None:
    assert not {"environment", "env_file"} & set(SERVICES["init"])


def test_no_volume_of_ours_takes_owner_and_mode_from_an_image() -> None:
    mounts = [mount for service in SERVICES.values() for mount in service.get("volumes", ())]
    ours = [mount for mount in mounts if mount["type"] == "volume" and mount["source"] not in THEIRS.values()]
    assert ours
    assert all(mount["volume"]["nocopy"] for mount in ours)


def test_three_services_publish_their_port_and_on_loopback_unless_told_otherwise() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert published == {name: [f"${{R3MES_BIND:-127.0.0.1}}:{port}:{port}"] for name, port in PUBLISHED.items()}


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


# (uid, gid), parts of the store and whether they are writable, networks: the table of docs/pinning.md.
TABLE: dict[str, tuple[tuple[int, int], dict[str, bool], set[str]]] = {
    "downloader": (
        (DOWNLOADER_UID, STORE_GID),
        {"trust": False, "incoming": True, "verified": False, "rejected": False},
        {"default", "control", "inference"},
    ),
    "verifier": (
        (VERIFIER_UID, STORE_GID),
        {"trust": False, "incoming": True, "verified": True, "rejected": True},
        {"control"},
    ),
    "miner": ((MINER_UID, MINER_UID), {"trust": False, "verified": False}, {"inference"}),
    "redis": ((REDIS_UID, REDIS_UID), {}, {"control"}),
    # Whoever their images say.
    "gateway": ((-1, -1), {}, {"default", "inference"}),
    "prometheus": ((-1, -1), {}, {"default", "control", "inference"}),
    "grafana": ((-1, -1), {}, {"default"}),
}
# What would undo the table: other users and groups, namespaces of the host's, devices, what root's abilities bring.
BEYOND = {
    "privileged", "cap_add", "group_add", "devices", "device_cgroup_rules", "pid", "ipc", "userns_mode", "network_mode",
    "cgroup", "volumes_from", "extra_hosts", "links", "external_links", "secrets", "env_file",
}  # fmt: skip


def user_of(service: str) -> tuple[int, int]:
    """Who a container is: as the stack says, else as its image does."""
    said = SERVICES[service].get("user")
    if said is None:
        dockerfile = (REPOSITORY / SERVICES[service]["build"]["dockerfile"]).read_text()
        (said,) = re.findall(r"(?m)^USER (\d+:\d+)$", dockerfile)[-1:]
    uid, gid = said.split(":")
    return int(uid), int(gid)


def test_the_table_is_of_all_services_but_init() -> None:
    assert set(TABLE) == set(SERVICES) - {"init"}


@pytest.mark.parametrize("service", TABLE)
def test_a_service_mounts_its_own_parts_of_the_store_as_its_own_user(service: str) -> None:
    user, parts, _networks = TABLE[service]
    mounts = [mount for mount in SERVICES[service].get("volumes", ()) if mount["source"] == "models"]
    found = {mount["volume"]["subpath"]: not mount.get("read_only", False) for mount in mounts}
    assert found == parts
    assert [mount["target"] for mount in mounts] == [f"/models/{part}" for part in found]
    assert user == (-1, -1) or user_of(service) == user


def test_only_init_sees_the_project_s_folder_and_others_parts_of_it_read_only() -> None:
    bound = {
        (name, mount["source"], mount["target"])
        for name, service in SERVICES.items()
        for mount in service.get("volumes", ())
        if mount["type"] == "bind" and mount["read_only"]
    }
    assert bound == {
        ("init", ".", "/project"),
        ("downloader", "./secrets/api", "/run/secrets/api"),
        ("downloader", "./secrets/downloader", "/run/secrets/downloader"),
        ("miner", "./secrets/api", "/run/secrets/api"),
        ("gateway", "./deploy/gateway", "/usr/local/etc/haproxy"),
        ("gateway", "./secrets/tls", "/tls"),
        ("prometheus", "./monitoring/prometheus", "/etc/prometheus"),
        ("grafana", "./monitoring/grafana/provisioning", "/etc/grafana/provisioning"),
        ("grafana", "./monitoring/grafana/dashboards", "/var/lib/grafana-dashboards"),
    }
    kinds = {(mount["type"], mount.get("read_only")) for s in SERVICES.values() for mount in s.get("volumes", ())}
    assert ("bind", None) not in kinds


def test_what_is_mounted_from_the_project_is_there_in_a_fresh_clone() -> None:
    sources = {
        mount["source"]
        for service in SERVICES.values()
        for mount in service.get("volumes", ())
        if mount["type"] == "bind"
    }
    listed = subprocess.run(["git", "ls-files"], cwd=REPOSITORY, capture_output=True, check=True, text=True).stdout
    for source in sources - {"."}:
        assert any(name.startswith(source.removeprefix("./") + "/") for name in listed.splitlines()), source


def test_only_init_mounts_a_volume_whole_but_for_what_somebody_else_s_programs_write() -> None:
    whole = {
        (name, mount["source"])
        for name, service in SERVICES.items()
        for mount in service.get("volumes", ())
        if mount["type"] == "volume" and "subpath" not in mount.get("volume", {})
    }
    init = {("init", volume) for volume in STACK["volumes"] if volume not in THEIRS.values()}
    assert whole == init | {("redis", "redis-data")} | set(THEIRS.items())


@pytest.mark.parametrize("service", SERVICES)
def test_every_container_is_bounded(service: str) -> None:
    found = SERVICES[service]
    assert found["read_only"] is True
    assert found["init"] is True
    assert found["tmpfs"] == ["/tmp:mode=1777,size=64m"]  # noqa: S108  (in a container)
    assert found["pids_limit"] <= 4096
    assert found["logging"]["options"] == {"max-size": "10m", "max-file": "3"}
    assert (
        found["mem_limit"] == "${R3MES_MINER_MEMORY:-0}" if service == "miner" else found["mem_limit"] in ("512m", "1g")
    )


def test_a_secret_s_file_is_named_as_init_reads_it_and_found_where_it_is_mounted() -> None:
    wanted = "${R3MES_API_KEYS_FILE:+/run/${R3MES_API_KEYS_FILE:-}}"
    assert SERVICES["miner"]["environment"]["R3MES_API_KEYS_FILE"] == wanted
    assert f"R3MES_API_KEYS_FILE={wanted}" in SERVICES["downloader"]["environment"]
    assert "HF_TOKEN_FILE=${HF_TOKEN_FILE:+/run/${HF_TOKEN_FILE:-}}" in SERVICES["downloader"]["environment"]


def test_init_has_three_of_root_s_abilities_and_no_way_to_more() -> None:
    assert SERVICES["init"]["cap_add"] == ["CHOWN", "FOWNER", "DAC_OVERRIDE"]
    assert SERVICES["init"]["security_opt"] == ["no-new-privileges:true"]
    assert not (BEYOND - {"cap_add", "group_add"}) & set(SERVICES["init"])


def test_init_ends_before_any_service_begins_and_is_not_started_again() -> None:
    assert "restart" not in SERVICES["init"]
    for name in TABLE:
        assert SERVICES[name]["depends_on"]["init"] == {"condition": "service_completed_successfully"}, name


@pytest.mark.parametrize("service", TABLE)
def test_a_service_stands_in_its_own_networks_alone(service: str) -> None:
    assert set(SERVICES[service]["networks"]) == TABLE[service][2]


def test_of_the_networks_only_the_default_one_leads_out() -> None:
    assert {name for name, network in STACK["networks"].items() if not (network or {}).get("internal")} == {"default"}
    out = {name for name, service in SERVICES.items() if "default" in service["networks"]}
    assert out == {"init", "downloader", "gateway", "prometheus", "grafana"}


def test_the_miner_has_no_way_to_redis_and_no_address_of_it() -> None:
    assert not set(SERVICES["miner"]["networks"]) & set(SERVICES["redis"]["networks"])
    assert not [name for name in SERVICES["miner"]["environment"] if "REDIS" in name]


@pytest.mark.parametrize("service", TABLE)
def test_nothing_gives_a_service_more_than_the_table_does(service: str) -> None:
    assert not BEYOND & set(SERVICES[service])
    assert SERVICES[service]["security_opt"] == ["no-new-privileges:true"]


def test_gpus_are_given_in_the_override_alone_and_dcgm_runs_only_where_it_is_asked_for() -> None:
    assert "nvidia" not in (REPOSITORY / "docker-compose.yml").read_text()
    assert set(GPU) == {"miner", "dcgm"}
    (device,) = GPU["dcgm"]["deploy"]["resources"]["reservations"]["devices"]
    assert GPU["miner"]["deploy"]["resources"]["reservations"]["devices"] == [device]
    assert device == {"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}
    assert GPU["dcgm"]["profiles"] == ["dcgm"]


def test_dcgm_is_bounded_as_every_container_stands_where_prometheus_reads_it_and_publishes_nothing() -> None:
    dcgm, bounds = GPU["dcgm"], STACK["x-bounds"]
    assert {name: dcgm.get(name) for name in bounds} == bounds
    assert set(dcgm["networks"]) <= set(SERVICES["prometheus"]["networks"])
    assert not {"ports", "volumes", "environment", *BEYOND} & set(dcgm)
    assert re.fullmatch(r"nvidia/dcgm-exporter:[\d.]+-[\d.]+-distroless", dcgm["image"])


@pytest.mark.parametrize("service", ["downloader", "verifier"])
def test_the_image_of_r3mes_has_what_it_calls_of_a_service(service: str) -> None:
    assert f"COPY services/{service} /app/services/{service}\n" in (REPOSITORY / "launcher/Dockerfile").read_text()


def test_each_of_three_mounts_its_own_credentials_alone_and_read_only() -> None:
    found = {
        name: (mount["target"], mount["volume"]["subpath"], mount["read_only"])
        for name, service in SERVICES.items()
        for mount in service.get("volumes", ())
        if mount["source"] == "credentials" and name != "init"
    }
    assert found == {name: (str(CREDENTIALS), name, True) for name in OWNERS}


def test_redis_takes_rights_from_init_s_file_and_has_no_other_way_in() -> None:
    (_, _, command), health = SERVICES["redis"]["command"], SERVICES["redis"]["healthcheck"]["test"][1]
    assert f"cat {CREDENTIALS}/{ACL_FILE} >/tmp/{ACL_FILE} && exec redis-server --aclfile /tmp/{ACL_FILE}" in command
    assert f"--user {HEALTH} " in health
    assert not {"requirepass", "protected-mode"} & set(re.findall(r"[a-z-]+", command))
    assert "--appendonly yes --maxmemory-policy noeviction" in command
    assert "ports" not in SERVICES["redis"]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {"R3MES_REDIS_URL_FILE": f"{CREDENTIALS}/{URL_FILE}"}),
        ({"R3MES_REDIS_URL": ""}, {"R3MES_REDIS_URL_FILE": f"{CREDENTIALS}/{URL_FILE}"}),
        ({"R3MES_REDIS_URL_FILE": "/run/secrets/url"}, {"R3MES_REDIS_URL_FILE": "/run/secrets/url"}),
        ({"R3MES_REDIS_URL": "rediss://me:p@ss=$$1@far:1/0"}, {"R3MES_REDIS_URL": "rediss://me:p@ss=$$1@far:1/0"}),
    ],
    ids=["nothing", "empty", "a file", "an address"],
)
@pytest.mark.skipif(not has_compose(), reason="only Compose itself can tell")
def test_the_address_of_redis_reaches_a_service_in_exactly_one_way(
    given: dict[str, str], expected: dict[str, str]
) -> None:
    told = subprocess.run(
        ["docker", "compose", "--env-file", "/dev/null", "config", "--format", "json"],
        cwd=REPOSITORY, env={"PATH": os.environ["PATH"], **given}, capture_output=True, check=True, text=True,
    ).stdout  # fmt: skip
    for service in ("downloader", "verifier"):
        environment = json.loads(told)["services"][service]["environment"]
        # `config` writes a dollar as two, so that its output can be read again.
        found = {n: v.replace("$$", "$") for n, v in environment.items() if n.startswith("R3MES_REDIS_URL")}
        assert found == expected


def test_the_overrides_for_miners_name_what_the_miner_s_dockerfile_has() -> None:
    dockerfile = (REPOSITORY / "services" / "miner" / "Dockerfile").read_text()
    torch = yaml.safe_load((REPOSITORY / "compose.torch.yml").read_text())["services"]["miner"]["build"]
    assert f" AS {torch['target']}\n" in dockerfile
    gpu = yaml.safe_load((REPOSITORY / "compose.gpu.yml").read_text())["services"]["miner"]["build"]
    assert gpu["args"].keys() <= set(re.findall(r"^ARG (\w+)", dockerfile, re.MULTILINE))
