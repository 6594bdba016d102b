"""Sums and products of two tensors, each with its own scale. A stored operand is quantized like an activation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .role import Kind, Role, Weight, annotates, argument, is_constant, is_real

if TYPE_CHECKING:
    from torch.fx import Node


@annotates("aten.add.Tensor", "aten.sub.Tensor")
def sum_(node: Node) -> Role | str:
    """x + y, x - y."""
    if argument(node, 2, "alpha", 1) != 1:
        return "it scales its second operand (alpha)"
    return _binary(node)


@annotates("aten.mul.Tensor")
def product(node: Node) -> Role | str:
    """x y, with broadcasting (a squeeze-excite gate)."""
    return _binary(node)


def _binary(node: Node) -> Role | str:
    sides = node.args[:2]
    if not all(is_real(s) for s in sides):
        return "one operand is a number known only at run time or not a real tensor"
    stored = tuple(Weight(s, None, signed=False) for s in sides if is_constant(s))  # type: ignore[arg-type]
    moving = tuple(s for s in sides if not is_constant(s))
    if not moving:
        return "it combines constants"
    return Role(Kind.POINT, moving, stored, hosts=True)  # type: ignore[arg-type]
