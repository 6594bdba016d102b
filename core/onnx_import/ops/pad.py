"""Pad: constant, reflect, edge, wrap. Pads are an attribute up to opset 10, an input from 11, with their own axes from 18."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..call import Call, convert
from .convolution import flat_pads

if TYPE_CHECKING:
    from torch import Tensor

_MODES = {"constant": "constant", "reflect": "reflect", "edge": "replicate", "wrap": "circular"}


@convert("Pad")
def pad(c: Call) -> Tensor:
    import torch
    from torch.nn import functional as f

    x, mode = c.tensor(0), c.attr("mode", "constant")
    pads = list(c.attr("pads")) if c.since < 11 else c.numbers(1, "pads")
    axes = [a % x.ndim for a in c.numbers(3, "axes")] if c.has(3) else list(range(x.ndim))
    begins, ends = [0] * x.ndim, [0] * x.ndim
    for place, axis in enumerate(axes):
        begins[axis], ends[axis] = pads[place], pads[place + len(axes)]
    if mode == "constant":
        return f.pad(x, flat_pads(begins, ends), value=_fill(c))
    if mode not in _MODES:
        c.refuse(f"mode '{mode}' has no counterpart in torch")
    padded = [i for i in range(x.ndim) if begins[i] or ends[i]]
    if not padded:
        return x
    outer = padded[0]
    negative = any(p < 0 for p in (*begins, *ends))
    if outer >= 2 and x.ndim in (3, 4, 5) and x.is_floating_point() and not negative and (x.ndim < 5 or mode != "reflect"):
        return f.pad(x, flat_pads(begins[2:], ends[2:]), mode=_MODES[mode])
    for axis in padded:
        x = torch.index_select(x, axis, _index(c, x.shape[axis], begins[axis], ends[axis], mode))
    return x


def _fill(c: Call) -> Any:
    if c.since < 11:
        return c.attr("value", 0.0)
    return c.scalar(2, "fill value") if c.has(2) else 0


def _index(c: Call, size: Any, begin: int, end: int, mode: str) -> Tensor:
    """Which row of the input each row of the output is."""
    import torch

    (n,) = c.fixed([size], f"size of an axis padded by {mode}")
    rows = []
    for i in range(-begin, n + end):
        if mode == "edge":
            rows.append(min(max(i, 0), n - 1))
        elif mode == "wrap":
            rows.append(i % n)
        else:
            period = max(2 * (n - 1), 1)
            j = i % period
            rows.append(j if j < n else period - j)
    return torch.tensor(rows)
