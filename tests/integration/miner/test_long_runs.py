"""A long run of characters that nothing divides is tokenised, whichever way llama.cpp divides a text."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from services.miner.model.vocabulary import MOST_RUN, Vocabulary
from shared.errors import UsageError
from tests.integration.miner.stand import model_file
from tests.support.tiny_models import write_vocabulary

pytestmark = pytest.mark.slow

# Divided by std::regex, which recurses; `smollm` has code of its own in llama.cpp.
DIVISIONS = ("tekken", "deepseek-v3", "bloom", "smollm")
LENGTH = 60_000
CHILD = """
import os, sys, threading
from services.miner.llama_log import take_log
from services.miner.model.vocabulary import Vocabulary
take_log()
vocabulary = Vocabulary(os.open(sys.argv[1], os.O_RDONLY))
usual = threading.stack_size()
def run():
    tokens = vocabulary.tokenise(sys.argv[2] * int(sys.argv[3]), add_special=False, parse_special=False)
    text = b"".join(vocabulary.piece(token, special=False) for token in tokens).decode()
    assert max(len(vocabulary.piece(token, special=True)) for token in range(vocabulary.size)) <= vocabulary.longest
    print(text == sys.argv[2] * int(sys.argv[3]) and threading.stack_size() == usual)
thread = threading.Thread(target=run)
thread.start()
thread.join()
"""


def test_a_run_whose_stack_would_take_a_small_host_s_memory_is_refused() -> None:
    descriptor = os.open(model_file(), os.O_RDONLY)
    vocabulary = Vocabulary(descriptor)
    try:
        for text in ("x" * (MOST_RUN + 1), "words " + " " * (MOST_RUN + 1)):
            with pytest.raises(UsageError, match="nothing divides"):
                vocabulary.tokenise(text, add_special=False, parse_special=False)
        assert vocabulary.tokenise("words " * (MOST_RUN // 5), add_special=False, parse_special=False)
    finally:
        vocabulary.close()
        os.close(descriptor)


@pytest.fixture(scope="module", params=DIVISIONS)
def vocabulary(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("vocabulary") / "vocabulary.gguf"
    write_vocabulary(model_file(), file, division=request.param)
    return file


@pytest.mark.parametrize("character", ["x", " ", "é"])
@pytest.mark.parametrize("length", [LENGTH, 10 * LENGTH])
def test_a_long_run_kills_nothing_and_comes_out_whole(vocabulary: Path, character: str, length: int) -> None:
    child = subprocess.run(
        [sys.executable, "-c", CHILD, vocabulary, character, str(length)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (child.returncode, child.stdout.splitlines()[-1:]) == (0, ["True"]), child.stderr[-500:]
