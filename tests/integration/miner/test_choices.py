"""More than a text: log probabilities of its tokens, and several answers to one request, in OpenAI's shapes."""

from __future__ import annotations

import math
import socket
from typing import Any

import openai
import pytest
import requests

from tests.integration.miner.stand import MODEL_NAME, Miner, Store, chat_body, events
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

QUESTION = "What is the capital of France?"
COMPLETION = {"model": MODEL_NAME, "prompt": "One, two, three,", "temperature": 0, "max_tokens": 8}


def bytes_of(entries: list[dict[str, Any]]) -> bytes:
    return b"".join(bytes(entry["bytes"]) for entry in entries)


def test_a_chats_log_probabilities_cover_its_text_and_rank_the_chosen_first(miner: Miner) -> None:
    choice = miner.chat(QUESTION, logprobs=True, top_logprobs=5).json()["choices"][0]
    entries = choice["logprobs"]["content"]
    assert bytes_of(entries).decode() == choice["message"]["content"]
    for entry in entries:
        top = entry["top_logprobs"]
        assert len(top) == 5
        assert {key: entry[key] for key in ("token", "logprob", "bytes")} == top[0]  # greedy
        assert [one["logprob"] for one in top] == sorted((one["logprob"] for one in top), reverse=True)
        assert 0 < sum(math.exp(one["logprob"]) for one in top) <= 1.001


def test_log_probabilities_are_the_models_own_whatever_the_sampling(miner: Miner) -> None:
    plain = miner.post("/v1/completions", {**COMPLETION, "max_tokens": 1, "logprobs": 5}).json()
    chosen = plain["choices"][0]["logprobs"]
    biased = {**COMPLETION, "max_tokens": 1, "logprobs": 5, "temperature": 2, "top_k": 1, "presence_penalty": 2}
    again = miner.post("/v1/completions", biased).json()["choices"][0]["logprobs"]
    assert again["tokens"] == chosen["tokens"]
    assert again["token_logprobs"] == pytest.approx(chosen["token_logprobs"], abs=0.01)
    assert again["top_logprobs"][0].keys() == chosen["top_logprobs"][0].keys()


def test_a_stream_tells_the_same_log_probabilities_as_one_answer(miner: Miner) -> None:
    fields = {"logprobs": True, "top_logprobs": 2}
    whole = miner.chat(QUESTION, **fields).json()["choices"][0]["logprobs"]["content"]
    chunks = [chunk["choices"][0] for chunk in events(miner.chat(QUESTION, stream=True, **fields))]
    streamed = [entry for chunk in chunks if chunk["logprobs"] for entry in chunk["logprobs"]["content"]]
    assert [entry["bytes"] for entry in streamed] == [entry["bytes"] for entry in whole]
    assert [entry["logprob"] for entry in streamed] == pytest.approx([entry["logprob"] for entry in whole], abs=0.05)


def test_no_log_probability_tells_of_a_stop_string(miner: Miner) -> None:
    choice = miner.chat(QUESTION, logprobs=True, stop="Paris").json()["choices"][0]
    assert choice["finish_reason"] == "stop"
    told = bytes_of(choice["logprobs"]["content"]).decode()
    assert "Par" not in told
    assert choice["message"]["content"].startswith(told)
    assert told


def test_half_characters_have_their_own_bytes(miner: Miner) -> None:
    grammar = 'root ::= "😀🦄"'
    choice = miner.chat(QUESTION, logprobs=True, grammar=grammar).json()["choices"][0]
    entries = choice["logprobs"]["content"]
    assert choice["message"]["content"] == "😀🦄"
    assert bytes_of(entries) == "😀🦄".encode()
    assert len(entries) > 2
    assert "\ufffd" in {entry["token"] for entry in entries}


def test_a_completions_log_probabilities_have_their_older_shape(miner: Miner) -> None:
    choice = miner.post("/v1/completions", {**COMPLETION, "logprobs": 3}).json()["choices"][0]
    found = choice["logprobs"]
    assert "".join(found["tokens"]) == choice["text"]
    for token, offset in zip(found["tokens"], found["text_offset"], strict=True):
        assert choice["text"][offset:].startswith(token)
    for token, logprob, top in zip(found["tokens"], found["token_logprobs"], found["top_logprobs"], strict=True):
        assert top[token] == logprob == max(top.values())
        assert len(top) == 3
    chunks = events(miner.post("/v1/completions", {**COMPLETION, "logprobs": 0, "stream": True}, stream=True))
    told = [chunk["choices"][0]["logprobs"] for chunk in chunks if chunk["choices"][0]["logprobs"]]
    assert [token for one in told for token in one["tokens"]] == found["tokens"]
    assert all(one["top_logprobs"] is None for one in told)
    without = miner.post("/v1/completions", COMPLETION).json()["choices"][0]
    assert without["logprobs"] is None


def test_n_gives_that_many_answers_and_counts_the_prompt_once(miner: Miner) -> None:
    fields = {"temperature": 1.5, "top_k": 5, "seed": 7, "max_tokens": 8, "ignore_eos": True, "logprobs": True}
    answer = miner.chat("Tell me a story.", n=3, **fields).json()
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2]
    assert len({choice["message"]["content"] for choice in answer["choices"]}) == 3
    alone = [miner.chat("Tell me a story.", **{**fields, "seed": 7 + number}).json() for number in range(3)]

    def first_token(choice: dict[str, Any]) -> str:
        """Later ones may differ: a sum depends a little on who else is in the batch, and a draw on the sum."""
        return str(choice["logprobs"]["content"][0]["token"])

    assert [first_token(choice) for choice in answer["choices"]] == [first_token(one["choices"][0]) for one in alone]
    prompt = alone[0]["usage"]["prompt_tokens"]
    assert answer["usage"].pop("prompt_tokens_details")["cached_tokens"] < prompt - 1  # it came first
    assert alone[0]["usage"]["prompt_tokens_details"] == {"cached_tokens": prompt - 1}
    assert answer["usage"] == {"prompt_tokens": prompt, "completion_tokens": 24, "total_tokens": prompt + 24}


def test_a_stream_of_several_answers_tells_whose_each_chunk_is(miner: Miner) -> None:
    fields = {"temperature": 1, "seed": 1, "max_tokens": 10, "n": 2, "stream_options": {"include_usage": True}}
    *chunks, last = events(miner.chat("Tell me a story.", stream=True, **fields))
    assert last["usage"]["completion_tokens"] <= 20
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert [chunk["choices"][0]["delta"] for chunk in chunks[:2]] == [{"role": "assistant", "content": ""}] * 2
    for index in (0, 1):
        own = [chunk["choices"][0] for chunk in chunks if chunk["choices"][0]["index"] == index]
        assert [choice["finish_reason"] is not None for choice in own] == [False] * (len(own) - 1) + [True]
        assert "".join(choice["delta"].get("content", "") for choice in own)
    order = [chunk["choices"][0]["index"] for chunk in chunks[2:]]
    assert order != sorted(order)


def test_several_bare_completions_can_match_a_grammar_each(miner: Miner) -> None:
    body = {**COMPLETION, "temperature": 2, "top_k": 0, "grammar": "root ::= [0-9]{6}", "n": 4, "seed": 1}
    texts = [choice["text"] for choice in miner.post("/v1/completions", body).json()["choices"]]
    assert all(len(text) == 6 and text.isdigit() for text in texts)
    assert len(set(texts)) > 1


def test_a_client_that_leaves_frees_all_of_its_sequences(miner: Miner) -> None:
    body = chat_body("Tell me a very long story.", max_tokens=2000, ignore_eos=True, n=3)
    prepared = requests.Request("POST", f"{miner.url}/v1/chat/completions", json=body).prepare()
    assert isinstance(prepared.body, bytes)
    head = "".join(f"{key}: {value}\r\n" for key, value in prepared.headers.items())
    with socket.create_connection(("127.0.0.1", miner.port), timeout=30) as connection:
        connection.sendall(f"POST {prepared.path_url} HTTP/1.1\r\nHost: x\r\n{head}\r\n".encode() + prepared.body)
        wait_until(lambda: miner.metric("r3mes_miner_requests_running") == 3, 30, "three sequences run")
    wait_until(lambda: miner.metric("r3mes_miner_requests_running") == 0, 10, "they are free")


def test_answers_that_the_queue_has_no_room_for_are_refused_together(store: Store) -> None:
    store.put_model()
    with Miner(store, {"R3MES_MAX_SEQUENCES": "2", "R3MES_MAX_QUEUE": "0"}) as miner:
        miner.wait_ready()
        too_many = miner.chat("x", n=3)
        assert too_many.status_code == 400
        assert too_many.json()["error"]["param"] == "n"
        with miner.chat("Tell me a story.", max_tokens=2000, ignore_eos=True, stream=True) as running:
            lines = running.iter_lines()  # requests closes the connection when nobody holds these
            assert next(lines)
            assert miner.chat("x", n=2).status_code == 429
            assert miner.chat("x", n=1, max_tokens=2).status_code == 200


def test_the_openai_client_reads_choices_and_log_probabilities(miner: Miner) -> None:
    client = openai.OpenAI(base_url=f"{miner.url}/v1", api_key="none", timeout=120, max_retries=0)
    messages = chat_body(QUESTION)["messages"]
    answer = client.chat.completions.create(
        model=MODEL_NAME, messages=messages, temperature=1, max_tokens=8, n=2, logprobs=True, top_logprobs=3
    )
    assert [choice.index for choice in answer.choices] == [0, 1]
    for choice in answer.choices:
        assert choice.logprobs is not None
        assert choice.logprobs.content is not None
        assert all(len(entry.top_logprobs) == 3 for entry in choice.logprobs.content)
    old = client.completions.create(model=MODEL_NAME, prompt="One, two,", max_tokens=4, temperature=0, logprobs=2, n=2)
    assert old.choices[1].logprobs is not None
    assert old.choices[1].logprobs.tokens
