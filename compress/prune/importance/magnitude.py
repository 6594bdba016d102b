"""Norm of a unit's weights (Li et al., 2017, "Pruning Filters for Efficient ConvNets", arXiv:1608.08710)."""

from __future__ import annotations

import numpy as np

from .criterion import Needs, Scores, View, criteria

ROLES = ("out", "in", "scale")


class Magnitude:
    """L1: sum |w|.   L2: sqrt(sum w^2)."""

    needs: Needs = "weights"

    def __init__(self, power: int) -> None:
        self.power = power

    def __call__(self, view: View) -> Scores | None:
        return view.each(ROLES, lambda w: np.asarray((np.abs(w) ** self.power).sum(1) ** (1 / self.power)))


criteria.register("l1")(Magnitude(1))
criteria.register("l2")(Magnitude(2))
