"""Affine arithmetic against its definition, and against torch's own quantize operators."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.ao.quantization.fx._decomposed
from hypothesis import given, settings
from hypothesis import strategies as st

from packlight.compress.quantize.affine import affine, bias_floor, dequantize, quantize, round_trip, sqnr_db, weight_scales

finite = st.floats(-1e6, 1e6, allow_nan=False, width=32)


@settings(max_examples=200, deadline=None)
@given(finite, finite)
def test_zero_is_exact_and_the_range_is_covered(a: float, b: float) -> None:
    low, high = min(a, b), max(a, b)
    q = affine(low, high)
    assert -128 <= q.zero_point <= 127
    assert round_trip(np.zeros(1), q)[0] == 0.0
    inside = np.linspace(min(low, 0), max(high, 0), 101)
    assert np.all(np.abs(round_trip(inside, q) - inside) <= q.scale * 0.5 * (1 + 1e-5) + 1e-12 + q.scale * 0.5)


@pytest.mark.parametrize(
    ("low", "high", "scale", "zero"), [(0, 255, 1.0, -128), (-128, 127, 1.0, 0), (-1, 0.99, 1.99 / 255, 0), (0, 6, 6 / 255, -128)]
)
def test_known_ranges(low: float, high: float, scale: float, zero: int) -> None:
    q = affine(low, high)
    assert math.isclose(q.scale, scale, rel_tol=1e-6)
    assert q.zero_point == zero


def test_a_rectified_range_starts_at_the_least_integer_so_saturation_is_the_relu() -> None:
    q = affine(0.0, 3.7)
    assert (q.zero_point, q.range[0]) == (-128, 0.0)


def test_an_empty_range_has_a_usable_scale() -> None:
    assert affine(0, 0).scale == 1.0
    assert affine(1e-40, 1e-40).scale == 1.0


def test_symmetric_keeps_zero_in_the_middle() -> None:
    q = affine(-3.0, 1.0, symmetric=True)
    assert (q.zero_point, math.isclose(q.scale, 3 / 127, rel_tol=1e-6)) == (0, True)


@pytest.mark.parametrize("zero", [-128, -7, 0, 100])
def test_round_trip_is_torchs(zero: int) -> None:
    x = torch.randn(5000) * 3
    scale = 0.0371
    ops = torch.ops.quantized_decomposed
    stored = ops.quantize_per_tensor(x, scale, zero, -128, 127, torch.int8)
    assert np.mean(quantize(x.numpy(), np.float32(scale), zero) == stored.numpy()) > 0.999  # ties may round apart: x / s against x (1 / s)
    back = ops.dequantize_per_tensor(stored, scale, zero, -128, 127, torch.int8)
    assert np.allclose(dequantize(stored.numpy(), scale, zero), back.numpy(), atol=1e-6)


def test_ties_go_to_even() -> None:
    assert quantize(np.array([0.5, 1.5, 2.5, -0.5, -1.5]), 1.0).tolist() == [0, 2, 2, 0, -2]


@pytest.mark.parametrize("maximum", [63, 127])
def test_weight_scales_use_the_whole_range_of_every_channel(maximum: int) -> None:
    w = np.random.default_rng(0).standard_normal((4, 3, 3, 3)).astype(np.float32)
    w[2] = 0
    scales = weight_scales(w, 0, maximum)
    assert scales.dtype == np.float32
    stored = quantize(w, scales.reshape(-1, 1, 1, 1), 0, (-maximum, maximum))
    assert np.abs(stored).reshape(4, -1).max(1).tolist() == [maximum, maximum, 0, maximum]
    assert scales[2] == 1.0
    assert weight_scales(w, None, maximum).shape == ()
    assert weight_scales(w.transpose(1, 0, 2, 3), 1, maximum).tolist() == scales.tolist()


def test_no_pair_of_7_bit_products_exceeds_16_bits() -> None:
    # What weight_max = 63 is for: x86 without VNNI adds two u8 x s8 products into a saturating int16.
    assert 2 * 255 * 63 <= 2**15 - 1 < 2 * 255 * 127


def test_the_floor_of_a_weight_scale_holds_the_bias() -> None:
    bias = np.array([3.0, -1e-3, 0.0])
    floor = bias_floor(bias, input_scale=0.01)
    assert np.all(np.abs(bias) <= 0.01 * np.maximum(floor, 1e-30) * 2**31)
    assert floor[2] == 0.0


def test_sqnr_of_uniform_rounding_is_the_textbooks() -> None:
    # A full-scale uniform signal on 2^b levels: 6.02 b dB (Bennett, 1948).
    x = np.random.default_rng(1).uniform(-1, 1, 200_000)
    assert sqnr_db(x, round_trip(x, affine(-1, 1))) == pytest.approx(20 * math.log10(2**8), abs=0.1)
    assert sqnr_db(x, x) == math.inf
    assert math.isnan(sqnr_db(np.zeros(3), np.ones(3)))
