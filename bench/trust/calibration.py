"""Whether a confidence still means what it says, and whether it moved."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .result import Calibration, Confidence

BINS = 15
DRAWS = 1000


def probabilities(scores: NDArray[Any]) -> NDArray[np.float64]:
    """Scores (N, classes) as probabilities: as they are where every row is one already, else their softmax.

    The softmax of log-probabilities gives the probabilities back.
    """
    x = np.asarray(scores, np.float64)
    if x.min() >= 0 and np.allclose(x.sum(1), 1.0, atol=1e-3):
        return x
    raised = np.exp(x - x.max(1, keepdims=True))
    return np.asarray(raised / raised.sum(1, keepdims=True), np.float64)


def ece(confidence: NDArray[Any], right: NDArray[Any], bins: int = BINS) -> float:
    """Expected calibration error (Guo et al., 2017, arXiv:1706.04599, eq. 3) with ``bins`` equal bins (low, high]:

    ECE = sum over bins of |B| / n * |accuracy(B) - confidence(B)| = sum |sum over B of (right - confidence)| / n
    """
    return float(np.abs(np.bincount(_bins(confidence, bins), right - confidence, bins)).sum() / len(right))


def calibration(
    before: NDArray[Any], after: NDArray[Any], target: NDArray[Any], *, bins: int = BINS, draws: int = DRAWS, seed: int = 0
) -> Calibration:
    """ECE of probabilities (N, classes) before and after; the same samples are drawn for both, so that the rise is paired."""
    parts = []
    for p in (before, after):
        confidence = p.max(1)
        parts.append((_bins(confidence, bins), (p.argmax(1) == target) - confidence))
    n = len(target)
    rng = np.random.default_rng(seed)
    drawn = np.empty((draws, 2))
    for i in range(draws):
        pick = rng.integers(0, n, n)
        for side, (place, gap) in enumerate(parts):
            drawn[i, side] = np.abs(np.bincount(place[pick], gap[pick], bins)).sum() / n
    seen = [float(np.abs(np.bincount(place, gap, bins)).sum() / n) for place, gap in parts]
    rises = drawn[:, 1] - drawn[:, 0]
    return Calibration(
        before=seen[0],
        before_ci95=_interval(drawn[:, 0]),
        after=seen[1],
        after_ci95=_interval(drawn[:, 1]),
        rise=seen[1] - seen[0],
        rise_ci95=_interval(rises),
        rise_se=float(rises.std(ddof=1)),
        bins=bins,
    )


def confidence(before: NDArray[Any], after: NDArray[Any], target: NDArray[Any], names: Sequence[str]) -> Confidence:
    """How probabilities (N, classes) of the answers and of the truth moved; the interval is the paired t interval."""
    rows = np.arange(len(target))
    was, now = before[rows, target], after[rows, target]
    change = now - was
    by_class = {int(k): float(change[target == k].mean()) for k in np.unique(target)}
    worst = min(by_class, key=lambda k: by_class[k])
    return Confidence(
        answer_before=float(before.max(1).mean()),
        answer_after=float(after.max(1).mean()),
        truth_before=float(was.mean()),
        truth_after=float(now.mean()),
        truth_change=float(change.mean()),
        truth_change_ci95=mean_interval(change),
        collapsed=float((change < -0.5).mean()),
        worst_class=names[worst] if worst < len(names) else str(worst),
        worst_class_change=by_class[worst],
    )


def mean_interval(x: NDArray[Any], confidence: float = 0.95) -> tuple[float, float]:
    """Student's interval of a mean; the point itself where nothing varies or there is one value."""
    from scipy import stats as sps

    mean, n = float(x.mean()), len(x)
    half = float(sps.t.isf((1 - confidence) / 2, n - 1) * x.std(ddof=1) / np.sqrt(n)) if n > 1 else 0.0
    return mean - half, mean + half


def _bins(confidence: NDArray[Any], bins: int) -> NDArray[np.intp]:
    return np.asarray(np.clip(np.ceil(confidence * bins) - 1, 0, bins - 1), np.intp)


def _interval(x: NDArray[Any]) -> tuple[float, float]:
    low, high = np.quantile(x, [0.025, 0.975])
    return float(low), float(high)
