"""Entropy: the range whose quantized distribution tells least apart from the real one (Migacz, GTC 2017, "8-bit inference with
TensorRT", pages 31 to 38).

For a range, P is the histogram with what lies outside added to its outer bins; R is the histogram without that. Q spreads R's
mass evenly over those bins of each of the quantizer's levels that hold anything. The range with the least divergence wins::

    KL(P || Q) = sum_i P_i log(P_i / Q_i)

Exact zeros are left out: they are representable in every range.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .calibrator import calibrators, extremes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .statistics import Statistics

GRID = np.linspace(1.0, 0.2, 81)


@calibrators.register("entropy")
def entropy(seen: Statistics, *, levels: int = 256, percentile: float = 99.99) -> tuple[float, float]:
    """The [f min, f max] with the least divergence, 0.2 <= f <= 1."""
    low, high = extremes(seen)
    histogram = seen.histogram
    if low == high or not histogram.counts.any():
        return low, high
    x, n = histogram.centres(), histogram.counts.astype(np.float64)
    best = min(GRID, key=lambda f: divergence(x, n, f * low, f * high, levels))
    return float(best * low), float(best * high)


def divergence(x: NDArray[Any], n: NDArray[Any], low: float, high: float, levels: int) -> float:
    """KL(P || Q) of the bins at ``x`` (ascending) with counts ``n`` for the range [low, high]; infinite where it holds nothing."""
    inside = (x >= low) & (x <= high)
    if not n[inside].any():
        return float("inf")
    first, last = int(np.argmax(inside)), x.size - 1 - int(np.argmax(inside[::-1]))
    r = n[first : last + 1]
    p = r.copy()
    p[0] += n[:first].sum()
    p[-1] += n[last + 1 :].sum()
    level = np.clip((x[first : last + 1] - low) / (high - low) * levels, 0, levels - 1).astype(np.int64)
    mass = np.bincount(level, weights=r, minlength=levels)
    held = np.bincount(level, weights=p > 0, minlength=levels)
    q = np.where(p > 0, (mass / np.maximum(held, 1))[level], 0.0)
    p, q = p / p.sum(), q / q.sum()
    full = p > 0
    # A clipped outer bin that held nothing of its own has Q = 0: a tiny mass keeps the divergence finite and large.
    return float(np.sum(p[full] * np.log(p[full] / np.maximum(q[full], 1e-12))))
