"""What is to be done with a low-space partial that is found: the four steps, in their order."""

import pytest

from services.verifier.partial_rules import PartialFacts, PartialStep, durable_of, next_step
from shared.states import Source
from shared.store.records import Journal, PartialNote

MINE, OTHER = "1" * 32, "2" * 32
SIZE = 1000


def journal(covered: int, *, mode: str = "low-space") -> Journal:
    """A journal whose ranges cover the first `covered` bytes, and some others further on."""
    ranges = ((0, covered), (SIZE, SIZE + 500)) if covered else ((500, SIZE),)
    return Journal(
        sha256="a" * 64,
        size=2 * SIZE,
        generation=MINE,
        ino=1,
        instance=OTHER,
        source=Source.HUGGINGFACE,
        url="",
        revision="",
        mode=mode,  # type: ignore[arg-type]
        prefix=covered,
        ranges=ranges,
        complete=False,
        updated_at=0.0,
    )


def note(durable: int, generation: str = MINE) -> PartialNote:
    return PartialNote(generation=generation, durable=durable)


def facts(journal: Journal | None, note: PartialNote | None, size: int, hole: int, **more: bool) -> PartialFacts:
    low_space = more.pop("low_space", journal is not None and journal.mode == "low-space")
    return PartialFacts(journal=journal, note=note, partial_size=size, first_hole=hole, low_space=low_space, **more)


@pytest.mark.parametrize(
    ("facts", "step"),
    [
        # (1) The verified name is right: whatever else is there may go.
        pytest.param(facts(journal(600), note(400), 400, 600, is_verified=True), "remove", id="verified"),
        pytest.param(facts(journal(600), note(400), 0, 0, is_verified=True), "remove", id="verified, all else lost"),
        pytest.param(facts(None, note(400), 400, 0, is_verified=True), "remove", id="verified, no journal"),
        pytest.param(facts(None, None, 0, 0, is_verified=True, is_gone=True), "remove", id="verified, nothing else"),
        # Without the other half there is nothing to go on with; without knowledge of it nothing is touched.
        pytest.param(facts(None, note(400), 400, 0, is_gone=True), "discard", id="incoming is gone"),
        pytest.param(facts(None, note(400), 400, 0), "leave", id="no journal that holds"),
        # (2) No note, or another generation's.
        pytest.param(facts(journal(600), None, 0, 600), "begin", id="nothing yet"),
        pytest.param(facts(journal(600), None, 700, 600), "begin", id="a partial without a note"),
        pytest.param(facts(journal(600), note(400, OTHER), 400, 600), "begin", id="another generation's"),
        pytest.param(facts(journal(0), note(400, OTHER), 400, 0), "begin", id="another generation's, nothing durable"),
        pytest.param(facts(journal(600), note(400, OTHER), 400, 599), "void", id="another's, and a hole in incoming"),
        pytest.param(facts(journal(600), None, 0, 0), "void", id="no note, and incoming was punched"),
        pytest.param(facts(journal(600), note(0), 0, 600), "begin", id="noted, nothing durable"),
        # (3) Too short, or a hole between durable and what ranges cover from 0.
        pytest.param(facts(journal(600), note(400), 399, 600), "void", id="the partial is too short"),
        pytest.param(facts(journal(600), note(400), 400, 400), "void", id="a hole right at durable"),
        pytest.param(facts(journal(600), note(400), 400, 599), "void", id="a hole before the end of what is covered"),
        pytest.param(facts(journal(400), note(400), 400, 400), "resume", id="covered just as far as durable"),
        pytest.param(facts(journal(300), note(400), 400, 300), "resume", id="less covered than durable, data shorter"),
        pytest.param(facts(journal(0), note(400), 400, 400), "resume", id="nothing covered: a prefix was copied"),
        # (4) Truncate, hash again, go on.
        pytest.param(facts(journal(600), note(400), 400, 600), "resume", id="as it should be"),
        pytest.param(facts(journal(600), note(400), 555, 700), "resume", id="more was written than is durable"),
        pytest.param(facts(journal(SIZE - 1), note(400), 400, SIZE), "resume", id="nearly complete"),
        # The journal's mode is a hint: a note of this generation, or no room, mean low-space.
        pytest.param(facts(journal(600, mode="normal"), None, 0, 0), "normal", id="room for two, holes or not"),
        pytest.param(facts(journal(600, mode="normal"), note(4, OTHER), 4, 0), "normal", id="another's leftovers"),
        pytest.param(facts(journal(600, mode="normal"), note(400), 400, 600), "resume", id="begun in low-space mode"),
        pytest.param(facts(journal(600, mode="normal"), note(400), 300, 600), "void", id="begun so, and lost"),
        pytest.param(
            facts(journal(600, mode="normal"), None, 0, 600, low_space=True), "begin", id="no room for a second copy"
        ),
    ],
)
def test_next_step(facts: PartialFacts, step: str) -> None:
    assert next_step(facts) is PartialStep(step)


def test_only_a_note_of_this_generation_says_what_is_durable() -> None:
    assert durable_of(note(400), journal(600)) == 400
    assert durable_of(note(400, OTHER), journal(600)) == 0
    assert durable_of(None, journal(600)) == 0
