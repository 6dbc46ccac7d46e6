"""What must not be served is not: bytes that an origin changed, a genesis that is not the one that was meant."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from shared.genesis import ModelPin
from tests.support.compose import Stack
from tests.support.containers import as_init, need_engine, stack_with_origin
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.containers, pytest.mark.timeout(4500)]

FILES = "import os\nfor root, _, files in os.walk('/models/verified'):\n    for name in files: print(root, name)"


@pytest.fixture
def tampered(pin: ModelPin, tmp_path: Path) -> Iterator[Stack]:
    """A stack, not started, whose origin flips one bit and has every header right."""
    need_engine()
    stack = stack_with_origin(tmp_path, pin, "--tamper")
    with stack:
        stack.build()
        yield stack


def test_changed_bytes_are_deleted_and_nobody_serves_them(tampered: Stack, pin: ModelPin) -> None:
    tampered.up()

    def state() -> dict[str, object]:
        (model,) = requests.get(tampered.url() + "/api/v1/status", timeout=10).json()["models"]
        assert isinstance(model, dict)
        return model

    wait_until(lambda: state()["state"] == "failed", 180, "the downloader has given up")
    assert state()["reason"] in ("hash_mismatch", "source_unavailable")
    assert as_init(tampered, FILES) == ""
    records = as_init(tampered, "import os; print(*os.listdir('/models/rejected'))").split()
    assert [name for name in records if name.startswith(pin.sha256)]
    assert not tampered.answers("/readyz")
    answer = requests.post(tampered.url() + "/v1/chat/completions", json={"model": pin.model_name}, timeout=30)
    assert answer.status_code == 503


def test_another_genesis_than_the_one_that_was_meant_starts_nothing(tampered: Stack) -> None:
    env = tampered.directory / ".env"
    env.write_text(env.read_text() + f"R3MES_GENESIS_SHA256={'0' * 64}\n")
    assert tampered.exit_code("up", "--detach") != 0
    assert tampered.inspect("init")["State"]["ExitCode"] == 78  # type: ignore[index]
    assert tampered.run("ps", "--services", "--status", "running").split() == ["origin"]
    assert as_init(tampered, "import os; print(*os.listdir('/models'))").strip() == ""
