"""|gamma| of the normalisation behind a unit (Liu et al., 2017, "Network Slimming", arXiv:1708.06519)."""

from __future__ import annotations

import numpy as np

from .criterion import Needs, Scores, View, criteria


class BatchNormScale:
    """Sum of |gamma| over a unit's channels. Units without a normalisation have no figure."""

    needs: Needs = "weights"

    def __call__(self, view: View) -> Scores | None:
        return view.each(("scale",), lambda w: np.asarray(np.abs(w).sum(1)))


criteria.register("batchnorm")(BatchNormScale())
