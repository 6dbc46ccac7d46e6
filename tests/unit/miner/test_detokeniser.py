"""Text that is shown: whole characters, nothing of a stop string, the same however the bytes were cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.miner.engine.detokeniser import TextStream


def shown(pieces: list[bytes], stop: tuple[str, ...] = ()) -> list[str]:
    stream = TextStream(stop)
    return [*(stream.push(piece) for piece in pieces), stream.finish()]


def test_half_a_character_is_held_back_until_it_is_whole() -> None:
    euro = "€".encode()
    assert shown([b"a", euro[:1], euro[1:2], euro[2:] + b"b"]) == ["a", "", "", "€b", ""]


def test_a_character_that_is_never_finished_becomes_a_replacement_at_the_end() -> None:
    assert shown([b"a", "€".encode()[:2]]) == ["a", "", "\ufffd"]


def test_a_stop_string_across_pieces_is_held_back_and_then_gone() -> None:
    assert shown([b"one ", b"ST", b"OP two"], ("STOP",)) == ["one ", "", "", ""]


def test_what_only_looked_like_a_stop_string_is_shown_late_but_whole() -> None:
    assert shown([b"one ST", b"ART"], ("STOP",)) == ["one ", "START", ""]


def test_the_beginning_of_a_stop_string_at_the_very_end_is_text() -> None:
    assert shown([b"one ST"], ("STOP",)) == ["one ", "ST"]


@pytest.mark.parametrize(
    ("text", "stop", "wanted"),
    [
        ("abc", ("b", "abc"), "a"),  # complete first
        ("abc", ("c", "bc"), "a"),  # both end together: the longer one
        ("aab", ("aab",), ""),
        ("aaab", ("aab",), "a"),
        ("x", ("",), "x"),
    ],
)
def test_of_several_stop_strings_the_one_that_is_complete_first_counts(
    text: str, stop: tuple[str, ...], wanted: str
) -> None:
    assert "".join(shown([text.encode()], stop)) == wanted
    assert "".join(shown([character.encode() for character in text], stop)) == wanted


def reference(text: str, stop: tuple[str, ...]) -> str:
    for end in range(1, len(text) + 1):
        ending = [word for word in stop if text[:end].endswith(word)]
        if ending:
            return text[: end - max(map(len, ending))]
    return text


words = st.text(alphabet="ab€😀", max_size=12)


@given(words, st.lists(st.text(alphabet="ab€😀", min_size=1, max_size=3), max_size=3), st.data())
def test_what_is_shown_depends_on_the_text_alone(text: str, stop: list[str], data: st.DataObject) -> None:
    raw = text.encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=6)))
    pieces = [raw[start:end] for start, end in zip([0, *cuts], [*cuts, len(raw)], strict=True)]
    parts = shown(pieces, tuple(stop))
    assert "".join(parts) == reference(text, tuple(stop))
    assert not any("\ufffd" in part for part in parts)


@given(st.binary(max_size=40))
def test_any_bytes_are_decoded_as_python_does(raw: bytes) -> None:
    assert "".join(shown([bytes([byte]) for byte in raw])) == raw.decode(errors="replace")
