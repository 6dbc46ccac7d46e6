"""The engine on a fake model that checks each batch: whatever comes and goes, every answer is as if it ran alone."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.miner.engine.engine import Engine
from services.miner.engine.messages import FinishReason, Output, Submit
from services.miner.engine.scheduler import Limits
from tests.unit.miner.cache_checks import check_cache
from tests.unit.miner.fake_backend import FakeBackend

CELLS = 64
LIMITS = Limits(sequences=4, cells=CELLS, batch_tokens=16, prefill_tokens=8, quantum=4, slots=8, horizon=100)


class Stand:
    """An engine with a fake backend and the outputs of each request."""

    def __init__(self, limits: Limits = LIMITS, cells: int | None = None) -> None:
        self.backend = FakeBackend(limits.cells if cells is None else cells)
        self.engine = Engine(self.backend, limits)
        self.outputs: dict[str, list[Output]] = {}
        self.reused: dict[str, int] = {}

    def submit(self, name: str, prompt: list[int], max_tokens: int, stop: tuple[str, ...] = ()) -> None:
        self.outputs[name] = []
        self.engine.submit(Submit(name, tuple(prompt), max_tokens, stop))

    def step(self) -> None:
        for output in self.engine.step().outputs:
            self.outputs[output.request_id].append(output)
            self.reused[output.request_id] = max(output.reused, self.reused.get(output.request_id, 0))
        self.settle()

    def check_nothing_left(self) -> None:
        """Only what is kept for later may still be held, and it can all be given up."""
        scheduler = self.engine.scheduler
        assert self.backend.samplers == 0
        self.settle()
        scheduler.cache.evict_all()
        self.settle()
        assert self.backend.cells_held == 0

    def settle(self) -> None:
        """Carry out what waits for the next step, and check everything."""
        self.backend.move(self.engine.scheduler.cache.take_moves())
        check_cache(self.engine.scheduler, self.backend)

    def run(self, most: int = 2000) -> None:
        for _ in range(most):
            if self.engine.idle:
                return
            self.step()
        raise AssertionError("the engine does not come to an end")

    def text(self, name: str) -> str:
        return "".join(output.text for output in self.outputs[name])

    def finish(self, name: str) -> FinishReason | None:
        return self.outputs[name][-1].finish


def expected(prompt: list[int], max_tokens: int) -> str:
    history = list(prompt)
    for _ in range(max_tokens):
        history.append(FakeBackend.token_after(tuple(history)))
    return "".join(f"<{token}>" for token in history[len(prompt) :])


# Of few tokens, so that many begin alike.
prompts = st.lists(st.integers(1, 3), min_size=1, max_size=40) | st.lists(st.integers(1, 90), min_size=1, max_size=40)
requests = st.lists(st.tuples(prompts, st.integers(1, 20), st.integers(0, 30)), min_size=1, max_size=12)


@given(requests)
def test_every_request_gets_the_answer_that_it_gets_alone(arrivals: list[tuple[list[int], int, int]]) -> None:
    stand = Stand()
    arrivals = sorted(arrivals, key=lambda arrival: arrival[2])
    turn = 0
    for number, (prompt, max_tokens, when) in enumerate(arrivals):
        while turn < when and not stand.engine.idle:
            stand.step()
            turn += 1
        stand.submit(str(number), prompt, max_tokens)
    stand.run()
    for number, (prompt, max_tokens, _) in enumerate(arrivals):
        assert stand.text(str(number)) == expected(prompt, max_tokens)
        assert stand.finish(str(number)) is FinishReason.LENGTH
    stand.check_nothing_left()


@given(requests, st.data())
def test_a_cancel_at_any_step_leaves_nothing_behind_and_the_others_alone(
    arrivals: list[tuple[list[int], int, int]], data: st.DataObject
) -> None:
    stand = Stand()
    for number, (prompt, max_tokens, _) in enumerate(arrivals):
        stand.submit(str(number), prompt, max_tokens)
    names = [str(number) for number in range(len(arrivals))]
    cancelled = set(data.draw(st.lists(st.sampled_from(names), unique=True)))
    for name in sorted(cancelled):
        for _ in range(data.draw(st.integers(0, 5))):
            stand.step()
        stand.engine.cancel(name)
        stand.engine.cancel(name)
    stand.run()
    for number, (prompt, max_tokens, _) in enumerate(arrivals):
        if str(number) not in cancelled:
            assert stand.text(str(number)) == expected(prompt, max_tokens)
    stand.check_nothing_left()


@given(requests)
def test_a_cache_with_less_room_than_promised_costs_time_and_no_answer(
    arrivals: list[tuple[list[int], int, int]],
) -> None:
    stand = Stand(cells=CELLS - 3)  # alone, 60 tokens still fit
    for number, (prompt, max_tokens, _) in enumerate(arrivals):
        stand.submit(str(number), prompt, max_tokens)
    stand.run()
    for number, (prompt, max_tokens, _) in enumerate(arrivals):
        assert stand.text(str(number)) == expected(prompt, max_tokens)


def test_a_sequence_that_finds_no_room_even_alone_ends_with_an_error() -> None:
    stand = Stand(cells=20)
    stand.submit("big", [1] * 30, 5)
    stand.submit("small", [1] * 3, 5)
    stand.run()
    assert stand.finish("big") is FinishReason.ERROR
    assert stand.text("small") == expected([1] * 3, 5)


def test_a_request_that_can_never_fit_is_refused_and_holds_nothing() -> None:
    stand = Stand()
    stand.submit("huge", [1] * CELLS, 1)
    assert not stand.engine.idle
    stand.run()
    assert stand.finish("huge") is FinishReason.ERROR
    assert "64" in stand.outputs["huge"][-1].error
    assert stand.backend.samplers == 0


def test_a_stop_string_ends_a_request_and_frees_its_slot() -> None:
    whole = expected([5, 6], 10)
    stop = whole[6:14]
    stand = Stand()
    stand.submit("one", [5, 6], 10, stop=(stop,))
    stand.run()
    assert stand.text("one") == whole[: whole.index(stop)]
    assert stand.finish("one") is FinishReason.STOP
    stand.check_nothing_left()


def test_occupancy_tells_what_runs_what_waits_and_how_full_the_cache_is() -> None:
    stand = Stand()
    for number in range(6):
        stand.submit(str(number), [number, 2, 3], 5)
    step = stand.engine.step()
    assert (step.occupancy.running, step.occupancy.waiting) == (4, 2)
    assert set(step.started) == {"0", "1", "2", "3"}
    assert 12 <= step.occupancy.cells_used <= 16
    stand.run()
    assert stand.engine.occupancy().running == stand.engine.occupancy().cells_used == 0
