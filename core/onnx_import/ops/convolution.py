"""Convolutions of one to three axes.

Padding: ``pads`` holds all begins, then all ends. auto_pad SAME_UPPER gives ceil(in / stride) pixels, the odd one behind.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..call import Call, convert

if TYPE_CHECKING:
    from torch import Tensor


def window(c: Call, kernel: Sequence[int], x: Tensor) -> tuple[list[int], list[int], list[int], list[int]]:
    """(begins, ends, strides, dilations) of a convolution or pool over the spatial axes of ``x``."""
    n = len(kernel)
    strides, dilations = list(c.attr("strides") or [1] * n), list(c.attr("dilations") or [1] * n)
    how = c.attr("auto_pad", "NOTSET")
    if how in ("NOTSET", ""):
        pads = list(c.attr("pads") or [0] * 2 * n)
        return pads[:n], pads[n:], strides, dilations
    if how == "VALID":
        return [0] * n, [0] * n, strides, dilations
    begins, ends = [], []
    for size, k, s, d in zip(x.shape[2:], kernel, strides, dilations, strict=True):
        if s == 1:
            total = (k - 1) * d  # whatever the size
        else:
            (fixed,) = c.fixed([size], "spatial size")
            total = max((-(-fixed // s) - 1) * s + (k - 1) * d + 1 - fixed, 0)
        half = total // 2
        begins.append(half if how == "SAME_UPPER" else total - half)
        ends.append(total - half if how == "SAME_UPPER" else half)
    return begins, ends, strides, dilations


def flat_pads(begins: Sequence[int], ends: Sequence[int]) -> list[int]:
    """torch's order: the last axis first, begin and end of each."""
    return [p for b, e in zip(reversed(begins), reversed(ends), strict=True) for p in (b, e)]


@convert("Conv")
def conv(c: Call) -> Any:
    from torch.nn import functional as f

    x, weight = c.tensor(0), c.tensor(1)
    kernel = [int(k) for k in weight.shape[2:]]
    begins, ends, strides, dilations = window(c, kernel, x)
    padding = begins
    if begins != ends or any(p < 0 for p in begins):
        x, padding = f.pad(x, flat_pads(begins, ends)), [0] * len(begins)
    bias = c.tensor(2) if c.has(2) else None
    return _function(c, "conv", len(kernel))(x, weight, bias, strides, padding, dilations, c.attr("group", 1))


@convert("ConvTranspose")
def conv_transpose(c: Call) -> Any:
    """out = stride (in - 1) + output_padding + (kernel - 1) dilation + 1 - begin - end; what torch can't pad unevenly is cut after."""
    from torch.nn import functional as f

    x, weight = c.tensor(0), c.tensor(1)
    kernel = [int(k) for k in weight.shape[2:]]
    n = len(kernel)
    strides, dilations = list(c.attr("strides") or [1] * n), list(c.attr("dilations") or [1] * n)
    extra = list(c.attr("output_padding") or [0] * n)
    begins, ends = _output_pads(c, x, kernel, strides, dilations, extra)
    bias = c.tensor(2) if c.has(2) else None
    function = _function(c, "conv_transpose", n)
    group = c.attr("group", 1)
    fits = all(e < max(s, d) for e, s, d in zip(extra, strides, dilations, strict=True))
    if begins == ends and all(p >= 0 for p in begins) and fits:
        return function(x, weight, bias, strides, begins, extra, group, dilations)
    whole = function(x, weight, None, strides, 0, 0, group, dilations)
    cuts = flat_pads([-b for b in begins], [o - e for o, e in zip(extra, ends, strict=True)])
    y = f.pad(whole, cuts)
    return y if bias is None else y + bias.reshape([1, -1] + [1] * n)


def _output_pads(c: Call, x: Tensor, kernel: list[int], strides: list[int], dilations: list[int], extra: list[int]) -> Any:
    n, how = len(kernel), c.attr("auto_pad", "NOTSET")
    shape = c.attr("output_shape")
    if shape is None and how in ("NOTSET", "", "VALID"):
        pads = list(c.attr("pads") or [0] * 2 * n) if how != "VALID" else [0] * 2 * n
        return pads[:n], pads[n:]
    begins, ends = [], []
    for i in range(n):
        if shape is not None:
            (size,) = c.fixed([x.shape[2 + i]], "spatial size")
            total = strides[i] * (size - 1) + extra[i] + (kernel[i] - 1) * dilations[i] + 1 - int(list(shape)[-n:][i])
        else:  # SAME: out = in * stride
            total = extra[i] + (kernel[i] - 1) * dilations[i] + 1 - strides[i]
        half = total // 2
        upper = how == "SAME_UPPER"
        begins.append(half if upper else total - half)
        ends.append(total - half if upper else half)
    return begins, ends


def _function(c: Call, name: str, axes: int) -> Any:
    from torch.nn import functional as f

    if axes not in (1, 2, 3):
        c.refuse(f"it works on {axes} spatial axes, torch on one to three")
    return getattr(f, f"{name}{axes}d")
