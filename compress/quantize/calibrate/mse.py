"""MSE: the range whose rounding and clipping errors are least in the mean square.

For a range [a, b] and its affine quantizer Q, over the histogram's values x_i with counts n_i::

    E(a, b) = sum_i n_i (x_i - Q(x_i))^2 / sum_i n_i

Both ends shrink together over a grid first, then each alone, until neither helps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..affine import affine, round_trip
from .calibrator import calibrators, extremes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .statistics import Statistics

GRID = np.linspace(1.0, 0.2, 81)
_ROUNDS = 4


@calibrators.register("mse")
def mse(seen: Statistics, *, levels: int = 256, percentile: float = 99.99) -> tuple[float, float]:
    """The [a, b] with the least E(a, b) that the search finds; never worse than the extremes."""
    low, high = extremes(seen)
    x, n = seen.histogram.points()
    if not x.size or low == high:
        return low, high
    best = min(((f * low, f * high) for f in GRID), key=lambda r: error(x, n, r[0], r[1], levels=levels))
    if low == 0 or high == 0:
        return best
    for _ in range(_ROUNDS):
        a, b = best
        a = min((f * low for f in GRID), key=lambda v: error(x, n, v, b, levels=levels))
        b = min((f * high for f in GRID), key=lambda v: error(x, n, a, v, levels=levels))
        if error(x, n, a, b, levels=levels) >= error(x, n, best[0], best[1], levels=levels):
            break
        best = (a, b)
    return best


def error(x: NDArray[Any], n: NDArray[Any], low: float, high: float, levels: int = 256) -> float:
    """E(low, high) of the values ``x`` with counts ``n``."""
    kept = round_trip(x, affine(low, high, (-(levels // 2), levels - levels // 2 - 1)))
    return float(n @ (x - kept) ** 2 / n.sum())
