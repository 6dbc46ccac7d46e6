import pytest

from services.verifier.verdict import Pass, PassEnd, Verdict, judge

PINNED = "a" * 64
OTHER = "b" * 64
FIRST, SECOND = "1" * 32, "2" * 32


@pytest.mark.parametrize(
    ("sha256", "end", "before", "after", "verdict"),
    [
        pytest.param(PINNED, PassEnd.EOF, FIRST, FIRST, Verdict.MATCH, id="the pinned digest"),
        pytest.param(PINNED, PassEnd.EOF, FIRST, SECOND, Verdict.MATCH, id="the copy is right whatever came after"),
        pytest.param(PINNED, PassEnd.EOF, None, None, Verdict.MATCH, id="the digest alone approves"),
        pytest.param(OTHER, PassEnd.EOF, FIRST, FIRST, Verdict.MISMATCH, id="another digest"),
        pytest.param(OTHER, PassEnd.TOO_LONG, FIRST, FIRST, Verdict.MISMATCH, id="longer than expected"),
        pytest.param(PINNED, PassEnd.TOO_LONG, FIRST, FIRST, Verdict.MISMATCH, id="a right beginning is not a file"),
        pytest.param(OTHER, PassEnd.EOF, None, FIRST, Verdict.UNDECIDED, id="was not complete at the beginning"),
        pytest.param(OTHER, PassEnd.EOF, FIRST, None, Verdict.UNDECIDED, id="the journal went meanwhile"),
        pytest.param(OTHER, PassEnd.EOF, FIRST, SECOND, Verdict.UNDECIDED, id="a new generation meanwhile"),
        pytest.param(OTHER, PassEnd.TOO_LONG, None, None, Verdict.UNDECIDED, id="too long, never complete"),
        pytest.param(OTHER, PassEnd.STOPPED, FIRST, FIRST, Verdict.STOPPED, id="stopped"),
        pytest.param(PINNED, PassEnd.STOPPED, FIRST, FIRST, Verdict.STOPPED, id="stopped where it looks right"),
    ],
)
def test_verdict(sha256: str, end: PassEnd, before: str | None, after: str | None, verdict: Verdict) -> None:
    assert judge(PINNED, Pass(10, sha256, end), generation_before=before, generation_after=after) is verdict
