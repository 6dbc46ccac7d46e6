"""What sequences generate side by side is moved into runs: once, soon, and never what another slot holds as well."""

from __future__ import annotations

from dataclasses import replace

from services.miner.engine.defragmenter import LEAST_RUN, LONGEST_RUN, Defragmenter
from services.miner.engine.prefix_tree import Node, make_root
from services.miner.engine.scheduler import Limits
from services.miner.engine.sequence import Sequence
from tests.unit.miner.test_engine import Stand, expected

STEPS = 16
ANSWER = 3 * STEPS + 2  # the first comes with the prompt, and before the last step all others were moved
LIMITS = Limits(
    sequences=4, cells=2000, batch_tokens=64, prefill_tokens=32, quantum=16, slots=16, horizon=1000, gather_steps=STEPS
)
PROMPTS = {"one": [1, 2, 3, 4], "two": [5, 6], "three": [7, 8, 9]}


def run_until(stand: Stand, name: str, pieces: int) -> None:
    while len(stand.outputs[name]) < pieces:
        stand.step()


def test_every_generated_token_is_moved_once() -> None:
    stand = Stand(LIMITS)
    for name, prompt in PROMPTS.items():
        stand.submit(name, prompt, ANSWER)
    stand.run()
    starts = sorted(len(prompt) for prompt in PROMPTS.values())
    assert sorted((start, end) for _, start, end in stand.backend.gathered) == sorted(
        (start + number * STEPS, start + (number + 1) * STEPS) for start in starts for number in range(3)
    )
    assert all(stand.text(name) == expected(prompt, ANSWER) for name, prompt in PROMPTS.items())


def test_who_decodes_alone_has_its_cells_in_a_row_and_moves_nothing() -> None:
    stand = Stand(LIMITS)
    stand.submit("alone", [1, 2, 3], 100)
    stand.run()
    assert stand.backend.gathered == []


def test_when_a_sequence_has_left_the_next_prompt_finds_its_cells_in_a_row() -> None:
    stand = Stand(LIMITS)
    stand.submit("one", PROMPTS["one"], 100)
    stand.submit("two", PROMPTS["two"], LEAST_RUN + 2)
    run_until(stand, "two", LEAST_RUN + 2)
    assert stand.backend.gathered == []
    stand.submit("new", [9] * 30, 5)
    stand.step()
    assert [(start, end) for _, start, end in stand.backend.gathered] == [(4, 4 + LEAST_RUN + 1)]


def test_a_run_that_is_short_is_left_until_it_has_grown() -> None:
    stand = Stand(LIMITS)
    for name in ("one", "two"):
        stand.submit(name, PROMPTS[name], 100)
    run_until(stand, "one", STEPS - 2)
    stand.submit("late", [9, 9, 9], 100)
    run_until(stand, "late", STEPS)
    slots = [slot for slot, _, _ in stand.backend.gathered]
    assert len(slots) == len(set(slots)) == 2, "only those two had a run that is worth it"


def test_what_another_slot_holds_as_well_stays_where_it_is() -> None:
    stand = Stand(LIMITS)
    stand.submit("one", PROMPTS["one"], 100)
    stand.submit("two", PROMPTS["two"], 100)
    run_until(stand, "one", 10)
    told = [*PROMPTS["one"], *(int(piece) for piece in stand.text("one")[1:-1].split("><"))]
    stand.submit("copies", [*told, 3], 100)
    run_until(stand, "copies", STEPS)
    assert stand.reused["copies"] == len(told) - 1
    slot = {each.request_id: each.slot for each in stand.engine.scheduler.running}["one"]
    starts = [start for moved, start, _ in stand.backend.gathered if moved == slot]
    assert all(start >= len(told) - 1 for start in starts)
    stand.run()
    assert stand.text("copies") == expected([*told, 3], 100)


def test_what_is_on_its_way_at_one_time_is_bounded() -> None:
    root, sequences = make_root(), []
    for slot in range(10):
        tokens = list(range(LONGEST_RUN + 50))
        sequence = Sequence(str(slot), tokens, 1000, slot=slot, computed=len(tokens))
        sequence.leaf = Node(0, tokens, root, computed=len(tokens), slots={slot})
        sequences.append(sequence)
    defragmenter = Defragmenter(steps=1)
    defragmenter.note(len(sequences))
    gathers = defragmenter.gather(sequences, prompts=False)
    assert [sum(map(len, gather.runs)) for gather in gathers] == [4 * LONGEST_RUN, 4 * LONGEST_RUN, 2 * LONGEST_RUN]
    assert [run.slot for gather in gathers for run in gather.runs] == list(range(10))
    assert {(run.start, run.end) for gather in gathers for run in gather.runs} == {(50, LONGEST_RUN + 50)}


def test_without_it_nothing_is_moved() -> None:
    stand = Stand(replace(LIMITS, gather_steps=0))
    for name, prompt in PROMPTS.items():
        stand.submit(name, prompt, 100)
    stand.run()
    assert stand.backend.gathered == []
