"""A stack as deep as the work wants it, for this work alone."""

from __future__ import annotations

import threading

import pytest

from services.miner.model.deep_stack import MIB, run_deep
from shared.errors import NotReadyError


def refuse() -> int:
    raise LookupError("nothing here")


def test_work_gets_another_thread_and_the_next_thread_the_usual_stack() -> None:
    usual = threading.stack_size()
    assert run_deep(threading.get_ident, 100 * MIB + 1) != threading.get_ident()
    with pytest.raises(LookupError, match="nothing here"):
        run_deep(refuse, MIB)
    assert threading.stack_size() == usual


def test_a_stack_that_no_memory_holds_is_an_error_in_words() -> None:
    usual = threading.stack_size()
    with pytest.raises(NotReadyError, match="no memory for a text of this length"):
        run_deep(threading.get_ident, 2**60)
    assert threading.stack_size() == usual
