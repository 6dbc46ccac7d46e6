"""What was said so far, as the next question carries it. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from launcher.answer import Message, Question


@dataclass(slots=True)
class Conversation:
    """`limits` is the question without its text: model, tokens, temperature, system message."""

    limits: Question
    messages: list[Message] = field(default_factory=list)

    @property
    def system(self) -> str:
        """The system message, which holds for every question from now on."""
        return self.limits.system

    @system.setter
    def system(self, text: str) -> None:
        self.limits = replace(self.limits, system=text)

    def question(self, text: str) -> Question:
        """Return the next question, with all that was said before it."""
        return replace(self.limits, text=text, history=tuple(self.messages))

    def add(self, question: str, answer: str) -> None:
        """Remember a question and what was answered."""
        self.messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]

    def reset(self) -> None:
        """Forget what was said; the system message stays."""
        self.messages.clear()

    def to_json(self) -> dict[str, object]:
        """Return it in the form in which OpenAI's endpoints take it."""
        system = [{"role": "system", "content": self.system}] if self.system else []
        return {"messages": [*system, *self.messages]}
