"""One gateway for two hosts, as `r3mes fleet --hosts` writes it down: over TLS, to a host that shows its certificate.

Two whole stacks on one engine. The far one's gateway stands in the near one's network as well, by a name of its own,
which is all that the two have in common.
"""

import secrets
import shutil
import subprocess
from collections.abc import Iterator

import pytest
import requests

from shared.genesis import ModelPin
from tests.support.compose import Stack
from tests.support.containers import fleet_command, need_engine, stack_with_origin
from tests.support.waiting import wait_until
from tests.support.whole_stack import READY_SECONDS, answered, body, metric, miners

pytestmark = [pytest.mark.containers, pytest.mark.timeout(4500)]

FAR = "gpu2.example"
KEY = secrets.token_hex()
HEADERS = {"Authorization": f"Bearer {KEY}"}


def certify(stack: Stack, name: str) -> None:
    """What the operator of the far host does; its gateway speaks TLS from its next start on."""
    subprocess.run(["deploy/certificates", name], cwd=stack.directory, check=True, capture_output=True)


@pytest.fixture(scope="module")
def far(pin: ModelPin, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A host with a miner, whose gateway has a certificate of a CA of its own."""
    need_engine()
    stack = stack_with_origin(tmp_path_factory.mktemp("far"), pin)
    certify(stack, FAR)
    with stack:
        start(stack)
        yield stack


@pytest.fixture(scope="module")
def near(far: Stack, pin: ModelPin, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The host that users come to, with a miner of its own; it knows the other's CA, and is in its network."""
    files = ["docker-compose.yml", "compose.fleet.yml", "tests/e2e/beside.yml"]
    stack = stack_with_origin(tmp_path_factory.mktemp("near"), pin, files=files)
    shutil.copy(far.directory / "secrets" / "ca" / "ca.pem", stack.directory / "secrets" / "tls" / "ca.pem")
    (stack.directory / "secrets" / "tls" / "ca.pem").chmod(0o644)
    fleet_command(stack, "--hosts", f"https://{FAR}")
    network, gateway = f"{stack.project}_default", far.run("ps", "--quiet", "gateway").strip()
    with stack:
        start(stack)
        subprocess.run(["docker", "network", "connect", "--alias", FAR, network, gateway], check=True)
        try:
            yield stack
        finally:
            subprocess.run(["docker", "network", "disconnect", "--force", network, gateway], check=False)


def start(stack: Stack) -> None:
    """Start a whole stack whose gateway asks for the key."""
    env = stack.directory / ".env"
    env.write_text(env.read_text() + f"R3MES_API_KEYS={KEY}\n")
    stack.build()
    stack.up()


def asked(stack: Stack, model: str) -> requests.Response:
    return requests.post(stack.url() + "/v1/chat/completions", json=body(model), headers=HEADERS, timeout=180)


def servers(stack: Stack) -> int:
    """How many miners the near gateway would ask now."""
    told = stack.run("exec", "-T", "gateway", "bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/8404;"
                     " printf 'GET /metrics HTTP/1.0\\r\\n\\r\\n' >&3; cat <&3")  # fmt: skip
    lines = [line for line in told.splitlines() if line.startswith('haproxy_backend_active_servers{proxy="model_')]
    return int(sum(float(line.rpartition(" ")[2]) for line in lines))


def test_both_hosts_miners_answer(near: Stack, far: Stack, pin: ModelPin) -> None:
    wait_until(lambda: servers(near) == 2, READY_SECONDS, "the near gateway knows both miners")
    places = [*miners(near), *miners(far)]
    before = [answered(place) for place in places]
    answers = [asked(near, pin.model_name) for _ in range(12)]
    assert {answer.status_code for answer in answers} == {200}
    new = [answered(place) - count for place, count in zip(places, before, strict=True)]
    assert sum(new) == 12
    assert min(new) > 0, new


def test_the_far_host_asks_for_a_key_as_well(near: Stack, pin: ModelPin) -> None:
    url = near.url() + "/v1/chat/completions"
    refused = [requests.post(url, json=body(pin.model_name), timeout=60).status_code for _ in range(4)]
    assert refused == [401] * 4


def test_the_far_miner_answers_while_the_near_one_is_gone(near: Stack, far: Stack, pin: ModelPin) -> None:
    near.run("stop", "miner")
    try:
        wait_until(lambda: servers(near) == 1, 60, "the near gateway misses its miner")
        (place,) = miners(far)
        before = answered(place)
        assert [asked(near, pin.model_name).status_code for _ in range(3)] == [200] * 3
        assert answered(place) - before == 3
        assert requests.get(near.url() + "/readyz", timeout=10).text == "ready\n"
        far.run("stop", "miner")
        wait_until(lambda: servers(near) == 0, 60, "the near gateway misses both")
        for path in ("/readyz", "/v1/models"):
            answer = requests.get(near.url() + path, headers=HEADERS, timeout=90)
            assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
    finally:
        near.run("start", "miner")
        far.run("start", "miner")
    wait_until(lambda: servers(near) == 2, READY_SECONDS, "both are back")


@pytest.mark.parametrize("wrong", ["another name", "another CA"])
def test_a_host_that_shows_another_certificate_gets_no_request(
    near: Stack, far: Stack, pin: ModelPin, wrong: str
) -> None:
    kept = far.directory / "kept"
    shutil.copytree(far.directory / "secrets" / "ca", kept)
    if wrong == "another CA":
        shutil.rmtree(far.directory / "secrets" / "ca")
    certify(far, FAR if wrong == "another CA" else "other.example")
    far.run("restart", "gateway")
    try:
        wait_until(lambda: servers(near) == 1, 60, "the near gateway takes the far one for down")
        (place,) = miners(far)
        before = metric(place, "r3mes_miner_prompt_tokens_total")
        assert [asked(near, pin.model_name).status_code for _ in range(4)] == [200] * 4
        assert metric(place, "r3mes_miner_prompt_tokens_total") == before
    finally:
        shutil.rmtree(far.directory / "secrets" / "ca")
        kept.rename(far.directory / "secrets" / "ca")
        certify(far, FAR)
        far.run("restart", "gateway")
    wait_until(lambda: servers(near) == 2, READY_SECONDS, "the far gateway is itself again")
