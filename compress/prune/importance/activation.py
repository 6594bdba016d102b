"""How much a unit adds to what reads it, from images without labels.

E(u) = sum over readers of (sum of w_u^2) mean(a_u^2): the energy that is lost from the readers' sums when the unit goes, were units
uncorrelated (per weight this is the score of Sun et al., 2023, "Wanda", arXiv:2306.11695).
"""

from __future__ import annotations

from .criterion import Needs, Scores, View, criteria


class Activation:
    """The energy of a unit's contributions."""

    needs: Needs = "images"

    def __call__(self, view: View) -> Scores | None:
        return view.energy


criteria.register("activation")(Activation())
