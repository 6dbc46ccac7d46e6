"""`python -m services.miner` with little patience, so that tests of back-offs and of a stuck engine take seconds."""

import sys

from services.miner.__main__ import main
from services.miner.engine.breaker import BreakerLimits
from services.miner.engine.watchdog import WatchdogLimits
from services.miner.recovery import Patience

BACK_OFF_SECONDS = 3.0
STEADY_SECONDS = 2.0
PATIENCE = Patience(
    breaker=BreakerLimits(
        first_seconds=BACK_OFF_SECONDS, most_seconds=30.0, steady_seconds=STEADY_SECONDS, retry_seconds=0.1
    ),
    # Longer than a step on a busy machine.
    watchdog=WatchdogLimits(least_seconds=6.0, slowest_flops=1e15, longest_steps=1.0, look_seconds=0.1),
)

if __name__ == "__main__":
    sys.exit(main(PATIENCE))
