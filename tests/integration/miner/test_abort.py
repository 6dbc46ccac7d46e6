"""The real llama.cpp, interrupted at any node of its graph: the cache is as if the decode had never begun."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator

import pytest

from services.miner.engine.abort import AbortSwitch
from services.miner.engine.backend import AbortedError
from services.miner.engine.cache_moves import Cut
from services.miner.engine.flight import NoRecorder, Work
from services.miner.engine.llama_backend import LlamaBackend, llama
from services.miner.engine.messages import Load, Sampling, Submit
from services.miner.engine.scheduler import Slice
from services.miner.engine.sequence import Sequence
from shared.store.records import StatIdentity
from tests.integration.miner.crashing import assert_sound, engine_of
from tests.integration.miner.stand import Miner, Store, chat_body, model_file
from tests.support.engine_flight import decodes, stop_while
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

PROMPT = [1, *range(400, 460)]


@pytest.fixture(scope="module")
def backend() -> LlamaBackend:
    """A loaded model; each test drops what it computed."""
    path = model_file()
    load = Load(0, StatIdentity.of(path.stat()), 512, 4, 64, 64, 0, 1, -1, 1, 1, 1)
    return LlamaBackend(load, str(path))


@pytest.fixture
def sequence(backend: LlamaBackend) -> Iterator[Sequence]:
    sequence = Sequence("one", list(PROMPT), 100, slot=2)
    yield sequence
    backend.move((Cut(2, 0),))


def next_token(backend: LlamaBackend, count: int) -> int:
    sampler = backend.sampler(Submit("one", (1,), 1, sampling=Sampling(temperature=0)), None)
    token = sampler.sample(count - 1)
    sampler.close()
    return token


def test_a_raised_flag_ends_the_decode_and_a_lowered_one_does_not(backend: LlamaBackend, sequence: Sequence) -> None:
    switch = AbortSwitch(NoRecorder())
    backend.abort_while(switch.flag)
    switch.working(Work.DECODING, ["one"])
    switch.cancelled("one")
    with pytest.raises(AbortedError):
        backend.decode([Slice(sequence, 0, len(PROMPT))])
    switch.working(Work.IDLE)
    backend.decode([Slice(sequence, 0, len(PROMPT))])


@pytest.mark.parametrize("node", [1, 50, 300])
@pytest.mark.parametrize("aside", [True, False])
def test_nothing_of_an_aborted_batch_is_in_the_cache(
    backend: LlamaBackend, sequence: Sequence, node: int, aside: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    half = len(PROMPT) // 2
    assert backend._aside is not None
    context = backend._aside._context
    if not aside:
        context = backend._context
        monkeypatch.setattr(backend, "_aside", None)
    backend.decode([Slice(sequence, 0, half)])
    backend.decode([Slice(sequence, half, len(PROMPT) - half)])
    undisturbed = next_token(backend, len(PROMPT) - half)
    backend.move((Cut(2, 0),))

    calls = 0

    def at_node(_data: object) -> bool:
        nonlocal calls
        calls += 1
        return calls == node

    backend.decode([Slice(sequence, 0, half)])
    callback = llama.ggml_abort_callback(at_node)
    llama.llama_set_abort_callback(context, callback, None)
    with pytest.raises(AbortedError):
        backend.decode([Slice(sequence, half, len(PROMPT) - half)])
    assert calls == node
    assert llama.llama_memory_seq_pos_max(backend._memory, 2) == half - 1
    backend.decode([Slice(sequence, half, len(PROMPT) - half)])
    assert next_token(backend, len(PROMPT) - half) == undisturbed
    monkeypatch.undo()
    backend.abort_while(AbortSwitch(NoRecorder()).flag)


def test_a_client_that_leaves_ends_the_decode_of_its_prompt_and_the_log_shows_no_error(store: Store) -> None:
    store.put_model()
    with Miner(store, {"R3MES_LOG_LEVEL": "debug"}) as miner:
        miner.wait_ready()

        def leave_in_prefill() -> bool:
            left = miner.metric("r3mes_miner_requests_total", endpoint="chat", outcome="cancelled")
            client = http.client.HTTPConnection("127.0.0.1", miner.port)
            body = json.dumps(chat_body("word " * 1500))
            client.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"})
            engine = engine_of(miner)
            stop_while(engine, decodes(1))
            client.close()
            wait_until(
                lambda: miner.metric("r3mes_miner_requests_total", endpoint="chat", outcome="cancelled") > left,
                10,
                "the miner sees that the client left",
            )
            engine.resume()
            wait_until(lambda: miner.metric("r3mes_miner_requests_running") == 0, 60, "the engine hears of it")
            return "failed to decode, ret = 2" in miner.log.read_text()

        wait_until(leave_in_prefill, 60, "a decode is aborted")  # one that was about to end is not
        assert_sound(miner, restarts=0)
        assert '"error"' not in miner.log.read_text()
