"""What the channels of each value are on average, known without data: from BatchNorm, carried through what follows.

After BatchNorm a channel has mean beta and deviation |gamma|; it is taken for normal. Clipping, adding, averaging and moving carry this on;
where an operator's effect on the mean isn't known, nothing is claimed.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from ..ops.role import name_of, rule_for
from .bias import clipped_normal

if TYPE_CHECKING:
    from torch import Tensor
    from torch.fx import GraphModule, Node

    Moments = tuple[Tensor, Tensor]

_CARRIES = (
    *("aten.avg_pool2d.default", "aten.adaptive_avg_pool2d.default", "aten.upsample_nearest2d.vec", "aten.upsample_bilinear2d.vec"),
    *("aten.reflection_pad2d.default", "aten.replication_pad2d.default", "aten.avg_pool1d.default", "aten.adaptive_avg_pool1d.default"),
)
_RESHAPES = ("aten.flatten.using_ints", "aten.reshape.default", "aten.view.default", "aten.squeeze.dims", "aten.squeeze.dim")


def expectations(graph: GraphModule, statistics: dict[str, Moments]) -> dict[str, Moments]:
    """Node name -> (mean, variance) of each channel, float64, for the values where both are known.

    ``statistics`` holds (mean, deviation) of the outputs of layers with a folded BatchNorm, by node name (``fold.Folded``).
    """
    known: dict[Node, Moments] = {}
    for node in graph.graph.nodes:
        if node.name in statistics:
            mean, deviation = statistics[node.name]
            known[node] = (mean, deviation**2)
        elif node.op == "call_function":
            result = _carry(node, known)
            if result is not None:
                known[node] = result
    return {n.name: m for n, m in known.items()}


def _carry(node: Node, known: dict[Node, Moments]) -> Moments | None:
    import torch

    name = name_of(node)
    inputs: list[Any] = [known.get(a) for a in node.all_input_nodes]
    if name in ("aten.add.Tensor", "aten.cat.default"):
        if len(inputs) < 2 or any(i is None for i in inputs):
            return None
        if name == "aten.cat.default":
            along = node.args[1] if len(node.args) > 1 else 0
            return (torch.cat([i[0] for i in inputs]), torch.cat([i[1] for i in inputs])) if along == 1 else None
        (m, v), (n, w) = inputs
        return (m + n, v + w) if m.shape == n.shape and node.kwargs.get("alpha", 1) == 1 else None
    source = known.get(node.args[0]) if node.args else None  # type: ignore[arg-type]
    if source is None:
        return None
    if name in _CARRIES or (name == "aten.mean.dim" and _over_space(node)) or (name in _RESHAPES and _keeps_channels(node)):
        return source  # type: ignore[no-any-return]
    rule = rule_for(node)
    role = rule(node) if rule is not None else None
    if role is not None and not isinstance(role, str) and role.clips is not None:
        return clipped_normal(*source, *role.clips)
    return None


def _over_space(node: Node) -> bool:
    axes = node.args[1]
    rank = node.args[0].meta["val"].ndim  # type: ignore[union-attr]
    return {a % rank for a in (axes if isinstance(axes, list | tuple) else [axes])} == set(range(2, rank))  # type: ignore[operator]


def _keeps_channels(node: Node) -> bool:
    """(N, C, 1, 1) -> (N, C): the channels are what remains."""
    before, after = node.args[0].meta["val"], node.meta["val"]  # type: ignore[union-attr]
    return before.ndim >= 2 and after.ndim == 2 and math.prod(before.shape[2:]) == 1 and bool(after.shape[1] == before.shape[1])
