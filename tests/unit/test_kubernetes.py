"""The manifests for Kubernetes: right by its published schemas, within the design's table, and of one piece."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from shared.settings import KNOWN_NAMES
from shared.store.layout import DOWNLOADER_UID, MINER_UID, REDIS_UID, STORE_GID, VERIFIER_UID

REPOSITORY = Path(__file__).resolve().parents[2]
FOLDER = REPOSITORY / "deploy" / "kubernetes"
KUSTOMIZATION = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())
VERSION = "1.37"
# Kinds of operators, whose schemas are not Kubernetes' own: their fields that are used here, by hand.
CUSTOM = {
    "ServiceMonitor": {"selector", "jobLabel", "endpoints"},
    "ScaledObject": {"scaleTargetRef", "minReplicaCount", "maxReplicaCount", "cooldownPeriod", "triggers"},
}
PODS = {
    "redis": (REDIS_UID, REDIS_UID),
    "downloader": (DOWNLOADER_UID, STORE_GID),
    "verifier": (VERIFIER_UID, STORE_GID),
    "miner": (MINER_UID, MINER_UID),
    "gateway": (99, 99),
}
# Parts of the store, and whether they are writable: the table of docs/pinning.md.
STORE = {
    "downloader": {"trust": False, "incoming": True, "verified": False, "rejected": False},
    "verifier": {"trust": False, "incoming": True, "verified": True, "rejected": True},
    "miner": {"trust": False, "verified": False},
}


def documents() -> list[dict[str, Any]]:
    found = []
    for name in [*KUSTOMIZATION["resources"], "keda.yaml"]:
        found += list(yaml.safe_load_all((FOLDER / name).read_text()))
    return found


ALL = documents()


def name_of(document: dict[str, Any]) -> str:
    return f"{document['kind']}/{document['metadata']['name']}"


def pods() -> Iterator[tuple[str, dict[str, Any]]]:
    for document in ALL:
        if document["kind"] in ("Deployment", "DaemonSet", "StatefulSet"):
            yield document["metadata"]["name"], document["spec"]["template"]["spec"]


def containers() -> Iterator[tuple[str, dict[str, Any]]]:
    for name, pod in pods():
        for container in [*pod["containers"], *pod.get("initContainers", ())]:
            yield f"{name}/{container['name']}", container


@pytest.mark.parametrize("document", ALL, ids=name_of)
def test_a_manifest_is_right_by_the_published_schema(document: dict[str, Any]) -> None:
    if document["kind"] in CUSTOM:
        assert set(document["spec"]) <= CUSTOM[document["kind"]]
    else:
        kubernetes_validate.validate(document, VERSION, strict=True)


def test_the_schemas_refuse_what_is_wrong() -> None:
    (deployment,) = (document for document in ALL if name_of(document) == "Deployment/miner")
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate({**deployment, "spec": {**deployment["spec"], "replica": 1}}, VERSION, strict=True)


def test_everything_of_the_folder_is_listed_but_for_what_is_applied_by_itself() -> None:
    files = {path.name for path in FOLDER.glob("*.yaml")} - {"kustomization.yaml", "keda.yaml"}
    assert files == set(KUSTOMIZATION["resources"])
    for generator in KUSTOMIZATION["configMapGenerator"]:
        assert all((FOLDER / file).is_file() for file in generator["files"])


def test_the_genesis_is_an_immutable_config_map() -> None:
    (genesis,) = (one for one in KUSTOMIZATION["configMapGenerator"] if one["name"] == "genesis")
    assert genesis["options"] == {"immutable": True}


@pytest.mark.parametrize(("name", "pod"), list(pods()), ids=[name for name, _ in pods()])
def test_a_pod_is_its_own_user_and_is_told_of_no_services(name: str, pod: dict[str, Any]) -> None:
    security = pod["securityContext"]
    assert (security["runAsUser"], security["runAsGroup"]) == PODS[name]
    assert security["runAsNonRoot"] is True
    assert pod["enableServiceLinks"] is False
    assert pod["automountServiceAccountToken"] is False
    assert pod.get("hostNetwork", False) is False


@pytest.mark.parametrize(("name", "container"), list(containers()), ids=[name for name, _ in containers()])
def test_a_container_is_bounded_and_asked_how_it_is(name: str, container: dict[str, Any]) -> None:
    security = container["securityContext"]
    assert security["readOnlyRootFilesystem"] is True
    assert security["allowPrivilegeEscalation"] is False
    added = ["CHOWN", "FOWNER", "DAC_OVERRIDE"] if name.endswith("/init") else None
    assert security["capabilities"] == {"drop": ["ALL"]} | ({"add": added} if added else {})
    assert container["resources"]["requests"]
    assert "memory" in container["resources"].get("limits", {}) or name == "miner/miner"
    if not name.endswith("/init"):
        assert container["readinessProbe"]
        assert container["livenessProbe"]
    names = {one["name"] for one in container.get("env", ())}
    assert {one for one in names if one.startswith("R3MES_")} <= KNOWN_NAMES


@pytest.mark.parametrize("name", STORE)
def test_a_service_mounts_its_own_parts_of_the_store(name: str) -> None:
    (pod,) = (pod for found, pod in pods() if found == name)
    (container,) = pod["containers"]
    mounts = [mount for mount in container["volumeMounts"] if mount["name"] == "models"]
    assert {mount["subPath"]: not mount.get("readOnly", False) for mount in mounts} == STORE[name]
    assert [mount["mountPath"] for mount in mounts] == [f"/models/{mount['subPath']}" for mount in mounts]
    (init,) = pod["initContainers"]
    assert [mount["mountPath"] for mount in init["volumeMounts"]] == ["/models", "/genesis"]


def test_what_is_mounted_is_defined() -> None:
    for name, pod in pods():
        claims = [
            claim["metadata"]["name"]
            for document in ALL
            if document["kind"] == "StatefulSet" and document["metadata"]["name"] == name
            for claim in document["spec"].get("volumeClaimTemplates", ())
        ]
        defined = {volume["name"] for volume in pod.get("volumes", ())} | set(claims)
        used = {
            mount["name"]
            for found, one in containers()
            if found.startswith(f"{name}/")
            for mount in one["volumeMounts"]
        }
        assert used == defined, name


def test_the_miners_may_be_asked_and_ask_nobody() -> None:
    policies = {
        document["metadata"]["name"]: document["spec"] for document in ALL if document["kind"] == "NetworkPolicy"
    }
    assert policies["nobody"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    assert policies["miner"]["policyTypes"] == ["Ingress"]
    assert "egress" not in policies["miner"]
    assert set(policies) == {"nobody", *PODS}


def test_the_gateway_is_given_every_value_that_its_configuration_names() -> None:
    (container,) = next(pod for name, pod in pods() if name == "gateway")["containers"]
    named = set(re.findall(r"\$\{(GATEWAY_\w+?)(?:\[\*\])?\}", (REPOSITORY / "deploy/gateway/gateway.cfg").read_text()))
    assert {one["name"] for one in container["env"]} == named


def test_a_monitor_finds_its_service_and_a_port_of_it() -> None:
    services = {document["metadata"]["name"]: document for document in ALL if document["kind"] == "Service"}
    monitors = [document for document in ALL if document["kind"] == "ServiceMonitor"]
    assert {document["metadata"]["name"] for document in monitors} == set(PODS) - {"redis"}
    for monitor in monitors:
        service = services[monitor["metadata"]["name"]]
        assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
        ports = {port["name"] for port in service["spec"]["ports"]}
        assert {endpoint["port"] for endpoint in monitor["spec"]["endpoints"]} <= ports


def test_miners_scale_with_what_waits() -> None:
    (scaled,) = (document for document in ALL if document["kind"] == "ScaledObject")
    assert scaled["spec"]["scaleTargetRef"] == {"kind": "Deployment", "name": "miner"}
    (trigger,) = scaled["spec"]["triggers"]
    assert all(isinstance(value, str) for value in trigger["metadata"].values())
    assert "r3mes_miner_requests_waiting" in trigger["metadata"]["query"]
    assert any(name_of(document) == "PodDisruptionBudget/miner" for document in ALL)
