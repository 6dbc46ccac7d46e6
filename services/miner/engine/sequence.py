"""What one request is to the scheduler: its tokens so far, and how many of them the cache holds."""

from __future__ import annotations

from dataclasses import dataclass, field

from services.miner.engine.prefix_tree import Node


@dataclass(slots=True, eq=False)
class Sequence:
    """A prompt and what was generated after it.

    `tokens` is the prompt followed by the generated tokens; the first `computed` of them are in the cache under `slot`.
    The last token of a running sequence is always still to be computed: its logits give the next one. `leaf` is where
    its path through the prefix tree ends. A preempted sequence goes back to `computed` 0 without a slot, and loses
    nothing else. One that `embeds` ends with its prompt, of which every token is computed for it, as the last layer's
    numbers of all are wanted. `reused` counts prompt tokens that others had computed; from position `in_rows` on its
    cells may lie mixed with those of others.
    """

    request_id: str
    tokens: list[int]
    limit: int
    embeds: bool = False
    reuses: bool = True  # what others have computed
    prompt_length: int = field(init=False)
    slot: int | None = None
    leaf: Node | None = None
    computed: int = 0
    reused: int = 0
    in_rows: int = 0
    bypassed: int = 0
    order: int = 0

    def __post_init__(self) -> None:
        self.prompt_length = len(self.tokens)

    @property
    def pending(self) -> int:
        """Tokens that its slot does not hold yet: 1 while decoding, more during prefill, 0 once all is embedded."""
        return len(self.tokens) - self.computed

    @property
    def generated(self) -> int:
        """Tokens sampled so far."""
        return len(self.tokens) - self.prompt_length

    @property
    def exhausted(self) -> bool:
        """No further token may be sampled."""
        return len(self.tokens) >= self.limit
