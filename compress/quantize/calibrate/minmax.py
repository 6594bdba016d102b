"""Min-max: cover everything that was seen. Nothing is clipped; one outlier sets the step for all."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .calibrator import calibrators, extremes

if TYPE_CHECKING:
    from .statistics import Statistics


@calibrators.register("minmax")
def minmax(seen: Statistics, *, levels: int = 256, percentile: float = 99.99) -> tuple[float, float]:
    """[min x, max x]."""
    return extremes(seen)
