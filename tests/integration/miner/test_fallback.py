"""A verified file that llama.cpp refuses: PyTorch serves it where it is installed, else the way to it is shown.

PyTorch is an extra of some gigabytes (`make install-torch`); what needs it runs only where it is there.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from services.miner.model.probe import TORCH_PACKAGES
from services.miner.model.vocabulary import Vocabulary
from tests.integration.miner.stand import MODEL_NAME, Miner, Store, events, genesis_entry, model_file
from tests.support.waiting import wait_until

INSTALLED = all(importlib.util.find_spec(name) for name in TORCH_PACKAGES)
needs_torch = pytest.mark.skipif(not INSTALLED, reason="the extra `torch` is not installed: make install-torch")
without_torch = pytest.mark.skipif(INSTALLED, reason="the extra `torch` is installed")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

# The number that a layer norm needs, under another name: llama.cpp refuses the model, transformers takes its default.
NO_EPSILON = (b"llama.attention.layer_norm_rms_epsilon", b"llama.attention.layer_norm_rms_epsilom")
# A pre-tokenizer that llama.cpp has never heard of: it refuses the vocabulary, too.
UNKNOWN_WORDS = (b"smollm", b"smolly")
TEXTS = (
    "Hello, world! It's 12:30 -- isn't it?",
    "  two spaces,\ttab\n\nand lines  ",
    "Zażółć gęślą jaźń; 你好世界; 👩‍👩‍👧 123456",
    "<|im_start|>user\nHi<|im_end|>\n",
    "",
)


def changed(old: bytes, new: bytes) -> bytes:
    content = model_file().read_bytes()
    assert len(old) == len(new)
    place = content.index(b"tokenizer.ggml.pre") if old == UNKNOWN_WORDS[0] else 0
    at = content.index(old, place)
    return content[:at] + new + content[at + len(new) :]


def put(store: Store, content: bytes) -> None:
    digest = hashlib.sha256(content).hexdigest()
    store.pin(genesis_entry(verification_sha256=digest))
    store.put_model(content, digest=digest)


@pytest.fixture(scope="module")
def torch_miner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Miner]:
    store = Store(tmp_path_factory.mktemp("torch"))
    store.put_model()
    with Miner(store, {"R3MES_ENGINE": "torch", "R3MES_N_CTX": "2048"}) as miner:
        miner.wait_ready()
        yield miner


@without_torch
def test_without_pytorch_llamas_reason_and_the_way_to_the_fallback_are_shown(store: Store) -> None:
    put(store, changed(*NO_EPSILON))
    with Miner(store) as miner:
        reason = miner.wait_not_ready("layer_norm_rms_epsilon")["reason"]
        assert "torch" in reason
        assert "miner-torch" in reason


@without_torch
def test_pytorch_that_is_asked_for_and_not_installed_stops_the_start(store: Store) -> None:
    with Miner(store, {"R3MES_ENGINE": "torch"}) as miner:
        assert miner.exit_code() == 78
        assert "miner-torch" in miner.log.read_text()


def test_llama_that_is_asked_for_never_falls_back(store: Store) -> None:
    put(store, changed(*NO_EPSILON))
    with Miner(store, {"R3MES_ENGINE": "llama"}) as miner:
        assert "torch" not in miner.wait_not_ready("layer_norm_rms_epsilon")["reason"].lower()


@needs_torch
def test_a_file_that_llama_refuses_is_served_by_pytorch_and_the_reason_shown(store: Store) -> None:
    put(store, changed(*NO_EPSILON))
    with Miner(store, {"R3MES_N_CTX": "2048"}) as miner:
        miner.wait_ready()
        shown = miner.get("/v1/models").json()["data"][0]["r3mes"]
        assert shown["engine"] == "torch"
        assert "layer_norm_rms_epsilon" in shown["engine_reason"]
        assert "float32" in shown["description"]
        assert "Paris" in miner.chat().json()["choices"][0]["message"]["content"]
        assert miner.metric("r3mes_miner_engine_fallback") == 1
        metrics = miner.get("/metrics").text
        assert f'engine="torch",model="{MODEL_NAME}"' in metrics
        assert "PyTorch loads it" in miner.log.read_text()


@needs_torch
def test_a_vocabulary_that_llama_refuses_is_read_by_transformers(store: Store) -> None:
    put(store, changed(*UNKNOWN_WORDS))
    with Miner(store, {"R3MES_N_CTX": "2048"}) as miner:
        miner.wait_ready()
        assert "pre-tokenizer" in miner.get("/v1/models").json()["data"][0]["r3mes"]["engine_reason"]
        assert "Paris" in miner.chat().json()["choices"][0]["message"]["content"]
        refused = miner.chat(response_format={"type": "json_object"})
        assert refused.status_code == 400
        assert "vocabulary" in refused.json()["error"]["message"]


@needs_torch
def test_both_readings_of_the_vocabulary_agree() -> None:
    from services.miner.model.torch_vocabulary import TransformersVocabulary  # noqa: PLC0415  (an extra)

    with model_file().open("rb") as file:
        theirs, ours = TransformersVocabulary(file.fileno()), Vocabulary(file.fileno())
        assert (theirs.size, theirs.adds_bos, theirs.bos, theirs.eos) == (ours.size, ours.adds_bos, ours.bos, ours.eos)
        for text in TEXTS:
            for special in (False, True):
                found = theirs.tokenise(text, add_special=True, parse_special=special)
                assert found == ours.tokenise(text, add_special=True, parse_special=special), text
        for token in range(ours.size):
            for special in (False, True):
                assert theirs.piece(token, special=special) == ours.piece(token, special=special), token
            assert theirs.ends(token) == ours.ends(token), token
        ours.close()


@needs_torch
def test_a_stream_gives_what_the_whole_answer_gives(torch_miner: Miner) -> None:
    whole = torch_miner.chat(seed=1).json()["choices"][0]
    found = events(torch_miner.chat(seed=1, stream=True))
    text = "".join(event["choices"][0]["delta"].get("content") or "" for event in found if event["choices"])
    assert text == whole["message"]["content"]
    assert found[-1]["choices"][0]["finish_reason"] == whole["finish_reason"]
    assert len(found) > 3


@needs_torch
def test_it_answers_as_llama_does(torch_miner: Miner, tmp_path: Path) -> None:
    questions = ["What is the capital of France?", "Name a colour.", "What is 2 + 2?"]
    store = Store(tmp_path)
    store.put_model()
    with Miner(store, {"R3MES_ENGINE": "llama"}) as llama:
        llama.wait_ready()
        alike = 0
        for question in questions:
            one, other = (
                each.chat(question).json()["choices"][0]["message"]["content"] for each in (llama, torch_miner)
            )
            alike += one.split()[:4] == other.split()[:4]
        assert alike >= 2, "the weights are the same, the rounding of activations is not"


@needs_torch
def test_samplers_grammars_stops_and_logprobs_work_as_with_llama(torch_miner: Miner) -> None:
    schema = {"type": "object", "properties": {"city": {"type": "string", "maxLength": 20}}, "required": ["city"]}
    wanted = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
    constrained = torch_miner.chat(response_format=wanted, max_tokens=60).json()["choices"][0]
    assert set(json.loads(constrained["message"]["content"])) == {"city"}
    several = torch_miner.chat(n=3, temperature=1.5, seed=7, logprobs=True, top_logprobs=2).json()["choices"]
    assert len({choice["message"]["content"] for choice in several}) > 1
    assert all(len(token["top_logprobs"]) == 2 for token in several[0]["logprobs"]["content"])
    stopped = torch_miner.chat(stop=["Paris"]).json()["choices"][0]
    assert stopped["finish_reason"] == "stop"
    assert "Paris" not in stopped["message"]["content"]


@needs_torch
def test_requests_together_and_alone_get_the_same_answers(torch_miner: Miner) -> None:
    questions = [f"What is {number} + {number}?" for number in range(6)]

    def ask(question: str) -> str:
        return str(torch_miner.chat(question).json()["choices"][0]["message"]["content"])

    alone = [ask(question) for question in questions]
    with ThreadPoolExecutor(len(questions)) as pool:
        assert list(pool.map(ask, questions)) == alone


@needs_torch
def test_a_client_that_leaves_frees_its_sequence(torch_miner: Miner) -> None:
    with torch_miner.chat("Tell a long story.", max_tokens=1500, stream=True) as response:
        next(response.iter_lines())
        assert torch_miner.metric("r3mes_miner_requests_running") == 1
    wait_until(lambda: torch_miner.metric("r3mes_miner_requests_running") == 0, 20, "the sequence is free")
