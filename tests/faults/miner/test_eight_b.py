"""The mission's 8B model as Q4_K_M on a host with 8 GB and no GPU: it loads, answers several, and nobody is killed."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.integration.miner.stand import MODEL_NAME, Miner, Store, genesis_entry, model_file
from tests.support.eight_b import write_eight_b
from tests.support.memory_limit import memory_limit

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(1800)]

EIGHT_GB = 8_000_000_000
DIGEST = hashlib.sha256(b"eight").hexdigest()  # with its receipt nobody asks again
READY_SECONDS = 300.0
CLIENTS = 3
MOST_FAULTS = 1_000  # of the million pages that the weights have


def test_eight_gigabytes_are_enough_for_an_8b_model(tmp_path: Path) -> None:
    store = Store(tmp_path)
    source = tmp_path / "eight.gguf"
    write_eight_b(model_file(), source)
    weights = source.stat().st_size
    assert 4.8e9 < weights < 5.0e9
    assert source.stat().st_blocks * 512 < 0.1e9, "the weights are holes"
    store.pin(genesis_entry(file_name="eight.gguf", verification_sha256=DIGEST, required_disk_space_gb=5))
    path = store.layout.verified_file(DIGEST, "eight.gguf")
    path.parent.mkdir(parents=True)
    source.chmod(0o444)
    store.put_receipt(source, digest=DIGEST, file_name="eight.gguf", rename_to=path)
    with memory_limit(EIGHT_GB) as limit:
        environment = {"CGROUP_PROCS": str(limit.procs), "R3MES_THREADS": "2"}
        with Miner(store, environment, "tests.integration.miner.confined") as miner:
            miner.wait_ready(READY_SECONDS)
            shown = miner.get("/v1/models").json()["data"][0]["r3mes"]
            assert shown["parameters"] > 8e9
            assert shown["hardware"]["cells"] >= 2048, shown["hardware"]["why"]

            def ask(number: int) -> int:
                body = {"model": MODEL_NAME, "prompt": f"Number {number} of some:", "max_tokens": 3}
                return miner.post("/v1/completions", body).status_code

            with ThreadPoolExecutor(CLIENTS) as pool:
                assert list(pool.map(ask, range(CLIENTS))) == [200] * CLIENTS
                before = limit.major_faults
                assert list(pool.map(ask, range(CLIENTS, 2 * CLIENTS))) == [200] * CLIENTS
            cells, faults = shown["hardware"]["cells"], limit.major_faults - before
            print(f"{cells} cells, {limit.anonymous / 1e9:.2f} GB besides the file, {faults} major faults")  # noqa: T201
            assert faults < MOST_FAULTS, "weights are read from the disk again and again"
            assert limit.killed == 0
