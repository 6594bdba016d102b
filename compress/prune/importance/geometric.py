"""Distance to the other units of the layer (He et al., 2019, "Filter Pruning via Geometric Median", arXiv:1811.00250)."""

from __future__ import annotations

import numpy as np

from .criterion import Needs, Scores, View, criteria


class GeometricMedian:
    """g(u) = sum over v of ||w_u - w_v||_2: a unit near the geometric median can be made from the others."""

    needs: Needs = "weights"

    def __call__(self, view: View) -> Scores | None:
        return view.each(("out",), distances)


def distances(rows: Scores) -> Scores:
    """The sum of each row's Euclidean distances to all rows."""
    square = (rows**2).sum(1)
    return np.asarray(np.sqrt(np.maximum(square[:, None] + square[None] - 2 * rows @ rows.T, 0)).sum(1))


criteria.register("geometric-median")(GeometricMedian())
