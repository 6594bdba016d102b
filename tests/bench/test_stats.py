"""Figures against published numbers, closed forms and simulation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats as sps

from packlight.bench import stats


@pytest.mark.parametrize(("p", "runs"), [(0.9, 44), (0.99, 459), (0.999, 4603)])
def test_published_numbers_of_runs_at_99_percent(p: float, runs: int) -> None:
    assert stats.runs_needed(p, 0.99) == runs
    assert 1 - p**runs >= 0.99 > 1 - p ** (runs - 1)


@pytest.mark.parametrize("bad", [0.0, 1.0, -1.0, 90.0])
def test_runs_needed_refuses_what_is_no_fraction(bad: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        stats.runs_needed(bad, 0.99)


def test_percentile_is_the_maximum_at_the_least_number_of_runs() -> None:
    bound = stats.percentile(np.arange(44), 0.9, 0.99)
    assert (bound.value, bound.rank) == (43, 44)
    assert bound.confidence == pytest.approx(1 - 0.9**44)
    few = stats.percentile(np.arange(10), 0.9, 0.99)
    assert few.value == 9
    assert few.confidence == pytest.approx(1 - 0.9**10)


@pytest.mark.parametrize("n", [44, 100, 333, 1200])
def test_percentile_takes_the_smallest_rank_that_suffices(n: int) -> None:
    rank = stats.percentile(np.random.default_rng(0).permutation(n), 0.9, 0.99).rank
    assert sps.binom.cdf(rank - 1, n, 0.9) >= 0.99 > sps.binom.cdf(rank - 2, n, 0.9)


def test_percentile_bounds_the_true_quantile_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    true = sps.lognorm(0.4).ppf(0.9)
    bounds = [stats.percentile(rng.lognormal(0, 0.4, 120), 0.9, 0.99) for _ in range(2000)]
    share = np.mean([b.value >= true for b in bounds])
    assert share == pytest.approx(bounds[0].confidence, abs=0.008)


@pytest.mark.parametrize(("n", "ranks"), [(6, (1, 6)), (10, (2, 9)), (20, (6, 15)), (44, (16, 29)), (100, (40, 61))])
def test_median_interval_has_the_tabled_ranks(n: int, ranks: tuple[int, int]) -> None:
    """The ranks of the binomial table for 95 % (e.g. Conover, Practical Nonparametric Statistics, table A3)."""
    interval = stats.median_interval(np.arange(1, n + 1))
    assert interval == ranks
    assert 1 - 2 * sps.binom.cdf(ranks[0] - 1, n, 0.5) >= 0.95
    assert 1 - 2 * sps.binom.cdf(ranks[0], n, 0.5) < 0.95


def test_median_interval_needs_six_values() -> None:
    assert stats.median_interval(range(5)) is None


def test_median_interval_covers_the_median_of_a_skewed_distribution() -> None:
    rng = np.random.default_rng(2)
    hits = 0
    for _ in range(2000):
        low, high = stats.median_interval(rng.exponential(1, 60)) or (0, 0)
        hits += low <= np.log(2) <= high
    assert hits / 2000 >= 0.945


def blocks(rng: np.random.Generator, n: int, k: int, factor: float = 1.0, common: np.ndarray | None = None) -> list[np.ndarray]:
    """Right-skewed runs around a level that drifts from block to block."""
    level = np.exp(rng.normal(0, 0.02, n)) if common is None else common * np.exp(rng.normal(0, 0.02, n))
    return [factor * level[i] * np.exp(0.03 * np.abs(rng.standard_t(3, k))) for i in range(n)]


@pytest.mark.parametrize(("n", "k", "factor"), [(24, 5, 1.0), (24, 5, 0.7), (8, 20, 1.0)])
def test_speedup_interval_covers_the_truth(n: int, k: int, factor: float) -> None:
    rng = np.random.default_rng(3)
    hits = 0
    for draw in range(300):
        common = np.exp(np.cumsum(rng.normal(0, 0.05, n)))  # the machine's drift, seen by both
        ratio = stats.speedup(blocks(rng, n, k, 1.0, common), blocks(rng, n, k, factor, common), draws=600, seed=draw)
        hits += ratio.low <= 1 / factor <= ratio.high
    assert hits / 300 >= 0.93


def test_speedup_finds_five_percent_in_spite_of_drift() -> None:
    rng = np.random.default_rng(4)
    found = 0
    for draw in range(100):
        common = np.exp(np.cumsum(rng.normal(0, 0.01, 24)))
        ratio = stats.speedup(blocks(rng, 24, 20, 1.0, common), blocks(rng, 24, 20, 1.05, common), draws=600, seed=draw)
        found += ratio.high < 1
    assert found >= 90


def test_speedup_of_equal_blocks_is_exactly_one_and_repeats() -> None:
    rng = np.random.default_rng(5)
    same = blocks(rng, 6, 4)
    assert stats.speedup(same, [b.copy() for b in same]).value == 1
    assert stats.speedup(same, blocks(rng, 6, 4), seed=1) != stats.speedup(same, blocks(rng, 6, 3), seed=1)
    other = blocks(rng, 6, 7)
    assert stats.speedup(same, other, seed=1) == stats.speedup(same, other, seed=1)


def test_speedup_refuses_unpaired_blocks() -> None:
    with pytest.raises(ValueError, match="two or more pairs"):
        stats.speedup([[1.0]], [[1.0]])
    with pytest.raises(ValueError, match="empty"):
        stats.speedup([[1.0], []], [[1.0], [1.0]])


def noise(n: int = 400, seed: int = 6) -> np.ndarray:
    return 1e-3 * (1 + 0.01 * np.random.default_rng(seed).gamma(2, 1, n))


def test_quiet_values_are_stable() -> None:
    assert stats.judge(noise()).verdict == "stable"


@pytest.mark.parametrize(
    ("values", "verdict", "words"),
    [
        (noise(43), "inconclusive", "needs 44"),
        (noise() * np.linspace(1, 1.2, 400), "unstable", "slower"),
        (noise() * np.linspace(1.2, 1, 400), "unstable", "faster"),
        (noise() * np.where(np.random.default_rng(0).random(400) < 0.4, 1.4, 1), "unstable", "two speeds"),
        (noise() * np.where(np.random.default_rng(0).random(400) < 0.1, 3, 1), "unstable", "far slower"),
        (np.random.default_rng(0).lognormal(-7, 0.5, 60), "inconclusive", "worse than 5 %"),
    ],
)
def test_trouble_is_named_with_its_remedy(values: np.ndarray, verdict: str, words: str) -> None:
    judged = stats.judge(values)
    assert judged.verdict == verdict
    assert words in judged.why
    assert ":" in judged.why


def test_warmup_that_did_not_settle_is_unstable() -> None:
    assert "warm-up" in stats.judge(noise(), stationary=False).why


def test_false_alarms_are_rare() -> None:
    verdicts = [stats.judge(noise(200, seed)).verdict for seed in range(300)]
    assert verdicts.count("stable") >= 294


def test_two_modes_are_found_where_they_are_and_only_there() -> None:
    rng = np.random.default_rng(8)
    modes = stats.two_modes(np.concatenate([rng.normal(1, 0.01, 100), rng.normal(1.5, 0.01, 100)]))
    assert modes == pytest.approx((1.0, 1.5), abs=0.01)
    assert stats.two_modes(rng.normal(1, 0.05, 200)) is None
    assert stats.two_modes(rng.uniform(1, 1.2, 200)) is None
    assert stats.two_modes(np.ones(50)) is None


def test_outliers_are_counted() -> None:
    values = np.ones(100)
    values[:7] = 2
    assert stats.outlier_share(values) == 0.07
