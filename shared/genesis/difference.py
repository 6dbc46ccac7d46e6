"""What changed between two geneses, for a person who is about to accept one. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from shared.genesis.types import Genesis, ModelPin

Value = str | int | float | None


@dataclass(frozen=True, slots=True)
class ModelChange:
    """One model that was added (`before` is None), removed (`after` is None) or changed."""

    before: ModelPin | None
    after: ModelPin | None

    @property
    def model_name(self) -> str:
        """The name under which the model is shown."""
        pin = self.before or self.after
        return pin.model_name if pin else ""

    @property
    def fields(self) -> tuple[tuple[str, Value, Value], ...]:
        """Each field that differs, by its wire name: (name, before, after); None stands for absent."""
        before = self.before.to_json() if self.before else {}
        after = self.after.to_json() if self.after else {}
        names = dict.fromkeys((*before, *after))
        return tuple((name, before.get(name), after.get(name)) for name in names if before.get(name) != after.get(name))


def difference(old: Genesis | None, new: Genesis) -> tuple[ModelChange, ...]:
    """Return the changes from `old` (None: nothing was accepted yet) to `new`: changed, added, removed.

    A model is the same one if its name is, or else its digest. Empty if only order or formatting differ.
    """
    before = {pin.model_name: pin for pin in (old.models if old else ())}
    changed: list[ModelChange] = []
    unmatched: list[ModelPin] = []
    for pin in new.models:
        earlier = before.pop(pin.model_name, None)
        if earlier is None:
            unmatched.append(pin)
        elif earlier != pin:
            changed.append(ModelChange(earlier, pin))
    by_digest = {pin.sha256: pin for pin in before.values()}
    for pin in unmatched:
        renamed = by_digest.pop(pin.sha256, None)
        if renamed is not None:
            before.pop(renamed.model_name)
        changed.append(ModelChange(renamed, pin))
    changed.extend(ModelChange(pin, None) for pin in before.values())
    return tuple(changed)


def describe(changes: tuple[ModelChange, ...]) -> str:
    """Return the changes as indented lines of plain text."""
    if not changes:
        return "  the models are the same; only their order or the file's formatting differ"
    lines: list[str] = []
    for change in changes:
        verb = "added" if change.before is None else "removed" if change.after is None else "changed"
        lines.append(f"  {verb} {change.model_name}")
        if change.before is not None and change.after is not None:
            lines.extend(f"    {name}: {_show(old)} -> {_show(new)}" for name, old, new in change.fields)
        elif change.after is not None:
            lines.extend(f"    {name}: {_show(new)}" for name, _, new in change.fields)
    return "\n".join(lines)


def _show(value: Value) -> str:
    return "(none)" if value is None or value == "" else str(value)
