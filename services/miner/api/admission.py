"""Who gets in: the right model, loaded and true, room in the queue, a prompt that fits. Others get an ApiError."""

from __future__ import annotations

import asyncio
import secrets
import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

from services.miner.api.choices import fan_out
from services.miner.api.errors import RETRY_SOON_SECONDS, ApiError, crashes_engine, invalid, unavailable
from services.miner.api.prompts import Prompt, bare_prompt, chat_prompt, most_prompt_tokens, texts_to_embed
from services.miner.api.schema import ChatRequest, CompletionRequest, EmbeddingRequest, GenerationRequest
from services.miner.engine.messages import Submit
from services.miner.keeper import Keeper
from services.miner.phases import Phase
from services.miner.served import ServedModel
from services.miner.settings import MinerSettings
from shared.errors import NotReadyError, UsageError


@dataclass(frozen=True, slots=True)
class Accepted:
    """The engine's messages for a request, one for each choice, and how much of its prompt was left out to fit."""

    submits: list[Submit]
    left_out: int


class Admission:
    """Decides about each request and makes its messages to the engine."""

    def __init__(self, keeper: Keeper, settings: MinerSettings) -> None:
        self._keeper = keeper
        self._settings = settings
        self._waking = 0  # requests that wait until the model is loaded again

    def entering(self) -> AbstractContextManager[None]:
        """Let the model not be unloaded between a request's first question and its submission."""
        return self._keeper.entering()

    def sleeps(self, name: str) -> bool:
        """Tell whether the model of that name is unloaded only because nobody asked for it."""
        target = self._keeper.target
        return self._keeper.readiness.asleep and target is not None and name == target.model_name

    async def wake(self) -> None:
        """Wait until the model is loaded again; raises ApiError when too many wait already."""
        if self._waking >= self._settings.max_sequences + self._settings.max_queue:
            raise _full(self._waking)
        self._waking += 1
        try:
            await self._keeper.wake()
        finally:
            self._waking -= 1

    def model(self, name: str) -> ServedModel:
        """Return the served model of that name; 404 for an unknown one, 503 while it is not there, 429 when full."""
        keeper = self._keeper
        target = keeper.target
        if name not in keeper.model_names and (keeper.served is None or name != keeper.served.name):
            raise _unknown(name, "the accepted genesis does not pin it")
        served = keeper.served
        if served is None or not keeper.readiness.ready:
            if target is not None and name != target.model_name:
                raise _unknown(name, f"this miner is for {target.model_name}")
            raise unavailable(f"not ready: {keeper.readiness.reason or keeper.readiness.phase}")
        if name != served.name:
            if target is not None and name == target.model_name:
                raise unavailable(f"{name} is not loaded yet; {served.name} is served until then")
            raise _unknown(name, f"this miner serves {served.name}")
        if not keeper.still_true(served):
            raise unavailable(f"{served.pin.file_name} is gone or was replaced; it is not served any more")
        self._require_room(served, 1)
        return served

    async def chat(self, served: ServedModel, request: ChatRequest) -> Accepted:
        """Take in a conversation."""
        wanted = request.wanted_tokens
        return await self._submit(served, request, wanted, lambda most: chat_prompt(served, request, most))

    async def completion(self, served: ServedModel, request: CompletionRequest) -> Accepted:
        """Take in a bare prompt."""
        wanted = request.wanted_tokens
        return await self._submit(served, request, wanted, lambda most: bare_prompt(served, request, most))

    async def texts(self, served: ServedModel, request: EmbeddingRequest, at_once: int) -> list[Submit]:
        """Take in texts to embed, of which the caller submits at most so many at once."""
        if request.dimensions is not None:
            raise invalid("dimensions is not supported by this version", "dimensions", "unsupported_parameter")
        try:
            found = await asyncio.to_thread(texts_to_embed, served, request)
        except UsageError as error:
            raise invalid(error.message, "input") from error
        except NotReadyError as error:
            raise unavailable(error.message, RETRY_SOON_SECONDS) from error
        most = min(served.sequence_tokens, self._settings.max_prompt_tokens or served.sequence_tokens)
        longest = max(map(len, found))
        if longest > most:
            raise invalid(
                f"a text has {longest} tokens, this model takes at most {most}",
                "input",
                code="context_length_exceeded",
            )
        self._require_room(served, min(len(found), at_once))
        submits = [Submit(uuid.uuid4().hex, tuple(tokens), 0, embeds=True) for tokens in found]
        for submit in submits:
            self._require_not_blamed(submit)
        return submits

    def _most(self, served: ServedModel, wanted: int | None) -> int | None:
        """Return how many tokens a prompt may keep, None where nothing may be cut."""
        if self._settings.context_overflow == "error":
            return None
        most = most_prompt_tokens(served.sequence_tokens, wanted)
        return min(most, self._settings.max_prompt_tokens or most)

    async def _submit(
        self,
        served: ServedModel,
        request: GenerationRequest,
        wanted: int | None,
        make_prompt: Callable[[int | None], Prompt],
    ) -> Accepted:
        request.refuse_unsupported()
        likeliest, constraint, count = request.likeliest, request.constraint(), self._choices(request)
        sampling = request.sampling(secrets.randbits(32), served.vocabulary.size)
        try:
            # Off the event loop: a long prompt takes a while, and the library lets other threads run.
            prompt = await asyncio.to_thread(make_prompt, self._most(served, wanted))
        except UsageError as error:
            raise invalid(error.message, "messages") from error
        except NotReadyError as error:
            raise unavailable(error.message, RETRY_SOON_SECONDS) from error
        room = self._require_fit(served, prompt.tokens)
        self._require_room(served, count)  # others may have come while this prompt was tokenised
        submit = Submit(
            request_id=uuid.uuid4().hex,
            prompt=tuple(prompt.tokens),
            max_tokens=room if wanted is None else min(wanted, room),
            stop=request.stops,
            sampling=sampling,
            ignore_end=bool(request.ignore_eos),
            constraint=constraint,
            logprobs=likeliest,
            reuses=request.cache_prompt is not False,
        )
        self._require_not_blamed(submit)
        return Accepted(fan_out(submit, count), prompt.left_out)

    def _require_not_blamed(self, submit: Submit) -> None:
        seconds = self._keeper.recovery.refused_for(submit)
        if seconds is not None:
            raise crashes_engine(seconds)

    def _choices(self, request: GenerationRequest) -> int:
        count = request.n or 1
        most = self._settings.max_sequences
        if count > most:
            raise invalid(f"n: this miner works on at most {most} sequences at once", "n")
        return count

    def _require_fit(self, served: ServedModel, prompt: list[int]) -> int:
        """Return the tokens that fit after the prompt."""
        if not prompt:
            raise invalid("the prompt is empty", "prompt")
        most = self._settings.max_prompt_tokens
        if most is not None and len(prompt) > most:
            raise invalid(
                f"the prompt has {len(prompt)} tokens, this miner takes at most {most}",
                code="context_length_exceeded",
            )
        room = served.sequence_tokens - len(prompt)
        if room < 1:
            raise invalid(
                f"this model's context holds {served.sequence_tokens} tokens, the prompt has {len(prompt)}"
                " and needs room for an answer",
                code="context_length_exceeded",
            )
        return room

    def _require_room(self, served: ServedModel, count: int) -> None:
        if self._keeper.readiness.phase is Phase.DRAINING:
            raise unavailable("the miner is stopping")
        if served.client.open_requests + count > self._settings.max_sequences + self._settings.max_queue:
            raise _full(served.client.open_requests)


def _unknown(name: str, why: str) -> ApiError:
    return ApiError(404, f"the model {name[:200]!r} is not served: {why}", param="model", code="model_not_found")


def _full(requests: int) -> ApiError:
    return ApiError(
        429,
        f"{requests} requests are running or waiting",
        kind="rate_limit_error",
        code="queue_full",
        retry_after=RETRY_SOON_SECONDS,
    )
