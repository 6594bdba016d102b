"""Kernels round as the numbers say: averages to the nearest, halves to both sides, sums with all the bits that int8 weights have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.ao.quantization.fx._decomposed import quantized_decomposed_lib  # noqa: F401  files the operators

from packlight.core.bundle import Bundle


class Once(nn.Module):
    """One function between quantized numbers: scale and zero point of what goes in and of what comes out."""

    def __init__(self, function: Callable[[Tensor], Tensor], before: tuple[float, int], after: tuple[float, int]) -> None:
        super().__init__()
        self.function, self.before, self.after = function, before, after

    def forward(self, x: Tensor) -> Tensor:
        return _fq(self.function(_fq(x, *self.before)), *self.after)


def _fq(x: Tensor, scale: float, zero: int) -> Tensor:
    quantized = torch.ops.quantized_decomposed.quantize_per_tensor(x, scale, zero, -128, 127, torch.int8)
    return torch.ops.quantized_decomposed.dequantize_per_tensor(quantized, scale, zero, -128, 127, torch.int8)


@pytest.mark.parametrize("side", [2, 3, 4, 5])
def test_mean_of_small_images(emit: Callable[..., Any], run_file: Callable[..., Any], side: int) -> None:
    """Exactly the number nearest to the mean, with and without XNNPACK but where a half is within 0.02."""
    generator = torch.Generator().manual_seed(side)
    before, after = (0.0371, -121), (0.00513, -88)
    x = _fq(torch.randn(4, 40, side, side, generator=generator).abs() * 1.2, *before)
    exact = x.double().mean((2, 3)) / after[0]
    clear = ((exact - exact.floor() - 0.5).abs() > 0.02).numpy()
    for function in (lambda v: v.mean((2, 3)), lambda v: F.adaptive_avg_pool2d(v, 1)):
        bundle = Bundle.capture(Once(function, before, after).eval(), (x,), free_batch=False).replace(quantized={})
        path, written = emit(bundle, precision="int8")
        assert "MEAN" not in written.ops.file
        want = np.clip(np.rint(exact.numpy()) + after[1], -128, 127)
        for xnnpack in (False, True):
            (got,) = run_file(path, written.signature, [x.numpy()], xnnpack)
            np.testing.assert_array_equal((np.rint(got / after[0]) + after[1]).reshape(clear.shape)[clear], want[clear])


def test_halves_go_to_both_sides(emit: Callable[..., Any], run_file: Callable[..., Any]) -> None:
    """2x2 windows behind a ReLU: every fourth average is a half. All interpreters give one answer, and nothing is shifted on average."""
    generator = torch.Generator().manual_seed(0)
    q = (0.05, -128)
    x = _fq(torch.randn(2, 32, 16, 16, generator=generator).relu() * 2, *q)
    bundle = Bundle.capture(Once(lambda v: F.avg_pool2d(v, 2), q, q).eval(), (x,), free_batch=False).replace(quantized={})
    path, written = emit(bundle, precision="int8")
    one, other = (run_file(path, written.signature, [x.numpy()], xnnpack)[0] for xnnpack in (False, True))
    np.testing.assert_array_equal(np.rint(one / q[0]), np.rint(other / q[0]))
    off = (one - F.avg_pool2d(x.double(), 2).numpy()) / q[0]
    assert np.abs(off).max() <= 0.5 + 1e-3
    assert (np.abs(np.abs(off) - 0.5) < 1e-3).mean() > 0.1
    assert abs(off.mean()) < 0.01  # 0.11 by AVERAGE_POOL_2D


def test_seven_bit_weights_are_stored_in_eight(emit: Callable[..., Any]) -> None:
    """The same real weights, the largest integer of a channel between 64 and 127."""
    from ai_edge_litert.interpreter import Interpreter

    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer(
                "integers", torch.randint(-63, 64, (5, 3, 3, 3), generator=torch.Generator().manual_seed(1)).to(torch.int8)
            )
            self.register_buffer("scales", torch.linspace(0.01, 0.02, 5))
            self.register_buffer("zeros", torch.zeros(5, dtype=torch.int64))

        def forward(self, x: Tensor) -> Tensor:
            w = torch.ops.quantized_decomposed.dequantize_per_channel(self.integers, self.scales, self.zeros, 0, -63, 63, torch.int8)
            return _fq(F.conv2d(_fq(x, 0.02, 0), w), 0.05, 0)

    layer = Layer().eval()
    bundle = Bundle.capture(layer, (torch.randn(1, 3, 6, 6),), free_batch=False).replace(quantized={})
    path, _ = emit(bundle, precision="int8")
    interpreter = Interpreter(str(path))
    interpreter.allocate_tensors()
    found = next(t for t in interpreter.get_tensor_details() if tuple(t["shape"]) == (5, 3, 3, 3))
    stored = interpreter.get_tensor(found["index"]).astype(np.float64)
    assert np.abs(stored).max((1, 2, 3)).min() >= 64
    real = stored * found["quantization_parameters"]["scales"].astype(np.float64)[:, None, None, None]
    want = layer.integers.double() * layer.scales.double()[:, None, None, None]
    np.testing.assert_allclose(real, want.permute(0, 2, 3, 1).numpy(), rtol=1e-7)
