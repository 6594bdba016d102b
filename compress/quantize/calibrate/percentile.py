"""Percentile: clip the rarest values on each side (McKinstry et al., 2018, arXiv:1809.04191)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .calibrator import calibrators, extremes

if TYPE_CHECKING:
    from .statistics import Statistics


@calibrators.register("percentile")
def percentile(seen: Statistics, *, levels: int = 256, percentile: float = 99.99) -> tuple[float, float]:
    """[quantile(1 - p), quantile(p)], p = ``percentile`` / 100."""
    if not seen.histogram.total:
        return extremes(seen)
    share = percentile / 100.0
    return min(seen.histogram.quantile(1.0 - share), 0.0), max(seen.histogram.quantile(share), 0.0)
