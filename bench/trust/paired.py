"""Two models on the same samples: is the second one worse, and by more than is tolerated?

Of n samples, b went from right to wrong and c from wrong to right; the loss is (b - c) / n. Only these discordant pairs carry
information about a difference (McNemar, 1947). Pure; counts in, figures out.
"""

from __future__ import annotations

import math

import msgspec
import numpy as np
from numpy.typing import ArrayLike


class McNemar(msgspec.Struct, frozen=True):
    """Two-sided p-values of "no difference": the exact one, and mid-p, which is less conservative (Fagerland et al., 2013)."""

    exact: float
    mid_p: float


def mcnemar(b: int, c: int) -> McNemar:
    """Given b + c, b is Binomial(b + c, 1/2) where nothing differs.

        exact   min(1, 2 P(X <= min(b, c)))
        mid-p   exact - P(X = min(b, c))      (1 where b = c)

    (Fagerland, Lydersen and Laake, 2013, "The McNemar test for binary matched-pairs data", BMC Med Res Methodol 13:91.)
    """
    from scipy import stats as sps

    _counts(b, c, b + c)
    low = min(b, c)
    tail = float(sps.binom.cdf(low, b + c, 0.5))
    point = float(sps.binom.pmf(low, b + c, 0.5))
    return McNemar(min(1.0, 2 * tail), 1.0 if b == c else min(1.0, 2 * tail - point))


def loss_p(b: int, c: int, n: int, margin: float = 0.0) -> float:
    """One-sided p-value of "the loss is at most ``margin``" (a share of n): small where the loss is proven to be greater.

    The trinomial probability, at the edge of that hypothesis, of a difference of at least b - c:

        p = P(B - C >= b - c),   (B, C) ~ Trinomial(n; q + margin, q)

    with q, the rate of gains that nobody knows, at its most likely value under the hypothesis (Lloyd, 2008, "Exact p-values
    for discrete models obtained by estimation and maximization", Aust N Z J Stat 50:329). Exact counting, so that it holds for the few
    discordant pairs of one class, where a normal approximation rejects too often.
    """
    from scipy import special

    _counts(b, c, n)
    q = gains_under(b, c, n, margin)
    moved = 2 * q + margin
    if moved <= 0:
        return 1.0
    spread = 9 * math.sqrt(n * moved * (1 - moved)) + 30  # beyond lies less than 1e-13, by Bernstein's inequality
    pairs = np.arange(max(0, int(n * moved - spread)), min(n, int(n * moved + spread) + 1) + 1)
    need = np.ceil((b - c + pairs) / 2)
    tails = np.where(need <= 0, 1.0, special.bdtrc(np.maximum(need, 1) - 1, pairs, (q + margin) / moved))
    tails = np.where(need > pairs, 0.0, tails)
    choose = special.gammaln(n + 1) - special.gammaln(pairs + 1) - special.gammaln(n - pairs + 1)
    weights = np.exp(choose + special.xlogy(pairs, moved) + special.xlog1py(n - pairs, -moved))
    return float(min(1.0, np.sum(weights * tails)))


def gains_under(b: int, c: int, n: int, margin: float) -> float:
    """The most likely rate of gains q where the rate of losses is q + ``margin`` (Tango, 1998, Stat Med 17:891).

    The greater root of 2 n q^2 + ((2 n - b + c) margin - b - c) q - c margin (1 - margin) = 0.
    """
    return _gains(b / n, c / n, margin)


def _gains(lost: float, gained: float, margin: float) -> float:
    linear = (2 - lost + gained) * margin - lost - gained
    root = math.sqrt(max(0.0, linear * linear + 8 * gained * margin * (1 - margin)))
    return min(max(0.0, (root - linear) / 4), max(0.0, (1 - margin) / 2))


def loss_interval(b: int, c: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Tango's score interval of the loss (b - c) / n: all margins d with |z(d)| <= z,

    z(d) = (b - c - n d) / sqrt(n (2 q(d) + d (1 - d)))
    """
    from scipy import stats as sps
    from scipy.optimize import brentq

    _counts(b, c, n)
    z = float(sps.norm.isf((1 - confidence) / 2))

    def score(d: float) -> float:
        if d < 0:
            return -_score(c, b, n, -d)
        return _score(b, c, n, d)

    point, edge = (b - c) / n, 1 - 1e-12
    low = -1.0 if point <= -edge or score(-edge) < z else float(brentq(lambda d: score(d) - z, -edge, point))
    high = 1.0 if point >= edge or score(edge) > -z else float(brentq(lambda d: score(d) + z, point, edge))
    return low, high


def _score(b: int, c: int, n: int, d: float) -> float:
    above = b - c - n * d
    spread = n * (2 * gains_under(b, c, n, d) + d * (1 - d))
    if spread <= 0:
        return 0.0 if above == 0 else math.copysign(math.inf, above)
    return above / math.sqrt(spread)


def detectable(c: int, b: int, n: int, margin: float, alpha: float, power: float = 0.9) -> float:
    """The least true loss (a share) that the test of ``loss_p`` at level ``alpha`` would find with ``power``, at the rate of gains seen.

    Normal approximation: d = margin + (z_alpha sd_0 + z_power sd_1) / sqrt(n), with sd_1^2 = 2 q + d, and sd_0^2 = 2 q_0 + margin where q_0
    is the rate that the test would take for likely (``gains_under``). 1.0 where none would be found.
    """
    from scipy import stats as sps

    q = min(b, c) / n
    reject, miss = float(sps.norm.isf(alpha)), float(sps.norm.ppf(power))
    d = margin
    for _ in range(60):
        taken = _gains(q + d, q, margin)
        d = margin + (reject * math.sqrt(2 * taken + margin + 1 / n) + miss * math.sqrt(2 * q + d + 1 / n)) / math.sqrt(n)
        if d >= 1:
            return 1.0
    return d


def holm(p: ArrayLike) -> list[float]:
    """Adjusted p-values that keep the rate of any false alarm at alpha: p_(i) (m - i + 1), made monotone (Holm, 1979)."""
    values = np.asarray(p, np.float64)
    order = np.argsort(values, kind="stable")
    m = len(values)
    raised = np.maximum.accumulate(values[order] * (m - np.arange(m)))
    out = np.empty(m)
    out[order] = np.minimum(raised, 1.0)
    return [float(v) for v in out]


def benjamini_hochberg(p: ArrayLike) -> list[float]:
    """Adjusted p-values that keep the share of false ones among those rejected at alpha (Benjamini and Hochberg, 1995)."""
    from scipy import stats as sps

    values = np.asarray(p, np.float64)
    return [float(v) for v in sps.false_discovery_control(values, method="bh")] if len(values) else []


def _counts(b: int, c: int, n: int) -> None:
    if b < 0 or c < 0 or b + c > n:
        raise ValueError(f"{b} losses and {c} gains can't happen in {n} samples")
