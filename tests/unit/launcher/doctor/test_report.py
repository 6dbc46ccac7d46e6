"""Verdicts together: the exit code, the screen, the document, and what must not be in either."""

from __future__ import annotations

import itertools
import json
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from launcher.doctor.blanking import Blanker, secrets_of
from launcher.doctor.checks import CHECKS
from launcher.doctor.contradictions import find_contradictions
from launcher.doctor.report import document, render
from launcher.doctor.running import Check, run_checks
from launcher.doctor.subject import examine
from launcher.doctor.verdict import (
    SERIOUSNESS,
    Finding,
    Status,
    Verdict,
    exit_code,
    failed,
    from_error,
    ok,
    skipped,
    warning,
)
from launcher.interrupts import StoppedError
from shared.errors import ConfigurationError, ExitCode
from shared.genesis import ModelPin
from tests.support.r3mes_shell import ROOT

NOBODY = Blanker([], "")


def found(code: ExitCode) -> Finding:
    return Finding("group", "check", failed("wrong", "mend it", code))


def test_the_exit_code_is_that_of_the_most_serious_failure() -> None:
    assert exit_code([]) == 0
    assert exit_code([Finding("g", "c", warning("hm", "look")), Finding("g", "c", skipped("why"))]) == 0
    for more, less in itertools.pairwise(SERIOUSNESS):
        assert exit_code([found(less), found(more), found(less)]) == more


def test_a_known_error_keeps_its_code_and_its_next_step() -> None:
    verdict = from_error(ConfigurationError("wrong", next_step="mend it"))
    assert (verdict.status, verdict.exit_code, verdict.next_step) == (Status.FAILED, 78, "mend it")


def test_the_screen_explains_what_is_wrong_first_and_only_names_what_is_fine() -> None:
    findings = [
        Finding("store", "disk", ok("1 TB usable")),
        Finding("store", "rights", ok("as they should be")),
        Finding("store", "genesis", failed("two\nlines", "do this", ExitCode.CONFIGURATION)),
        Finding("store", "models", warning("touched", "hash it", about="Tiny")),
        Finding("services", "redis", skipped("not from here")),
        Finding("services", "ports", skipped("not from here")),
    ]
    assert render(findings, NOBODY).plain == (
        "store\n"
        "  FAILED    genesis: two\n"
        "            lines\n"
        "            next: do this\n"
        "  warning   models (Tiny): touched\n"
        "            next: hash it\n"
        "  ok        disk, rights\n"
        "services\n"
        "  skipped   redis, ports: not from here\n"
        "1 failed, 1 warning, 2 ok, 2 skipped; exit code 78\n"
    )
    assert "  ok        disk: 1 TB usable\n" in render(findings, NOBODY, verbose=True).plain


def test_what_others_named_does_not_steer_the_terminal() -> None:
    screen = render([Finding("store", "models", warning("\x1b[2J", "\x1b]0;x\x07", about="\x1b[31m"))], NOBODY)
    assert "\x1b" not in screen.plain
    assert "\x07" not in screen.plain


SECRETS = {
    "HF_TOKEN": "hf_abcdefghijkl",
    "R3MES_API_KEYS": "first-key, second-key",
    "R3MES_REDIS_URL": "redis://joe:p%40ss-word@redis.example:6379/0",
    "HTTPS_PROXY": "http://prox-user:prox-pass@proxy:3128",
    "https_proxy": "low-user:low-pass@proxy:3128",
    "AWS_SECRET_ACCESS_KEY": "aws-secret-value",
    "R3MES_CHAIN_RPC": "https://one.example/v3/provider-key/, two.example/v2/other-key",
}


@pytest.mark.parametrize(
    "secret",
    [
        "hf_abcdefghijkl",
        "first-key",
        "second-key",
        "p%40ss-word",
        "p@ss-word",
        "prox-pass",
        "low-pass",
        "aws-secret-value",
        "provider-key",
        "other-key",
        "of-a-file",
        "of-another-line",
    ],
)
@pytest.mark.parametrize("text", ["{}", "error: wrong password {}!", "http://x:{}@host/", "Bearer {}", "?token={}&a=1"])
def test_no_secret_survives_wherever_it_stands(secret: str, text: str) -> None:
    blanker = Blanker(secrets_of(SECRETS, ["of-a-file\nof-another-line\n"]), "/home/joe")
    assert secret not in blanker.text(text.format(secret))
    assert secret not in json.dumps(blanker.data({text.format(secret): [text.format(secret), {"a": (secret,)}]}))


def test_what_looks_like_a_secret_is_one_and_the_home_is_not_named() -> None:
    blanker = Blanker([], "/home/joe")
    assert blanker.text("hf_abcdefghij in /home/joe/.r3mes and /home/joel/x") == "*** in ~/.r3mes and /home/joel/x"
    assert blanker.text("see http://u:p@proxy:1/") == "see http://***@proxy:1/"
    assert blanker.text("https://cdn.example/m.gguf?X-Sig=abc&b=1 ok") == "https://cdn.example/m.gguf?*** ok"
    assert Blanker(["abc"], "/").text("abc /x") == "abc /x"  # too short to be one, and no home
    assert blanker.data([1, None, True, 0.5]) == [1, None, True, 0.5]


def test_the_document_has_the_keys_that_scripts_read(tmp_path: Path) -> None:
    subject = examine({"HF_TOKEN": "hf_abcdefghijkl", "R3MES_NODE": "here"}, tmp_path, offline=True)
    findings = [Finding("store", "disk", ok("1 TB", usable_bytes=1)), found(ExitCode.DISK_SPACE)]
    content = document(findings, subject, NOBODY)
    assert list(content) == [
        "version",
        "made_at",
        "r3mes",
        "platform",
        "packages",
        "offline",
        "deep",
        "store",
        "settings",
        "checks",
        "counts",
        "exit_code",
    ]
    assert content["settings"] == {"HF_TOKEN": "(a secret)", "R3MES_NODE": "here"}
    assert content["counts"] == {"ok": 1, "warning": 0, "failed": 1, "skipped": 0}
    assert (content["version"], content["exit_code"]) == (1, 5)
    checks = content["checks"]
    assert isinstance(checks, list)
    assert checks[0] == {
        "group": "store",
        "check": "disk",
        "about": "",
        "status": "ok",
        "summary": "1 TB",
        "next_step": "",
        "exit_code": 0,
        "details": {"usable_bytes": 1},
    }
    json.dumps(content)


def test_a_check_that_hangs_or_breaks_costs_its_bound_and_spoils_no_other(tmp_path: Path) -> None:
    never = threading.Event()

    def breaks(_subject: object) -> list[object]:
        raise LookupError("oh")

    checks = [
        Check("g", "hangs", lambda _subject: [ok(str(never.wait(30)))], 0.2),
        Check("g", "breaks", breaks),  # type: ignore[arg-type]
        Check("g", "works", lambda _subject: [ok("fine"), warning("hm", "look")]),
        Check("g", "asks", lambda _subject: [ok("asked")], leaves_host=True),
    ]
    began = time.monotonic()
    findings = run_checks(checks, examine({}, tmp_path, offline=True))
    never.set()
    assert time.monotonic() - began < 20
    assert [(each.check, each.verdict.status) for each in findings] == [
        ("hangs", Status.WARNING),
        ("breaks", Status.FAILED),
        ("works", Status.OK),
        ("works", Status.WARNING),
        ("asks", Status.SKIPPED),
    ]


def test_a_source_that_hangs_is_4_only_while_it_is_needed(tmp_path: Path) -> None:
    never = threading.Event()
    check = Check("g", "hangs", lambda _subject: [ok(str(never.wait(30)))], 0.1, when_late=ExitCode.SOURCE_UNAVAILABLE)
    subject = examine({}, tmp_path)
    (needless,) = run_checks([check], subject)
    (needed,) = run_checks([check], replace(subject, outstanding=(TINY,)))
    never.set()
    assert (needless.verdict.status, needed.verdict.status) == (Status.WARNING, Status.FAILED)
    assert needed.verdict.exit_code == 4


def test_what_a_stopped_check_found_does_not_count(tmp_path: Path) -> None:
    stop = threading.Event()
    subject = replace(examine({}, tmp_path), stop=stop)

    def half_read(_subject: object) -> list[Verdict]:
        stop.set()
        return [failed("its bytes are not the pinned ones", "look", ExitCode.INTEGRITY)]

    with pytest.raises(StoppedError):
        run_checks([Check("g", "models", half_read, None)], subject)


def test_a_stop_is_heeded_while_a_check_hangs(tmp_path: Path) -> None:
    never, stop = threading.Event(), threading.Event()
    stop.set()
    subject = replace(examine({}, tmp_path), stop=stop)
    with pytest.raises(StoppedError):
        run_checks([Check("g", "hangs", lambda _subject: [ok(str(never.wait(30)))], None)], subject)
    never.set()


def test_every_check_is_described_in_the_docs() -> None:
    lines = (ROOT / "docs" / "troubleshooting.md").read_text().splitlines()
    described = [line.split("`")[1] for line in lines if line.startswith("| `")]
    assert described == [check.name for check in CHECKS]
    assert len(set(described)) == len(described)


TINY = ModelPin("Tiny", "tiny.gguf", "https://hf.co/x", "a" * 64, 5.0, "", 4 * 10**9)


@pytest.mark.parametrize(
    ("environ", "names", "fatal"),
    [
        ({}, [], []),
        ({"R3MES_MODEL": "Tiny"}, [], []),
        ({"R3MES_MODEL": "Other"}, ["R3MES_MODEL"], [True]),
        ({"R3MES_N_GPU_LAYERS": "-1", "CUDA_VISIBLE_DEVICES": "-1"}, ["R3MES_N_GPU_LAYERS"], [True]),
        ({"R3MES_ALLOW_OPEN": "1"}, ["R3MES_ALLOW_OPEN"], [False]),
        ({"R3MES_ALLOW_OPEN": "1", "R3MES_BIND": "192.0.2.1"}, [], []),
        ({"R3MES_ALLOW_HTTP_SOURCES": "1"}, ["R3MES_ALLOW_HTTP_SOURCES"], [False]),
        ({"R3MES_URL": "localhost:8000"}, ["R3MES_URL"], [True]),
        ({"R3MES_URL": "http://localhost:8000"}, [], []),
        ({"R3MES_DOWNLOAD_MAX_BYTES_PER_SECOND": "100"}, ["R3MES_DOWNLOAD_MAX_BYTES_PER_SECOND"], [False]),
        ({"R3MES_DOWNLOAD_MAX_BYTES_PER_SECOND": "10000000"}, [], []),
        ({"R3MES_DRAIN_SECONDS": "60"}, ["R3MES_DRAIN_SECONDS"], [False]),
        ({"R3MES_DRAIN_SECONDS": "30"}, [], []),
    ],
)
def test_contradictions(environ: dict[str, str], names: list[str], fatal: list[bool]) -> None:
    contradictions = find_contradictions(environ, [TINY], in_compose=True)
    assert [each.names for each in contradictions] == names
    assert [each.is_fatal for each in contradictions] == fatal
