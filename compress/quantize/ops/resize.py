"""Resizing: nearest picks values; bilinear stays within their range, and its integer kernel wants equal scales."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .role import Kind, Role, annotates

if TYPE_CHECKING:
    from torch.fx import Node


@annotates(
    *("aten.upsample_nearest1d.vec", "aten.upsample_nearest2d.vec", "aten.upsample_nearest2d.default"),
    *("aten._upsample_nearest_exact2d.vec", "aten.upsample_bilinear2d.vec", "aten.upsample_bilinear2d.default"),
    "aten.upsample_linear1d.vec",
)
def resize(node: Node) -> Role:
    """Nearest, linear and bilinear, corners aligned or not."""
    return Role(Kind.MOVE, (node.args[0],))  # type: ignore[arg-type]
