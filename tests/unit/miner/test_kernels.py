"""Kernels that are libraries of their own: loaded from one folder alone; on a host there is nothing to load."""

from pathlib import Path

import pytest

from services.miner import kernels
from shared.errors import EngineError


def test_a_build_for_this_machine_has_its_device_already(tmp_path: Path) -> None:
    assert "CPU" in kernels.load_kernels(tmp_path)


def test_a_build_without_any_kernel_for_this_processor_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(kernels, "_device_count", lambda: 0)
    with pytest.raises(EngineError, match="runs on this processor") as caught:
        kernels.load_kernels(tmp_path)
    assert "make install" in caught.value.next_step
