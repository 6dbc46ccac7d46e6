"""The miner on a machine that had a GPU when it started, and has none for its engines."""

from __future__ import annotations

import dataclasses
import sys

from services.miner import __main__ as program
from services.miner.model.probe import Machine, probe_machine


def _with_a_gpu() -> Machine:
    return dataclasses.replace(probe_machine(), offload_supported=True)


if __name__ == "__main__":
    program.probe_machine = _with_a_gpu  # type: ignore[attr-defined]
    sys.exit(program.main())
