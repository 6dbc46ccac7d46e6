"""llama.cpp and PyTorch, given the same file and the same tokens, say the same.

PyTorch is an extra of some gigabytes (`locks/torch.txt`), so this runs only where it is installed.
"""

from __future__ import annotations

import numpy as np
import pytest

from tests.integration.miner.engine_stand import Alone
from tests.integration.miner.stand import model_file

torch = pytest.importorskip("torch", reason="the extra `torch` is not installed")
transformers = pytest.importorskip("transformers", reason="the extra `torch` is not installed")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

LEAST_CORRELATION = 0.998
TEXT = (
    "Once upon a time there was a lighthouse keeper who wrote a letter to the sea every night. In the morning the sea "
    "answered with shells, bottles and, once, a small wooden boat. The capital of France is Paris, and 12 + 30 = 42."
)


def test_teacher_forced_logits_of_the_two_engines_correlate() -> None:
    file = model_file()
    alone = Alone(file)
    tokens = alone.tokenise(TEXT)
    ours = alone.logits(tokens, 0)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        str(file.parent), gguf_file=file.name, dtype=torch.float32
    ).eval()
    with torch.no_grad():
        theirs = model(torch.tensor([tokens])).logits[0].numpy()
    correlations = [float(np.corrcoef(one, other)[0, 1]) for one, other in zip(ours, theirs, strict=True)]
    assert len(correlations) > 40
    assert float(np.mean(correlations)) >= LEAST_CORRELATION, correlations
