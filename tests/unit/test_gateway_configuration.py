"""What the gateway is told, by Compose, by a swarm and by Kubernetes: all that its configuration names, and enough."""

import re
from typing import Any

import yaml

from tests.support.compose import REPOSITORY

CONFIGURATION = (REPOSITORY / "deploy/gateway/gateway.cfg").read_text()
NAMED = set(re.findall(r"\$\{(GATEWAY_\w+?)(?:\[\*\])?\}", CONFIGURATION))
COMPOSE = yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text())["services"]["gateway"]
SWARM = yaml.safe_load((REPOSITORY / "deploy/swarm/stack.yml").read_text())["services"]["gateway"]
DOCUMENTS: list[dict[str, Any]] = list(yaml.safe_load_all((REPOSITORY / "deploy/kubernetes/gateway.yaml").read_text()))
POD = next(one for one in DOCUMENTS if one["kind"] == "Deployment")["spec"]["template"]["spec"]


def setting(name: str) -> str:
    """The one value of a keyword of the configuration."""
    (value,) = re.findall(rf"(?m)^    {name} (.+)$", CONFIGURATION)
    assert isinstance(value, str)
    return value


def test_compose_and_a_swarm_give_every_value_that_the_configuration_names_and_no_other() -> None:
    script = COMPOSE["command"][2]
    exported = set(re.findall(r"\b(GATEWAY_\w+)=", script))
    assert exported | {name for name in COMPOSE["environment"] if name.startswith("GATEWAY_")} == NAMED
    assert set(SWARM["environment"]) == NAMED


def test_a_reload_leaves_answers_of_before_it_as_long_as_any_answer_may_take() -> None:
    assert setting("hard-stop-after") == setting("timeout server") == '"${GATEWAY_SECONDS}s"'


def test_a_stop_lets_answers_end_and_is_bounded_wherever_the_gateway_runs() -> None:
    for service in (COMPOSE, SWARM):
        assert (service["stop_signal"], service["stop_grace_period"]) == ("SIGUSR1", "45s")
    assert POD["terminationGracePeriodSeconds"] == 45  # the image's own signal is SIGUSR1


def test_requests_of_as_many_connections_as_there_may_be_fit_into_the_memory_of_the_container() -> None:
    connections, buffer = int(setting("maxconn")), int(setting("tune.bufsize"))
    most = connections * 3 * buffer  # the request, its copy for another try, the answer
    (pod,) = POD["containers"]
    given = COMPOSE["mem_limit"], SWARM["deploy"]["resources"]["limits"]["memory"], pod["resources"]["limits"]["memory"]
    assert given == ("1g", "1G", "1Gi")
    assert most <= 2**30 * 3 // 4, "HAProxy itself takes the rest"
    assert f"if {{ sc0_conn_cur gt {connections} }}" in CONFIGURATION, "HTTP/2 brings more requests than connections"
