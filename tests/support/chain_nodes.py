"""Nodes of a chain on loopback that answer as CometBFT's RPC does, rightly or in the way that a test is about."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from urllib.parse import parse_qs, urlsplit

from tests.support.geneses import entry
from tests.support.origin_server import Answer, Script, ScriptedOrigin, redirect, status

TOO_LARGE = "genesis response is large, please use the genesis_chunked API instead"


def chain_genesis(*digests: str, inactive: Sequence[str] = (), **more: object) -> dict[str, object]:
    """Return a chain's genesis whose registry holds these digests as active, among other modules."""
    registry = [
        {
            "model_id": str(number),
            "config": {"model_type": "MODEL_TYPE_BITNET", **entry(verification_sha256=digest)},
            "is_active": digest not in inactive,
        }
        for number, digest in enumerate((*digests, *inactive), 1)
    ]
    state = {"auth": {"accounts": []}, "remes": {"params": {}, "model_registry_list": registry}, "bank": {}}
    return {"genesis_time": "2025-01-01T00:00:00Z", "chain_id": "remes-1", "app_state": state, **more}


def result(value: object, *, indent: int | None = None) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": -1, "result": value}, indent=indent).encode()


def error(text: str) -> bytes:
    problem = {"code": -32603, "message": "Internal error", "data": text}
    return json.dumps({"jsonrpc": "2.0", "id": -1, "error": problem}).encode()


def answers(body: bytes, code: int = 200) -> Script:
    return status(code, {"Content-Type": "application/json"}, body)


def plain(genesis: object) -> Script:
    """`/genesis` of a node whose genesis is small; older nodes indent."""
    return answers(result({"genesis": genesis}, indent=2))


def chunks(genesis: object, *, size: int = 100) -> Script:
    """`/genesis_chunked`, with chunks of so many bytes."""
    raw = json.dumps(genesis).encode()
    parts = [raw[start : start + size] for start in range(0, len(raw), size)]

    def script(answer: Answer) -> None:
        number = int(parse_qs(urlsplit(answer.handler.path).query)["chunk"][0])
        if number >= len(parts):
            answers(error(f"there are {len(parts)} chunks, {number} is invalid"), 500)(answer)
            return
        data = base64.b64encode(parts[number]).decode()
        answers(result({"chunk": str(number), "total": str(len(parts)), "data": data}))(answer)

    return script


def stalls() -> Script:
    return Answer.stall


def drips(answer: Answer) -> None:
    """Send a byte now and then, without end."""
    answer.head(200)
    while not answer.closing.wait(0.05):
        answer.body(b" ")


def floods(answer: Answer) -> None:
    """Send what has no end, as fast as it is taken."""
    answer.head(200)
    answer.body(b'{"jsonrpc":"2.0","id":-1,"result":{"genesis":{"x":"')
    while not answer.closing.is_set():
        answer.body(b"x" * 1024 * 1024)


class Node(ScriptedOrigin):
    """One node."""

    def serve(self, genesis: object) -> None:
        """Answer `/genesis` with this, as a node does whose genesis is small."""
        self.scripts["/genesis"] = plain(genesis)

    def serve_chunked(self, genesis: object, *, size: int = 100) -> None:
        """Answer as a node does whose genesis is large."""
        self.scripts["/genesis"] = answers(error(TOO_LARGE), 500)
        self.scripts["/genesis_chunked"] = chunks(genesis, size=size)

    def lead_to(self, other: Node) -> None:
        self.scripts["/genesis"] = redirect(f"{other.url}/genesis")


@contextmanager
def chain_of(count: int = 3) -> Iterator[list[Node]]:
    """Run so many nodes."""
    with ExitStack() as stack:
        yield [stack.enter_context(Node()) for _ in range(count)]


def rpc(nodes: Sequence[Node]) -> str:
    """Return R3MES_CHAIN_RPC for these nodes."""
    return ",".join(node.url for node in nodes)
