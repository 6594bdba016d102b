"""Activations: one torch function each, with ONNX's own defaults."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..call import Call, convert, typed

if TYPE_CHECKING:
    from torch import Tensor


@convert("Relu", "Sigmoid", "Tanh", "Softsign", "Mish")
def plain(c: Call) -> Any:
    import torch
    from torch.nn import functional as f

    x = c.tensor(0)
    functions: dict[str, Any] = {"Relu": f.relu, "Sigmoid": torch.sigmoid, "Tanh": torch.tanh, "Softsign": f.softsign, "Mish": f.mish}
    return functions[c.op](x)


@convert("LeakyRelu")
def leaky_relu(c: Call) -> Tensor:
    from torch.nn import functional as f

    return f.leaky_relu(c.tensor(0), c.attr("alpha", 0.01))


@convert("PRelu")
def prelu(c: Call) -> Tensor:
    """The slope is broadcast from the right, so one a channel is stored as [C, 1, 1]."""
    import torch
    from torch.nn import functional as f

    x, slope = c.tensor(0), c.tensor(1)
    if c.since < 7 and slope.ndim == 1 and slope.numel() > 1 and x.ndim > 2:  # opset 6: one a channel
        slope = slope.reshape(-1, *[1] * (x.ndim - 2))
    shape = tuple(slope.shape)
    while len(shape) > max(x.ndim - 1, 1) and shape[0] == 1:
        shape = shape[1:]
    channels = x.ndim >= 2 and slope.numel() == x.shape[1] and shape == (slope.numel(), *[1] * (x.ndim - 2))
    if c.constant(1) and (channels or slope.numel() == 1) and x.ndim >= 2:
        return f.prelu(x, c.parameter("weight", lambda: slope.reshape(-1)))
    return torch.where(x >= 0, x, x * slope)


@convert("Elu")
def elu(c: Call) -> Tensor:
    from torch.nn import functional as f

    return f.elu(c.tensor(0), c.attr("alpha", 1.0))


@convert("Celu")
def celu(c: Call) -> Tensor:
    from torch.nn import functional as f

    return f.celu(c.tensor(0), c.attr("alpha", 1.0))


@convert("Selu")
def selu(c: Call) -> Any:
    """gamma * (x if x > 0 else alpha * (exp(x) - 1))"""
    import torch
    from torch.nn import functional as f

    alpha, gamma = c.attr("alpha", 1.67326319217681884765625), c.attr("gamma", 1.05070102214813232421875)
    x = c.tensor(0)
    if abs(alpha - 1.6732632) < 1e-6 and abs(gamma - 1.0507010) < 1e-6:
        return f.selu(x)
    return gamma * torch.where(x > 0, x, alpha * torch.expm1(x))


@convert("ThresholdedRelu")
def thresholded_relu(c: Call) -> Any:
    from torch.nn import functional as f

    return f.threshold(c.tensor(0), c.attr("alpha", 1.0), 0.0)


@convert("HardSigmoid")
def hard_sigmoid(c: Call) -> Any:
    """max(0, min(1, alpha x + beta)); torch's own is alpha = 1/6, beta = 1/2."""
    import torch
    from torch.nn import functional as f

    alpha, beta = c.attr("alpha", 0.2), c.attr("beta", 0.5)
    if abs(alpha - 1 / 6) < 1e-7 and beta == 0.5:
        return f.hardsigmoid(c.tensor(0))
    return torch.clamp(c.tensor(0) * alpha + beta, 0.0, 1.0)


@convert("HardSwish")
def hard_swish(c: Call) -> Any:
    from torch.nn import functional as f

    return f.hardswish(c.tensor(0))


@convert("Swish")
def swish(c: Call) -> Tensor:
    """x * sigmoid(alpha x)"""
    import torch
    from torch.nn import functional as f

    x, alpha = c.tensor(0), c.attr("alpha", 1.0)
    return f.silu(x) if alpha == 1.0 else x * torch.sigmoid(alpha * x)


@convert("Softplus")
def softplus(c: Call) -> Tensor:
    """log(1 + exp(x)), without torch's shortcut above 20."""
    import torch

    x = c.tensor(0)
    return torch.clamp(x, min=0) + torch.log1p(torch.exp(-torch.abs(x)))


@convert("Gelu")
def gelu(c: Call) -> Tensor:
    from torch.nn import functional as f

    return f.gelu(c.tensor(0), approximate=c.attr("approximate", "none"))


@convert("Shrink")
def shrink(c: Call) -> Tensor:
    """x + bias below -lambda, x - bias above lambda, 0 between."""
    import torch

    x, bias, edge = c.tensor(0), c.attr("bias", 0.0), c.attr("lambd", 0.5)
    zero = torch.zeros_like(x)
    return typed(torch.where(x < -edge, x + bias, torch.where(x > edge, x - bias, zero)), x.dtype)
