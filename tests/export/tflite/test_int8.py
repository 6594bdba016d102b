"""Integer kernels against the arithmetic they stand for: quantize, dequantize, the operator in float, quantize, dequantize.

Each case wraps an operator in its own quantize/dequantize pairs, as a converted PT2E graph has them. A correct integer kernel gives
the same integers but for rounding (one step; a few more where two roundings or a table follow each other).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.ao.quantization.fx._decomposed  # registers the operators
import torch.nn.functional as F
from torch import Tensor, nn

QD = torch.ops.quantized_decomposed


def fq(x: Tensor, scale: float, zero: int = 0) -> Tensor:
    """Through int8 and back."""
    q = QD.quantize_per_tensor(x, scale, zero, -128, 127, torch.int8)
    return QD.dequantize_per_tensor(q, scale, zero, -128, 127, torch.int8)


class Weights(nn.Module):
    """An int8 weight, one scale a channel."""

    def __init__(self, shape: tuple[int, ...], axis: int = 0) -> None:
        super().__init__()
        self.axis = axis
        self.register_buffer("weight", torch.randint(-127, 128, shape, dtype=torch.int8))
        self.register_buffer("scale", torch.rand(shape[axis]) * 0.004 + 0.001)
        self.register_buffer("zero", torch.zeros(shape[axis], dtype=torch.int64))

    def forward(self) -> Tensor:
        return QD.dequantize_per_channel(self.weight, self.scale, self.zero, self.axis, -127, 127, torch.int8)


class Quantized(nn.Module):
    """fq -> function -> fq; ``weights`` is handed to the function."""

    def __init__(self, function: Callable[..., Any], out: tuple[float, int], weights: nn.Module | None = None, into=(0.02, -7)) -> None:
        super().__init__()
        self.function, self.out, self.weights, self.into = function, out, weights, into
        self.bias = nn.Parameter(torch.randn(6) * 0.3)

    def forward(self, x: Tensor) -> Any:
        x = fq(x, *self.into)
        y = self.function(x, self.weights(), self.bias) if self.weights is not None else self.function(x)
        return fq(y, *self.out) if isinstance(y, Tensor) else tuple(fq(v, *self.out) for v in y)


IMAGE = (1, 6, 9, 8)
SAME = (0.02, -7)
CASES: dict[str, tuple[Callable[..., Any], tuple[float, int], tuple[int, ...] | None, int]] = {
    # function, output scale and zero point, weight shape, steps allowed
    "conv": (lambda x, w, b: F.conv2d(x, w, b, 2, 1), (0.05, 3), (6, 6, 3, 3), 1),
    "conv relu": (lambda x, w, b: F.relu(F.conv2d(x, w, b)), (0.03, -128), (6, 6, 3, 3), 1),
    "conv relu6": (lambda x, w, b: F.relu6(F.conv2d(x, w, b)), (6 / 255, -128), (6, 6, 1, 1), 1),
    "conv clipped": (lambda x, w, b: F.hardtanh(F.conv2d(x, w, b), -0.5, 1.0), (0.01, 0), (6, 6, 1, 1), 1),
    "conv depthwise": (lambda x, w, b: F.conv2d(x, w, b, 1, 1, 1, 6), (0.02, 3), (6, 1, 3, 3), 1),
    "conv grouped": (lambda x, w, b: F.conv2d(x, w, b, 1, 1, 1, 2), (0.02, 3), (6, 3, 3, 3), 1),
    "conv1d": (lambda x, w, b: F.conv1d(x[:, :, 0], w, b), (0.03, 3), (6, 6, 3), 1),
    "transposed": (lambda x, w, b: F.conv_transpose2d(x, w, b, 2, 1, 1), (0.05, 3), (6, 6, 3, 3), 1),
    "transposed relu": (lambda x, w, b: F.relu(F.conv_transpose2d(x, w, b, 2)), (0.03, -128), (6, 6, 2, 2), 1),
    "linear": (lambda x, w, b: F.linear(x[:, :, 3, 3], w, b), (0.01, 3), (6, 6), 1),
    "linear of rows": (lambda x, w, b: F.linear(x.permute(0, 2, 3, 1), w, b), (0.03, 3), (6, 6), 1),
    "relu": (F.relu, (0.015, -128), None, 1),
    "relu6": (F.relu6, (0.012, -128), None, 1),
    "leaky": (lambda x: F.leaky_relu(x, 0.1), (0.015, -90), None, 1),
    "sigmoid": (torch.sigmoid, (1 / 256, -128), None, 1),
    "tanh": (torch.tanh, (1 / 128, 0), None, 1),
    "softmax": (lambda x: F.softmax(x, 1), (1 / 256, -128), None, 1),
    "log softmax": (lambda x: F.log_softmax(x[:, :, 3, 3], 1), (16 / 256, 127), None, 1),
    "silu": (lambda x: F.silu(x), (0.012, -105), None, 2),
    "hardswish": (F.hardswish, (0.012, -105), None, 2),
    "hardsigmoid": (F.hardsigmoid, (1 / 256, -128), None, 2),
    "gelu": (F.gelu, (0.012, -110), None, 1),
    "elu": (F.elu, (0.015, -50), None, 1),
    "add": (lambda x: x + x.flip(2), (0.03, 5), None, 1),
    "add relu": (lambda x: F.relu(x + x.flip(2)), (0.02, -128), None, 1),
    "add number": (lambda x: x + 0.753, (0.02, 5), None, 1),
    "subtract": (lambda x: x - x.flip(2), (0.03, 5), None, 1),
    "subtract from": (lambda x: 1 - x, (0.03, 5), None, 1),
    "multiply": (lambda x: x * x.flip(2), (0.03, 5), None, 1),
    "multiply gate": (lambda x: x * x[:, :, :1, :1], (0.03, 5), None, 1),
    "divide": (lambda x: x / 3, (0.01, 5), None, 1),
    "mean": (lambda x: x.mean((2, 3)), (0.008, 5), None, 1),
    "global pool": (lambda x: F.adaptive_avg_pool2d(x, 1), (0.008, 5), None, 1),
    "average pool": (lambda x: F.avg_pool2d(x, 2), SAME, None, 1),
    "average pool padded": (lambda x: F.avg_pool2d(x, 3, 1, 1), (0.015, 4), None, 1),
    "adaptive pool": (lambda x: F.adaptive_avg_pool2d(x, (3, 4)), SAME, None, 1),
    "uneven pool": (lambda x: F.adaptive_avg_pool2d(x, (4, 3)), (0.015, 4), None, 2),
    "max pool": (lambda x: F.max_pool2d(x, 3, 2, 1), SAME, None, 0),
    "max pool rescaled": (lambda x: F.max_pool2d(x, 2), (0.03, 4), None, 1),
    "clamp": (lambda x: x.clamp(-0.3, 0.8), SAME, None, 0),
    "maximum": (lambda x: torch.maximum(x, x.flip(2)), SAME, None, 0),
    "amax": (lambda x: x.amax((2, 3)), SAME, None, 0),
    "sum": (lambda x: x.sum(1), (0.08, 5), None, 1),
    "cat": (lambda x: torch.cat([x, x.flip(2)], 1), SAME, None, 0),
    "cat of two scales": (lambda x: torch.cat([x, fq(x * 2, 0.04, 3)], 1), (0.04, 3), None, 1),
    "stack": (lambda x: torch.stack([x, x], 1), SAME, None, 0),
    "split": (lambda x: torch.split(x, 2, 1), SAME, None, 0),
    "slice": (lambda x: x[:, 1:4, ::2], SAME, None, 0),
    "select": (lambda x: x[:, 2], SAME, None, 0),
    "index": (lambda x: x[:, [2, 0, 1]], SAME, None, 0),
    "pad": (lambda x: F.pad(x, (1, 2, 0, 1)), SAME, None, 0),
    "pad number": (lambda x: F.pad(x, (1, 2, 0, 1), value=0.5), SAME, None, 0),
    "pad reflect": (lambda x: F.pad(x, (1, 2, 0, 1), mode="reflect"), SAME, None, 0),
    "reshape": (lambda x: x.reshape(6, 72), SAME, None, 0),
    "permute": (lambda x: x.permute(0, 2, 1, 3).contiguous(), SAME, None, 0),
    "repeat": (lambda x: x.repeat(1, 2, 1, 1), SAME, None, 0),
    "expand": (lambda x: x[:, :1].expand(-1, 4, -1, -1), SAME, None, 0),
    "flip": (lambda x: x.flip(3), SAME, None, 0),
    "roll": (lambda x: x.roll(1, 2), SAME, None, 0),
    "bilinear": (lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"), SAME, None, 1),
    "bilinear corners": (lambda x: F.interpolate(x, size=(12, 13), mode="bilinear", align_corners=True), (0.03, 0), None, 1),
    "nearest": (lambda x: F.interpolate(x, scale_factor=2), SAME, None, 0),
    "pixel shuffle": (lambda x: F.pixel_shuffle(x[:, :4], 2), SAME, None, 0),
    "pixel unshuffle": (lambda x: F.pixel_unshuffle(x[:, :, :8], 2), SAME, None, 0),
    "channel shuffle": (lambda x: F.channel_shuffle(x, 3), SAME, None, 0),
    "matmul": (lambda x: x @ x.transpose(2, 3), (0.1, 5), None, 1),
    "requantize": (lambda x: x, (0.05, 9), None, 1),
}


class Several(nn.Module):
    """Many operators of one input, one file."""

    def __init__(self, parts: list[nn.Module]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def forward(self, x: Tensor) -> list[Any]:
        return [part(x) for part in self.parts]


def _quantized(name: str) -> Quantized:
    function, out, shape, _ = CASES[name]
    return Quantized(function, out, Weights(shape, 1 if "transposed" in name else 0) if shape else None)


@pytest.mark.parametrize("first", range(0, len(CASES), 10))
def test_int8(emit: Callable[..., Any], run_file: Callable[..., Any], first: int) -> None:
    from packlight.core.bundle import Bundle

    torch.manual_seed(0)
    names = list(CASES)[first : first + 10]
    parts = [_quantized(name) for name in names]
    x = torch.randn(IMAGE)
    told = [n for n, p in zip(names, parts, strict=True) for _ in torch.utils._pytree.tree_leaves(p(x))]
    bundle = Bundle.capture(Several(parts).eval(), (x,), free_batch=False).replace(quantized={})
    path, written = emit(bundle, precision="int8")
    assert written.ops.float_left == ()
    expected = [t.numpy() for t in bundle.run(x)]
    for xnnpack in (False, True):
        for name, got, want in zip(told, run_file(path, written.signature, [x.numpy()], xnnpack), expected, strict=True):
            _, (scale, _), _, steps = CASES[name]
            off = np.abs(got - want) / scale
            assert got.shape == want.shape, name
            assert off.max() <= steps + 1e-3, f"{name}: {off.max():.2f} steps away (XNNPACK {xnnpack})"
            assert off.mean() <= 0.35 * steps + 1e-3, f"{name}: {off.mean():.2f} steps away on average (XNNPACK {xnnpack})"
