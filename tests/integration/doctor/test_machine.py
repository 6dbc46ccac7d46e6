"""What a miner computes with, and containers: programs on a PATH of the test's own."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from launcher.doctor.probes import containers, inference
from tests.support.doctor_host import DATA, FAILED, OK, SKIPPED, WARNING, DoctorHost, only


@pytest.mark.slow
def test_the_installed_build_fits_this_processor(host: DoctorHost) -> None:
    verdict = only(inference.check_llama(host.subject()))
    assert verdict.status in {OK, WARNING}, verdict  # a busy machine may not answer in time
    if verdict.status is OK:
        assert verdict.details["version"]


@pytest.mark.parametrize(
    ("module", "words"),
    [
        ("import os, signal\nos.kill(os.getpid(), signal.SIGILL)", "SIGILL"),
        ("raise OSError('libcudart.so.12: cannot open')", "libcudart"),
        ("import a_library_that_is_not_there", "a_library_that_is_not_there"),
    ],
)
def test_an_import_that_crashes_is_1_and_takes_nobody_with_it(
    host: DoctorHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, words: str
) -> None:
    (tmp_path / "llama_cpp.py").write_text(module + "\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    verdict = only(inference.check_llama(host.subject()))
    assert (verdict.status, verdict.exit_code) == (FAILED, 1)
    assert words in verdict.summary


def test_memory_and_descriptors_are_read(host: DoctorHost) -> None:
    verdict = only(inference.check_memory(host.subject()))
    assert verdict.details["weights_bytes"] == len(DATA)
    total = verdict.details["total_bytes"]
    assert isinstance(total, int)
    assert total > 2**28
    assert only(inference.check_descriptors(host.subject())).status in {OK, WARNING}


def test_the_driver_s_answer_is_read(host: DoctorHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(host.programs))
    host.program("nvidia-smi", "print('NVIDIA H200, 143771, 550.54')")
    gpu = inference.gpu_facts(host.subject())
    assert (gpu.names, gpu.driver, gpu.memory) == (("NVIDIA H200",), "550.54", (143771 * 1024**2,))
    host.program("nvidia-smi", "sys.exit('Failed to initialize NVML: Driver/library version mismatch')")
    verdict = only(inference.check_gpu(host.subject()))
    assert (verdict.status, verdict.exit_code) == (FAILED, 1)
    assert "mismatch" in verdict.summary


DOCKER = """
answers = {
    "version": ("%s", 0),
    "compose": ("%s", 0),
    "info": ('{"runc": {}, "nvidia": {}}', 0),
}
print(answers[argv[0]][0])
"""


def test_docker_is_asked_for_its_versions(host: DoctorHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(host.programs))
    assert only(containers.check_engine(host.subject())).status is SKIPPED
    host.program("docker", DOCKER % ("28.1.1", "2.35.1"))
    subject = host.subject()
    assert only(containers.check_engine(subject)).status is OK
    assert only(containers.check_compose(subject)).status is OK
    assert containers.docker_facts(subject).runtimes == ("nvidia", "runc")
    host.program("docker", DOCKER % ("20.10.24", "2.20.0"))
    subject = host.subject()
    assert only(containers.check_engine(subject)).status is WARNING
    assert only(containers.check_compose(subject)).status is WARNING
    host.program("docker", "sys.exit('permission denied while trying to connect')")
    verdict = only(containers.check_engine(host.subject()))
    assert (verdict.status, "permission denied" in verdict.summary) == (WARNING, True)


def test_a_docker_that_is_another_host_is_not_asked_offline(host: DoctorHost) -> None:
    verdict = only(containers.check_engine(host.subject(offline=True, DOCKER_HOST="ssh://elsewhere")))
    assert verdict.status is SKIPPED


def test_what_two_checks_ask_is_asked_once(host: DoctorHost) -> None:
    subject, asked = host.subject(), []

    def ask() -> int:
        asked.append(threading.get_ident())
        return 7

    found: list[int] = []
    threads = [threading.Thread(target=lambda: found.append(subject.shelf.once("k", ask))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (found, len(asked)) == ([7] * 8, 1)
