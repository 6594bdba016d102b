"""Distance to the other units of the layer (He et al., 2019, "Filter Pruning via Geometric Median", arXiv:1811.00250)."""

from __future__ import annotations

import numpy as np

from .criterion import Scores, Slices, criteria


class GeometricMedian:
    """g(u) = sum over v of ||w_u - w_v||_2: a unit near the geometric median can be made from the others."""

    needs = "weights"
    roles = ("out",)

    def __call__(self, slices: Slices) -> Scores:
        rows = slices.weight.astype(np.float64)
        square = (rows**2).sum(1)
        distance = np.sqrt(np.maximum(square[:, None] + square[None] - 2 * rows @ rows.T, 0))
        return np.asarray(distance.sum(1))


criteria.register("geometric-median")(GeometricMedian())  # type: ignore[arg-type]
