"""Redis in the stack of containers: credentials that `init` made, rights that Redis 8 itself enforces.

One stack for the module; no model has to arrive for this.
"""

import json
import subprocess
from collections.abc import Iterator

import pytest

from launcher.credentials import ACL_FILE, OWNERS, URL_FILE
from shared.redis_rights import acl_file
from tests.support.compose import Stack
from tests.support.containers import as_init, need_engine, rights
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.containers, pytest.mark.timeout(4500)]

FILES = {"downloader": URL_FILE, "verifier": URL_FILE, "redis": ACL_FILE}
REFUSED = (
    "FLUSHALL", "FLUSHDB", "CONFIG SET dir /", "KEYS *", "ACL LIST", "CLIENT PAUSE 1", "EVAL return 0", "FUNCTION LIST",
    "MODULE LIST", "SHUTDOWN NOSAVE", "CLIENT LIST", "MONITOR", "SET rq:suspended 1", "RPUSH rq:queue:verify:other x",
    "PUBLISH rq:pubsub:verifier-local_1 x", "GET r3mes:other:model:x",
)  # fmt: skip


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Redis and its two services; a source that is not there keeps them from downloading."""
    need_engine()
    stack = Stack(tmp_path_factory.mktemp("stack"), files=["docker-compose.yml"], environment={})
    (stack.directory / ".env").write_text("HF_ENDPOINT=http://127.0.0.1:9\n")
    with stack:
        stack.run("build", "init", "downloader", "verifier", seconds=600)
        start(stack)
        yield stack


def start(stack: Stack) -> None:
    stack.run("up", "--detach", "--wait", "downloader", "verifier")


def urls(stack: Stack) -> dict[str, str]:
    program = f"for s in ('downloader', 'verifier'): print(open(f'/credentials/{{s}}/{URL_FILE}').read().strip())"
    return dict(zip(("downloader", "verifier"), as_init(stack, program).split(), strict=True))


def password(url: str) -> str:
    return url.split(":")[2].partition("@")[0]


def is_ready(stack: Stack, service: str, port: int) -> bool:
    program = (
        "import json, urllib.request, urllib.error\n"
        f"try:\n    print(urllib.request.urlopen('http://127.0.0.1:{port}/readyz', timeout=5).status)\n"
        "except urllib.error.HTTPError as error:\n    print(error.code)"
    )
    return stack.python(service, program) == "200"


def redis_up(stack: Stack) -> bool:
    """What the downloader says."""
    program = (
        "import urllib.request as r; print(r.urlopen('http://127.0.0.1:8081/api/v1/status', timeout=5).read().decode())"
    )
    return bool(json.loads(stack.python("downloader", program))["redis_up"])


def test_both_services_work_with_the_rights_that_they_have(stack: Stack) -> None:
    wait_until(lambda: is_ready(stack, "verifier", 8082), 60, "the verifier is ready")
    wait_until(lambda: redis_up(stack), 30, "the downloader reaches Redis")
    told = stack.run("logs", "--no-color")
    for word in ("NOPERM", "NOAUTH", "WRONGPASS"):
        assert word not in told


def test_each_file_belongs_to_its_reader_alone(stack: Stack) -> None:
    wanted = dict.fromkeys(FILES, (0, 0, 493))
    wanted |= {f"{name}/{file}": (*OWNERS[name], 0o400) for name, file in FILES.items()}
    assert rights(stack, "/credentials", wanted) == wanted
    found = urls(stack)
    rules = as_init(stack, f"print(open('/credentials/redis/{ACL_FILE}').read(), end='')")
    assert rules == acl_file("local", {name: password(url) for name, url in found.items()})


@pytest.mark.parametrize("service", ["downloader", "verifier"])
def test_redis_refuses_what_a_service_has_no_right_to(stack: Stack, service: str) -> None:
    program = (
        "import redis\n"
        "client = redis.Redis.from_url(open('/credentials/redis.url').read().strip())\n"
        "assert client.ping()\n"
        f"for command in {REFUSED!r}:\n"
        "    try:\n        client.execute_command(*command.split())\n        print('allowed:', command)\n"
        "    except redis.exceptions.NoPermissionError:\n        pass\n"
    )
    assert stack.python(service, program) == ""


@pytest.mark.parametrize("password", ["", "any"])
def test_redis_lets_nobody_in_without_a_name(stack: Stack, password: str) -> None:
    program = (
        "import redis\n"
        f"try:\n    redis.Redis('redis', password={password!r} or None).ping()\n"
        "except redis.exceptions.AuthenticationError:\n    print('refused')"
    )
    assert stack.python("verifier", program) == "refused"


def test_no_password_stands_where_docker_tells_it(stack: Stack) -> None:
    containers = stack.run("ps", "--all", "--quiet").split()
    told = subprocess.run(["docker", "inspect", *containers], capture_output=True, check=True, text=True).stdout
    told += stack.run("logs", "--no-color") + stack.run("config")
    assert "/credentials/redis.url" in told
    for url in urls(stack).values():
        assert password(url) not in told


def test_a_second_start_changes_nothing(stack: Stack) -> None:
    program = (
        "import os\n"
        "for root, _, files in os.walk('/credentials'):\n"
        "    for name in ('', *files):\n"
        "        s = os.stat(os.path.join(root, name))\n        print(root, name, s.st_ino, s.st_mode, s.st_ctime_ns)"
    )
    services = ("redis", "downloader", "verifier")
    before = as_init(stack, program), [stack.inspect(name)["Id"] for name in services]
    start(stack)
    assert (as_init(stack, program), [stack.inspect(name)["Id"] for name in services]) == before
    assert [stack.inspect(name)["RestartCount"] for name in services] == [0, 0, 0]


def test_changed_rights_are_taken_over_by_a_redis_that_runs(stack: Stack) -> None:
    def may_get_in() -> bool:
        answer = stack.run("exec", "-T", "redis", "redis-cli", "--user", "more", "--pass", "x", "ping", check=False)
        return "PONG" in answer

    path = f"/credentials/redis/{ACL_FILE}"
    as_init(stack, f"print('user more on nopass -@all +ping', file=open('{path}', 'a'))")
    wait_until(may_get_in, 60, "the new user is known")
    stack.run("run", "--rm", "--no-deps", "-T", "init", "r3mes", "init")
    wait_until(lambda: not may_get_in(), 60, "the new user is gone")
    wait_until(lambda: is_ready(stack, "verifier", 8082), 60, "the verifier is ready again")
    wait_until(lambda: redis_up(stack), 60, "the downloader reaches Redis again")


def test_a_lost_address_is_made_anew_and_its_service_goes_on_after_a_restart(stack: Stack) -> None:
    before = urls(stack)
    as_init(stack, f"import os; os.unlink('/credentials/verifier/{URL_FILE}')")
    told = stack.run("run", "--rm", "--no-deps", "-T", "init", "r3mes", "init")
    assert "new passwords for verifier" in told
    after = urls(stack)
    assert after["downloader"] == before["downloader"]
    assert after["verifier"] != before["verifier"]
    stack.run("restart", "verifier")
    wait_until(lambda: is_ready(stack, "verifier", 8082), 60, "the verifier is ready with its new password")


def test_a_redis_of_the_operator_s_is_used_instead(stack: Stack) -> None:
    env = stack.directory / ".env"
    before = env.read_text()
    # The stack's own Redis stands in for it, under an address that the operator wrote.
    env.write_text(before + f"R3MES_REDIS_URL={urls(stack)['verifier']}\n")
    assert stack.exit_code("run", "--rm", "--no-deps", "-T", "init", "r3mes", "init", "check") == 78, "no R3MES_NODE"
    env.write_text(env.read_text() + "R3MES_NODE=local\n")
    assert "the one that R3MES_REDIS_URL names" in stack.run("run", "--rm", "--no-deps", "-T", "init", "r3mes", "init")
    start(stack)
    wait_until(lambda: is_ready(stack, "verifier", 8082), 60, "the verifier is ready")
    assert stack.python("verifier", "import os; print(os.environ.get('R3MES_REDIS_URL_FILE'))") == "None"
    env.write_text(before)
