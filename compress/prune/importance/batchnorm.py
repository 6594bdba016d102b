"""|gamma| of the normalisation behind a unit (Liu et al., 2017, "Network Slimming", arXiv:1708.06519)."""

from __future__ import annotations

import numpy as np

from .criterion import Scores, Slices, criteria


class BatchNormScale:
    """Sum of |gamma| over a unit's channels. Units without a normalisation have no figure."""

    needs = "weights"
    roles = ("scale",)

    def __call__(self, slices: Slices) -> Scores:
        return np.asarray(np.abs(slices.weight.astype(np.float64)).sum(1))


criteria.register("batchnorm")(BatchNormScale())  # type: ignore[arg-type]
