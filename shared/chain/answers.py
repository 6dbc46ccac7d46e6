"""The shapes in which CometBFT's RPC answers `/genesis` and `/genesis_chunked`. Pure.

A genesis of more than 16 MiB is not given by `/genesis`: the answer is an error that names `/genesis_chunked`, whose
chunks are base64 and whose numbers are strings. The envelope of `/genesis` is matched, not parsed: what stands between
has to be one JSON object, and its reader judges that.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass

from shared.errors import SourceUnavailableError
from shared.genesis.quote import quote
from shared.genesis.strict_json import JsonRefusedError, JsonValue, load

# CometBFT's chunks have 16 MiB before base64; the rest is the envelope.
MAX_CHUNK_ANSWER_BYTES = 32 * 1024 * 1024
# The plain answer carries at most 16 MiB of compact JSON, which the server may have indented.
MAX_PLAIN_ANSWER_BYTES = 64 * 1024 * 1024
MAX_CHUNKS = 4096

_ID = rb'(?:-?[0-9]{1,19}|"[\x20-\x21\x23-\x5b\x5d-\x7e]{0,64}"|null)'
_HEAD = re.compile(
    rb'\s*\{(?:\s*(?:"jsonrpc"\s*:\s*"2\.0"|"id"\s*:\s*' + _ID + rb')\s*,){0,2}\s*"result"\s*:\s*\{\s*"genesis"\s*:\s*'
)
_TAIL = re.compile(rb"\}\s*\}\s*\Z")
_LONGEST_TAIL = 256
_NUMBER = re.compile(r"(?:0|[1-9][0-9]{0,8})")


class NoAnswerError(SourceUnavailableError):
    """An endpoint gave nothing that could be used; says why."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """One part of a genesis: its bytes, and how many parts there are."""

    total: int
    data: bytes


def plain_genesis(raw: bytes) -> bytes | None:
    """Return the genesis in an answer to `/genesis`, None when the answer asks for chunks.

    Raises NoAnswerError.
    """
    head = _HEAD.match(raw)
    tail = _TAIL.search(raw, max(0, len(raw) - _LONGEST_TAIL))
    if head is not None and tail is not None and head.end() < tail.start():
        return raw[head.end() : tail.start()]
    answer = _envelope(raw)
    error = answer.get("error")
    if isinstance(error, dict) and any("genesis_chunked" in str(error.get(key)) for key in ("data", "message")):
        return None
    if error is not None:
        raise NoAnswerError(f"it answers with the error {quote(_error_text(error))}")
    raise NoAnswerError("it does not answer as CometBFT's /genesis does")


def is_error(raw: bytes) -> bool:
    """Tell whether an answer is JSON-RPC's own way to say no, which comes with an error's status."""
    try:
        return _envelope(raw).get("error") is not None
    except NoAnswerError:
        return False


def chunk(raw: bytes, number: int) -> Chunk:
    """Return part `number` of an answer to `/genesis_chunked`; raises NoAnswerError."""
    answer = _envelope(raw)
    if answer.get("error") is not None:
        raise NoAnswerError(f"it answers with the error {quote(_error_text(answer['error']))}")
    match answer.get("result"):
        case {"chunk": str(found), "total": str(total), "data": str(data)} if found == str(number):
            if not _NUMBER.fullmatch(total) or not number < int(total) <= MAX_CHUNKS:
                raise NoAnswerError(f"it announces {quote(total)} chunks")
        case _:
            raise NoAnswerError("it does not answer as CometBFT's /genesis_chunked does")
    try:
        return Chunk(int(total), base64.b64decode(data.encode("ascii"), validate=True))
    except (UnicodeEncodeError, binascii.Error) as error:
        raise NoAnswerError(f"its chunk {number} is not base64") from error


def _envelope(raw: bytes) -> dict[str, JsonValue]:
    try:
        answer = load(raw, limit=MAX_CHUNK_ANSWER_BYTES)
    except JsonRefusedError as error:
        raise NoAnswerError(f"its answer is not JSON: {error.found}") from error
    if not isinstance(answer, dict):
        raise NoAnswerError("its answer is no JSON object")
    return answer


def _error_text(error: JsonValue) -> JsonValue:
    return (error.get("data") or error.get("message")) if isinstance(error, dict) else error
