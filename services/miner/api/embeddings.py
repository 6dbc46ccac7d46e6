"""`POST /v1/embeddings`: texts, or texts as token ids, to vectors of length 1, in the shape of OpenAI's answer.

However many texts one request has, only a few are with the engine at a time, so that it takes no more room in the queue
than a request with some choices.
"""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice

import numpy as np
from fastapi import APIRouter, Request, Response

from services.miner.api.admission import Admission
from services.miner.api.completions import CLIENT_CLOSED_REQUEST
from services.miner.api.errors import ApiError
from services.miner.api.running import (
    ClientGoneError,
    as_api_errors,
    log_ended,
    open_all,
    refuse_failed,
    unless_disconnected,
)
from services.miner.api.schema import EmbeddingRequest
from services.miner.engine.messages import Submit
from services.miner.metrics import Endpoint, MinerMetrics, Outcome
from services.miner.served import ServedModel
from services.miner.settings import MinerSettings

AT_ONCE = 8  # texts of one request that the engine has at the same time

DIGITS = 9  # a number of 32 bits has no more

Vector = tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Embeddings:
    """The endpoint."""

    admission: Admission
    settings: MinerSettings
    metrics: MinerMetrics

    def router(self) -> APIRouter:
        """Return the route."""
        router = APIRouter()
        router.add_api_route("/v1/embeddings", self.embed, methods=["POST"], response_model=None)
        return router

    async def embed(self, body: EmbeddingRequest, request: Request) -> Response:
        """Answer with a vector for each text, in their order."""
        outcome, submitted, tokens = Outcome.CANCELLED, None, 0
        try:
            with self.admission.entering():
                if self.admission.sleeps(body.model):
                    await unless_disconnected(request, self.admission.wake())
                served = self.admission.model(body.model)
                submits = await self.admission.texts(served, body, AT_ONCE)
                submitted, tokens = time.monotonic(), sum(len(submit.prompt) for submit in submits)
                self.metrics.accepted(tokens)
                vectors = await unless_disconnected(request, self._vectors(served, submits))
            outcome = Outcome.OK
            # Off the event loop, and in parts: a million numbers take a second to write; no stream must wait for it.
            content = await asyncio.to_thread(_answer, body, served, tokens, vectors)
            return Response(content, media_type="application/json")
        except ApiError as error:
            outcome = error.outcome
            raise
        except ClientGoneError:
            return Response(status_code=CLIENT_CLOSED_REQUEST)
        finally:
            seconds = None if submitted is None else time.monotonic() - submitted
            self.metrics.ended(Endpoint.EMBEDDINGS, outcome, seconds)
            if seconds is not None:
                log_ended(Endpoint.EMBEDDINGS, outcome, seconds, {"prompt_tokens": tokens})

    async def _vectors(self, served: ServedModel, submits: Iterable[Submit]) -> list[Vector]:
        vectors: list[Vector] = []
        left = iter(submits)
        seconds = self.settings.request_seconds
        with as_api_errors(seconds):
            async with asyncio.timeout(seconds):
                while part := list(islice(left, AT_ONCE)):
                    generations = open_all(served, part)
                    try:
                        for generation in generations:
                            output = await anext(generation)
                            refuse_failed(output, "input")
                            vectors.append(output.embedding)
                    finally:
                        for generation in generations:
                            generation.close()
        return vectors


def _answer(body: EmbeddingRequest, served: ServedModel, tokens: int, vectors: list[Vector]) -> str:
    data = ",".join(
        json.dumps({"object": "embedding", "index": index, "embedding": _written(body, vector)})
        for index, vector in enumerate(vectors)
    )
    usage = json.dumps({"prompt_tokens": tokens, "total_tokens": tokens})
    return f'{{"object": "list", "data": [{data}], "model": {json.dumps(served.name)}, "usage": {usage}}}'


def _written(body: EmbeddingRequest, vector: Vector) -> str | list[float]:
    """Return the numbers, or as OpenAI's client asks for them: 32 bits each, the lowest byte first, in base64."""
    numbers = np.asarray(vector, "<f4")
    if body.encoding_format == "base64":
        return base64.b64encode(numbers.tobytes()).decode()
    return [round(float(number), DIGITS) for number in numbers]
