"""The engine beside plain text: log probabilities with each output, constraints that cannot be met."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from services.miner.engine.backend import Sampler
from services.miner.engine.engine import Engine
from services.miner.engine.logprobs import Ranking
from services.miner.engine.messages import FinishReason, Output, Submit
from services.miner.engine.scheduler import Limits
from services.miner.grammar.matcher import ConstraintError, Matcher
from services.miner.grammar.wire import Constraint
from tests.unit.miner.fake_backend import FakeBackend, FakeSampler

LIMITS = Limits(sequences=4, cells=64, batch_tokens=16, prefill_tokens=8, quantum=4)
GRAMMAR = Constraint("grammar", 'root ::= "x"')


def outputs_of(engine: Engine) -> Iterator[Output]:
    while not engine.idle:
        yield from engine.step().outputs


def told(outputs: list[Output]) -> str:
    return "".join(bytes(found.chosen.piece).decode() for output in outputs for found in output.logprobs)


@pytest.mark.parametrize("stop", [(), ("><",)])
def test_log_probabilities_come_with_the_text_of_their_tokens(stop: tuple[str, ...]) -> None:
    engine = Engine(FakeBackend(64), LIMITS)
    engine.submit(Submit("x", (5, 6), 4, stop, logprobs=2))
    outputs = list(outputs_of(engine))
    text = "".join(output.text for output in outputs)
    assert text.startswith(told(outputs))
    if stop:
        assert told(outputs) == ""  # the first token holds the beginning of the stop string
        assert text.count("<") == 1
    else:
        assert told(outputs) == text
    for output in outputs:
        for position, found in enumerate(output.logprobs):
            assert len(found.likeliest) == 2
            assert text[found.offset :].startswith(bytes(found.chosen.piece).decode()), position


def test_nobody_pays_for_log_probabilities_that_nobody_asked_for() -> None:
    class Watched(FakeBackend):
        def ranking(self, *_: object) -> Ranking:
            raise AssertionError("asked")

    engine = Engine(Watched(64), LIMITS)
    engine.submit(Submit("x", (5, 6), 4))
    assert not any(output.logprobs for output in outputs_of(engine))


def test_a_constraint_that_cannot_be_opened_refuses_its_request_alone() -> None:
    engine = Engine(FakeBackend(64), LIMITS)
    engine.submit(Submit("bad", (1,), 4, constraint=GRAMMAR))
    engine.submit(Submit("good", (1,), 4))
    outputs = list(outputs_of(engine))
    (refused,) = [output for output in outputs if output.request_id == "bad"]
    assert (refused.finish, refused.refused) == (FinishReason.ERROR, True)
    assert "no grammar" in refused.error
    assert sum(output.tokens for output in outputs if output.request_id == "good") == 4


def test_a_constraint_that_leads_nowhere_ends_its_request_and_frees_what_it_held() -> None:
    class Stuck(FakeSampler):
        def sample(self, index: int) -> int:
            if len(self._backend.rows[index]) > 3:
                raise ConstraintError("nothing is left")
            return super().sample(index)

    class Backend(FakeBackend):
        def sampler(self, request: Submit, matcher: Matcher | None) -> Sampler:
            return Stuck(self) if request.request_id == "stuck" else super().sampler(request, matcher)

    backend = Backend(64)
    engine = Engine(backend, LIMITS)
    engine.submit(Submit("stuck", (1, 2), 9))
    engine.submit(Submit("free", (1, 2), 9))
    outputs = list(outputs_of(engine))
    last = [output for output in outputs if output.request_id == "stuck"][-1]
    assert (last.finish, last.error, last.refused) == (FinishReason.ERROR, "nothing is left", True)
    assert sum(output.tokens for output in outputs if output.request_id == "free") == 9
    assert not engine.scheduler.running
    engine.scheduler.cache.evict_all()  # what is kept for later
    backend.move(engine.scheduler.cache.take_moves())
    assert backend.cells_held == 0
    assert backend.samplers == 0
