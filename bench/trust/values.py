"""Tasks that score each sample with a number, higher better: PSNR, SSIM, IoU, a negative error."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .result import Values

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95, 1.0)


def values(before: NDArray[Any], after: NDArray[Any], metric: str, unit: str, *, seed: int = 0) -> Values:
    """``before`` and ``after`` (N,): the same samples. Losses are before - after; Wilcoxon's signed-rank p-value is two-sided.

    A sample whose figure is infinite in both (a perfect copy) lost nothing.
    """
    from scipy import stats as sps

    before, after = np.asarray(before, np.float64), np.asarray(after, np.float64)
    loss = losses(before, after)
    same = not np.any(loss)
    return Values(
        metric=metric,
        unit=unit,
        n=len(loss),
        before=float(before.mean()),
        after=float(after.mean()),
        loss=float(loss.mean()),
        ci95=mean_bca(loss, seed),
        p_wilcoxon=1.0 if same else float(sps.wilcoxon(loss).pvalue),
        quantiles={f"{q:g}": float(np.quantile(loss, q)) for q in QUANTILES},
    )


def losses(before: NDArray[Any], after: NDArray[Any]) -> NDArray[np.float64]:
    """before - after, 0 where both are the same infinity."""
    with np.errstate(invalid="ignore"):
        out = np.where(before == after, 0.0, before - after)
    return np.asarray(out, np.float64)


def mean_bca(x: NDArray[Any], seed: int = 0) -> tuple[float, float]:
    """The bias-corrected and accelerated bootstrap 95 % interval of a mean (Efron, 1987); the point where nothing varies."""
    from scipy import stats as sps

    if len(x) < 2 or np.ptp(x) == 0:
        return float(x.mean()), float(x.mean())
    found = sps.bootstrap(
        (x,), np.mean, n_resamples=2000, vectorized=True, method="BCa", batch=max(1, int(4e6 // len(x))), rng=np.random.default_rng(seed)
    ).confidence_interval
    return float(found.low), float(found.high)


def mean_loss_p(loss: NDArray[Any], margin: float) -> float:
    """One-sided p-value of "the mean loss is at most ``margin``": Student's t, paired."""
    from scipy import stats as sps

    n = len(loss)
    if n < 2 or np.ptp(loss) == 0:
        return 0.0 if n > 1 and loss.mean() > margin else 1.0
    return float(sps.t.sf((loss.mean() - margin) / (loss.std(ddof=1) / np.sqrt(n)), n - 1))
