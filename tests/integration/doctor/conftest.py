"""A machine with nothing but a genesis, which pins one small model with a CID."""

from pathlib import Path

import pytest

from tests.support.doctor_host import CID, DoctorHost


@pytest.fixture
def host(tmp_path: Path) -> DoctorHost:
    return DoctorHost(tmp_path, ipfs_fallback_hash=CID)
