"""Limits of the cgroup that a container's miner lives in, of both versions of cgroups."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.miner.model import probe
from services.miner.model.probe import probe_machine

MIB = 1024 * 1024


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(probe, "CGROUP_ROOT", tmp_path / "cgroup")
    monkeypatch.setattr(probe, "PROCESS_CGROUPS", tmp_path / "own")
    return tmp_path / "cgroup"


def lay(root: Path, own: str, files: dict[str, str]) -> None:
    (root.parent / "own").write_text(own)
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)


def test_memory_is_what_the_limit_leaves_and_the_file_cache_gives_back(root: Path) -> None:
    lay(root, "0::/a/b\n", {
        "a/b/memory.max": "max", "a/b/memory.current": "5",
        "a/memory.max": f"{100 * MIB}", "a/memory.current": f"{40 * MIB}",
        "a/memory.stat": f"anon 1\ninactive_file {10 * MIB}\n",
    })  # fmt: skip
    assert probe_machine().memory_bytes == 70 * MIB


def test_memory_of_the_first_version(root: Path) -> None:
    lay(root, "8:memory:/a\n1:cpuacct:/x\n0::/\n", {
        "memory/memory.limit_in_bytes": "9223372036854771712", "memory/memory.usage_in_bytes": "1",
        "memory/a/memory.limit_in_bytes": f"{100 * MIB}", "memory/a/memory.usage_in_bytes": f"{50 * MIB}",
        "memory/a/memory.stat": f"inactive_file 1\ntotal_inactive_file {20 * MIB}\n",
    })  # fmt: skip
    assert probe_machine().memory_bytes == 70 * MIB


def test_a_container_that_does_not_see_the_path_of_its_cgroup_finds_it_at_the_root(root: Path) -> None:
    lay(root, "8:memory:/docker/1234\n", {
        "memory/memory.limit_in_bytes": f"{100 * MIB}", "memory/memory.usage_in_bytes": f"{60 * MIB}",
    })  # fmt: skip
    assert probe_machine().memory_bytes == 40 * MIB


@pytest.mark.parametrize(
    ("own", "files", "quota"),
    [
        ("0::/\n", {"cpu.max": "150000 100000"}, 1.5),
        ("0::/\n", {"cpu.max": "max 100000"}, None),
        ("0::/a\n", {"cpu.max": "300000 100000", "a/cpu.max": "50000 100000"}, 0.5),
        ("4:cpu,cpuacct:/a\n", {"cpu/a/cpu.cfs_quota_us": "200000", "cpu/a/cpu.cfs_period_us": "100000"}, 2.0),
        ("4:cpu:/a\n", {"cpu/a/cpu.cfs_quota_us": "-1", "cpu/a/cpu.cfs_period_us": "100000"}, None),
        ("4:cpuset:/a\n", {}, None),
    ],
)
def test_the_processor_quota_is_the_smallest(root: Path, own: str, files: dict[str, str], quota: float | None) -> None:
    lay(root, own, files)
    assert probe_machine().quota == quota
