"""The miner on a machine that, once a model is loaded, has room for no second one."""

from __future__ import annotations

import dataclasses
import sys

from services.miner import __main__ as program
from services.miner import keeper
from services.miner.model.probe import Machine, probe_machine


def _cramped() -> Machine:
    return dataclasses.replace(probe_machine(), memory_bytes=0)


if __name__ == "__main__":
    keeper.probe_machine = _cramped  # type: ignore[attr-defined]  # asked only when a next model is there
    sys.exit(program.main())
