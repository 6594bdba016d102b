"""Reductions. Axes are an attribute, and an input from opset 13 (ReduceSum) and 18 (the rest); no axes: all, or with noop none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..call import Call, convert, typed

if TYPE_CHECKING:
    from torch import Tensor


@convert(
    *("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2"),
    *("ReduceLogSum", "ReduceLogSumExp", "ReduceSumSquare"),
)
def reduction(c: Call) -> Tensor:
    import torch

    x, keep = c.tensor(0), bool(c.attr("keepdims", 1))
    axes = list(c.attr("axes") or []) or (c.numbers(1, "axes") if c.has(1) else [])
    if not axes:
        axes = [] if c.attr("noop_with_empty_axes", 0) else list(range(x.ndim))
        if not axes:
            return _of_one(c.op, x)
    axes = sorted(a % x.ndim for a in axes)
    if c.op == "ReduceMean":
        return x.mean(axes, keep) if x.is_floating_point() else x.to(torch.float64).mean(axes, keep).to(x.dtype)
    if c.op == "ReduceSum":
        return torch.sum(x, axes, keep, dtype=x.dtype)
    if c.op in ("ReduceMax", "ReduceMin"):
        function = torch.amax if c.op == "ReduceMax" else torch.amin
        return function(x, axes, keep) if x.dtype != torch.bool else function(x.to(torch.uint8), axes, keep).to(torch.bool)
    if c.op == "ReduceProd":
        for axis in reversed(axes):
            x = torch.prod(x, axis, keep, dtype=x.dtype)
        return x
    if c.op == "ReduceLogSumExp":
        return typed(torch.logsumexp(x if x.is_floating_point() else x.to(torch.float32), axes, keep), x.dtype)
    if c.op == "ReduceLogSum":
        return torch.log(torch.sum(x, axes, keep, dtype=x.dtype))
    if c.op == "ReduceL1":
        return torch.sum(x.abs(), axes, keep, dtype=x.dtype)
    squares = torch.sum(x.square(), axes, keep, dtype=x.dtype)
    return typed(torch.sqrt(squares), x.dtype) if c.op == "ReduceL2" else squares


def _of_one(op: str, x: Tensor) -> Tensor:
    """A reduction over no axes works on every element alone."""
    import torch

    if op in ("ReduceL1", "ReduceL2"):
        return x.abs()
    if op == "ReduceSumSquare":
        return x.square()
    return torch.log(x) if op == "ReduceLogSum" else x


@convert("ArgMax", "ArgMin")
def arg(c: Call) -> Any:
    """The first of equal ones, or with select_last_index the last."""
    import torch

    x, axis, keep = c.tensor(0), c.attr("axis", 0), bool(c.attr("keepdims", 1))
    function = torch.argmax if c.op == "ArgMax" else torch.argmin
    if c.attr("select_last_index", 0):
        return x.shape[axis] - 1 - function(torch.flip(x, [axis]), axis, keep)
    return function(x, axis, keep)


@convert("TopK")
def top_k(c: Call) -> Any:
    """k is an attribute before opset 10. Ties are torch's choice: the values are the same, the indices may differ."""
    import torch

    x, axis = c.tensor(0), c.attr("axis", -1)
    k = c.attr("k") if c.since < 10 else c.numbers(1, "k")[0]
    values, indices = torch.sort(x, dim=axis, descending=bool(c.attr("largest", 1)), stable=True)
    return values.narrow(axis, 0, k), indices.narrow(axis, 0, k)
