"""Layer-adaptive magnitude (Lee et al., 2021, "Layer-adaptive sparsity for the magnitude-based pruning", arXiv:2010.07611), on units."""

from __future__ import annotations

import numpy as np

from .criterion import Needs, Scores, View, criteria


class Lamp:
    """s(u) = ||w_u||^2 / sum of ||w_v||^2 over the units v that are not smaller: what is lost relative to what would be left."""

    needs: Needs = "weights"

    def __call__(self, view: View) -> Scores | None:
        return view.each(("out", "in", "scale"), lambda w: relative((w**2).sum(1)))


def relative(energy: Scores) -> Scores:
    """Each over the sum of those that are not smaller."""
    order = np.argsort(energy, kind="stable")
    left = np.cumsum(energy[order][::-1])[::-1]
    scores = np.empty_like(energy)
    scores[order] = energy[order] / np.maximum(left, np.finfo(np.float64).tiny)
    return scores


criteria.register("lamp")(Lamp())
