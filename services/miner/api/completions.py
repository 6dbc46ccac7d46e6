"""`POST /v1/chat/completions` and `POST /v1/completions`: the same way in and out, two shapes of the answer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from services.miner.api.admission import Accepted, Admission
from services.miner.api.choices import Choice
from services.miner.api.errors import ApiError
from services.miner.api.running import ClientGoneError, Running, unless_disconnected
from services.miner.api.schema import ChatRequest, CompletionRequest, GenerationRequest
from services.miner.api.shapes import CHAT, COMPLETION, Shape
from services.miner.api.stream import EventStream, events, first_of
from services.miner.api.tools.told import with_calls
from services.miner.metrics import Endpoint, MinerMetrics, Outcome
from services.miner.served import ServedModel
from services.miner.settings import MinerSettings

CLIENT_CLOSED_REQUEST = 499  # nobody reads it; it stands in the access log


@dataclass(frozen=True, slots=True)
class Completions:
    """Both endpoints."""

    admission: Admission
    settings: MinerSettings
    metrics: MinerMetrics

    def router(self) -> APIRouter:
        """Return the routes."""
        router = APIRouter(responses={200: {"content": {"text/event-stream": {}}}})
        router.add_api_route("/v1/chat/completions", self.chat, methods=["POST"], response_model=None)
        router.add_api_route("/v1/completions", self.completion, methods=["POST"], response_model=None)
        return router

    async def chat(self, body: ChatRequest, request: Request) -> Response:
        """Answer a conversation."""

        async def prepare(served: ServedModel) -> Accepted:
            return await self.admission.chat(served, body)

        return await self._answer(body, request, CHAT, Endpoint.CHAT, prepare)

    async def completion(self, body: CompletionRequest, request: Request) -> Response:
        """Continue a prompt."""

        async def prepare(served: ServedModel) -> Accepted:
            return await self.admission.completion(served, body)

        return await self._answer(body, request, COMPLETION, Endpoint.COMPLETIONS, prepare)

    async def _answer(
        self,
        body: GenerationRequest,
        request: Request,
        shape: Shape,
        endpoint: Endpoint,
        prepare: Callable[[ServedModel], Awaitable[Accepted]],
    ) -> Response:
        try:
            with self.admission.entering():
                if self.admission.sleeps(body.model):
                    await unless_disconnected(request, self.admission.wake())
                served = self.admission.model(body.model)
                running = Running(served, await prepare(served), endpoint, self.metrics, self.settings.request_seconds)
        except ApiError as error:
            self.metrics.ended(endpoint, error.outcome, None)
            raise
        except ClientGoneError:
            self.metrics.ended(endpoint, Outcome.CANCELLED, None)
            return Response(status_code=CLIENT_CLOSED_REQUEST)
        streams = False
        try:
            if body.stream:
                response = await self._stream(body, request, shape, running)
                streams = True
                return response
            choices = await unless_disconnected(request, _collect(_told(body, running)))
            return JSONResponse(shape.answer(running, choices), headers=running.headers)
        except ClientGoneError:
            return Response(status_code=CLIENT_CLOSED_REQUEST)
        finally:
            if not streams:
                running.end()

    async def _stream(self, body: GenerationRequest, request: Request, shape: Shape, running: Running) -> EventStream:
        choices = await unless_disconnected(request, first_of(_told(body, running)))
        with_usage, opening = body.include_usage, shape.opening
        parts = events(
            running,
            choices,
            opening=[opening(running, index, with_usage) for index in range(running.count)] if opening else [],
            chunk=lambda choice: shape.chunk(running, choice, with_usage),
            usage=(lambda: shape.usage(running)) if with_usage else None,
        )
        return EventStream(running, parts)


def _told(body: GenerationRequest, running: Running) -> AsyncIterator[Choice]:
    """Return the outputs, with the calls taken out of the text of an answer that may hold some."""
    outputs = running.outputs()
    if isinstance(body, ChatRequest) and body.offered:
        return with_calls(outputs, {tool.function.name for tool in body.offered})
    return outputs


async def _collect(choices: AsyncIterator[Choice]) -> list[Choice]:
    return [choice async for choice in choices]
