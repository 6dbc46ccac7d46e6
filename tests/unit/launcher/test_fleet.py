"""Which models run on which GPUs and hosts: what is asked for, what Compose and the gateway are told."""

import base64
import json
from pathlib import Path

import pytest
import yaml

from launcher.fleet import Host, Pool, alias, compose_files, compose_override, gateway_backends, key, read_pools
from launcher.fleet_command import fleet
from shared.errors import UsageError
from tests.support.geneses import plain_form

MODELS = ["Small", "It's $5 = 1"]


def pools(gpus: tuple[str, ...] = (), processors: tuple[str, ...] = (), hosts: tuple[str, ...] = ()) -> list[Pool]:
    return read_pools(MODELS, gpus=gpus, processors=processors, hosts=hosts)


class _Compose(yaml.SafeLoader):
    """YAML with Compose's tags."""


_Compose.add_constructor("!reset", lambda _loader, _node: "reset")


def override(*arguments: tuple[str, ...]) -> dict[str, dict[str, object]]:
    services = yaml.load(compose_override(pools(*arguments)), _Compose)["services"]  # noqa: S506  (made here)
    assert isinstance(services, dict)
    return services


def test_without_a_name_it_is_about_the_first_model_of_the_genesis() -> None:
    assert pools(gpus=("0, 1",)) == [Pool("Small", gpus=["0", "1"])]


def test_a_model_s_name_may_hold_what_separates_it() -> None:
    assert pools(processors=("It's $5 = 1=2",)) == [Pool("It's $5 = 1", processors=2)]


def test_pools_come_in_the_order_of_the_genesis_and_options_add_up() -> None:
    found = pools(("It's $5 = 1=2", "0"), ("1", "1"), ("far*3,https://[::1]:9000",))
    hosts = [Host("far:8000", tls=False, miners=3), Host("[::1]:9000", tls=True, miners=1)]
    assert found == [Pool("Small", ["0"], 2, hosts), Pool("It's $5 = 1", ["2"])]


@pytest.mark.parametrize(
    ("gpus", "processors", "hosts"),
    [
        ((), (), ()),
        (("Other=0",), (), ()),
        (("0,0",), (), ()),
        (("0", "It's $5 = 1=0"), (), ()),
        (("0,,1",), (), ()),
        (("0; rm -rf",), (), ()),
        ((), ("0",), ()),
        ((), ("many",), ()),
        ((), ("257",), ()),
        ((), ("200", "It's $5 = 1=200"), ()),
        ((), (), ("ftp://far",)),
        ((), (), ("far/v1",)),
        ((), (), ("me@far",)),
        ((), (), ("far:http",)),
        ((), (), ("far:99999",)),
        ((), (), ("[fd00::1",)),
        ((), (), ("far*",)),
        ((), (), ("far\n    server evil evil:1",)),
    ],
)
def test_what_makes_no_sense_is_refused(
    gpus: tuple[str, ...], processors: tuple[str, ...], hosts: tuple[str, ...]
) -> None:
    with pytest.raises(UsageError):
        pools(gpus, processors, hosts)


def test_each_gpu_gets_a_miner_of_its_own_in_place_of_the_default_one() -> None:
    services = override(("0,GPU-abc",))
    assert services["miner"] == {"deploy": {"replicas": 0}}
    assert set(services) == {"miner", "miner-1", "miner-2"}
    first = services["miner-1"]
    assert first["extends"] == {"file": "docker-compose.yml", "service": "miner"}
    assert first["environment"] == {"R3MES_MODEL": "Small"}
    device = {"driver": "nvidia", "device_ids": ["0"], "capabilities": ["gpu"]}
    assert first["deploy"] == {"resources": {"reservations": {"devices": [device]}}}
    assert (first["image"], first["build"]) == ("r3mes-miner-cuda", "reset")
    assert first["networks"] == {"inference": {"aliases": ["miner", alias("Small")]}}


def test_a_miner_on_the_processor_has_the_default_image() -> None:
    assert set(override((), ("1",))["miner-1"]) == {"extends", "environment", "networks"}


def test_compose_substitutes_nothing_in_a_model_s_name() -> None:
    assert override((), ("It's $5 = 1=1",))["miner-1"]["environment"] == {"R3MES_MODEL": "It's $$5 = 1"}


def test_other_hosts_alone_leave_this_one_s_miner() -> None:
    assert override((), (), ("far",)) == {"miner": {"deploy": {"replicas": 1}}}
    assert "server-template here 32 miner:8080" in gateway_backends(pools(hosts=("far",)))


def test_the_image_for_gpus_is_built_by_its_own_file() -> None:
    assert compose_files(pools(("0",))) == "docker-compose.yml:compose.gpu.yml:compose.fleet.yml"
    assert compose_files(pools((), ("1",))) == "docker-compose.yml:compose.fleet.yml"


@pytest.mark.parametrize(
    ("present", "gpus", "processors", "hosts", "wanted"),
    [
        ("docker-compose.yml:compose.central.yml", "0", "", "", "docker-compose.yml:compose.central.yml:GPU:FLEET"),
        ("docker-compose.yml:./compose.miner.yml", "", "1", "", "docker-compose.yml:compose.miner.yml:FLEET"),
        ("docker-compose.yml:FLEET:mine.yml", "0", "", "", "docker-compose.yml:GPU:FLEET:mine.yml"),
        ("docker-compose.yml:GPU:mine.yml:FLEET", "0", "", "", "docker-compose.yml:GPU:mine.yml:FLEET"),
        ("docker-compose.yml:GPU:mine.yml:FLEET", "", "1", "", "docker-compose.yml:mine.yml:FLEET"),
        ("docker-compose.yml:GPU", "", "", "far", "docker-compose.yml:GPU:FLEET"),
    ],
    ids=["central", "joined", "gpus come", "gpus stay", "gpus go", "its own miner goes on as it is"],
)
def test_other_overrides_stay(present: str, gpus: str, processors: str, hosts: str, wanted: str) -> None:
    def named(files: str) -> str:
        return files.replace("GPU", "compose.gpu.yml").replace("FLEET", "compose.fleet.yml")

    asked = pools(*((text,) if text else () for text in (gpus, processors, hosts)))
    assert compose_files(asked, named(present).split(":")) == named(wanted)
    assert f"COMPOSE_FILE={named(wanted)}\n" in compose_override(asked, named(present).split(":"))


@pytest.mark.parametrize(
    ("environ", "env", "override", "files"),
    [
        ("docker-compose.yml:a.yml", "COMPOSE_FILE=docker-compose.yml:b.yml", "", "docker-compose.yml:a.yml"),
        ("", "R3MES_NODE=n\nCOMPOSE_FILE='docker-compose.yml:b.yml'", "", "docker-compose.yml:b.yml"),
        ("", "", "docker-compose.override.yml", "docker-compose.yml:docker-compose.override.yml"),
        ("", "", "", "docker-compose.yml"),
    ],
    ids=["the environment", "a .env", "the override that Compose finds by itself", "neither"],
)
def test_the_command_begins_with_the_files_that_compose_reads_now(
    environ: str,
    env: str,
    override: str,
    files: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "docker-compose.yml").touch()
    for folder in ("genesis", "deploy/gateway", "monitoring/prometheus/hosts"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "genesis" / "genesis.json").write_bytes(plain_form(size_bytes=1000))
    if env:
        (tmp_path / ".env").write_text(env + "\n")
    if override:
        (tmp_path / override).touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COMPOSE_FILE", environ)
    fleet(processor=["1"], as_json=True)
    assert json.loads(capsys.readouterr().out)["compose_file"] == f"{files}:compose.fleet.yml"
    assert f"COMPOSE_FILE={files}:compose.fleet.yml\n" in (tmp_path / "compose.fleet.yml").read_text()


def test_a_backend_has_its_model_s_name_as_haproxy_writes_it() -> None:
    for model in (*MODELS, "ünï", "a" * 100):
        assert base64.urlsafe_b64decode(key(model) + "=" * (-len(key(model)) % 4)).decode() == model
        assert set(key(model)) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_")


def test_a_host_has_as_many_servers_as_miners() -> None:
    lines = gateway_backends(pools(hosts=("far*2,https://near",))).splitlines()
    servers = [line.split()[1:3] for line in lines if line.startswith("    server ")]
    assert servers == [["host0-0", "far:8000"], ["host0-1", "far:8000"], ["host1-0", "near:8000"]]
    (near,) = (line for line in lines if "near:8000" in line)
    assert near.endswith("ssl verify required ca-file /tls/ca.pem verifyhost near sni str(near)")


@pytest.mark.parametrize("address", ["10.0.0.2", "[fd00::2]"])
def test_of_an_address_the_certificate_s_name_is_not_compared(address: str) -> None:
    assert "verifyhost" not in gateway_backends(pools(hosts=(f"https://{address}",)))


def test_the_gateway_is_ready_where_a_miner_of_any_host_is() -> None:
    text = gateway_backends(pools(("0",), hosts=("far", f"{MODELS[1]}=near")))
    (line,) = (line for line in text.splitlines() if '"ready' in line)
    assert line.endswith(" || ".join(f"{{ nbsrv(model_{key(model)}) gt 0 }}" for model in MODELS[:2]))
    assert "elsewhere" not in gateway_backends(pools(("0",)))


def test_several_models_are_listed_since_no_miner_knows_of_the_others() -> None:
    text = gateway_backends(pools((), ("1", "It's $5 = 1=1")))
    assert "It\\u0027s $5" in text
    (line,) = (line for line in text.splitlines() if "http-request return" in line)
    assert line.count("'") == 2
    assert "backend models " not in gateway_backends(pools((), ("1",)))
