"""A host that joins another one's Redis: over TLS, as users of its own, to a queue of its own.

Two stacks on one engine, which reach each other by the host's address alone; miners have no part in this.
"""

import os
import secrets
import subprocess
from collections.abc import Iterator

import pytest

from launcher.ports import free_port
from tests.support.compose import Stack
from tests.support.containers import as_init, need_engine
from tests.support.downloader_process import MIB, model, sha256
from tests.support.geneses import list_form
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.containers, pytest.mark.timeout(1800)]

DATA = os.urandom(3 * MIB + 1)
DIGEST = sha256(DATA)
NODE = "gpu2"
PARTS = ("downloader", "verifier")
PORT = free_port()  # one that Docker chose would be another after a restart


def host_address() -> str:
    """An address of this host that containers of every network reach."""
    command = ["docker", "network", "inspect", "bridge", "--format", "{{(index .IPAM.Config 0).Gateway}}"]
    return subprocess.run(command, capture_output=True, check=True, text=True).stdout.strip()


@pytest.fixture(scope="module")
def central(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The host with Redis; only that part of it runs."""
    need_engine()
    stack = Stack(
        tmp_path_factory.mktemp("central"), files=["docker-compose.yml", "compose.central.yml"], environment={}
    )
    env = stack.directory / ".env"
    env.write_text(f"R3MES_JOINED_NODES={NODE}\nR3MES_BIND=0.0.0.0\nR3MES_API_KEYS={secrets.token_hex()}\n")
    ports = stack.directory / "compose.central.yml"
    ports.write_text(ports.read_text().replace(":6380:6380", f":{PORT}:6380"))
    subprocess.run(["deploy/certificates", host_address()], cwd=stack.directory, check=True, capture_output=True)
    with stack:
        stack.run("build", "init", seconds=600)
        stack.run("up", "--detach", "--wait", "redis")
        yield stack


@pytest.fixture(scope="module")
def joined(central: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The host that joins, after it has run what the other one printed; its source has the file."""
    folder = tmp_path_factory.mktemp("origin")
    (folder / "data").write_bytes(DATA)
    folder.chmod(0o755)
    stack = Stack(
        tmp_path_factory.mktemp("joined"),
        files=["docker-compose.yml", "compose.miner.yml", "tests/e2e/beside.yml"],
        environment={"E2E_MODEL": str(folder / "data"), "E2E_NAME": "tiny.gguf"},
    )
    script = central.run(
        "run", "--rm", "--no-deps", "-T", "init", "r3mes", "init", "join", NODE, "--redis", f"{host_address()}:{PORT}"
    )
    subprocess.run(["sh"], input=script, cwd=stack.directory, check=True, capture_output=True, text=True)
    env = stack.directory / ".env"
    lines = [line for line in env.read_text().splitlines() if not line.startswith("COMPOSE_FILE=")]
    env.write_text("\n".join([*lines, "HF_ENDPOINT=http://origin:9000\n"]))
    (stack.directory / "genesis" / "genesis.json").write_bytes(list_form(model(DATA)))
    with stack:
        stack.run("build", "init", *PARTS, seconds=600)
        stack.run("up", "--detach", "--wait", *PARTS, "origin")
        yield stack


def test_its_model_is_verified_by_a_job_that_went_through_the_other_host(central: Stack, joined: Stack) -> None:
    receipt = f"import os; print(os.path.exists('/models/verified/{DIGEST}/receipt.json'))"
    wait_until(lambda: joined.python("downloader", receipt) == "True", 120, "the verdict")
    program = (
        "import pathlib\n"
        "told = b''.join(path.read_bytes() for path in pathlib.Path('/redis-data').rglob('*.aof'))\n"
        f"print(b'rq:queue:verify:{NODE}' in told, b'verify-{NODE}_{DIGEST}' in told)"
    )
    assert as_init(central, program).strip() == "True True"
    assert "redis" not in joined.run("ps", "--services", "--all").split()


@pytest.mark.parametrize("service", PARTS)
def test_it_may_touch_no_queue_but_its_own(joined: Stack, service: str) -> None:
    program = (
        "import redis\n"
        f"client = redis.Redis.from_url(open('/run/secrets/{service}/redis_url').read().strip())\n"
        "assert client.ping()\n"
        "for command in ('LRANGE rq:queue:verify:local 0 1', 'RPUSH rq:queue:verify:local x', 'FLUSHALL',\n"
        "                'GET r3mes:local:model:x', 'KEYS *'):\n"
        "    try:\n        client.execute_command(*command.split())\n        print('allowed:', command)\n"
        "    except redis.exceptions.NoPermissionError:\n        pass\n"
    )
    assert joined.python(service, program) == ""


def test_without_the_ca_nobody_is_spoken_to(joined: Stack) -> None:
    program = (
        "import redis\n"
        "url = open('/run/secrets/verifier/redis_url').read().strip().partition('?')[0]\n"
        "try:\n    redis.Redis.from_url(url).ping()\n"
        "except redis.exceptions.ConnectionError as error:\n    print('CERTIFICATE_VERIFY_FAILED' in str(error))"
    )
    assert joined.python("verifier", program) == "True"


def test_a_host_that_leaves_the_list_is_not_let_in_any_more(central: Stack, joined: Stack) -> None:
    env = central.directory / ".env"
    env.write_text(env.read_text().replace(f"R3MES_JOINED_NODES={NODE}\n", ""))
    assert as_init(central, "import os; print('downloader-gpu2' in os.listdir('/credentials'))").strip() == "True"
    central.run("run", "--rm", "--no-deps", "-T", "init", "r3mes", "init")
    program = (
        "import redis\n"
        "url = open('/run/secrets/verifier/redis_url').read().strip()\n"
        "try:\n    redis.Redis.from_url(url).ping()\n    print('in')\n"
        "except redis.exceptions.AuthenticationError:\n    print('out')\n"
        "except redis.exceptions.ConnectionError:\n    print('away')"
    )
    wait_until(lambda: joined.python("verifier", program) == "out", 90, "Redis has taken over the rights")
