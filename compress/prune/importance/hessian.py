"""The loss that is lost with a unit, to second order, with the Hessian's own diagonal.

    L(m_u = 0) - L  ~  -g_u + 1/2 H_uu,      g = dL/dm,  H = d2L/dm2,  all gates m at 1

(LeCun et al., 1989, "Optimal Brain Damage", on gates of whole units; "fisher" puts the squared slopes in the place of H.)
H_uu is estimated without bias by Hutchinson's probes (Bekas et al., 2007; for pruning Yu et al., 2022, "Hessian-aware pruning",
arXiv:2101.08940): the mean over v of v * Hv, v of +-1. The figure is its absolute value.
"""

from __future__ import annotations

import numpy as np

from .criterion import Needs, Scores, View, criteria


class Hessian:
    """|1/2 H_uu - g_u|."""

    needs: Needs = "curvature"

    def __call__(self, view: View) -> Scores | None:
        return None if view.curvature is None else np.abs(view.curvature[1] / 2 - view.curvature[0])


criteria.register("hessian")(Hessian())
