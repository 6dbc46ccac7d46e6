"""The OpenAPI document says what the miner does: schemathesis draws requests from it, right ones and wrong ones."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.integration.miner.stand import MODEL_NAME, Miner, Store

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
GENERATING = ("/v1/chat/completions", "/v1/completions")
EXAMPLES = 40


@pytest.fixture
def small(store: Store) -> Iterator[Miner]:
    """A miner that no request can keep for long."""
    store.put_model()
    with Miner(store, {"R3MES_N_CTX": "256", "R3MES_REQUEST_SECONDS": "30"}) as miner:
        miner.wait_ready()
        yield miner


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_what_is_drawn_from_the_document_is_answered_as_it_says(small: Miner, mode: GenerationMode) -> None:
    document = schemathesis.openapi.from_url(f"{small.url}/openapi.json")
    paths = set()
    for found in document.get_all_operations():
        operation = found.ok()
        if mode is GenerationMode.NEGATIVE and not operation.body.items:
            continue  # nothing that could be wrong

        @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
        @given(case=operation.as_strategy(generation_mode=mode))
        def is_answered_as_promised(case: Case) -> None:
            if isinstance(case.body, dict) and isinstance(case.body.get("model"), str):
                case.body = {**case.body, "model": MODEL_NAME}  # or that alone would be refused
                if case.operation.path in GENERATING:
                    case.body.setdefault("max_tokens", 2)
            case.call_and_validate(checks=CHECKS, timeout=120)

        is_answered_as_promised()
        paths.add(operation.path)
    assert {*GENERATING, "/v1/embeddings"} <= paths
    assert small.metric("r3mes_miner_engine_restarts_total") == 0
