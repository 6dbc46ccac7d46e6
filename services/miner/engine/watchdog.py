"""When an engine that says nothing is stuck. Pure: the caller brings the time.

The bound is generous and follows the machine: at least a minute, at least what a very slow processor needs for a full
batch of this model, and twenty times the longest step that was seen. Time counts only while somebody waits, and only
as fast as the caller looks: a container that was paused did not leave its engine silent.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class WatchdogLimits:
    """`least_seconds` whatever the model; `slowest_flops` is a processor so slow that nobody serves with it."""

    least_seconds: float = 60.0
    slowest_flops: float = 10e9
    longest_steps: float = 20.0
    look_seconds: float = 1.0  # how often the caller looks


class Watchdog:
    """Order: `look` every `look_seconds`, `stepped` for each step of the engine."""

    def __init__(self, parameters: int, batch_tokens: int, limits: WatchdogLimits | None = None) -> None:
        self.limits = limits or WatchdogLimits()
        # Two operations a weight and token.
        self._floor = max(self.limits.least_seconds, 2.0 * parameters * batch_tokens / self.limits.slowest_flops)
        self._longest = 0.0
        self._silent = 0.0
        self._looked_at: float | None = None

    @property
    def bound(self) -> float:
        """Seconds of silence that are still a step."""
        return max(self._floor, self.limits.longest_steps * self._longest)

    def stepped(self) -> None:
        """Take note of a step; what was silence until now was its length."""
        self._longest = max(self._longest, self._silent)
        self._silent = 0.0

    def look(self, now: float, *, waited_for: bool) -> bool:
        """Return whether the engine is stuck; `waited_for` while requests are open."""
        passed = 0.0 if self._looked_at is None else min(now - self._looked_at, 2 * self.limits.look_seconds)
        self._looked_at = now
        self._silent = self._silent + passed if waited_for else 0.0
        return self._silent > self.bound
