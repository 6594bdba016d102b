"""Matrix products: with a stored weight (a layer) or between two activations."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .role import Kind, Role, Weight, annotates, argument, is_constant, is_real

if TYPE_CHECKING:
    from torch.fx import Node


@annotates("aten.linear.default")
def linear(node: Node) -> Role | str:
    """The weight is (out, in): channels on axis 0."""
    x, weight = node.args[0], node.args[1]
    bias = argument(node, 2, "bias")
    if not is_constant(weight):
        return "its weight is computed, not stored"
    if bias is not None and not is_constant(bias):
        return "its bias is computed, not stored"
    return Role(Kind.COMPUTE, (x,), (Weight(weight, 0),), bias=bias, hosts=True)  # type: ignore[arg-type]


@annotates("aten.matmul.default", "aten.bmm.default", "aten.mm.default")
def product(node: Node) -> Role | str:
    """Both sides are activations, or one of them a stored matrix with one scale."""
    sides = node.args[:2]
    stored = tuple(Weight(s, None) for s in sides if is_constant(s))  # type: ignore[arg-type]
    moving = tuple(s for s in sides if is_real(s) and not is_constant(s))
    if not moving:
        return "it multiplies constants"
    return Role(Kind.COMPUTE, moving, stored)  # type: ignore[arg-type]
