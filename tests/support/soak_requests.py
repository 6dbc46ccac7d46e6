"""What the clients of a soak ask for: a seeded mix of every kind of request. Pure."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from tests.integration.miner.stand import MODEL_NAME

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
TOPICS = ("bread", "a king", "gravity", "the sea", "a small cat", "Paris", "iron", "winter", "a long road", "music")
# Three, each long enough to be worth keeping; together with what runs they do not fit into the cache.
SYSTEMS = tuple(
    f"You are {who}. " + " ".join(f"Rule {n}: {how} when you speak about {topic}." for n, topic in enumerate(TOPICS))
    for who, how in (("a cook", "be warm"), ("a judge", "be strict"), ("a sailor", "be loud"))
)
SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 12}, "age": {"type": "integer"}},
    "required": ["name", "age"],
}
STOPS = ("e", ". ", "the")

Check = Callable[[str, str], bool]


def anything(_text: str, _finish: str) -> bool:
    return True


@dataclass(frozen=True, slots=True)
class Ask:
    """One request. `refusal` is the status that it deserves, None for an answer.

    `check` judges each choice's text and finish reason. The client leaves `leave_seconds` after the request was sent,
    or after `leave_events` events of the stream, or (both None) never.
    """

    kind: str
    path: str
    body: dict[str, Any]
    choices: int = 1
    refusal: int | None = None
    check: Check = field(default=anything)
    raw: bytes | None = None
    leave_seconds: float | None = None
    leave_events: int | None = None

    @property
    def stream(self) -> bool:
        return bool(self.body.get("stream"))

    @property
    def content(self) -> bytes:
        """The bytes of the body."""
        return json.dumps(self.body).encode() if self.raw is None else self.raw


def control(kind: str) -> Ask:
    """The same request each time: a greedy chat, or a completion under a grammar."""
    if kind == "control":
        body = _chat("What is the capital of France?", "Answer in one short sentence.")
        return Ask(kind, CHAT, {**body, "temperature": 0, "max_tokens": 16})
    body = {"model": MODEL_NAME, "prompt": "x", "grammar": "root ::= [ab]{8}", "max_tokens": 20, "temperature": 0}
    return Ask(kind, COMPLETIONS, body, check=lambda text, _finish: bool(re.fullmatch("[ab]{8}", text)))


def any_ask(rng: random.Random) -> Ask:
    """Draw a request, streamed or not, with a client that leaves early or not."""
    (make,) = rng.choices([make for make, _ in KINDS], [weight for _, weight in KINDS])
    ask = make(rng)
    if ask.refusal is not None:
        return ask
    ask = replace(ask, body={**ask.body, "temperature": rng.choice((0, 0.7, 1.3)), "seed": rng.randrange(2**31)})
    if rng.random() < 0.5:
        usage = {"stream_options": {"include_usage": True}} if rng.random() < 0.5 else {}
        ask = replace(ask, body={**ask.body, "stream": True, **usage})
    return _impatient(rng, ask) if rng.random() < 0.25 else ask


def short_ask(rng: random.Random) -> Ask:
    """Draw a request of a burst, more of which come at once than the queue holds."""
    body = {"model": MODEL_NAME, "prompt": f"{rng.choice(TOPICS)} {rng.random()}", "max_tokens": 4}
    return Ask("burst", COMPLETIONS, body)


def _impatient(rng: random.Random, ask: Ask) -> Ask:
    if ask.stream and rng.random() < 0.5:
        return replace(ask, leave_events=rng.randrange(1, 12))
    # Squared: most leave before their first token, some at once.
    return replace(ask, leave_seconds=4 * rng.random() ** 2)


def _chat(text: str, system: str | None = None) -> dict[str, Any]:
    messages = [] if system is None else [{"role": "system", "content": system}]
    return {"model": MODEL_NAME, "messages": [*messages, {"role": "user", "content": text}]}


def _question(rng: random.Random) -> str:
    return f"Tell me {rng.randrange(1, 10_000)} things about {rng.choice(TOPICS)}."


def _short_chat(rng: random.Random) -> Ask:
    return Ask("chat", CHAT, {**_chat(_question(rng)), "max_tokens": rng.randrange(1, 32)})


def _shared_chat(rng: random.Random) -> Ask:
    body = {**_chat(_question(rng), rng.choice(SYSTEMS)), "max_tokens": rng.randrange(8, 64)}
    if rng.random() < 0.3:  # a conversation goes on
        turns = [{"role": "assistant", "content": "Yes."}, {"role": "user", "content": _question(rng)}]
        body["messages"] += turns
    return Ask("shared", CHAT, body)


def _completion(rng: random.Random) -> Ask:
    body = {"model": MODEL_NAME, "prompt": _question(rng), "max_tokens": rng.randrange(1, 32)}
    return Ask("completion", COMPLETIONS, body)


def _long_prompt(rng: random.Random) -> Ask:
    words = " ".join(rng.choices(("word", "red", "king", "sea", "of"), k=rng.randrange(150, 450)))
    return Ask("long prompt", COMPLETIONS, {"model": MODEL_NAME, "prompt": words, "max_tokens": 8})


def _long_answer(rng: random.Random) -> Ask:
    body = {**_chat(_question(rng)), "max_tokens": rng.randrange(60, 200), "ignore_eos": True}
    return Ask("long answer", CHAT, body)


def _choices(rng: random.Random) -> Ask:
    count = rng.randrange(2, 5)
    body = {**_chat(_question(rng), rng.choice(SYSTEMS)), "n": count, "max_tokens": rng.randrange(4, 24)}
    return Ask("choices", CHAT, body, choices=count)


def _logprobs(rng: random.Random) -> Ask:
    if rng.random() < 0.5:
        body = {**_chat(_question(rng)), "logprobs": True, "top_logprobs": rng.randrange(0, 6), "max_tokens": 12}
        return Ask("logprobs", CHAT, body)
    body = {"model": MODEL_NAME, "prompt": _question(rng), "logprobs": rng.randrange(0, 6), "max_tokens": 12}
    return Ask("logprobs", COMPLETIONS, body)


def _schema(rng: random.Random) -> Ask:
    wanted = {"type": "json_schema", "json_schema": {"name": "it", "schema": SCHEMA}}
    body = {**_chat(_question(rng)), "response_format": wanted, "max_tokens": rng.choice((10, 100))}
    return Ask("schema", CHAT, body, check=_is_a_person)


def _is_a_person(text: str, finish: str) -> bool:
    return finish == "length" or set(json.loads(text)) == {"name", "age"}


def _grammar(rng: random.Random) -> Ask:
    number = rng.randrange(10, 99)
    body = {**_chat(_question(rng)), "grammar": f'root ::= "<{number}" [a-z]{{5}} ">"', "max_tokens": 40}
    return Ask("grammar", CHAT, body, check=lambda text, _finish: bool(re.fullmatch(f"<{number}[a-z]{{5}}>", text)))


def _stops(rng: random.Random) -> Ask:
    body = {**_chat(_question(rng)), "stop": list(STOPS), "max_tokens": 60}
    return Ask("stops", CHAT, body, check=lambda text, _finish: not any(stop in text for stop in STOPS))


def _malformed(rng: random.Random) -> Ask:
    chat = _chat(_question(rng))
    return rng.choice(
        (
            Ask("malformed", CHAT, {}, refusal=400, raw=b'{"model": '),
            Ask("malformed", CHAT, {**chat, "temperature": "hot"}, refusal=400),
            Ask("malformed", CHAT, {**chat, "messages": []}, refusal=400),
            Ask("malformed", CHAT, {**chat, "model": "nobody"}, refusal=404),
            Ask("malformed", CHAT, {**chat, "n": 100}, refusal=400),
            Ask("malformed", CHAT, {**chat, "grammar": "root ::= nothing"}, refusal=400),
            Ask("malformed", CHAT, {**chat, "grammar": "root ::= " + "(" * 20_000}, refusal=400),
            Ask("malformed", COMPLETIONS, {"model": MODEL_NAME, "prompt": "word " * 4000}, refusal=400),
            Ask("malformed", COMPLETIONS, {"model": MODEL_NAME, "prompt": [10**6]}, refusal=400),
        )
    )


KINDS: tuple[tuple[Callable[[random.Random], Ask], int], ...] = (
    (_short_chat, 20),
    (_shared_chat, 25),
    (_completion, 12),
    (_long_prompt, 5),
    (_long_answer, 8),
    (_choices, 6),
    (_logprobs, 6),
    (_schema, 4),
    (_grammar, 4),
    (_stops, 5),
    (_malformed, 8),
)
