"""Learning rate over a run, and how many steps a run may have."""

from __future__ import annotations

import math
from typing import Literal

Shape = Literal["cosine", "step", "constant"]


def factor(progress: float, shape: Shape, warmup: float) -> float:
    """What the peak rate is multiplied with at ``progress`` in [0, 1] of the run.

    A linear rise over the first ``warmup`` share, then with t in [0, 1] over the rest: cosine (1 + cos(pi t)) / 2
    (Loshchilov and Hutter, 2016, arXiv:1608.03983), step 0.1 from t = 0.5 and 0.01 from 0.75, or constant 1.
    """
    if progress < warmup:
        return max(progress / warmup, 0.01)
    t = (progress - warmup) / (1 - warmup) if warmup < 1 else 1.0
    if shape == "cosine":
        return 0.5 * (1 + math.cos(math.pi * min(t, 1.0)))
    if shape == "step":
        return 1.0 if t < 0.5 else 0.1 if t < 0.75 else 0.01
    return 1.0


class Budget:
    """Steps of a run: ``planned``, or as many as fit into ``seconds``.

    ``total`` is the current plan. ``progress`` goes from 0 to 1 whatever happens to the plan: each step moves it by its
    share of the steps left. What the clock allows is measured, so a run that is cut by time is not repeatable step by
    step; ``cut`` says so.
    """

    def __init__(self, planned: int, seconds: float | None, *, done: int = 0, progress: float = 0.0, spent: float = 0.0) -> None:
        self.planned = self.total = planned
        self.seconds, self.done, self.progress, self.spent = seconds, done, progress, spent
        self.cut = False

    def step(self) -> None:
        """One step was made."""
        left = max(self.total - self.done, 1)
        self.progress = min(1.0, self.progress + (1 - self.progress) / left)
        self.done += 1

    def measure(self, spent: float, per_step: float, reserve: float) -> None:
        """Plans again: ``spent`` seconds are gone, a step takes ``per_step``, and ``reserve`` seconds are needed at the end."""
        self.spent = spent
        if self.seconds is None or per_step <= 0:
            return
        possible = int(max(self.seconds * 0.98 - spent - reserve, 0) / per_step)
        self.total = max(min(self.planned, self.done + possible), 1)
        self.cut = self.total < self.planned

    @property
    def over(self) -> bool:
        return self.done >= self.total
