"""Pooling and means.

A maximum picks a value and keeps the scale; integer average pooling wants equal scales too (TFLite's specification says so).
A mean over a whole image has a much smaller range than its input, and a scale of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .role import Kind, Role, annotates, argument, is_real

if TYPE_CHECKING:
    from torch.fx import Node


@annotates("aten.max_pool1d.default", "aten.max_pool2d.default", "aten.amax.default")
def maximum(node: Node) -> Role:
    """The greatest of some values."""
    return Role(Kind.MOVE, (node.args[0],))  # type: ignore[arg-type]


@annotates("aten.avg_pool1d.default", "aten.avg_pool2d.default")
def average(node: Node) -> Role:
    """The mean of each window."""
    return Role(Kind.MOVE, (node.args[0],))  # type: ignore[arg-type]


@annotates("aten.adaptive_avg_pool1d.default", "aten.adaptive_avg_pool2d.default")
def adaptive_average(node: Node) -> Role:
    """To 1x1 it is a mean with a scale of its own; to anything larger it is average pooling."""
    size = node.args[1]
    whole = all(s == 1 for s in (size if isinstance(size, list | tuple) else [size]))
    return Role(Kind.POINT if whole else Kind.MOVE, (node.args[0],))  # type: ignore[arg-type]


@annotates("aten.mean.dim")
def mean(node: Node) -> Role | str:
    """The mean over some axes."""
    if not is_real(node.args[0]) or argument(node, 1, "dim") is None:
        return "it averages over everything"
    return Role(Kind.POINT, (node.args[0],))  # type: ignore[arg-type]
