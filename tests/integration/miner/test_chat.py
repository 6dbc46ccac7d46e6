"""What people point at the miner: curl and the openai client, against the real model."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest

from tests.integration.miner.stand import MODEL_NAME, SHA256, Miner, Store, chat_body, events
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

QUESTION = "What is the capital of France?"


def client_of(miner: Miner) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{miner.url}/v1", api_key="none", timeout=120, max_retries=0)


def test_a_chat_is_answered_with_text_usage_and_a_finish_reason(miner: Miner) -> None:
    answer = miner.chat(QUESTION).json()
    choice = answer["choices"][0]
    assert "Paris" in choice["message"]["content"]
    assert choice["message"]["role"] == "assistant"
    assert choice["finish_reason"] == "stop"
    usage = answer["usage"]
    assert usage["prompt_tokens"] > 10
    assert 3 < usage["completion_tokens"] <= 24
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert answer["model"] == MODEL_NAME
    assert answer["object"] == "chat.completion"
    assert answer["system_fingerprint"] == f"r3mes-{SHA256[:12]}"


def test_max_tokens_ends_an_answer_with_length(miner: Miner) -> None:
    answer = miner.chat("Tell me a long story.", max_tokens=5).json()
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == 5


def test_a_stream_gives_the_same_text_as_one_answer(miner: Miner) -> None:
    whole = miner.chat(QUESTION).json()["choices"][0]["message"]["content"]
    chunks = events(miner.chat(QUESTION, stream=True))
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks) == whole
    finishes = [chunk["choices"][0]["finish_reason"] for chunk in chunks]
    assert finishes == [None] * (len(chunks) - 1) + ["stop"]
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert not any("usage" in chunk for chunk in chunks)


def test_a_stream_ends_with_usage_where_it_was_asked_for(miner: Miner) -> None:
    chunks = events(miner.chat(QUESTION, stream=True, stream_options={"include_usage": True}))
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"] == miner.chat(QUESTION).json()["usage"]
    assert all(chunk["usage"] is None for chunk in chunks[:-1])


def test_the_openai_client_chats_streams_completes_and_lists(miner: Miner) -> None:
    client = client_of(miner)
    messages = chat_body(QUESTION)["messages"]
    answer = client.chat.completions.create(model=MODEL_NAME, messages=messages, temperature=0, max_tokens=24)
    stream = client.chat.completions.create(
        model=MODEL_NAME, messages=messages, temperature=0, max_tokens=24, stream=True
    )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
    assert text == answer.choices[0].message.content
    completion = client.completions.create(model=MODEL_NAME, prompt="One, two, three,", temperature=0, max_tokens=8)
    assert "four" in completion.choices[0].text
    assert [model.id for model in client.models.list()] == [MODEL_NAME]


def test_the_asynchronous_client_chats_and_streams_together(miner: Miner) -> None:
    async def ask() -> list[str]:
        async with openai.AsyncOpenAI(base_url=f"{miner.url}/v1", api_key="none", max_retries=0) as client:

            async def streamed() -> str:
                stream = await client.chat.completions.create(**wanted, stream=True)
                return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

            async def whole() -> str:
                answer = await client.chat.completions.create(**wanted)
                return answer.choices[0].message.content or ""

            return list(await asyncio.gather(streamed(), whole(), streamed(), whole()))

    wanted: dict[str, Any] = {
        "model": MODEL_NAME, "messages": chat_body(QUESTION)["messages"], "temperature": 0, "max_tokens": 24
    }  # fmt: skip
    answers = asyncio.run(ask())
    assert all("Paris" in answer for answer in answers)


def test_a_client_that_times_out_frees_its_sequence(miner: Miner) -> None:
    client = openai.OpenAI(base_url=f"{miner.url}/v1", api_key="none", max_retries=0, timeout=0.5)
    with pytest.raises(openai.APITimeoutError):
        client.chat.completions.create(
            model=MODEL_NAME, messages=[{"role": "user", "content": "Count."}], max_tokens=4000,
            extra_body={"ignore_eos": True},
        )  # fmt: skip
    wait_until(lambda: miner.metric("r3mes_miner_requests_running") == 0, 20, "the sequence is free")


def test_a_client_that_is_told_to_come_later_does_so_by_itself(store: Store) -> None:
    store.put_model()
    with Miner(store) as loading:
        client = openai.OpenAI(base_url=f"{loading.url}/v1", api_key="none", max_retries=8, timeout=120)
        answer = client.chat.completions.create(  # the model is not loaded yet: 503 with Retry-After
            model=MODEL_NAME, messages=[{"role": "user", "content": QUESTION}], max_tokens=4
        )
        assert answer.choices[0].message.content
        assert loading.metric("r3mes_miner_requests_total", endpoint="chat", outcome="unavailable") > 0


def test_a_request_can_be_found_in_the_log_by_its_id(miner: Miner) -> None:
    response = miner.chat(QUESTION, max_tokens=4)
    line = wait_until(lambda: miner.logged(response.headers["X-Request-Id"]), 10, "its line")
    assert (line["outcome"], line["completion_tokens"]) == ("ok", 4)
    miner.post("/v1/chat/completions", chat_body(QUESTION, max_tokens=4), headers={"X-Request-Id": "mine-1"})
    assert wait_until(lambda: miner.logged("mine-1"), 10, "its line")["endpoint"] == "chat"


def test_a_request_may_take_nothing_from_the_cache(miner: Miner) -> None:
    def cached(**fields: object) -> int:
        usage = miner.chat("Where is the Eiffel tower?", max_tokens=2, **fields).json()["usage"]
        return int(usage["prompt_tokens_details"]["cached_tokens"])

    cached()
    assert cached() > 10
    assert cached(cache_prompt=False) == 0


def test_the_openai_client_sees_errors_as_its_own(miner: Miner) -> None:
    with pytest.raises(openai.NotFoundError) as error:
        client_of(miner).chat.completions.create(model="no-such-model", messages=[{"role": "user", "content": "x"}])
    assert error.value.code == "model_not_found"
    assert error.value.param == "model"


def test_a_completion_continues_a_prompt_of_text_or_tokens(miner: Miner) -> None:
    body = {"model": MODEL_NAME, "prompt": "One, two, three,", "temperature": 0, "max_tokens": 8}
    answer = miner.post("/v1/completions", body).json()
    assert answer["object"] == "text_completion"
    assert "four" in answer["choices"][0]["text"]
    again = miner.post("/v1/completions", {**body, "prompt": ["One, two, three,"]}).json()
    assert again["choices"][0]["text"] == answer["choices"][0]["text"]
    chunks = events(miner.post("/v1/completions", {**body, "stream": True}, stream=True))
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == answer["choices"][0]["text"]
    tokens = miner.post("/v1/completions", {**body, "prompt": [1, 2, 3], "max_tokens": 2})
    assert tokens.json()["usage"]["prompt_tokens"] == 3


# Prompts whose next tokens are beyond doubt: a sum depends a little on where in the cache a sequence lies, and a model
# that is torn between two tokens by a thousandth may choose the other one in company.
SHARP = (
    "1, 2, 3, 4, 5, 6, 7, 8, 9,",
    "a, b, c, d, e, f, g,",
    "Sunday, Monday, Tuesday, Wednesday, Thursday, Friday,",
    "January, February, March, April,",
    "red red red red red red red red",
    "2 4 6 8 10 12 14 16 18 20",
)


def test_requests_at_once_give_the_same_greedy_answers_as_alone(miner: Miner) -> None:
    # Their first words: later ones may differ by llama.cpp's own rounding, which test_correctness.py takes out.
    def continued(prompt: str) -> str:
        body = {"model": MODEL_NAME, "prompt": prompt, "temperature": 0, "max_tokens": 4}
        return str(miner.post("/v1/completions", body).json()["choices"][0]["text"])

    alone = [continued(prompt) for prompt in SHARP]
    assert len(set(alone)) == len(SHARP)
    with ThreadPoolExecutor(12) as pool:
        together = list(pool.map(continued, SHARP * 2))
    assert together == alone * 2


def test_a_stop_string_is_never_part_of_the_answer(miner: Miner) -> None:
    whole = miner.chat(QUESTION).json()["choices"][0]["message"]["content"]
    word = "Paris"
    answer = miner.chat(QUESTION, stop=[word]).json()
    assert answer["choices"][0]["message"]["content"] == whole[: whole.index(word)]
    assert answer["choices"][0]["finish_reason"] == "stop"
    chunks = events(miner.chat(QUESTION, stop=word, stream=True))
    text = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)
    assert text == whole[: whole.index(word)]


def test_a_seed_repeats_a_sampled_answer_and_another_one_does_not(miner: Miner) -> None:
    def sampled(seed: int) -> str:
        fields = {"temperature": 1.5, "top_k": 0, "seed": seed, "max_tokens": 24}
        return str(miner.chat("Tell me a story.", **fields).json()["choices"][0]["message"]["content"])

    assert sampled(7) == sampled(7)
    assert sampled(7) != sampled(8)


def test_a_logit_bias_decides_between_tokens(miner: Miner) -> None:
    body = {"model": MODEL_NAME, "prompt": "One, two, three,", "temperature": 0, "max_tokens": 3}
    wanted = {**body, "prompt": [1], "logit_bias": {"100": 100}}
    forced = miner.post("/v1/completions", wanted).json()["choices"][0]["text"]
    other = miner.post("/v1/completions", {**wanted, "logit_bias": {"101": 100}}).json()["choices"][0]["text"]
    assert forced != other
    assert forced[: len(forced) // 3] * 3 == forced  # the same token three times


def test_the_model_list_shows_the_hardware_decision(miner: Miner) -> None:
    model = miner.get("/v1/models").json()["data"][0]
    assert model["id"] == MODEL_NAME
    assert model["r3mes"]["sha256"] == SHA256
    assert model["r3mes"]["quantization"] == "Q4_1"
    assert model["r3mes"]["training_tokens"] == 8192
    assert model["r3mes"]["hardware"]["threads"] == 1
    assert model["r3mes"]["hardware"]["why"]
    assert miner.get(f"/v1/models/{MODEL_NAME}").json() == model


def test_the_metrics_count_what_happened(miner: Miner) -> None:
    before = miner.metric("r3mes_miner_generation_tokens_total")
    ended = miner.metric("r3mes_miner_requests_total", endpoint="chat", outcome="ok")
    tokens = miner.chat(QUESTION).json()["usage"]["completion_tokens"]
    assert miner.metric("r3mes_miner_generation_tokens_total") == before + tokens
    assert miner.metric("r3mes_miner_requests_total", endpoint="chat", outcome="ok") == ended + 1
    assert miner.metric("r3mes_miner_requests_running") == 0
    assert miner.metric("r3mes_miner_gpu_offload_active") == 0
    assert f'r3mes_miner_model_info{{engine="llama.cpp",model="{MODEL_NAME}"' in miner.get("/metrics").text


def test_a_prompt_that_came_before_is_taken_from_the_cache_and_counted(miner: Miner) -> None:
    question = "Which animals live in a lighthouse, and who feeds them on Sundays?"
    first = miner.chat(question).json()["usage"]
    hits = miner.metric("r3mes_miner_prefix_cache_hit_tokens_total")
    again = miner.chat(question).json()["usage"]
    assert again["prompt_tokens_details"] == {"cached_tokens": first["prompt_tokens"] - 1}
    assert miner.metric("r3mes_miner_prefix_cache_hit_tokens_total") == hits + first["prompt_tokens"] - 1


def test_an_answer_has_a_request_id_and_keeps_a_given_one(miner: Miner) -> None:
    assert miner.get("/healthz").headers["x-request-id"].startswith("req_")
    assert miner.get("/healthz", headers={"X-Request-Id": "mine-1"}).headers["x-request-id"] == "mine-1"


def test_a_message_in_parts_is_one_message(miner: Miner) -> None:
    body = chat_body(QUESTION)
    parts = [{"type": "text", "text": "What is the capital"}, {"type": "text", "text": " of France?"}]
    body["messages"][1]["content"] = parts
    assert "Paris" in miner.post("/v1/chat/completions", body).json()["choices"][0]["message"]["content"]
