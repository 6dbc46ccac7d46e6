"""What each judge makes of facts: status, exit code, and that whatever is wrong has a next step."""

from __future__ import annotations

import time
from dataclasses import replace
from email.utils import formatdate

import pytest

from launcher.doctor.judges.containers import DockerFacts, judge_compose, judge_engine, judge_toolkit
from launcher.doctor.judges.inference import (
    GpuFacts,
    LlamaFacts,
    MemoryFacts,
    Wanted,
    judge_descriptors,
    judge_gpu,
    judge_llama,
    judge_memory,
    parse_features,
)
from launcher.doctor.judges.network import (
    Proxies,
    Resolved,
    Routes,
    judge_clock,
    judge_dns,
    judge_proxies,
    judge_routes,
)
from launcher.doctor.judges.redis import Answer, RedisFacts, judge_redis
from launcher.doctor.judges.settings import SecretFile, judge_secret_files
from launcher.doctor.judges.sources import TokenFacts, judge_gateway, judge_mirror, judge_source, judge_token
from launcher.doctor.judges.stack import Holder, Port, Service, judge_ports, judge_services
from launcher.doctor.verdict import Status, Verdict
from services.downloader.run_once import Look
from shared.addresses import HUGGING_FACE
from shared.errors import IntegrityError, SourceUnavailableError

OK, WARNING, FAILED, SKIPPED = Status.OK, Status.WARNING, Status.FAILED, Status.SKIPPED
NOW = 1_790_000_000.0


def told(verdict: Verdict) -> tuple[Status, int]:
    """Status and code; and hold that what is wrong has a next step and what is fine has no code."""
    assert verdict.summary
    if verdict.status in {FAILED, WARNING}:
        assert verdict.next_step
    assert (verdict.status is FAILED) is (verdict.exit_code != 0)
    return verdict.status, int(verdict.exit_code)


@pytest.mark.parametrize(
    ("routes", "needed", "expected"),
    [
        (Routes(ipv4=True, ipv6=False), True, (OK, 0)),
        (Routes(ipv4=None, ipv6=True), True, (OK, 0)),
        (Routes(ipv4=False, ipv6=False), True, (FAILED, 4)),
        (Routes(ipv4=False, ipv6=None), False, (WARNING, 0)),
        (Routes(ipv4=None, ipv6=None), True, (SKIPPED, 0)),
    ],
)
def test_a_host_needs_a_way_out_while_something_is_to_be_downloaded(
    routes: Routes, needed: bool, expected: tuple[Status, int]
) -> None:
    assert told(judge_routes(routes, needed=needed)) == expected


@pytest.mark.parametrize(
    ("found", "needed", "expected"),
    [
        (Resolved("hf.co", ("1.2.3.4",)), True, (OK, 0)),
        (Resolved("hf.co", error="Name or service not known"), True, (FAILED, 4)),
        (Resolved("hf.co", error="Name or service not known"), False, (WARNING, 0)),
        (Resolved("hf.co", ("10.0.0.1",), refused=("10.0.0.1",)), True, (FAILED, 4)),
    ],
)
def test_a_name_must_lead_to_an_address_that_a_download_may_ask(
    found: Resolved, needed: bool, expected: tuple[Status, int]
) -> None:
    assert told(judge_dns(found, needed=needed)) == expected


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        ((), [(OK, 0)]),
        ((("HTTPS_PROXY", "http://proxy:3128"),), [(OK, 0)]),
        ((("HTTPS_PROXY", "proxy:3128"),), [(OK, 0)]),
        ((("HTTPS_PROXY", "socks5://proxy:1080"),), [(FAILED, 78)]),
        ((("HTTPS_PROXY", "http://proxy:notaport"),), [(FAILED, 78)]),
        ((("HTTPS_PROXY", "http://a:1"), ("https_proxy", "http://b:1")), [(WARNING, 0)]),
        ((("NO_PROXY", "*.local"),), [(OK, 0)]),
    ],
)
def test_proxies(named: tuple[tuple[str, str], ...], expected: list[tuple[Status, int]]) -> None:
    assert [told(each) for each in judge_proxies(Proxies(named, HUGGING_FACE, ""))] == expected


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [
        (NOW, NOW, (OK, 0)),
        (NOW, NOW + 59, (OK, 0)),
        (NOW, NOW + 120, (WARNING, 0)),
        (NOW, NOW - 120, (WARNING, 0)),
        (NOW, None, (OK, 0)),
        (0.0, None, (FAILED, 1)),
        (6_000_000_000.0, None, (FAILED, 1)),
    ],
)
def test_the_clock_is_compared_where_there_is_one_to_compare_with(
    ours: float, theirs: float | None, expected: tuple[Status, int]
) -> None:
    date = "" if theirs is None else formatdate(theirs, usegmt=True)
    assert told(judge_clock(ours, date, ours)) == expected


def test_a_date_that_is_none_says_nothing() -> None:
    assert told(judge_clock(NOW, "soon", NOW)) == (OK, 0)


def look(error: Exception | None = None, status: int | None = 200) -> Look:
    return Look(
        "https://hf.co/o/r/resolve/main/m.gguf", status, "", time.time(), 0.1, 0.05, 10, "a" * 64, "main", error
    )


AWAY = SourceUnavailableError("hf.co does not answer in time")


@pytest.mark.parametrize(
    ("found", "needed", "expected"),
    [
        (look(), True, (OK, 0)),
        (look(AWAY), True, (FAILED, 4)),
        (look(AWAY), False, (WARNING, 0)),
        (look(IntegrityError("upstream has another file now", next_step="compare")), False, (FAILED, 3)),
    ],
)
def test_the_source_must_answer_and_agree_with_the_pin(found: Look, needed: bool, expected: tuple[Status, int]) -> None:
    verdict = judge_source("Tiny", found, needed=needed)
    assert told(verdict) == expected
    assert verdict.details["url"] == found.url


def test_no_failure_of_a_gateway_is_one_of_this_host() -> None:
    assert told(judge_gateway(look())) == (OK, 0)
    assert told(judge_gateway(look(AWAY))) == (WARNING, 0)
    assert told(judge_gateway(look(IntegrityError("it offers 1 bytes")))) == (WARNING, 0)


@pytest.mark.parametrize(
    ("endpoint", "problem", "expected"),
    [
        (HUGGING_FACE, "", (OK, 0)),
        ("https://mirror.example", "", (OK, 0)),
        ("http://127.0.0.1:8000", "", (OK, 0)),
        ("http://mirror.example", "", (WARNING, 0)),
        ("http://169.254.169.254", "the link-local address 169.254.169.254", (FAILED, 78)),
    ],
)
def test_mirrors(endpoint: str, problem: str, expected: tuple[Status, int]) -> None:
    assert told(judge_mirror(endpoint, HUGGING_FACE, problem)) == expected


TOKEN = TokenFacts("HF_TOKEN", has_space=False, is_sent=True, endpoint=HUGGING_FACE, status=200)


@pytest.mark.parametrize(
    ("token", "expected"),
    [
        (TOKEN, (OK, 0)),
        (replace(TOKEN, status=302), (OK, 0)),
        (replace(TOKEN, status=None), (OK, 0)),
        (replace(TOKEN, status=401), (FAILED, 4)),
        (replace(TOKEN, status=403), (FAILED, 4)),
        (replace(TOKEN, has_space=True), (FAILED, 78)),
        (replace(TOKEN, is_sent=False, status=403), (OK, 0)),
        (replace(TOKEN, where=""), (OK, 0)),
        (replace(TOKEN, where="", status=None), (OK, 0)),
        (replace(TOKEN, where="", status=401), (FAILED, 4)),
    ],
)
def test_tokens(token: TokenFacts, expected: tuple[Status, int]) -> None:
    assert told(judge_token(token)) == expected


REDIS = RedisFacts("127.0.0.1:6379", "127.0.0.1", is_named=True, has_password=True, answer=Answer.FINE)
GOOD = {"redis_version": "8.0.1", "maxmemory_policy": "noeviction", "aof_enabled": "1"}


@pytest.mark.parametrize(
    ("facts", "in_container", "expected"),
    [
        (replace(REDIS, info=GOOD), False, [(OK, 0)]),
        (replace(REDIS, info=None, user="downloader"), False, [(OK, 0)]),
        (replace(REDIS, answer=Answer.REFUSED, error="WRONGPASS"), False, [(FAILED, 78)]),
        (replace(REDIS, answer=Answer.OTHER, error="HTTP/1.1 400"), False, [(FAILED, 78)]),
        (replace(REDIS, answer=Answer.AWAY, error="refused"), False, [(FAILED, 6)]),
        (replace(REDIS, answer=Answer.AWAY, is_named=False), False, [(WARNING, 0)]),
        (replace(REDIS, answer=Answer.AWAY, is_named=False), True, [(SKIPPED, 0)]),
        (replace(REDIS, info=GOOD | {"redis_version": "6.0.16"}), False, [(FAILED, 78)]),
        (replace(REDIS, info=GOOD | {"redis_version": "6.2.0"}), False, [(OK, 0)]),
        (replace(REDIS, info=GOOD | {"maxmemory_policy": "allkeys-lru"}), False, [(WARNING, 0)]),
        (replace(REDIS, info=GOOD | {"aof_enabled": "0"}), False, [(WARNING, 0)]),
        (replace(REDIS, info=GOOD, host="redis.example", has_password=False), False, [(WARNING, 0)]),
        (replace(REDIS, info=GOOD, has_password=False), False, [(OK, 0)]),
    ],
)
def test_redis(facts: RedisFacts, in_container: bool, expected: list[tuple[Status, int]]) -> None:
    assert [told(each) for each in judge_redis(facts, in_container=in_container)] == expected


FLAGS = frozenset({"pni", "ssse3", "avx", "avx2", "f16c", "fma", "bmi2"})
LLAMA = LlamaFacts(is_installed=True, version="0.3.36", features=frozenset({"AVX", "AVX2", "F16C", "FMA"}))
HERE = Wanted(flags=FLAGS)


@pytest.mark.parametrize(
    ("facts", "wanted", "expected"),
    [
        (LLAMA, HERE, (OK, 0)),
        (LLAMA, Wanted(), (OK, 0)),  # a processor that does not say what it can do
        (replace(LLAMA, features=LLAMA.features | {"AVX512"}), HERE, (FAILED, 1)),
        (replace(LLAMA, features=frozenset({"AVX"})), HERE, (WARNING, 0)),
        (replace(LLAMA, features=frozenset({"AVX"}), offload=True), HERE, (OK, 0)),
        (LlamaFacts(is_installed=True, died="SIGILL"), HERE, (FAILED, 1)),
        (LlamaFacts(is_installed=True, error="libgomp.so.1: not found"), HERE, (FAILED, 1)),
        (LlamaFacts(is_installed=True, is_slow=True), HERE, (WARNING, 0)),
        (LlamaFacts(is_installed=False), HERE, (WARNING, 0)),
        (LlamaFacts(is_installed=False), replace(HERE, in_container=True), (SKIPPED, 0)),
    ],
)
def test_a_build_uses_what_the_processor_has_and_no_more(
    facts: LlamaFacts, wanted: Wanted, expected: tuple[Status, int]
) -> None:
    assert told(judge_llama(facts, wanted)) == expected


def test_features_are_read_from_llama_cpp_s_own_line() -> None:
    line = "CPU : SSE3 = 1 | AVX2 = 1 | AVX512 = 0 | REPACK = 1 | CUDA : ARCHS = 500,610 | USE_GRAPHS = 1 | "
    assert parse_features(line) == {"SSE3", "AVX2", "REPACK", "USE_GRAPHS"}
    assert parse_features("") == frozenset()


GPU = GpuFacts("550.1", ("RTX 4090",), (24 * 10**9,), has_device=True)
CUDA = replace(LLAMA, offload=True)


@pytest.mark.parametrize(
    ("gpu", "llama", "layers", "expected"),
    [
        (GPU, CUDA, "auto", (OK, 0)),
        (GPU, LLAMA, "auto", (WARNING, 0)),
        (GPU, LLAMA, "0", (OK, 0)),
        (GPU, LlamaFacts(is_installed=False), "auto", (OK, 0)),
        (GpuFacts(has_device=True, error="driver/library mismatch"), CUDA, "auto", (FAILED, 1)),
        (GpuFacts(has_device=True), CUDA, "auto", (FAILED, 1)),
        (GpuFacts(), LLAMA, "-1", (FAILED, 78)),
        (GpuFacts(), LLAMA, "auto", (OK, 0)),
        (GpuFacts(), LLAMA, "0", (OK, 0)),
    ],
)
def test_gpus(gpu: GpuFacts, llama: LlamaFacts, layers: str, expected: tuple[Status, int]) -> None:
    assert told(judge_gpu(gpu, llama, Wanted(layers))) == expected


def test_a_container_without_a_gpu_says_nothing_of_the_host_s() -> None:
    verdict = judge_gpu(GpuFacts(has_device=True), LLAMA, Wanted("-1", in_container=True))
    assert told(verdict) == (SKIPPED, 0)


GB = 10**9


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (MemoryFacts(8 * GB, 16 * GB), OK),
        (MemoryFacts(8 * GB, 16 * GB, weights=5 * GB, model="Llama"), OK),
        (MemoryFacts(5 * GB, 16 * GB, weights=5 * GB, model="Llama"), WARNING),
        (MemoryFacts(8 * GB, 16 * GB, limit=4 * GB, weights=5 * GB, model="Llama"), WARNING),
        (MemoryFacts(8 * GB, 16 * GB, swap_total=4 * GB, swap_free=GB), WARNING),
        (MemoryFacts(8 * GB, 16 * GB, swap_total=4 * GB, swap_free=3 * GB), OK),
    ],
)
def test_memory(facts: MemoryFacts, expected: Status) -> None:
    assert told(judge_memory(facts)) == (expected, 0)


def test_open_files() -> None:
    assert told(judge_descriptors(256, 4096)) == (WARNING, 0)
    assert told(judge_descriptors(1024, 4096)) == (OK, 0)


DOCKER = DockerFacts(is_installed=True, engine="28.1.0", compose="2.35.1")


@pytest.mark.parametrize(
    ("facts", "engine", "compose"),
    [
        (DOCKER, OK, OK),
        (replace(DOCKER, engine="20.10.24+dfsg1", compose="1.29.2"), WARNING, WARNING),
        (replace(DOCKER, engine="26.0.0", compose="v2.26.0"), OK, OK),
        (replace(DOCKER, engine="25.9.9", compose="2.25.9"), WARNING, WARNING),
        (replace(DOCKER, engine="", error="permission denied", compose=""), WARNING, WARNING),
        (DockerFacts(is_installed=False), SKIPPED, SKIPPED),
    ],
)
def test_docker_and_compose(facts: DockerFacts, engine: Status, compose: Status) -> None:
    assert told(judge_engine(facts, in_container=False)) == (engine, 0)
    assert told(judge_compose(facts, in_container=False)) == (compose, 0)
    assert told(judge_engine(facts, in_container=True)) == (SKIPPED, 0)
    assert told(judge_compose(facts, in_container=True)) == (SKIPPED, 0)


@pytest.mark.parametrize(
    ("facts", "has_gpu", "expected"),
    [
        (replace(DOCKER, runtimes=("nvidia", "runc")), True, OK),
        (replace(DOCKER, has_cdi_gpu=True), True, OK),
        (replace(DOCKER, has_toolkit=True), True, WARNING),
        (DOCKER, True, WARNING),
        (DOCKER, False, SKIPPED),
    ],
)
def test_the_container_toolkit(facts: DockerFacts, has_gpu: bool, expected: Status) -> None:
    assert told(judge_toolkit(facts, has_gpu=has_gpu, in_container=False)) == (expected, 0)


def test_a_port_is_free_or_ours_or_named_with_who_has_it() -> None:
    free, ours = Port(8080, "miner", Holder.NOBODY), Port(8081, "downloader", Holder.OURS)
    other = Port(8082, "verifier", Holder.OTHER, "nginx (pid 7)")
    assert [told(each) for each in judge_ports([free, ours], in_container=False)] == [(OK, 0)]
    (verdict,) = judge_ports([free, ours, other], in_container=False)
    assert told(verdict) == (WARNING, 0)
    assert "nginx (pid 7)" in verdict.summary
    assert "R3MES_LISTEN" in verdict.next_step
    assert [told(each) for each in judge_ports([other], in_container=True)] == [(SKIPPED, 0)]


def test_whoever_runs_must_be_ready_and_says_why_not() -> None:
    ready = Service("downloader", "http://x", answers=True, is_ready=True)
    waits = Service("miner", "http://x", answers=True, reason="no verified model yet")
    away = Service("verifier", "http://x", answers=False)
    assert [told(each) for each in judge_services([away], in_container=False)] == [(SKIPPED, 0)]
    assert "docker compose ps" in judge_services([away], in_container=True)[0].summary
    assert [told(each) for each in judge_services([ready, away], in_container=False)] == [(OK, 0), (SKIPPED, 0)]
    verdicts = judge_services([ready, waits], in_container=False)
    assert [told(each) for each in verdicts] == [(OK, 0), (FAILED, 6)]
    assert "no verified model yet" in verdicts[1].summary


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        (SecretFile("HF_TOKEN_FILE", "t", 0o600), (OK, 0)),
        (SecretFile("HF_TOKEN_FILE", "t", 0o644), (WARNING, 0)),
        (SecretFile("HF_TOKEN_FILE", "t", 0o644, is_in_reach=False), (OK, 0)),
        (SecretFile("HF_TOKEN_FILE", "t", None), (FAILED, 78)),
    ],
)
def test_secrets_are_kept_from_others(file: SecretFile, expected: tuple[Status, int]) -> None:
    assert [told(each) for each in judge_secret_files([file])] == [expected]
    assert [told(each) for each in judge_secret_files([])] == [(OK, 0)]
