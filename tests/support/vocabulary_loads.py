"""A child process: loads a vocabulary again and again as the miner does, and prints by how many bytes it grew."""

from __future__ import annotations

import asyncio
import os
import sys

import psutil

from services.miner.llama_log import take_log
from services.miner.loading import load_vocabulary
from shared.log import configure_logging
from tests.integration.miner.stand import model_file

LOADS = 12
TOGETHER = 20  # prompts at once: every thread of the pool has work


async def main() -> None:
    descriptor = os.open(model_file(), os.O_RDONLY)
    process, seen = psutil.Process(), []
    for _ in range(LOADS):
        vocabulary = await load_vocabulary(descriptor)
        prompts = [
            asyncio.to_thread(vocabulary.tokenise, "hello world " * 50, add_special=True, parse_special=True)
            for _ in range(TOGETHER)
        ]
        await asyncio.gather(*prompts)
        vocabulary.close()
        seen.append(process.memory_info().rss)
    sys.stdout.write(str(seen[-1] - seen[1]))  # the second load still finds the allocator new


if __name__ == "__main__":
    configure_logging("miner", "error")
    take_log()
    asyncio.run(main())
