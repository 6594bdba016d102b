"""Layer-adaptive magnitude (Lee et al., 2021, "Layer-adaptive sparsity for the magnitude-based pruning", arXiv:2010.07611), on units."""

from __future__ import annotations

import numpy as np

from .criterion import Scores, Slices, criteria


class Lamp:
    """s(u) = ||w_u||^2 / sum of ||w_v||^2 over the units v that are not smaller: what is lost relative to what would be left."""

    needs = "weights"
    roles = ("out", "in", "scale")

    def __call__(self, slices: Slices) -> Scores:
        energy = (slices.weight.astype(np.float64) ** 2).sum(1)
        order = np.argsort(energy, kind="stable")
        left = np.cumsum(energy[order][::-1])[::-1]
        scores = np.empty_like(energy)
        scores[order] = energy[order] / np.maximum(left, np.finfo(np.float64).tiny)
        return np.asarray(scores)


criteria.register("lamp")(Lamp())  # type: ignore[arg-type]
