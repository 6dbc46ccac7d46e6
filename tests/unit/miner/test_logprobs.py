"""Log probabilities: right for any row, and told only for tokens whose text is shown."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.miner.api import logprobs
from services.miner.engine.detokeniser import TextStream
from services.miner.engine.logprobs import LEAST, LogprobStream, ranking
from services.miner.engine.messages import Likelihood, Output, TokenLogprobs

rows = st.lists(st.floats(-50, 50, width=32), min_size=1, max_size=40)


@given(rows, st.data())
def test_a_ranking_is_the_log_softmax_of_the_row(row: list[float], data: st.DataObject) -> None:
    token = data.draw(st.integers(0, len(row) - 1))
    count = data.draw(st.integers(0, 20))
    chosen, likeliest = ranking(np.array(row, np.float32), token, count, lambda index: bytes([index]))
    total = math.log(sum(math.exp(logit) for logit in row))
    assert chosen.piece == (token,)
    assert chosen.logprob == pytest.approx(row[token] - total, abs=1e-4)
    wanted = sorted(row, reverse=True)[:count]
    assert [one.logprob for one in likeliest] == pytest.approx([logit - total for logit in wanted], abs=1e-4)
    assert len({one.piece for one in likeliest}) == len(likeliest) == min(count, len(row))


def test_a_token_that_is_impossible_has_a_number_that_json_can_write() -> None:
    chosen, _ = ranking(np.array([0.0, -np.inf], np.float32), 1, 0, lambda _: b"x")
    assert chosen.logprob == LEAST


def pushed(pieces: list[bytes], stop: tuple[str, ...]) -> tuple[str, list[TokenLogprobs], list[tuple[str, str]]]:
    """All text, all log probabilities, and what of both had been told after each piece."""
    text = TextStream(stop)
    stream = LogprobStream(text)
    shown, told, steps = "", [], []
    for number, piece in enumerate(pieces):
        stream.push((Likelihood(tuple(piece), -float(number)), ()))
        shown += text.push(piece)
        told += stream.rest() if text.stopped else stream.shown()
        steps.append((shown, joined(told).decode(errors="ignore")))
        if text.stopped:
            return shown, told, steps
    shown += text.finish()
    return shown, told + list(stream.rest()), steps


def joined(told: list[TokenLogprobs]) -> bytes:
    return b"".join(bytes(found.chosen.piece) for found in told)


@pytest.mark.parametrize(
    ("pieces", "stop", "wanted"),
    [
        ([b"a", b"b"], (), [b"a", b"b"]),
        ([b"a", b"ST", b"OP"], ("STOP",), [b"a"]),  # across tokens
        ([b"a", b"bSTOPc"], ("STOP",), [b"a"]),  # within a token: it holds part of the stop string
        ([b"a", b"STOP"], ("STOP",), [b"a"]),
        ([b"a", b"ST", b"AR"], ("STOP",), [b"a", b"ST", b"AR"]),
        ([b"a", b"\xe2", b"\x82", b"\xac"], ("€",), [b"a"]),  # half a character of a stop string tells it, too
        ([b"a", b"\xe2", b"\x82", b"\xacb"], (), [b"a", b"\xe2", b"\x82", b"\xacb"]),
        ([b"a", b"\xe2"], (), [b"a", b"\xe2"]),
        ([b"", b"a", b""], ("b",), [b"", b"a", b""]),
    ],
)
def test_tokens_are_told_unless_they_hold_part_of_a_stop_string(
    pieces: list[bytes], stop: tuple[str, ...], wanted: list[bytes]
) -> None:
    _, told, _ = pushed(pieces, stop)
    assert [bytes(found.chosen.piece) for found in told] == wanted


@given(
    st.lists(st.text(alphabet="ab€", min_size=1, max_size=2), max_size=2),
    st.text(alphabet="ab€", max_size=12),
    st.data(),
)
def test_what_is_told_is_never_ahead_of_the_text_and_complete_at_the_end(
    stop: list[str], text: str, data: st.DataObject
) -> None:
    raw = text.encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=8)))
    pieces = [raw[start:end] for start, end in zip([0, *cuts], [*cuts, len(raw)], strict=True)]
    shown, told, steps = pushed(pieces, tuple(stop))
    assert all(of_text.startswith(of_tokens) for of_text, of_tokens in steps)
    assert shown.encode().startswith(joined(told))
    if shown == text:
        assert joined(told) == raw or any(text.endswith(word) for word in stop)
    for found in told:
        before = joined(told[: told.index(found)])
        assert found.offset == len(before.decode(errors="ignore"))


EURO = [
    TokenLogprobs(Likelihood((0xE2, 0x82), -0.5), (Likelihood((0xE2, 0x82), -0.5), Likelihood((0x61,), -1.5)), 0),
    TokenLogprobs(Likelihood((0xAC, 0x61), -0.1), (Likelihood((0x62,), -0.05),), 0),
]


def test_half_characters_have_their_bytes_in_a_chat_and_are_spelt_out_in_a_completion() -> None:
    outputs = [Output("x", "€a", 1, logprobs=tuple(EURO))]
    first, second = logprobs.of_chat(outputs)["content"]  # type: ignore[misc]
    assert first == {
        "token": "\ufffd",
        "logprob": -0.5,
        "bytes": [0xE2, 0x82],
        "top_logprobs": [
            {"token": "\ufffd", "logprob": -0.5, "bytes": [0xE2, 0x82]},
            {"token": "a", "logprob": -1.5, "bytes": [0x61]},
        ],
    }
    assert second["token"] == "\ufffda"
    assert logprobs.of_completion(outputs, likeliest=2) == {
        "tokens": ["bytes:\\xe2\\x82", "bytes:\\xac\\x61"],
        "token_logprobs": [-0.5, -0.1],
        "top_logprobs": [{"bytes:\\xe2\\x82": -0.5, "a": -1.5}, {"b": -0.05, "bytes:\\xac\\x61": -0.1}],
        "text_offset": [0, 0],
    }
    assert logprobs.of_completion(outputs, likeliest=0)["top_logprobs"] is None
