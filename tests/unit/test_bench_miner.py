"""What decides in `make bench-miner`: what is counted, what a stall is, what is compared with what."""

from __future__ import annotations

import argparse
import json

import pytest

from benchmarks.miner.__main__ import chosen, turned
from benchmarks.miner.client import Reply, WrongAnswerError, take
from benchmarks.miner.judging import Found, Measured
from benchmarks.miner.levels import LEVELS, Figures, percentile, stalled_gaps
from benchmarks.miner.prompts import Prompts
from benchmarks.miner.servers import BATCHED_BENCH, LLAMA_SERVER, OURS, parse_batched_bench

WORDS = ["alpha", "beta", "gamma", "delta"]


def measured(server: str, level: str, tokens_per_second: float, *, first_token: float = 1.0, turn: int = 0) -> Measured:
    return Measured(turn, server, level, 0.0, Figures(tokens_per_second, first_token, None, 0, 0, 0.0))


def test_a_prompt_has_as_many_words_as_tokens_were_asked_for() -> None:
    assert Prompts(WORDS, "seed").draw(75).count(" ") == 75
    assert Prompts(WORDS, "seed").draw(0) == ""


def test_the_same_seed_draws_the_same_prompts_and_another_draws_others() -> None:
    assert Prompts(WORDS, "16/0/ours/1").draw(75) == Prompts(WORDS, "16/0/ours/1").draw(75)
    assert Prompts(WORDS, "16/0/ours/1").draw(75) != Prompts(WORDS, "16/0/llama-server/1").draw(75)


@pytest.mark.parametrize(
    ("events", "tokens", "pieces"),
    [
        pytest.param(['{"choices":[{"text":"a"}]}', '{"choices":[{"text":"b"}]}'], 2, 2, id="no usage: pieces count"),
        pytest.param(
            [
                '{"choices":[{"text":"a"}],"usage":null}',
                '{"choices":[{"text":""}]}',
                '{"choices":[],"usage":{"prompt_tokens":75,"completion_tokens":3}}',
            ],
            3, 1, id="usage wins, and a piece without text is none",
        ),
    ],
)  # fmt: skip
def test_tokens_are_what_the_server_says_else_its_pieces(events: list[str], tokens: int, pieces: int) -> None:
    reply = Reply(0.0)
    for number, data in enumerate(events):
        take(data, reply, float(number))
    assert (reply.tokens, len(reply.arrivals)) == (tokens, pieces)


def test_an_error_within_a_stream_ends_the_measurement() -> None:
    with pytest.raises(WrongAnswerError, match="engine"):
        take('{"error":{"message":"the engine ended"}}', Reply(0.0), 1.0)


@pytest.mark.parametrize(
    ("values", "share", "found"),
    [
        ([3.0, 1.0, 2.0], 0.99, 3.0),
        ([float(value) for value in range(1, 101)], 0.99, 99.0),
        ([float(value) for value in range(1, 201)], 0.99, 198.0),
        ([float(value) for value in range(1, 5)], 0.5, 2.0),
        ([7.0], 0.01, 7.0),
    ],
)
def test_a_percentile_is_the_nearest_rank(values: list[float], share: float, found: float) -> None:
    assert percentile(values, share) == found


def test_only_waits_while_a_long_prompt_is_processed_count_as_stalled() -> None:
    stream = Reply(0.0, arrivals=[1.0, 2.0, 5.0, 5.5, 9.0])
    long_prompt = Reply(3.0, arrivals=[5.2, 8.0])
    assert stalled_gaps([stream], [long_prompt]) == [3.0, 0.5]


def test_a_stall_that_outlasts_the_first_token_counts_whole() -> None:
    assert stalled_gaps([Reply(0.0, arrivals=[1.0, 9.0])], [Reply(3.0, arrivals=[5.0])]) == [8.0]


def test_the_limit_counts_generated_tokens_over_prompts_and_generation() -> None:
    line = json.dumps({"pl": 4, "pp": 75, "tg": 64, "t_pp": 1.0, "t_tg": 3.0})
    assert parse_batched_bench(f"llama_model_loader: noise\n{line}\n") == {4: 64.0}


def test_each_round_begins_with_the_one_that_came_last() -> None:
    assert [turned(["A", "B", "C"], number) for number in range(4)] == [
        ["A", "B", "C"], ["C", "A", "B"], ["B", "C", "A"], ["A", "B", "C"],
    ]  # fmt: skip


def test_names_keep_the_order_of_the_list_and_unknown_ones_are_refused() -> None:
    levels = [level.name for level in LEVELS]
    assert chosen(levels, "burst,16") == ["16", "burst"]
    with pytest.raises(argparse.ArgumentTypeError, match="17"):
        chosen(levels, "1,17")


def test_a_target_is_a_ratio_of_medians() -> None:
    rounds = zip((90.0, 100.0, 400.0), (50.0, 125.0, 130.0), strict=True)
    found = [
        one
        for turn, (ours, theirs) in enumerate(rounds)
        for one in (measured(OURS, "16", ours, turn=turn), measured(LLAMA_SERVER, "16", theirs, turn=turn))
    ]
    (judged,) = Found(found).judged()
    assert judged.value == pytest.approx(0.8)
    assert not judged.met


def test_more_is_better_for_tokens_and_less_for_a_first_token() -> None:
    ours, theirs = (measured(name, "burst", rate, first_token=first) for name, rate, first in (
        (OURS, 60.0, 1.0), (LLAMA_SERVER, 10.0, 10.0),
    ))  # fmt: skip
    assert [(round(figure.value, 2), figure.met) for figure in Found([ours, theirs]).judged()] == [
        (6.0, True),
        (0.1, True),
    ]
    assert [figure.row()[2] for figure in Found([ours, theirs]).judged()] == ["≥ 5", "≤ 0.2"]


def test_what_only_one_side_measured_is_not_judged() -> None:
    assert Found([measured(OURS, "1", 100.0)]).judged() == []


def test_the_limit_has_no_first_token_in_the_table() -> None:
    table = Found([measured(OURS, "4", 90.0), measured(BATCHED_BENCH, "4", 100.0)]).medians()
    assert "0.90" in table
    assert [row for row in table.splitlines() if BATCHED_BENCH in row and "first token" in row] == []
