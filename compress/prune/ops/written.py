"""Sizes written in a module's ``forward``, which nobody can change from outside.

A traced reshape doesn't tell ``x.reshape(b, n, 3, heads, -1)`` (numbers) from ``x.reshape(b, n, 3, heads, c // heads)`` (computed from
the shape of ``x``). In the strict reading every size that is not -1 and not a free axis is a number: the dimensions it stands for stay, and
so do those of the same length in the weights of that layer, from which a shape may have come (``b, n, c = x.shape``, later
``reshape(b, n, c)``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ....core.bundle import layer_of
from ..index import Labels
from .registry import arguments, op_name

if TYPE_CHECKING:
    from torch.fx import Node

    from ..coupling import Coupler

NUMBERS = "the module's forward names sizes of this dimension"
SIZES = {
    **dict.fromkeys(("aten.view.default", "aten._unsafe_view.default", "aten.view_copy.default"), "size"),
    **dict.fromkeys(("aten.expand.default", "aten.expand_copy.default"), "size"),
    "aten.reshape.default": "shape",
    "aten.unflatten.int": "sizes",
}


def as_written(node: Node, c: Coupler, labels: Labels) -> Labels:
    """The labels of a reshape's result: in the strict reading without the dimensions whose sizes are numbers."""
    return c.freeze(labels, list(_numbers(node, c)), NUMBERS) if c.strict else labels


def _numbers(node: Node, c: Coupler) -> dict[int, int]:
    """Dimension of the result and size, where that is a number."""
    bound: dict[str, Any] = arguments(node)
    name = op_name(node)
    sizes = list(bound[SIZES[name]]) if name in SIZES else []
    start = int(bound["dim"]) % len(c.shape(bound["self"])) if name == "aten.unflatten.int" else 0
    return {start + d: int(size) for d, size in enumerate(sizes) if not hasattr(size, "op") and int(size) > 1}


def keep_sizes(c: Coupler) -> None:
    """In the strict reading, keeps the weights' dimensions that a number in the forward of their layer may have come from."""
    if not c.strict:
        return
    said: dict[str, set[int]] = {}
    for node in c.graph.graph.nodes:
        if node.op == "call_function" and op_name(node) in SIZES:
            said.setdefault(layer_of(node), set()).update(_numbers(node, c).values())
    for layer, sizes in said.items():
        for name, first in c.same.items():
            if not layer or name.startswith(f"{layer}."):
                for field in c.weights[first]:
                    if field.ids.size in sizes:
                        c.keep(field.ids, NUMBERS)
