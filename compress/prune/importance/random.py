"""Chance: what every criterion must beat."""

from __future__ import annotations

from .criterion import Needs, Scores, View, criteria


class Random:
    """Uniform in [0, 1), from the pass's seed."""

    needs: Needs = "weights"

    def __call__(self, view: View) -> Scores:
        return view.draw.random(view.size)


criteria.register("random")(Random())
