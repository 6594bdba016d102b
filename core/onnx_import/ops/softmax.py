"""Softmax and its kin: along one axis from opset 13, over everything from ``axis`` on before."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..call import Call, convert

if TYPE_CHECKING:
    from torch import Tensor


@convert("Softmax", "LogSoftmax", "Hardmax")
def softmax(c: Call) -> Tensor:
    x = c.tensor(0)
    if c.since >= 13:
        return _along(c.op, x, c.attr("axis", -1))
    axis = c.attr("axis", 1) % max(x.ndim, 1)
    if axis == x.ndim - 1:
        return _along(c.op, x, -1)
    return _along(c.op, x.flatten(axis), -1).reshape(x.shape)


def _along(op: str, x: Tensor, axis: int) -> Tensor:
    import torch

    if op == "Hardmax":  # the first of equal maxima
        best = torch.argmax(x, axis, keepdim=True)
        return torch.zeros_like(x).scatter(axis, best, torch.ones_like(best, dtype=x.dtype))
    return torch.softmax(x, axis) if op == "Softmax" else torch.log_softmax(x, axis)
