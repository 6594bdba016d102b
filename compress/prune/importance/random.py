"""Chance: what every criterion must beat."""

from __future__ import annotations

from .criterion import Scores, Slices, criteria


class Random:
    """Uniform in [0, 1), from the pass's seed."""

    needs = "weights"
    roles = ("out",)

    def __call__(self, slices: Slices) -> Scores:
        return slices.draw.random(len(slices.weight))


criteria.register("random")(Random())  # type: ignore[arg-type]
