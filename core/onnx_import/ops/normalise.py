"""Normalizations at inference."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..call import Call, convert

if TYPE_CHECKING:
    from torch import Tensor


@convert("BatchNormalization")
def batch_norm(c: Call) -> Tensor:
    from torch.nn import functional as f

    if c.attr("training_mode", 0) or (c.since < 14 and any(c.wants(i) for i in range(1, 5))):
        c.refuse("it computes its statistics from the batch (training mode)", "export the model in inference mode: model.eval()")
    if not c.attr("spatial", 1):
        c.refuse("its statistics are one a pixel (spatial = 0), torch has one a channel")
    x, scale, bias, mean, variance = (c.tensor(i) for i in range(5))
    return f.batch_norm(x, mean, variance, scale, bias, training=False, eps=c.attr("epsilon", 1e-5))


@convert("InstanceNormalization")
def instance_norm(c: Call) -> Tensor:
    from torch.nn import functional as f

    return f.instance_norm(c.tensor(0), weight=c.tensor(1), bias=c.tensor(2), eps=c.attr("epsilon", 1e-5))


@convert("LayerNormalization")
def layer_norm(c: Call) -> Any:
    """Over every axis from ``axis`` on."""
    import torch
    from torch.nn import functional as f

    x, epsilon = c.tensor(0), c.attr("epsilon", 1e-5)
    axis = c.attr("axis", -1) % x.ndim
    shape = c.fixed(list(x.shape[axis:]), "normalized shape")
    scale = c.tensor(1).expand(shape)
    bias = c.tensor(2).expand(shape) if c.has(2) else None
    y = f.layer_norm(x, shape, scale, bias, epsilon)
    if not c.wants(1) and not c.wants(2):
        return y
    axes = list(range(axis, x.ndim))
    mean = x.mean(axes, keepdim=True)
    return y, mean, torch.rsqrt((x - mean).square().mean(axes, keepdim=True) + epsilon)


@convert("RMSNormalization")
def rms_norm(c: Call) -> Tensor:
    """x / sqrt(mean(x^2) + epsilon) * scale, over every axis from ``axis`` on."""
    import torch

    x = c.tensor(0)
    axes = list(range(c.attr("axis", -1) % x.ndim, x.ndim))
    return x * torch.rsqrt(x.square().mean(axes, keepdim=True) + c.attr("epsilon", 1e-5)) * c.tensor(1)


@convert("GroupNormalization")
def group_norm(c: Call) -> Tensor:
    """Scale and bias are one a group in opset 18, one a channel from 21."""
    from torch.nn import functional as f

    x, groups = c.tensor(0), c.attr("num_groups")
    scale, bias = c.tensor(1), c.tensor(2)
    if c.since < 21:
        each = x.shape[1] // groups
        scale, bias = scale.repeat_interleave(each), bias.repeat_interleave(each)
    return f.group_norm(x, groups, scale, bias, c.attr("epsilon", 1e-5))


@convert("LRN")
def lrn(c: Call) -> Tensor:
    """x / (bias + alpha / size * sum of squares over ``size`` neighbouring channels) ** beta; more of them above where size is even."""
    import torch
    from torch.nn import functional as f

    x, size = c.tensor(0), c.attr("size")
    below, above = (size - 1) // 2, size // 2
    squares = f.pad(x.square().flatten(2).unsqueeze(1), (0, 0, below, above))
    total = f.avg_pool2d(squares, (size, 1), 1).squeeze(1).reshape(x.shape)  # alpha / size times the sum is alpha times the mean
    return x / torch.pow(c.attr("bias", 1.0) + c.attr("alpha", 1e-4) * total, c.attr("beta", 0.75))


@convert("LpNormalization")
def lp_norm(c: Call) -> Tensor:
    """A vector of zeros stays one."""
    import torch

    x, axis = c.tensor(0), c.attr("axis", -1)
    length = x.abs().sum(axis, keepdim=True) if c.attr("p", 2) == 1 else x.square().sum(axis, keepdim=True).sqrt()
    return torch.where(length == 0, torch.zeros_like(x), x / length)


@convert("MeanVarianceNormalization")
def mvn(c: Call) -> Tensor:
    """(x - mean) / (sqrt(E[x^2] - mean^2) + 1e-9)"""
    x, axes = c.tensor(0), list(c.attr("axes", (0, 2, 3)))
    mean = x.mean(axes, keepdim=True)
    return (x - mean) / ((x - mean).square().mean(axes, keepdim=True).sqrt() + 1e-9)
