"""How fast steps are, as they go."""

from __future__ import annotations


class Timing:
    """Seconds of recent steps, so that a plan follows a machine that becomes slower or faster."""

    def __init__(self) -> None:
        self.recent: list[tuple[float, int]] = []
        self.validation = 0.0

    def step(self, seconds: float, images: int) -> None:
        self.recent = [*self.recent[-49:], (seconds, images)]

    @property
    def per_step(self) -> float:
        """The mean of the last 50 steps, the first ones left out while there are others (they warm up)."""
        kept = self.recent[2:] or self.recent
        return sum(s for s, _ in kept) / len(kept) if kept else 0.0

    @property
    def rate(self) -> float:
        """Images a second."""
        kept = self.recent[2:] or self.recent
        seconds = sum(s for s, _ in kept)
        return sum(n for _, n in kept) / seconds if seconds else 0.0
