"""Moving average: the extremes of a batch, averaged over the batches (Jacob et al., 2017, arXiv:1712.05877, section 3.1).

The average is cumulative, ``m_n = m_(n-1) + (x_n - m_(n-1)) / n``, so it doesn't forget and doesn't depend on the order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .calibrator import calibrators, extremes

if TYPE_CHECKING:
    from .statistics import Statistics


@calibrators.register("moving-average")
def moving_average(seen: Statistics, *, levels: int = 256, percentile: float = 99.99) -> tuple[float, float]:
    """[mean of batch minima, mean of batch maxima]."""
    if not seen.batches:
        return extremes(seen)
    return min(seen.mean_low, 0.0), max(seen.mean_high, 0.0)
