"""Requests that nobody would send, as fast as they can be sent: each is answered, no process dies, nothing is stuck.

`FUZZED=100000` is the whole proof (`make fuzz`); without it a few thousand of the same.
"""

from __future__ import annotations

import json
import os
import random
import socket
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from tests.integration.miner.stand import MODEL_NAME, Miner, Store
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(7200)]

FUZZED = int(os.environ.get("FUZZED", "3000"))
CLIENTS = 8
# Of what was asked: answers, refusals with a reason, no room, a time that is over. Nothing that says "our fault".
ALLOWED = {200, 400, 401, 404, 405, 413, 422, 429, 503, 504}

PATHS = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings")
TEXTS = (
    "",
    "a",
    "\x00",
    "\ud83d\ude00",
    "é" * 50,
    "word " * 60,
    "<|im_end|>",
    "{{ 7*7 }}",
    "\\u0000",
    "\u202e",
    "]]>",
)
NUMBERS = (0, 1, -1, 2, 3, 0.5, -0.0, 1e308, -1e308, 2**31, 2**63, 2**64, 10**30, 1e-320)
GRAMMARS = (
    'root ::= "a"',
    "root ::= root",
    "root ::=",
    'root ::= ("a"?){1000}',
    'root ::= "a" [^\\x00-\\U0010FFFF]',
    "x" * 500,
)
SCHEMAS: tuple[object, ...] = (
    {},
    {"type": "object"},
    {"$ref": "#"},
    {"type": "array", "items": {"$ref": "#"}},
    True,
    {"enum": []},
    {"type": "string", "pattern": "^(a|b)+$"},
    {"anyOf": [{"type": "integer"}]},
)
NUMBERED = [
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "typical_p",
    "mirostat",
    "mirostat_tau",
    "mirostat_eta",
    "presence_penalty",
    "frequency_penalty",
    "repeat_penalty",
    "repeat_last_n",
    "seed",
    "n",
    "logprobs",
    "top_logprobs",
    "dimensions",
]
EXTRAS: dict[str, tuple[object, ...]] = {
    **dict.fromkeys(NUMBERED, NUMBERS),
    "logprobs": (True, False, 0, 3),
    "stop": (*TEXTS, ["a"] * 3, ["a"] * 20, [""], [["a"]]),
    "stream": (True, False, "yes", 1),
    "stream_options": ({"include_usage": True}, {}, [], "x"),
    "logit_bias": ({"1": 100}, {"1": -101}, {"-1": 0}, {"x": 1}, {"99999999": 1}, []),
    "grammar": GRAMMARS,
    "response_format": (
        {"type": "json_object"},
        {"type": "text"},
        {"type": "x"},
        *({"type": "json_schema", "json_schema": {"name": "a", "schema": schema}} for schema in SCHEMAS),
    ),
    "tools": tuple([{"type": "function", "function": {"name": "f", "parameters": schema}}] for schema in SCHEMAS),
    "tool_choice": ("auto", "none", "required", "x"),
    "encoding_format": ("base64", "float", "hex"),
    "functions": ([{}], []),
    "user": TEXTS,
    "ignore_eos": (True,),
    "unknown": NUMBERS,
}


class Fuzzer:
    """Bodies that are right, nearly right, and nothing of the kind; the same for the same seed."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)  # noqa: S311  not for secrets

    def body(self, path: str) -> bytes:
        """Return one body; it asks for few tokens, whatever else it asks for."""
        draw = self._chance.random()
        if draw < 0.05:
            return self._chance.randbytes(self._chance.randrange(0, 200))
        if draw < 0.1:
            return json.dumps(self._value(4)).encode()
        fields: dict[str, object] = {"model": self._sometimes(MODEL_NAME), "max_tokens": self._sometimes(1)}
        if path == PATHS[0]:
            fields["messages"] = self._sometimes([self._message() for _ in range(self._chance.randrange(1, 4))])
        else:
            name = "prompt" if path == PATHS[1] else "input"
            fields[name] = self._sometimes(self._one(TEXTS, [1, 2, 3], ["a", "b"], [[1], [2, 3]], [10**9], []))
        for _ in range(self._chance.randrange(0, 4)):
            name, value = self._extra()
            fields[name] = self._sometimes(value)
        text = json.dumps(fields, allow_nan=True).encode()
        if draw < 0.15:
            at = self._chance.randrange(len(text))
            text = text[:at] + self._chance.randbytes(1) + text[at + self._chance.randrange(2) :]
        return text

    def _sometimes(self, value: object) -> object:
        """Return the value, and now and then another."""
        return value if self._chance.random() < 0.9 else self._value(2)

    def _one(self, texts: tuple[str, ...], *others: object) -> object:
        return self._chance.choice((self._chance.choice(texts), *others))

    def _message(self) -> object:
        role = self._chance.choice(("system", "user", "assistant", "tool", "developer", "nobody"))
        content = self._one(TEXTS, None, [{"type": "text", "text": "a"}], [{"type": "image_url"}], {"a": 1})
        return {"role": role, "content": content}

    def _extra(self) -> tuple[str, object]:
        name = self._chance.choice(list(EXTRAS))
        return name, self._chance.choice(EXTRAS[name])

    def _value(self, depth: int) -> object:
        """Return any JSON."""
        kind = self._chance.randrange(7 if depth else 5)
        match kind:
            case 0:
                return self._chance.choice(TEXTS)
            case 1 | 2:
                return self._chance.choice(NUMBERS)
            case 3:
                return self._chance.choice((True, False, None))
            case 4:
                return "[" * 2000 if self._chance.random() < 0.01 else []
            case 5:
                return [self._value(depth - 1) for _ in range(self._chance.randrange(5))]
            case _:
                return {self._chance.choice(TEXTS): self._value(depth - 1) for _ in range(self._chance.randrange(5))}


def attack(miner: Miner, seed: int, count: int) -> Counter[int]:
    """Send so many requests over one connection, some of them with strange headers; return the statuses."""
    chance = random.Random(seed)  # noqa: S311  not for secrets
    fuzzer, statuses = Fuzzer(seed), Counter[int]()
    with requests.Session() as session:
        for number in range(count):
            if number and number % 1_000 == 0:
                print(f"client {seed}: {number} of {count}, {dict(sorted(statuses.items()))}", flush=True)  # noqa: T201
            path = chance.choice(PATHS)
            headers = {"Content-Type": chance.choice(("application/json",) * 9 + ("text/plain",))}
            if chance.random() < 0.05:
                headers["X-Request-Id"] = chance.choice(("x" * 500, "a b", "ok-1"))
            body = fuzzer.body(path)
            response = session.post(miner.url + path, data=body, headers=headers, timeout=300)
            statuses[response.status_code] += 1
            assert response.status_code in ALLOWED, (response.status_code, path, body[:2000], response.text[:500])
            if response.status_code != 200:
                assert response.json()["error"]["message"], (path, body)
            if chance.random() < 0.02:
                leave(miner, path, body)
    return statuses


def leave(miner: Miner, path: str, body: bytes) -> None:
    """Send a request, or a part of one, and go."""
    with socket.create_connection(("127.0.0.1", miner.port), timeout=30) as connection:
        head = (
            f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        whole = head.encode() + body
        connection.sendall(whole[: len(whole) * len(body) % (len(whole) + 1)])


@pytest.fixture
def miner(store: Store) -> Iterator[Miner]:
    store.put_model()
    environment = {"R3MES_N_CTX": "512", "R3MES_MAX_SEQUENCES": "8", "R3MES_REQUEST_SECONDS": "60"}
    with Miner(store, environment) as miner:
        miner.wait_ready()
        yield miner


def test_no_request_ends_a_process_or_gets_stuck(miner: Miner) -> None:
    engines = [engine.pid for engine in miner.engines()]
    with ThreadPoolExecutor(CLIENTS) as pool:
        parts = list(pool.map(lambda seed: attack(miner, seed, FUZZED // CLIENTS), range(CLIENTS)))
    statuses = sum(parts, Counter[int]())
    print(dict(sorted(statuses.items())))  # noqa: T201  the figures
    assert statuses[200] > FUZZED // 50, "nearly all was refused: that says nothing of what runs"
    assert statuses[400] > FUZZED // 10
    wait_until(lambda: miner.metric("r3mes_miner_requests_running") == 0, 60, "nothing runs")
    assert miner.metric("r3mes_miner_requests_waiting") == 0
    assert miner.metric("r3mes_miner_engine_restarts_total") == 0
    assert [engine.pid for engine in miner.engines()] == engines
    assert "Paris" in miner.chat().json()["choices"][0]["message"]["content"]
    assert "Traceback" not in miner.log.read_text()
