"""Bias correction (Nagel et al., 2019, arXiv:1906.04721, section 4.2).

Rounding a weight by dW shifts the mean of the layer's output by E[dW x], the same for every image. Taking it off the bias costs
nothing at run time::

    b <- b - E[dW x]

Empirically, the shift is the difference of the channel means of the quantized and of the float layer, over calibration data. Analytically,
it needs no data: where the layer reads the output of BatchNorm (mean beta, deviation |gamma|) through an activation that clips to
[a, c], E[x] is the mean of a clipped normal variable::

    with A = (a - m) / s, C = (c - m) / s, phi and Phi the density and distribution of the normal:
    E[clip(x)]   = a Phi(A) + c (1 - Phi(C)) + m (Phi(C) - Phi(A)) + s (phi(A) - phi(C))
    E[clip(x)^2] = a^2 Phi(A) + c^2 (1 - Phi(C)) + (m^2 + s^2) (Phi(C) - Phi(A)) + s (m + a) phi(A) - s (m + c) phi(C)
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def channel_mean(values: list[Tensor], axis: int) -> Tensor:
    """The mean of each channel over all batches, float64."""
    import torch

    total, count = torch.zeros(values[0].shape[axis], dtype=torch.float64), 0
    for value in values:
        rest = [i for i in range(value.ndim) if i != axis % value.ndim]
        total += value.double().sum(rest) if rest else value.double()
        count += value.numel() // value.shape[axis]
    return total / count


def clipped_normal(mean: Tensor, variance: Tensor, low: float, high: float) -> tuple[Tensor, Tensor]:
    """Mean and variance of a normal variable clipped to [low, high]; the bounds may be infinite. Elementwise, float64."""
    import torch

    deviation = variance.clamp_min(1e-24).sqrt()
    first = torch.zeros_like(mean)
    second = torch.zeros_like(mean)
    below, above = torch.zeros_like(mean), torch.ones_like(mean)  # Phi(A), Phi(C)
    edge_low, edge_high = torch.zeros_like(mean), torch.zeros_like(mean)  # phi(A), phi(C)
    if math.isfinite(low):
        a = (low - mean) / deviation
        below, edge_low = _distribution(a), _density(a)
        first = first + low * below + deviation * edge_low
        second = second + low * low * below + deviation * (mean + low) * edge_low
    if math.isfinite(high):
        c = (high - mean) / deviation
        above, edge_high = _distribution(c), _density(c)
        first = first + high * (1 - above) - deviation * edge_high
        second = second + high * high * (1 - above) - deviation * (mean + high) * edge_high
    first = first + mean * (above - below)
    second = second + (mean**2 + variance) * (above - below)
    return first, (second - first**2).clamp_min(0)


def expected_shift(change: Tensor, mean: Tensor) -> Tensor:
    """E[dW x] per output channel: ``change`` is dW as (groups, out / groups, in / groups, positions), ``mean`` E[x] per input channel."""
    groups, outputs, inputs, _ = change.shape
    means = mean.reshape(groups, 1, inputs)
    return (change.double().sum(3) * means).sum(2).reshape(groups * outputs)


def _density(x: Tensor) -> Tensor:
    import torch

    return torch.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)


def _distribution(x: Tensor) -> Tensor:
    import torch

    return 0.5 * torch.erfc(-x / math.sqrt(2.0))
