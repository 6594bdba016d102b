"""Which two layers can be equalized: the second alone reads the first, through operators that keep channels apart."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...graph import weight_of
from ..ops.role import argument, name_of

if TYPE_CHECKING:
    from torch.fx import GraphModule, Node

_LAYERS = ("aten.conv1d.", "aten.conv2d.", "aten.linear.default", "aten.conv_transpose1d.", "aten.conv_transpose2d.")
_HOMOGENEOUS = ("aten.relu.default", "aten.leaky_relu.default", "aten.prelu.default")
_CLIPS = ("aten.relu6.default", "aten.hardtanh.default", "aten.clamp.default")
_CHANNELWISE = (
    *("aten.max_pool1d.default", "aten.max_pool2d.default", "aten.avg_pool1d.default", "aten.avg_pool2d.default"),
    *("aten.adaptive_avg_pool1d.default", "aten.adaptive_avg_pool2d.default", "aten.mean.dim", "aten.flatten.using_ints"),
    *("aten.upsample_nearest2d.vec", "aten.upsample_bilinear2d.vec", "aten.pad.default"),
)


@dataclass(frozen=True)
class Pair:
    """Two layers and the value between them: the last that still has the first layer's channels before anything clips or pools (``first``'s
    output through its activation). ``bound`` is where an activation between them clips (infinite: nowhere)."""

    first: Node
    second: Node
    value: Node
    bound: float


def pairs(graph: GraphModule) -> list[Pair]:
    """Every two layers of which the second alone reads the first, through operators that keep channels apart."""
    found = []
    for first in graph.graph.nodes:
        if not is_layer(graph, first):
            continue
        node, value, bound = first, first, math.inf
        while True:
            if len(node.users) != 1:
                break
            (user,) = node.users
            name = name_of(user)
            if is_layer(graph, user) and user.args[0] is node:
                if columns_of(graph, user, outputs(graph, first)):
                    found.append(Pair(first, user, value, bound))
                break
            if name in _CLIPS and node is value:
                low, high = _clip_bounds(user)
                if low not in (0.0, -math.inf):
                    break
                value, bound = user, min(bound, high)
            elif name in _HOMOGENEOUS and node is value:
                value = user
            elif not (name in _HOMOGENEOUS or (name in _CHANNELWISE and _keeps_apart(user))):
                break
            node = user
    return found


def _clip_bounds(node: Node) -> tuple[float, float]:
    name = name_of(node)
    if name == "aten.relu6.default":
        return 0.0, 6.0
    low = argument(node, 1, "min", -1.0 if "hardtanh" in name else None)
    high = argument(node, 2, "max", 1.0 if "hardtanh" in name else None)
    return (-math.inf if low is None else float(low)), (math.inf if high is None else float(high))


def is_layer(graph: GraphModule, node: Node) -> bool:
    """A layer whose weight (and bias, if any) is stored and its own."""
    if node.op != "call_function" or not str(node.target).startswith(_LAYERS):
        return False
    bias = argument(node, 2, "bias")
    stored = [node.args[1], *([bias] if bias is not None else [])]
    return all(weight_of(graph, s) is not None and len(s.users) == 1 for s in stored)  # type: ignore[union-attr]


def _keeps_apart(node: Node) -> bool:
    """Whether it works on each channel by itself and leaves zero zero."""
    name = name_of(node)
    if name == "aten.pad.default":
        ends, value = node.args[1], argument(node, 3, "value")
        spatial = node.meta["val"].ndim - 2
        return not value and all(p == 0 for p in ends[2 * spatial :])  # type: ignore[index,union-attr]
    if name == "aten.mean.dim":
        axes = node.args[1]
        return all(a % node.args[0].meta["val"].ndim >= 2 for a in (axes if isinstance(axes, list | tuple) else [axes]))  # type: ignore[operator,union-attr]
    if name == "aten.flatten.using_ints":
        return argument(node, 1, "start_dim", 0) == 1 and argument(node, 2, "end_dim", -1) in (-1, node.args[0].meta["val"].ndim - 1)  # type: ignore[union-attr]
    return True


def outputs(graph: GraphModule, layer: Node) -> int:
    """The number of output channels."""
    weight = weight_of(graph, layer.args[1])
    assert weight is not None
    return int(weight.shape[1] * groups_of(layer) if is_transposed(layer) else weight.shape[0])


def columns_of(graph: GraphModule, layer: Node, channels: int) -> int:
    """How many of the layer's input columns belong to one of ``channels`` channels (0: it can't be told)."""
    weight = weight_of(graph, layer.args[1])
    assert weight is not None
    inputs = int(weight.shape[0] if is_transposed(layer) else weight.shape[1] * groups_of(layer))
    return inputs // channels if inputs % channels == 0 and (inputs == channels or "linear" in str(layer.target)) else 0


def is_transposed(layer: Node) -> bool:
    return "conv_transpose" in str(layer.target)


def groups_of(layer: Node) -> int:
    if "linear" in str(layer.target):
        return 1
    return int(argument(layer, 6, "groups", 1))


def maker(node: Node) -> Node:
    """The layer that a value between two layers comes from."""
    while not str(node.target).startswith(_LAYERS):
        node = node.args[0]  # type: ignore[assignment]
    return node
