"""BatchNorm in training with quantization: the weight that is rounded is the one that will be in the file.

In the file BatchNorm is folded: w' = w g / sqrt(v + e), with the running variance v. So that w' is rounded in training and the batch's
own statistics still normalise (Jacob et al., 2017, arXiv:1712.05877, section 3.2; with the running variance, as in Krishnamoorthi, 2018,
arXiv:1806.08342, section 3.2.2, so that the rounding does not jump with every batch)::

    conv(x, w, b) -> batch_norm        becomes        conv(x, round(w f)) -> / f -> + b -> batch_norm,      f = g / sqrt(v + e)

In inference mode the three on the right give conv(x, round(w f)) + (b - m) f + beta: the folded layer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

LEAST = 1e-6


def factor(gamma: Tensor | None, variance: Tensor, epsilon: float) -> Tensor:
    """f per channel, nowhere so small that it could not be divided by."""
    import torch

    deviation = (variance + epsilon).sqrt()
    f = deviation.reciprocal() if gamma is None else gamma / deviation
    return torch.where(f.abs() < LEAST, torch.full_like(f, LEAST), f)


def fold_weight(weight: Tensor, gamma: Tensor | None, variance: Tensor, epsilon: float, axis: int, groups: int) -> Tensor:
    """``weight`` times f along its output channels (see ``fold.fold_affine`` for the layouts)."""
    f = factor(gamma, variance, epsilon)
    if axis == 0:
        return weight * f.reshape(-1, *[1] * (weight.ndim - 1))
    inputs, outputs = weight.shape[:2]
    parts = weight.reshape(groups, inputs // groups, outputs, *weight.shape[2:])
    return (parts * f.reshape(groups, 1, outputs, *[1] * (weight.ndim - 2))).reshape(weight.shape)


def unfold(y: Tensor, gamma: Tensor | None, variance: Tensor, epsilon: float, bias: Tensor | None) -> Tensor:
    """The layer's output before BatchNorm: ``y / f + b``, channels on axis 1."""
    shape = (1, -1, *[1] * (y.ndim - 2))
    y = y / factor(gamma, variance, epsilon).reshape(shape)
    return y if bias is None else y + bias.reshape(shape)


def folded_bias(bias: Tensor | None, gamma: Tensor | None, beta: Tensor | None, mean: Tensor, variance: Tensor, epsilon: float) -> Tensor:
    """(b - m) f + beta, with f as it is where it is zero."""
    f = (variance.double() + epsilon).rsqrt()
    if gamma is not None:
        f = f * gamma.double()
    shift = ((0.0 if bias is None else bias.double()) - mean.double()) * f
    return (shift if beta is None else shift + beta.double()).to(mean.dtype)


def frozen(x: Tensor, gamma: Tensor | None, beta: Tensor | None, mean: Tensor, variance: Tensor, epsilon: float) -> Tensor:
    """BatchNorm by its running statistics, in both modes."""
    from torch.nn.functional import batch_norm

    return batch_norm(x, mean, variance, gamma, beta, False, 0.0, epsilon)
