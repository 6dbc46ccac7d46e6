"""What `/v1/models` says, whatever characters a pinned name is made of."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import cast

import httpx2
import pytest
from prometheus_client import CollectorRegistry

from services.miner.api.app import build_app
from services.miner.keeper import Keeper
from services.miner.metrics import MinerMetrics
from services.miner.settings import MinerSettings

SLASHED = "org/Model-7B"


def get(path: str) -> httpx2.Response:
    """Ask a miner that serves SLASHED."""
    served = SimpleNamespace(name=SLASHED, loaded_at=1, describe=dict)
    keeper = cast("Keeper", SimpleNamespace(served=served, unloaded=None))
    app = build_app(keeper, MinerSettings.model_validate({}), MinerMetrics(CollectorRegistry()))

    async def ask() -> httpx2.Response:
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://miner") as client:
            return await client.get(path)

    return asyncio.run(ask())


@pytest.mark.parametrize("name", [SLASHED, "org%2FModel-7B"])
def test_a_model_whose_name_has_a_slash_is_described(name: str) -> None:
    response = get(f"/v1/models/{name}")
    assert response.status_code == 200
    assert response.json()["id"] == SLASHED


@pytest.mark.parametrize("name", ["", "Model-7B", "org", "org/", "org/Model-7B/", "/"])
def test_a_name_that_is_not_served_is_model_not_found(name: str) -> None:
    response = get(f"/v1/models/{name}")
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "model_not_found"
