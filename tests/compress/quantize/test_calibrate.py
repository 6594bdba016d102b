"""Streaming histograms (exactness, merging, bounded memory) and calibrators (against closed forms and exhaustive search)."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from packlight.compress.quantize.affine import affine, round_trip
from packlight.compress.quantize.calibrate import calibrate, calibrators, register
from packlight.compress.quantize.calibrate.histogram import BINS, Histogram
from packlight.compress.quantize.calibrate.statistics import Statistics
from packlight.core.errors import RecipeError

floats = st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False).filter(lambda v: abs(v) < 1e30), min_size=1, max_size=60)


def filled(*batches: object) -> Histogram:
    h = Histogram()
    for batch in batches:
        h.update(np.asarray(batch, np.float32))
    return h


def same(a: Histogram, b: Histogram) -> bool:
    pa, pb = a.points(), b.points()
    return all(np.array_equal(x, y) for x, y in zip(pa, pb, strict=True)) and (a.low, a.high, a.zeros) == (b.low, b.high, b.zeros)


@settings(max_examples=150, deadline=None)
@given(floats, floats)
def test_merging_is_seeing_both_in_any_order(a: list[float], b: list[float]) -> None:
    whole = filled(a + b)
    assert same(filled(a).merge(filled(b)), filled(a, b))
    assert same(filled(b, a), filled(a, b))
    assert whole.total == len(a) + len(b)
    assert same(filled(a).merge(filled(b)), filled(b).merge(filled(a)))


@settings(max_examples=100, deadline=None)
@given(floats)
def test_every_value_is_in_its_bin(values: list[float]) -> None:
    h = filled(values)
    x = np.asarray(values, np.float32).astype(np.float64)
    assert (h.low, h.high) == (x.min(), x.max())
    assert h.zeros == np.count_nonzero(x == 0)
    if np.any(x != 0):
        edges = (h.start + np.arange(h.counts.size + 1)) * 2.0**h.exponent
        assert np.array_equal(np.histogram(x[x != 0], edges)[0], h.counts)


def test_memory_is_bounded_whatever_comes() -> None:
    h = Histogram()
    for scale in (1e-20, 1.0, 1e-3, 1e10, 1e30, 5e30):
        h.update(np.random.default_rng(0).standard_normal(1000).astype(np.float32) * np.float32(scale))
        assert h.counts.size <= BINS
    assert h.total == 6000


def test_infinities_and_nans_are_counted_apart() -> None:
    h = filled([1.0, np.inf, -np.inf, np.nan, 2.0])
    assert (h.total, h.skipped, h.low, h.high) == (2, 3, 1.0, 2.0)


def test_a_stream_in_pieces_gives_the_quantiles_of_the_whole() -> None:
    x = np.random.default_rng(3).standard_normal(100_000).astype(np.float32)
    h = filled(*np.split(x, 50))
    width = 2.0**h.exponent
    for p in (0.0001, 0.1, 0.5, 0.9, 0.9999):
        assert abs(h.quantile(p) - np.quantile(x, p, method="inverted_cdf")) <= width
    assert (h.quantile(0), h.quantile(1)) == (x.min(), x.max())


def seen(*batches: np.ndarray) -> Statistics:
    s = Statistics()
    for batch in batches:
        s.update(batch.astype(np.float32))
    return s


DRAWS = {
    "normal": lambda r: r.standard_normal(20000),
    "relu": lambda r: np.maximum(r.standard_normal(20000), 0),
    "laplace": lambda r: r.laplace(size=20000),
    "relu6": lambda r: np.clip(4 * r.standard_normal(20000), 0, 6),
    "negative": lambda r: -np.abs(r.standard_normal(20000)) - 1,
    "outlier": lambda r: np.append(r.standard_normal(20000), 300.0),
}


@pytest.mark.parametrize("name", ["minmax", "moving-average", "percentile", "mse", "entropy"])
@pytest.mark.parametrize("draw", DRAWS)
def test_every_calibrator_stays_within_what_was_seen_and_holds_zero(name: str, draw: str) -> None:
    x = DRAWS[draw](np.random.default_rng(5))
    low, high = calibrate(name, seen(*np.array_split(x, 4)))
    assert min(x.min(), 0) - 1e-6 <= low <= 0 <= high <= max(x.max(), 0) + 1e-6
    assert low < high
    if x.min() == 0:
        assert low == 0.0


@pytest.mark.parametrize("name", ["minmax", "moving-average", "percentile", "mse", "entropy"])
def test_degenerate_streams(name: str) -> None:
    assert calibrate(name, Statistics()) == (0.0, 0.0)
    assert calibrate(name, seen(np.zeros(10))) == (0.0, 0.0)
    low, high = calibrate(name, seen(np.full(10, 2.5)))
    assert (low, high) == (0.0, pytest.approx(2.5, rel=0.01))


def test_minmax_and_moving_average_are_their_definitions() -> None:
    a, b = np.array([-1.0, 3.0]), np.array([-2.0, 5.0])
    assert calibrate("minmax", seen(a, b)) == (-2.0, 5.0)
    assert calibrate("moving-average", seen(a, b)) == (-1.5, 4.0)
    merged = seen(a).merge(seen(b, b))
    assert calibrate("moving-average", merged) == pytest.approx(calibrate("moving-average", seen(a, b, b)))


def test_percentile_is_numpys_quantile() -> None:
    x = np.random.default_rng(0).standard_normal(200_000)
    low, high = calibrate("percentile", seen(x), percentile=99.9)
    assert (low, high) == (pytest.approx(np.quantile(x, 0.001), abs=0.01), pytest.approx(np.quantile(x, 0.999), abs=0.01))


@pytest.mark.parametrize("draw", ["normal", "relu", "laplace", "outlier"])
def test_mse_is_as_good_as_an_exhaustive_search(draw: str) -> None:
    x = DRAWS[draw](np.random.default_rng(5))

    def error(low: float, high: float) -> float:
        return float(np.mean((x - round_trip(x, affine(low, high))) ** 2))

    found = error(*calibrate("mse", seen(x)))
    lows = [0.0] if x.min() == 0 else np.linspace(0.2, 1, 25) * x.min()
    best = min(error(a, b) for a in lows for b in np.linspace(0.2, 1, 25) * x.max())
    assert found <= best * 1.02
    assert found <= error(x.min(), x.max())


def test_mse_of_a_normal_variable_clips_where_theory_says() -> None:
    # The mean-square optimal clip of a normal variable on 256 uniform levels is 3.92 sigma (Banner et al., 2018, arXiv:1810.05723).
    x = np.random.default_rng(2).standard_normal(500_000)
    low, high = calibrate("mse", seen(x))
    assert -low == pytest.approx(3.92, abs=0.2)
    assert high == pytest.approx(3.92, abs=0.2)


def test_entropy_ignores_a_lone_outlier_more_than_minmax_does() -> None:
    x = DRAWS["outlier"](np.random.default_rng(5))
    assert calibrate("entropy", seen(x))[1] < 0.8 * calibrate("minmax", seen(x))[1]


def test_entropy_keeps_the_whole_of_a_uniform_variable() -> None:
    x = np.random.default_rng(5).uniform(0, 1, 200_000)
    assert calibrate("entropy", seen(x))[1] > 0.97


def test_an_unknown_calibrator_is_refused_with_the_known() -> None:
    register()
    with pytest.raises(RecipeError, match="minmax"):
        calibrators.get("minimax")
