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
    bounds = [stats.percentile(rng.lognormal(0, 0.4, 120), 0.9, 0.99) for _ in range(1000)]
    share = np.mean([b.value >= true for b in bounds])
    assert share == pytest.approx(bounds[0].confidence, abs=0.01)


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
    for _ in range(1000):
        low, high = stats.median_interval(rng.exponential(1, 60)) or (0, 0)
        hits += low <= np.log(2) <= high
    assert hits / 1000 >= 0.94


def launches(
    rng: np.random.Generator, n: int, factor: float = 1.0, common: np.ndarray | None = None, process: float = 0.006
) -> list[list[np.ndarray]]:
    """``n`` launches of 4 blocks of 10 right-skewed runs; processes differ by ``process`` (sd), the machine drifts by ``common``."""
    common = np.ones((n, 4)) if common is None else common
    out = []
    for i in range(n):
        level = factor * np.exp(rng.normal(0, process))
        out.append([level * common[i, j] * np.exp(0.02 * np.abs(rng.standard_t(3, 10))) for j in range(4)])
    return out


@pytest.mark.parametrize(("n", "factor"), [(6, 1.0), (3, 0.7), (12, 1.0)])
def test_speedup_interval_covers_the_truth_in_spite_of_drift_and_of_what_processes_differ_by(n: int, factor: float) -> None:
    rng = np.random.default_rng(3)
    hits = 0
    for _ in range(500):
        common = np.exp(np.cumsum(rng.normal(0, 0.03, n * 4))).reshape(n, 4)  # the machine's drift, seen by both
        ratio = stats.speedup(launches(rng, n, 1.0, common), launches(rng, n, factor, common))
        hits += ratio.low <= 1 / factor <= ratio.high
    assert hits / 500 == pytest.approx(0.95, abs=0.03)


def test_blocks_of_one_launch_alone_would_claim_too_much() -> None:
    """Why launches count: the same two processes, however many blocks of them, show a difference that the file doesn't have."""
    rng = np.random.default_rng(4)
    false = 0
    for draw in range(100):
        a, b = ([x for launch in launches(rng, 1) for x in launch] for _ in range(2))
        ratio = stats.speedup([a], [b], draws=300, seed=draw)
        false += not ratio.low <= 1 <= ratio.high
    assert false > 20


def test_speedup_finds_five_percent() -> None:
    rng = np.random.default_rng(5)
    found = sum(stats.speedup(launches(rng, 6), launches(rng, 6, 1.05)).high < 1 for _ in range(200))
    assert found >= 190


def test_one_launch_resamples_its_blocks() -> None:
    rng = np.random.default_rng(6)
    hits = 0
    for draw in range(150):
        common = np.exp(np.cumsum(rng.normal(0, 0.05, (1, 24)), axis=1))
        a, b = [
            [level * np.exp(0.02 * np.abs(rng.standard_t(3, 5))) for level in common[0] * np.exp(rng.normal(0, 0.02, 24))] for _ in range(2)
        ]
        ratio = stats.speedup([a], [b], draws=600, seed=draw)
        hits += ratio.low <= 1 <= ratio.high
    assert hits / 150 >= 0.92
    assert stats.speedup([a], [b], seed=1) == stats.speedup([a], [b], seed=1)


def test_speedup_of_equal_launches_is_exactly_one() -> None:
    same = launches(np.random.default_rng(7), 3)
    assert stats.speedup(same, same) == stats.Ratio(1, 1, 1)


@pytest.mark.parametrize("bad", [([[[1.0]]], [[[1.0]]]), ([[[1.0]], [[1.0]]], [[[1.0]]]), ([[[1.0], []]] * 2, [[[1.0], [1.0]]] * 2)])
def test_speedup_refuses_what_is_not_paired(bad: tuple[list, list]) -> None:
    with pytest.raises(ValueError, match="pairs of blocks|two blocks|empty"):
        stats.speedup(*bad)


def test_measured_apart_the_interval_covers_too() -> None:
    rng = np.random.default_rng(8)
    hits = 0
    for _ in range(500):
        a, b = (np.concatenate([np.concatenate(x) for x in launches(rng, n)]) for n in (6, 5))
        ratio = stats.apart(a, b, (6, 5))
        hits += ratio.low <= 1 <= ratio.high
    assert hits / 500 == pytest.approx(0.95, abs=0.03)


def test_the_interval_of_the_median_is_that_of_the_launches_where_there_are_enough() -> None:
    values = np.repeat([1.0, 1.1, 1.2, 1.3, 1.4, 1.5], 10)
    assert stats.center_interval(values, 6) == (1.0, 1.5)
    assert stats.center_interval(values, 1) == stats.median_interval(values)
    with pytest.raises(ValueError, match="7 launches"):
        stats.launch_medians(values, 7)


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
