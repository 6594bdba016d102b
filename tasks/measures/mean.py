"""The mean of one figure a sample, with its interval."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray


def mean_interval(values: NDArray[Any]) -> tuple[float, float] | None:
    """Student's 95 % interval of the mean; None for fewer than two values or where one is not finite."""
    import numpy as np
    from scipy import stats as sps

    if len(values) < 2 or not np.isfinite(values).all():
        return None
    mean = float(np.mean(values))
    half = float(sps.t.isf(0.025, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values)))
    return mean - half, mean + half
