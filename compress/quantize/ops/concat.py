"""Concatenation: integer kernels copy, so all parts and the result share one scale."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .role import Kind, Role, annotates, is_real

if TYPE_CHECKING:
    from torch.fx import Node


@annotates("aten.cat.default", "aten.stack.default")
def concatenation(node: Node) -> Role | str:
    """[x, y, ...] along an axis."""
    parts = tuple(node.args[0])  # type: ignore[arg-type]
    if not all(is_real(p) for p in parts):
        return "a part is not a real tensor"
    return Role(Kind.MOVE, parts)  # type: ignore[arg-type]
