"""GPU metrics come from NVIDIA's driver at each scrape; without it, or for a GPU that is lost, none is told."""

from types import SimpleNamespace

import pynvml
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from services.miner.metrics import GpuCollector

USE, MEMORY = "r3mes_miner_gpu_utilization_ratio", "r3mes_miner_gpu_memory_used_bytes"


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """A driver with three GPUs, in place of the one that no machine of the tests has; those in the set are lost."""
    lost: set[int] = set()

    def handle(index: int) -> int:
        if index in lost:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)
        return index

    monkeypatch.setattr(pynvml, "nvmlInit", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetCount", lambda: 3)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByIndex", handle)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetUtilizationRates", lambda index: SimpleNamespace(gpu=index * 40))
    monkeypatch.setattr(pynvml, "nvmlDeviceGetMemoryInfo", lambda index: SimpleNamespace(used=(index + 1) * 2**30))
    return lost


def told() -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(GpuCollector())
    return registry


@pytest.mark.usefixtures("driver")
def test_each_gpu_tells_its_use_as_a_ratio_and_its_memory_in_bytes() -> None:
    registry = told()
    assert [registry.get_sample_value(USE, {"gpu": str(index)}) for index in range(3)] == [0, 0.4, 0.8]
    assert [registry.get_sample_value(MEMORY, {"gpu": str(index)}) for index in range(3)] == [2**30, 2**31, 3 * 2**30]


def test_a_gpu_that_is_lost_is_not_told_and_comes_back(driver: set[int]) -> None:
    registry = told()
    driver.add(1)
    assert registry.get_sample_value(USE, {"gpu": "1"}) is None
    assert registry.get_sample_value(MEMORY, {"gpu": "2"}) == 3 * 2**30
    driver.clear()
    assert registry.get_sample_value(USE, {"gpu": "1"}) == 0.4


def test_without_a_driver_no_gpu_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlInit", missing)
    assert "gpu=" not in generate_latest(told()).decode()
