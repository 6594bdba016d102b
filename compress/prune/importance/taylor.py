"""First- and second-order Taylor terms of the loss, from labelled images.

A gate m_u = 1 multiplies unit u wherever it is read. For one sample, dL/dm_u = sum over readers and places of a_u dL/da_u.

Taylor (Molchanov et al., 2017, arXiv:1611.06440): |L(m_u = 0) - L| ~ |dL/dm_u|, averaged over samples.
Fisher (Liu et al., 2021, "Group Fisher Pruning", arXiv:2108.00708): L(m_u = 0) - L ~ 1/2 d2L/dm_u^2 ~ 1/2 mean of (dL/dm_u)^2.
"""

from __future__ import annotations

import numpy as np

from .criterion import Needs, Scores, View, criteria


class Taylor:
    """mean over samples of |dL/dm|."""

    needs: Needs = "labels"

    def __call__(self, view: View) -> Scores | None:
        return None if view.gates is None else np.abs(view.gates).mean(0).astype(np.float64)


class Fisher:
    """1/2 mean over samples of (dL/dm)^2."""

    needs: Needs = "labels"

    def __call__(self, view: View) -> Scores | None:
        return None if view.gates is None else (view.gates.astype(np.float64) ** 2).mean(0) / 2


criteria.register("taylor")(Taylor())
criteria.register("fisher")(Fisher())
