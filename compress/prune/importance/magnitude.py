"""Norm of a unit's weights (Li et al., 2017, "Pruning Filters for Efficient ConvNets", arXiv:1608.08710)."""

from __future__ import annotations

import numpy as np

from .criterion import Criterion, Scores, Slices, criteria


class Magnitude:
    """L1: sum |w|.   L2: sqrt(sum w^2)."""

    needs = "weights"
    roles = ("out", "in", "scale")

    def __init__(self, power: int) -> None:
        self.power = power

    def __call__(self, slices: Slices) -> Scores:
        return np.asarray((np.abs(slices.weight.astype(np.float64)) ** self.power).sum(1) ** (1 / self.power))


l1: Criterion = criteria.register("l1")(Magnitude(1))  # type: ignore[arg-type]
l2: Criterion = criteria.register("l2")(Magnitude(2))  # type: ignore[arg-type]
