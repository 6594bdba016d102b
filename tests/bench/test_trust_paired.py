"""Tests and intervals of paired proportions, against closed forms, exhaustive counting and published examples."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from packlight.bench.trust.flips import Flips, flips
from packlight.bench.trust.paired import benjamini_hochberg, detectable, gains_under, holm, loss_interval, loss_p, mcnemar


def test_flips_are_counted_by_kind() -> None:
    before, after, target = np.array([0, 1, 2, 2, 1, 0]), np.array([0, 2, 2, 1, 0, 1]), np.array([0, 1, 1, 1, 2, 1])
    assert flips(before, after, target) == Flips(n=6, changed=4, good_to_bad=1, bad_to_good=2)


def test_mcnemar_published() -> None:
    """Airways before and after a transplantation (Bentur et al., 2009), as analysed by Fagerland et al. (2013): 1 and 7 pairs."""
    test = mcnemar(1, 7)
    assert test.exact == pytest.approx(0.0703, abs=5e-5)
    assert test.mid_p == pytest.approx(0.0391, abs=5e-5)


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_the_sign_test(b: int, c: int) -> None:
    expected = stats.binomtest(b, b + c).pvalue if b + c else 1.0
    assert mcnemar(b, c).exact == pytest.approx(expected)
    assert mcnemar(b, c).exact == mcnemar(c, b).exact
    assert mcnemar(b, c).mid_p <= mcnemar(b, c).exact


def test_tango_interval_published() -> None:
    """The same pairs, n = 21: -0.517 to -0.026 (Fagerland et al., 2014, Stat Med 33:2850, Tango's asymptotic score interval)."""
    low, high = loss_interval(1, 7, 21)
    assert (round(low, 3), round(high, 3)) == (-0.517, -0.026)


@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 100))
def test_tango_interval_holds_the_point_and_mirrors(b: int, c: int, rest: int) -> None:
    n = b + c + rest
    if not n:
        return
    low, high = loss_interval(b, c, n)
    assert -1 <= low <= (b - c) / n <= high <= 1
    assert loss_interval(c, b, n) == pytest.approx((-high, -low), abs=1e-9)


@given(st.integers(0, 30), st.integers(0, 30), st.integers(1, 200), st.floats(0, 0.3))
def test_restricted_likelihood(b: int, c: int, rest: int, margin: float) -> None:
    """The closed form of the gains' rate is the maximum of the likelihood on the line p_loss = p_gain + margin."""
    n = b + c + rest

    def minus(q: float) -> float:
        cells = ((b, q + margin), (c, q), (rest, 1 - margin - 2 * q))
        return -sum(k * math.log(max(p, 1e-300)) for k, p in cells if k)

    q = gains_under(b, c, n, margin)
    best = optimize.minimize_scalar(minus, bounds=(0, (1 - margin) / 2), method="bounded", options={"xatol": 1e-10})
    assert minus(q) <= best.fun + 1e-6


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 8), st.integers(0, 8), st.integers(0, 8), st.floats(0, 0.3))
def test_loss_p_counts_every_outcome(b: int, c: int, rest: int, margin: float) -> None:
    n = b + c + rest
    if not n:
        return
    q = gains_under(b, c, n, margin)
    if 2 * q + margin <= 0:
        assert loss_p(b, c, n, margin) == 1.0
        return
    cells = [q + margin, q, max(0.0, 1 - 2 * q - margin)]
    total = sum(
        stats.multinomial.pmf([i, j, n - i - j], n, np.asarray(cells) / sum(cells))
        for i in range(n + 1)
        for j in range(n + 1 - i)
        if i - j >= b - c
    )
    assert loss_p(b, c, n, margin) == pytest.approx(total, abs=1e-9)


@pytest.mark.parametrize(
    ("n", "margin", "gains", "alpha"),
    [(1000, 0.01, 0.0, 0.0024), (1000, 0.01, 0.005, 0.0024), (100, 0.01, 0.02, 0.05), (200, 0.0, 0.02, 0.05), (2000, 0.001, 0.003, 0.0024)],
)
def test_loss_p_keeps_its_level(n: int, margin: float, gains: float, alpha: float) -> None:
    """At the edge of the hypothesis the chance to reject is at most alpha (a tenth more for the estimated rate), by exact counting."""
    moved = 2 * gains + margin
    size = 0.0
    for pairs in range(int(stats.binom.ppf(1e-7, n, moved)), int(stats.binom.isf(1e-7, n, moved)) + 1):
        weight = stats.binom.pmf(pairs, n, moved)
        first = next((b for b in range((pairs + 1) // 2, pairs + 1) if loss_p(b, pairs - b, n, margin) <= alpha), None)
        if first is not None:
            size += weight * stats.binom.sf(first - 1, pairs, (gains + margin) / moved)
    assert size <= 1.1 * alpha


def test_detectable_loss_is_found_with_that_power() -> None:
    """1,000 samples, 5 gains: simulate the loss that is said to be detectable with 90 % power."""
    n, margin, alpha = 1000, 0.01, 0.05 / 22
    loss = detectable(5, 12, n, margin, alpha)
    rng = np.random.default_rng(0)
    draws = rng.multinomial(n, [0.005 + loss, 0.005, 1 - 0.01 - loss], 400)
    found = np.mean([loss_p(int(b), int(c), n, margin) <= alpha for b, c, _ in draws])
    assert 0.85 <= found <= 0.99


def test_holm_and_benjamini_hochberg() -> None:
    """The 15 p-values of Benjamini and Hochberg (1995, section 3.2): at 5 % their procedure rejects four, the familywise ones three."""
    p = [0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.3240, 0.4262, 0.5719, 0.6528, 0.7590, 1.0]
    assert sum(q <= 0.05 for q in benjamini_hochberg(p)) == 4
    assert sum(q <= 0.05 for q in holm(p)) == 3
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == benjamini_hochberg([]) == []


def test_impossible_counts_are_refused() -> None:
    with pytest.raises(ValueError, match="can't happen"):
        loss_p(5, 6, 10)
