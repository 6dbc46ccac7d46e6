"""Log probabilities as OpenAI writes them: one way for chats, an older one for bare completions. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from services.miner.engine.messages import Likelihood, Output, TokenLogprobs

Json = dict[str, object]


def of_chat(outputs: Iterable[Output]) -> Json:
    """Return `logprobs` of a chat's choice. A token that is half a character has its bytes, and U+FFFD as text."""
    return {"content": [_entry(found) for output in outputs for found in output.logprobs], "refusal": None}


def of_completion(outputs: Iterable[Output], *, likeliest: int) -> Json:
    """Return `logprobs` of a completion's choice. A token that is half a character is written as `_name` says."""
    found = [token for output in outputs for token in output.logprobs]
    return {
        "tokens": [_name(token.chosen) for token in found],
        "token_logprobs": [token.chosen.logprob for token in found],
        # The chosen one is always among them, as OpenAI has it.
        "top_logprobs": [{_name(one): one.logprob for one in (*token.likeliest, token.chosen)} for token in found]
        if likeliest
        else None,
        "text_offset": [token.offset for token in found],
    }


def _entry(found: TokenLogprobs) -> Json:
    return {**_described(found.chosen), "top_logprobs": [_described(one) for one in found.likeliest]}


def _described(one: Likelihood) -> Json:
    text = bytes(one.piece).decode(errors="replace")
    return {"token": text, "logprob": one.logprob, "bytes": list(one.piece)}


def _name(one: Likelihood) -> str:
    r"""Return the text, or `bytes:\xe2\x82` for what is none: as a key of an object it must not be anything else's."""
    raw = bytes(one.piece)
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw)
