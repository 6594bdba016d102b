"""What raw seconds allow one to say. Arrays in, figures out; no files, no clocks, no devices.

Latencies are neither normal nor free of outliers, so everything here rests on order statistics and medians; no value is
ever deleted. The intervals of one file assume independent runs; a speed-up does not: what it counts are whole launches, or
whole blocks, which keeps what runs of one process or one moment have in common.

Not for means: a mean of latencies says nothing about what a user waits for.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats as sps

Steady = Literal["stable", "unstable", "inconclusive"]


class Bound(msgspec.Struct, frozen=True):
    """An order statistic that bounds a percentile from above with ``confidence``."""

    value: float
    confidence: float
    rank: int


class Ratio(msgspec.Struct, frozen=True):
    """A ratio of medians with its interval."""

    value: float
    low: float
    high: float


class Judgement(msgspec.Struct, frozen=True):
    """Whether the values can be trusted, why not, and what to do about it ("" where there is nothing to say)."""

    verdict: Steady
    why: str = ""


def median(values: ArrayLike) -> float:
    return float(np.median(np.asarray(values, dtype=np.float64)))


def runs_needed(p: float, confidence: float) -> int:
    """The least n whose maximum bounds the ``p``-quantile from above: 1 - p^n >= c, so n >= ln(1 - c) / ln(p).

    44 for p90 at 99 %, 459 for p99, 4,603 for p99.9.
    """
    _fraction("percentile", p)
    _fraction("confidence", confidence)
    return math.ceil(math.log1p(-confidence) / math.log(p) - 1e-12)


def percentile(values: ArrayLike, p: float = 0.9, confidence: float = 0.99) -> Bound:
    """The smallest order statistic X(k) that is at least the ``p``-quantile with ``confidence``.

    P(X(k) >= q_p) >= P(Bin(n, p) <= k - 1). Where even the maximum can't reach the confidence, the maximum is given with the
    confidence it has, 1 - p^n.
    """
    x = _sorted(values)
    n = len(x)
    _fraction("percentile", p)
    cover = sps.binom.cdf(np.arange(n), n, p)  # cover[k - 1] belongs to X(k)
    enough = np.flatnonzero(cover >= confidence)
    k = int(enough[0]) + 1 if len(enough) else n
    return Bound(float(x[k - 1]), float(cover[k - 1]), k)


def median_interval(values: ArrayLike, confidence: float = 0.95) -> tuple[float, float] | None:
    """The narrowest symmetric pair of order statistics that holds the median with ``confidence``; None below six values.

    P(X(l) <= m <= X(n+1-l)) >= 1 - 2 P(Bin(n, 1/2) <= l - 1), for any distribution.
    """
    x = _sorted(values)
    n = len(x)
    rank = int(sps.binom.ppf((1 - confidence) / 2, n, 0.5))
    while rank > 0 and 2 * sps.binom.cdf(rank - 1, n, 0.5) > 1 - confidence:
        rank -= 1
    while 2 * sps.binom.cdf(rank, n, 0.5) <= 1 - confidence:
        rank += 1
    if rank < 1:
        return None
    return float(x[rank - 1]), float(x[n - rank])


def launch_medians(values: ArrayLike, launches: int) -> NDArray[np.float64]:
    """The median of each launch: ``values`` in the order they ran, equally many of each."""
    x = np.asarray(values, dtype=np.float64)
    if launches < 1 or len(x) < launches or len(x) % launches:
        raise ValueError(f"{len(x)} values can't be {launches} launches of equally many runs")
    return np.asarray(np.median(x.reshape(launches, -1), axis=1), dtype=np.float64)


def center_interval(values: ArrayLike, launches: int = 1, confidence: float = 0.95) -> tuple[float, float] | None:
    """The interval of a file's median, distribution-free: over the medians of the launches where there are six or more, which is
    what another process would vary by, else over the runs."""
    if launches >= 6:
        return median_interval(launch_medians(values, launches), confidence)
    return median_interval(values, confidence)


def apart(before: ArrayLike, after: ArrayLike, launches: tuple[int, int], *, confidence: float = 0.95) -> Ratio:
    """Median of ``after`` over median of ``before``, measured at two times: Welch's interval of the log medians of the launches.

    Both need two or more launches.
    """
    a, b = (np.log(launch_medians(x, n)) for x, n in zip((before, after), launches, strict=True))
    va, vb = a.var(ddof=1) / len(a), b.var(ddof=1) / len(b)
    middle = float(b.mean() - a.mean())
    if va + vb == 0:
        return Ratio(math.exp(middle), math.exp(middle), math.exp(middle))
    freedom = (va + vb) ** 2 / (va**2 / (len(a) - 1) + vb**2 / (len(b) - 1))
    half = float(sps.t.ppf(1 - (1 - confidence) / 2, freedom) * math.sqrt(va + vb))
    return Ratio(math.exp(middle), math.exp(middle - half), math.exp(middle + half))


def speedup(
    baseline: Sequence[Sequence[ArrayLike]],
    subject: Sequence[Sequence[ArrayLike]],
    *,
    confidence: float = 0.95,
    draws: int = 4000,
    seed: int = 0,
) -> Ratio:
    """Median seconds of ``baseline`` over median seconds of ``subject``; above one is faster. Both are launches of blocks of runs.

    Launch i of both were two processes next to each other, and block j of both ran within the same moments, so both saw the same
    machine. Two processes of the very same file differ by up to a percent, whatever the number of runs, so the launch is
    what is independent: with two or more launches this is Student's interval of the mean of the log ratios of their medians.

    With a single launch, pairs of blocks are resampled instead, and what processes differ by is not in the interval: the
    percentile interval of the ratio of medians, widened for few blocks as Hesterberg does (2015, "What Teachers Should Know About
    the Bootstrap", 3.2): the tail a becomes Phi(-sqrt(n / (n - 1)) t(n - 1, a)).
    """
    n = len(baseline)
    if n != len(subject) or n < 1 or any(len(a) != len(b) for a, b in zip(baseline, subject, strict=True)):
        raise ValueError(f"speed-up needs pairs of blocks, launch by launch; got {n} and {len(subject)} launches")
    if n == 1:
        return _resampled(baseline[0], subject[0], confidence, draws, seed)
    logs = np.array([math.log(median(_flat(a)) / median(_flat(b))) for a, b in zip(baseline, subject, strict=True)])
    half = float(sps.t.ppf(1 - (1 - confidence) / 2, n - 1) * logs.std(ddof=1) / math.sqrt(n))
    middle = float(logs.mean())
    return Ratio(math.exp(middle), math.exp(middle - half), math.exp(middle + half))


def _flat(blocks: Sequence[ArrayLike]) -> NDArray[np.float64]:
    rows = [np.asarray(b, dtype=np.float64) for b in blocks]
    if not rows or any(not len(r) for r in rows):
        raise ValueError("a block is empty")
    return np.concatenate(rows)


def _resampled(baseline: Sequence[ArrayLike], subject: Sequence[ArrayLike], confidence: float, draws: int, seed: int) -> Ratio:
    n = len(baseline)
    if n < 2:
        raise ValueError("speed-up needs two launches, or two blocks of one")
    value = median(_flat(baseline)) / median(_flat(subject))
    a, b = _matrix(baseline), _matrix(subject)
    rng = np.random.default_rng(seed)
    ratios = np.empty(draws)
    step = max(1, int(2e6 // max(1, n * (a.shape[1] + b.shape[1]))))
    for start in range(0, draws, step):
        pick = rng.integers(0, n, (min(step, draws - start), n))
        top = _row_medians(a[pick].reshape(len(pick), -1))
        ratios[start : start + len(pick)] = top / _row_medians(b[pick].reshape(len(pick), -1))
    tail = float(sps.norm.cdf(-math.sqrt(n / (n - 1)) * sps.t.ppf(1 - (1 - confidence) / 2, n - 1)))
    low, high = np.quantile(ratios, [tail, 1 - tail])
    return Ratio(value, min(float(low), value), max(float(high), value))


def drift(values: ArrayLike) -> tuple[float, float]:
    """How far the median moved from the first to the second half (relative), and the p-value of a trend (Kendall's tau against order)."""
    x = np.asarray(values, dtype=np.float64)
    half = len(x) // 2
    if half < 2:
        return 0.0, 1.0
    first, second = np.median(x[:half]), np.median(x[half:])
    result = sps.kendalltau(np.arange(len(x)), x)
    return float(second / first - 1), float(result.pvalue) if not math.isnan(result.pvalue) else 1.0


def two_modes(values: ArrayLike) -> tuple[float, float] | None:
    """The medians of two well separated groups, each at least 15 % of the values, or None.

    The best split of the sorted logarithms into two (Otsu, 1979) must explain at least 85 % of the variance (a normal
    distribution gives 2 / pi = 64 %, a uniform one 75 %) and the groups' medians must be more than 5 % apart.
    """
    x = np.log(_sorted(values))
    n = len(x)
    if n < 20:
        return None
    total = float(np.var(x))
    if total <= 0:
        return None
    k = np.arange(1, n)
    left = np.cumsum(x)[:-1] / k
    right = (x.sum() - np.cumsum(x)[:-1]) / (n - k)
    between = k * (n - k) / n**2 * (left - right) ** 2
    edge = math.ceil(0.15 * n)
    best = int(np.argmax(between))
    if not edge <= best + 1 <= n - edge or between[best] < 0.85 * total:
        return None
    low, high = float(np.exp(np.median(x[: best + 1]))), float(np.exp(np.median(x[best + 1 :])))
    return (low, high) if high > 1.05 * low else None


def outlier_share(values: ArrayLike) -> float:
    """The share of values beyond median + max(5 sd, 20 % of the median), sd = 1.4826 MAD. They are counted, never dropped."""
    x = np.asarray(values, dtype=np.float64)
    middle = np.median(x)
    spread = 1.4826 * np.median(np.abs(x - middle))
    return float(np.mean(x > middle + max(5 * spread, 0.2 * middle)))


def judge(values: ArrayLike, *, p: float = 0.9, confidence: float = 0.99, stationary: bool = True, launches: int = 1) -> Judgement:
    """Stable, unstable or inconclusive, from the values alone; the first reason found is given with its remedy.

    Inconclusive: too few runs for the percentile, or a median known to worse than +-5 %. Unstable: no settled warm-up, drift
    of more than 3 % with a significant trend, two modes, or more than 5 % outliers.
    """
    x = np.asarray(values, dtype=np.float64)
    need = runs_needed(p, confidence)
    if len(x) < need:
        told = f"{len(x)} runs; p{100 * p:g} at {100 * confidence:g} % confidence needs {need}"
        return Judgement("inconclusive", f"{told}: allow more time or ask for a lower percentile")
    if not stationary:
        return Judgement("unstable", "the warm-up did not settle: let the device rest, or stop what else runs there")
    moved, trend = drift(x)
    if abs(moved) > 0.03 and trend < 0.01:
        way = "slower" if moved > 0 else "faster"
        cause = "it heats up, or something else started there: cool it, cap its clock, or stop that"
        if moved < 0:
            cause = "it was still warming up, or something else ended there: run again"
        return Judgement("unstable", f"the second half ran {abs(moved):.1%} {way}: {cause}")
    modes = two_modes(x)
    if modes:
        told = f"two speeds, {_ms(modes[0])} and {_ms(modes[1])}"
        return Judgement("unstable", f"{told}: pin the process to like cores, fix the clock, or stop what else runs there")
    share = outlier_share(x)
    if share > 0.05:
        return Judgement("unstable", f"{share:.0%} of the runs are far slower than the median: stop what else runs there")
    interval = center_interval(x, launches)
    middle = median(x)
    if interval is None or max(interval[1] - middle, middle - interval[0]) > 0.05 * middle:
        return Judgement("inconclusive", "the median is known to worse than 5 %: allow more runs")
    return Judgement("stable")


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.3g} ms"


def _fraction(name: str, value: float) -> None:
    if not 0 < value < 1:
        raise ValueError(f"{name} must lie between 0 and 1, got {value}")


def _sorted(values: ArrayLike) -> NDArray[np.float64]:
    x = np.sort(np.asarray(values, dtype=np.float64))
    if not len(x):
        raise ValueError("no values")
    return x


def _matrix(blocks: Sequence[ArrayLike]) -> NDArray[np.float64]:
    """Blocks as rows, filled up with NaN."""
    rows = [np.asarray(b, dtype=np.float64) for b in blocks]
    out = np.full((len(rows), max(len(r) for r in rows)), np.nan)
    for i, row in enumerate(rows):
        out[i, : len(row)] = row
    return out


def _row_medians(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.nanmedian(x, axis=1) if np.isnan(x).any() else np.median(x, axis=1), dtype=np.float64)
