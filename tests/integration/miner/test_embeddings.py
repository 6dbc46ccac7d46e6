"""`/v1/embeddings` on the real model: what OpenAI's client gets is what llama.cpp itself makes of a text."""

from __future__ import annotations

import base64
from collections.abc import Iterator

import numpy as np
import openai
import pytest
from numpy.typing import NDArray

from tests.integration.miner.engine_stand import llama
from tests.integration.miner.stand import MODEL_NAME, Miner, Store, chat_body, model_file

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

WIDTH = 576
LONG = "The lighthouse keeper wrote a letter to the sea every night, and in the morning the sea answered. " * 20


@pytest.fixture(scope="module")
def miner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Miner]:
    store = Store(tmp_path_factory.mktemp("embeddings"))
    store.put_model()
    with Miner(store, {"R3MES_MAX_QUEUE": "0", "R3MES_MAX_SEQUENCES": "8"}) as miner:
        miner.wait_ready()
        yield miner


@pytest.fixture
def client(miner: Miner) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{miner.url}/v1", api_key="none", max_retries=0)


def embed(miner: Miner, given: object, **fields: object) -> NDArray[np.float64]:
    response = miner.post("/v1/embeddings", {"model": MODEL_NAME, "input": given, **fields})
    assert response.ok, response.text
    return np.asarray([each["embedding"] for each in response.json()["data"]])


def refusal(miner: Miner, body: dict[str, object]) -> tuple[int, dict[str, str]]:
    response = miner.post("/v1/embeddings", {"model": MODEL_NAME, **body})
    return response.status_code, response.json()["error"]


class Alone:
    """llama.cpp's own mean over a text that it computes in one batch."""

    def __init__(self) -> None:
        self._model = llama.llama_model_load_from_file(str(model_file()).encode(), llama.llama_model_default_params())
        self._words = llama.llama_model_get_vocab(self._model)
        parameters = llama.llama_context_default_params()
        parameters.embeddings, parameters.pooling_type = True, llama.LLAMA_POOLING_TYPE_MEAN
        parameters.n_ctx = parameters.n_batch = parameters.n_ubatch = 1024
        parameters.n_threads = parameters.n_threads_batch = 1
        self._context = llama.llama_init_from_model(self._model, parameters)

    def tokenise(self, text: str) -> list[int]:
        tokens = (llama.llama_token * 1024)()
        count = llama.llama_tokenize(self._words, text.encode(), len(text.encode()), tokens, 1024, True, False)
        return list(tokens[:count])

    def vector(self, tokens: list[int]) -> NDArray[np.float64]:
        llama.llama_memory_clear(llama.llama_get_memory(self._context), True)
        array = (llama.llama_token * len(tokens))(*tokens)
        batch = llama.llama_batch_get_one(array, len(tokens))
        assert llama.llama_decode(self._context, batch) == 0
        found = np.ctypeslib.as_array(llama.llama_get_embeddings_seq(self._context, 0), (WIDTH,)).astype(np.float64)
        return found / np.linalg.norm(found)


def test_a_text_gets_the_vector_that_llama_itself_makes_of_it(miner: Miner) -> None:
    alone = Alone()
    texts = ["Hello", "The capital of France is Paris.", LONG]
    for text, found in zip(texts, embed(miner, texts), strict=True):
        assert found.shape == (WIDTH,)
        assert np.linalg.norm(found) == pytest.approx(1, abs=1e-5)
        assert found @ alone.vector(alone.tokenise(text)) > 0.998, (
            "in parts and beside others activations round differently"
        )


def test_token_ids_mean_what_their_text_means(miner: Miner) -> None:
    tokens = Alone().tokenise("The capital of France is Paris.")
    by_text, by_tokens = embed(miner, "The capital of France is Paris.")[0], embed(miner, tokens)[0]
    assert by_text @ by_tokens > 0.99999
    assert embed(miner, [tokens, tokens[:3]]).shape == (2, WIDTH)


def test_what_was_cached_changes_nothing(miner: Miner) -> None:
    first = embed(miner, LONG)[0]
    miner.post("/v1/completions", {"model": MODEL_NAME, "prompt": LONG, "max_tokens": 4})
    assert embed(miner, LONG)[0] @ first > 0.9999


def test_openais_client_gets_vectors_in_the_order_of_its_texts(client: openai.OpenAI, miner: Miner) -> None:
    texts = ["one", "two", "three"]
    answer = client.embeddings.create(model=MODEL_NAME, input=texts)  # it asks for base64
    found = np.asarray([each.embedding for each in answer.data])
    assert [each.index for each in answer.data] == [0, 1, 2]
    assert found == pytest.approx(embed(miner, texts), abs=1e-6)
    assert answer.usage.prompt_tokens == answer.usage.total_tokens > 2
    assert answer.model == MODEL_NAME


def test_base64_holds_the_numbers_with_32_bits_each(miner: Miner) -> None:
    body = {"model": MODEL_NAME, "input": "one", "encoding_format": "base64"}
    written = miner.post("/v1/embeddings", body).json()["data"][0]["embedding"]
    assert np.frombuffer(base64.b64decode(written), "<f4") == pytest.approx(embed(miner, "one")[0], abs=1e-6)


def test_many_texts_of_one_request_take_turns_and_leave_room_for_others(miner: Miner) -> None:
    found = embed(miner, [f"text number {number}" for number in range(100)])
    assert found.shape == (100, WIDTH), "more texts than sequences and queue together"


def test_answers_go_on_while_texts_are_embedded(miner: Miner) -> None:
    alone = miner.chat(max_tokens=40).json()["choices"][0]["message"]["content"]
    with miner.post("/v1/chat/completions", {**chat_body("What is the capital of France?"), "max_tokens": 40,
                                             "stream": True}, stream=True) as stream:  # fmt: skip
        lines = stream.iter_lines()
        next(lines)
        before = embed(miner, LONG)
        rest = b"".join(lines).decode()
    assert before.shape == (1, WIDTH)
    assert alone.split()[-1].strip('".') in rest


def test_both_outcomes_are_counted(miner: Miner) -> None:
    def counted(outcome: str) -> float:
        return miner.metric("r3mes_miner_requests_total", endpoint="embeddings", outcome=outcome)

    before = counted("ok"), counted("invalid")
    embed(miner, "x")
    refusal(miner, {"input": ""})
    assert (counted("ok"), counted("invalid")) == (before[0] + 1, before[1] + 1)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"input": ""}, "empty"),
        ({"input": ["a", ""]}, "text 1 is empty"),
        ({"input": []}, "input"),
        ({"input": [[]]}, "input"),
        ({"input": ["a", 1]}, "input"),
        ({"input": {"text": "a"}}, "input"),
        ({"input": [99_999_999]}, "vocabulary"),
        ({"input": ["a"] * 2049}, "input"),
        ({}, "input"),
        ({"input": "a", "dimensions": 8}, "dimensions"),
        ({"input": "a", "encoding_format": "hex"}, "encoding_format"),
    ],
)
def test_what_cannot_be_embedded_is_refused_with_the_reason(miner: Miner, body: dict[str, object], words: str) -> None:
    status, error = refusal(miner, body)
    assert status == 400
    assert words in error["message"]


def test_a_text_that_does_not_fit_is_refused_with_both_numbers(miner: Miner) -> None:
    status, error = refusal(miner, {"input": ["short", "word " * 9000]})
    assert (status, error["code"]) == (400, "context_length_exceeded")
    assert "8192" in error["message"]
    assert "9000" in error["message"] or "9001" in error["message"]


def test_another_model_is_not_found(miner: Miner) -> None:
    status, error = refusal(miner, {"input": "a", "model": "no-such-model"})
    assert (status, error["code"]) == (404, "model_not_found")
