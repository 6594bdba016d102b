"""Pools. Where torch's own pool has the same rule it is used; an uneven or uncounted padding is computed as a ratio of two sums."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from ..call import Call, convert, typed
from .convolution import flat_pads, window

if TYPE_CHECKING:
    from torch import Tensor


def _rank(c: Call, kernel: list[int]) -> int:
    if len(kernel) not in (1, 2, 3):
        c.refuse(f"it works on {len(kernel)} spatial axes, torch on one to three")
    return len(kernel)


@convert("MaxPool")
def max_pool(c: Call) -> Any:
    """Padding counts as minus infinity."""
    import torch
    from torch.nn import functional as f

    x, kernel = c.tensor(0), list(c.attr("kernel_shape"))
    if c.wants(1):
        c.refuse("its indices are asked for, and torch counts them within one channel", "unpool with a resize instead")
    n, floating = _rank(c, kernel), x.is_floating_point()
    begins, ends, strides, dilations = window(c, kernel, x)
    ceil = bool(c.attr("ceil_mode", 0))
    source = x
    x = x if floating else x.to(torch.float32)  # whole numbers of 8 bits are exact in float32
    padding = begins
    if ceil or begins != ends or any(2 * p > k for p, k in zip(begins, kernel, strict=True)):
        x, padding = f.pad(x, flat_pads(begins, ends), value=-math.inf), [0] * n
    if ceil:
        x = _overhang(c, x, kernel, strides, dilations, ends, -math.inf)
    return typed(getattr(f, f"max_pool{n}d")(x, kernel, strides, padding, dilations), source.dtype)


def _overhang(
    c: Call, x: Tensor, kernel: list[int], strides: list[int], dilations: list[int], ends: list[int], fill: float = 0.0
) -> Tensor:
    """The padded ``x`` with what the last window of ceil mode hangs over; a window that would start in the end padding is left out."""
    from torch.nn import functional as f

    over = []
    for size, k, s, d, end in zip(c.fixed(list(x.shape[2:]), "spatial size"), kernel, strides, dilations, ends, strict=True):
        reach = (k - 1) * d + 1
        out = -(-(size - reach) // s) + 1
        if (out - 1) * s >= size - end:
            out -= 1
        over.append(max(0, (out - 1) * s + reach - size))
    return f.pad(x, flat_pads([0] * len(over), over), value=fill) if any(over) else x


@convert("AveragePool")
def average_pool(c: Call) -> Any:
    """sum over the window / count: of the pixels inside the image or, with count_include_pad, of the padded ones too."""
    from torch.nn import functional as f

    x, kernel = c.tensor(0), list(c.attr("kernel_shape"))
    n = _rank(c, kernel)
    begins, ends, strides, dilations = window(c, kernel, x)
    counts = bool(c.attr("count_include_pad", 0))
    even = begins == ends and all(2 * p <= k for p, k in zip(begins, kernel, strict=True)) and all(d == 1 for d in dilations)
    ceil = bool(c.attr("ceil_mode", 0))
    if even and not ceil:
        return getattr(f, f"avg_pool{n}d")(x, kernel, strides, begins, False, counts or not any(begins))
    return _ratio(c, x, kernel, begins, ends, strides, dilations, counts, ceil)


def _ratio(
    c: Call,
    x: Tensor,
    kernel: list[int],
    begins: list[int],
    ends: list[int],
    strides: list[int],
    dilations: list[int],
    counts: bool,
    ceil: bool,
) -> Tensor:
    import torch
    from torch.nn import functional as f

    pads = flat_pads(begins, ends)
    sizes = c.fixed(list(x.shape[2:]), "spatial size")

    def sums(t: Any, fill: float) -> Any:
        t = f.pad(t, pads, value=fill) if any(pads) else t
        t = _overhang(c, t, kernel, strides, dilations, ends) if ceil else t
        return _sums(t, kernel, strides, dilations)

    count = c.buffer("divisor", lambda: sums(torch.ones([1, 1, *sizes], dtype=x.dtype), 1.0 if counts else 0.0))
    result: Tensor = sums(x, 0.0) / count
    return result


def _sums(x: Tensor, kernel: list[int], strides: list[int], dilations: list[int]) -> Any:
    """The sum over each window, channel by channel: a convolution with ones over each channel as an image of its own."""
    import torch
    from torch.nn import functional as f

    images = x.reshape(-1, 1, *x.shape[2:])
    y = getattr(f, f"conv{len(kernel)}d")(images, torch.ones([1, 1, *kernel], dtype=x.dtype), None, strides, 0, dilations)
    return y.reshape(x.shape[0], x.shape[1], *y.shape[2:])


@convert("LpPool")
def lp_pool(c: Call) -> Tensor:
    """(sum |x|^p)^(1/p)"""
    import torch
    from torch.nn import functional as f

    x, kernel, p = c.tensor(0), list(c.attr("kernel_shape")), float(c.attr("p", 2))
    begins, ends, strides, dilations = window(c, kernel, x)
    x = f.pad(x.abs().pow(p), flat_pads(begins, ends))
    if c.attr("ceil_mode", 0):
        x = _overhang(c, x, kernel, strides, dilations, ends)
    _rank(c, kernel)
    return torch.pow(_sums(x, kernel, strides, dilations), 1 / p)


@convert("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool")
def global_pool(c: Call) -> Tensor:
    import torch
    from torch.nn import functional as f

    x = c.tensor(0)
    axes = list(range(2, x.ndim))
    if c.op == "GlobalAveragePool":
        return f.adaptive_avg_pool2d(x, 1) if x.ndim == 4 else x.mean(axes, keepdim=True)
    if c.op == "GlobalMaxPool":
        return torch.amax(x, axes, keepdim=True)
    p = float(c.attr("p", 2))
    return torch.pow(x.abs().pow(p).sum(axes, keepdim=True), 1 / p)
