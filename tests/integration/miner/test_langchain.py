"""LangChain's models for OpenAI, pointed at the miner: what its users call first."""

from __future__ import annotations

import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel, SecretStr

from tests.integration.miner.stand import MODEL_NAME, SYSTEM, Miner

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

QUESTION = [SystemMessage(SYSTEM), HumanMessage("What is the capital of France?")]


class City(BaseModel):
    """A city."""

    name: str


def model(miner: Miner, **how: object) -> ChatOpenAI:
    wanted = {"temperature": 0, "max_completion_tokens": 24, "max_retries": 0, **how}
    return ChatOpenAI(base_url=f"{miner.url}/v1", api_key=SecretStr("none"), model=MODEL_NAME, **wanted)  # type: ignore[arg-type]


def test_a_chat_model_answers_and_tells_its_usage(miner: Miner) -> None:
    answer = model(miner).invoke(QUESTION)
    assert "Paris" in str(answer.content)
    assert answer.usage_metadata is not None
    assert answer.usage_metadata["output_tokens"] > 0


def test_it_streams_in_pieces(miner: Miner) -> None:
    pieces = [str(piece.content) for piece in model(miner).stream(QUESTION)]
    assert len([piece for piece in pieces if piece]) > 3
    assert "Paris" in "".join(pieces)


def test_a_conversation_goes_on(miner: Miner) -> None:
    answer = model(miner).invoke([*QUESTION, AIMessage("Paris."), HumanMessage("And of Italy?")])
    assert answer.content


def test_an_answer_fills_a_model(miner: Miner) -> None:
    asked = model(miner, max_completion_tokens=60).with_structured_output(City, method="json_schema")
    assert isinstance(asked.invoke(QUESTION), City)


def test_texts_become_vectors(miner: Miner) -> None:
    embeddings = OpenAIEmbeddings(
        base_url=f"{miner.url}/v1", api_key=SecretStr("none"), model=MODEL_NAME, check_embedding_ctx_length=False
    )
    vectors = embeddings.embed_documents(["one", "two"])
    assert [len(vector) for vector in vectors] == [576, 576]
    assert embeddings.embed_query("one") == pytest.approx(vectors[0], abs=1e-3)
