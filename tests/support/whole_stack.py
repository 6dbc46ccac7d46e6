"""What the container tests ask a whole stack: an answer, several at once, and what each miner has done."""

import json
import re
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import requests

from shared.genesis import ModelPin
from tests.support.compose import Stack
from tests.support.containers import need_engine, stack_with_origin
from tests.support.waiting import wait_until

READY_SECONDS = 240.0
ANSWER_SECONDS = 180.0


@contextmanager
def whole_stack(directory: Path, pin: ModelPin) -> Iterator[Stack]:
    """Run the stack of docker-compose.yml as it is, with an origin beside it; removed with its volumes at the end."""
    need_engine()
    stack = stack_with_origin(directory, pin)
    with stack:
        stack.build()
        begun = time.monotonic()
        stack.run("up", "--detach")
        ask(stack, pin.model_name, within=READY_SECONDS)
        stack.first_answer_seconds = time.monotonic() - begun
        stack.up()
        yield stack


def body(model: str, *, tokens: int = 24, content: str = "Why is the sky blue?") -> dict[str, object]:
    """A chat with one greedy answer."""
    message = {"role": "user", "content": content}
    return {"model": model, "messages": [message], "max_tokens": tokens, "temperature": 0}


def ask(stack: Stack, model: str, *, within: float = READY_SECONDS) -> str:
    """Wait until a miner can serve, ask it something and return the answer, whatever so small a model says."""
    wait_until(lambda: stack.answers("/readyz"), within, "a miner is ready")

    def asked() -> requests.Response:
        response = requests.post(stack.url() + "/v1/chat/completions", json=body(model), timeout=ANSWER_SECONDS)
        # A miner that has just died is known for it a moment later; a 503 says so, and when to come back.
        assert response.status_code != 503 or not response.headers.get("Retry-After"), response.text
        return response

    response = wait_until(asked, within, "a miner answers")
    assert response.status_code == 200, response.text
    answer = response.json()
    assert answer["model"] == model
    assert answer["usage"]["completion_tokens"] > 0
    return str(answer["choices"][0]["message"]["content"]).strip()


def answers_at_once(url: str, bodies: list[dict[str, object]]) -> list[requests.Response]:
    """Ask everything at the same time, over a connection each; in the order of `bodies`."""

    def one(document: dict[str, object]) -> requests.Response:
        return requests.post(url + "/v1/chat/completions", json=document, timeout=ANSWER_SECONDS)

    with ThreadPoolExecutor(len(bodies)) as threads:
        return list(threads.map(one, bodies))


def miners(stack: Stack) -> list[str]:
    """The ids of the miners that run."""
    return stack.run("ps", "--quiet", "--status", "running", "miner").split()


def answered(container: str) -> float:
    """How many chats this miner has answered since it started."""
    return sum(value for labels, value in samples(container, "r3mes_miner_requests_total") if 'outcome="ok"' in labels)


def metric(container: str, name: str) -> float:
    """The value of a metric of this miner that has no labels."""
    ((_, value),) = samples(container, name)
    return value


def samples(container: str, name: str) -> list[tuple[str, float]]:
    """Labels and value of a metric of this miner."""
    program = (
        "import urllib.request as r; print(r.urlopen('http://127.0.0.1:8080/metrics', timeout=10).read().decode())"
    )
    command = ["docker", "exec", container, "python", "-c", program]
    told = subprocess.run(command, capture_output=True, check=True, text=True, timeout=60).stdout
    lines = [line.rpartition(" ") for line in told.splitlines() if re.match(rf"{name}[ {{]", line)]
    return [(series.removeprefix(name), float(value)) for series, _, value in lines]


def scale(stack: Stack, count: int) -> list[str]:
    """Let so many miners run, and wait until all can serve."""
    stack.run("up", "--detach", "--no-recreate", "--scale", f"miner={count}")

    def all_serve() -> bool:
        # A miner counts as usable from its name in the DNS on until the gateway's first look at it.
        assert len(ready := [miner for miner in miners(stack) if serves(miner)]) == count, ready
        assert (usable := usable_miners(stack)) == count, usable
        return True

    wait_until(all_serve, READY_SECONDS, f"{count} miners serve, and the gateway knows it")
    return miners(stack)


def serves(container: str) -> bool:
    """Whether this miner says that it can serve."""
    program = "import urllib.request as r; r.urlopen('http://127.0.0.1:8080/readyz', timeout=10)"
    command = ["docker", "exec", container, "python", "-c", program]
    return subprocess.run(command, capture_output=True, check=False, timeout=60).returncode == 0


def usable_miners(stack: Stack) -> int:
    """How many miners the gateway would ask now, as its own metrics say."""
    told = stack.run("exec", "-T", "gateway", "bash", "-c", _METRICS)
    wanted = 'haproxy_backend_active_servers{proxy="miners"}'
    return int(float(next(line for line in told.splitlines() if line.startswith(wanted)).rpartition(" ")[2]))


# The image has no client: a request by hand, over the shell's own sockets.
_METRICS = "exec 3<>/dev/tcp/127.0.0.1/8404; printf 'GET /metrics HTTP/1.0\\r\\n\\r\\n' >&3; cat <&3"


def running(container: str) -> float:
    """How many requests this miner works on now."""
    return metric(container, "r3mes_miner_requests_running")


def kill_container(container: str) -> None:
    """SIGKILL to everything in a container, as a crash: `docker kill` would count as the operator's wish."""
    told = subprocess.run(["docker", "inspect", container], capture_output=True, check=True, text=True).stdout
    pid = int(json.loads(told)[0]["State"]["Pid"])
    program = f"import os; os.kill({pid}, 9)"
    image = "python:3.13-slim-trixie"
    command = ["docker", "run", "--rm", "--pid=host", "--privileged", image, "python3", "-c", program]
    subprocess.run(command, check=True, capture_output=True)
