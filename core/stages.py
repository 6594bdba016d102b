"""Where a network's feature maps end: the layers at which networks are compared.

A stage is a stretch of the network at one resolution; its end is the last activation, sum or normalised convolution there. Networks that
keep one resolution are cut into four parts of equal depth instead. A user may name a layer by its module path.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .bundle import Bundle, aten_name
from .errors import InputError
from .registry import unknown

if TYPE_CHECKING:
    from torch.fx import GraphModule, Node

PARTS = 4
_ENDS = frozenset(
    (
        *("relu", "relu_", "add", "add_", "hardtanh", "hardtanh_", "silu", "silu_", "hardswish", "hardswish_", "gelu", "leaky_relu"),
        *("leaky_relu_", "prelu", "elu", "mish", "tanh", "sigmoid", "mul", "conv2d", "conv_transpose2d", "batch_norm", "instance_norm"),
        *("group_norm", "layer_norm", "linear"),
    )
)


@dataclasses.dataclass(frozen=True)
class Stage:
    """The end of a stage: the graph's node, and the shape it has without the batch."""

    node: str
    shape: tuple[int, ...]


def stages(bundle: Bundle) -> list[Stage]:
    """The stage ends of a network of feature maps, from the input to the output."""
    maps = [n for n in bundle.graph.graph.nodes if aten_name(n) in _ENDS and len(_shape(n)) == 3]
    if not maps:
        return []
    last_of: dict[tuple[int, ...], Node] = {}
    for node in maps:
        size = _shape(node)[1:]
        last_of.pop(size, None)
        last_of[size] = node
    if len(last_of) == 1:
        places = [round((k + 1) * len(maps) / PARTS) - 1 for k in range(PARTS)]
        return [_stage(maps[p]) for p in dict.fromkeys(p for p in places if p >= 0)]
    return [_stage(n) for n in last_of.values()]


def layer_end(bundle: Bundle, layer: str, what: str, error: type[InputError]) -> Stage:
    """The end of the user's layer ``layer`` (its module path, or one above it); ``what`` and ``error`` tell of one that isn't there."""
    found: list[Node] = []
    paths: set[str] = set()
    for node in bundle.graph.graph.nodes:
        stack = [str(path) for path, _ in (node.meta.get("nn_module_stack") or {}).values()]
        paths.update(p for p in stack if p)
        if layer in stack and len(_shape(node)) in (1, 2, 3) and node.op == "call_function":
            found.append(node)
    if not found:
        raise error(unknown(what, layer, paths))
    return _stage(found[-1])


def up_to(bundle: Bundle, wanted: Sequence[Stage]) -> GraphModule:
    """The part of the network that ``wanted`` need: the model's inputs -> a tuple of the values there. It shares the bundle's weights; what
    comes after the last of them is gone, so a fully convolutional part takes images of any size that its layers bear."""
    import torch

    nodes = torch.fx.Graph()  # with plain arguments and results, no nested containers
    copies: dict[Node, Node] = {}
    nodes.graph_copy(bundle.graph.graph, copies)
    by_name = {n.name: copies[n] for n in bundle.graph.graph.nodes if n in copies}
    nodes.output(tuple(by_name[stage.node] for stage in wanted))
    nodes.eliminate_dead_code()
    made = torch.fx.GraphModule(bundle.graph, nodes)
    made.recompile()
    return made


def _shape(node: Node) -> tuple[int, ...]:
    """The shape of a node's value without the batch; () where it isn't a float tensor of fixed size."""
    import torch

    value = node.meta.get("val")
    if not isinstance(value, torch.Tensor) or not value.is_floating_point() or value.ndim < 2:
        return ()
    rest = value.shape[1:]
    return tuple(int(s) for s in rest) if all(isinstance(s, int) for s in rest) else ()


def _stage(node: Node) -> Stage:
    return Stage(str(node.name), _shape(node))
