"""An exported graph in training mode and in inference mode, over the same weights.

``torch.export`` writes the mode into the operators: ``batch_norm(x, ..., training=False, ...)``. A twin is the same graph with those
flags set, whose parameters and buffers are the very tensors of the original.

::

    bn = batch_norm(conv, g, b, m, v, False, 0.1, 1e-05, False)    becomes    bn = batch_norm(conv, g, b, m, v, True, 0.1, ...)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ...core.bundle import layer_of

if TYPE_CHECKING:
    import torch
    from torch.fx import Graph, GraphModule, Node


def twin(graph: GraphModule, *, training: bool, taps: Sequence[str] = (), device: torch.device | None = None) -> GraphModule:
    """A callable on plain tensors over the weights of ``graph``: inputs -> a flat tuple of the outputs, then of the ``taps``.

    ``taps`` are names of nodes whose values are wanted too. Constants that the graph makes are made on ``device``.
    """
    import torch

    nodes = torch.fx.Graph()  # with plain arguments and results, no nested containers
    copies: dict[Node, Node] = {}
    nodes.graph_copy(graph.graph, copies)
    set_mode(nodes, training)
    by_name = {n.name: copies[n] for n in graph.graph.nodes if n in copies}
    (output,) = [n for n in graph.graph.nodes if n.op == "output"]
    results = [copies[n] for n in _results(output.args[0]) if isinstance(n.meta.get("val"), torch.Tensor)]
    nodes.output((*results, *(by_name[name] for name in taps)))
    for node in nodes.nodes:
        if device is not None and "device" in node.kwargs:
            node.kwargs = {**node.kwargs, "device": device}
    made = torch.fx.GraphModule(graph, nodes)
    made.recompile()
    return made


def set_mode(graph: Graph, training: bool) -> int:
    """Sets the mode of every operator that has one; how many."""
    count = 0
    flags = _flags()
    for node in graph.nodes:
        place = flags.get(node.target) if node.op == "call_function" else None
        if place is None or not _has_modes(node):
            continue
        node.args = (*node.args[:place], training, *node.args[place + 1 :])
        count += 1
    return count


def normalizes(graph: GraphModule) -> list[str]:
    """The layers whose statistics are re-estimated in training (BatchNorm, and InstanceNorm that tracks them)."""
    import torch

    kinds = (torch.ops.aten.batch_norm.default, torch.ops.aten.instance_norm.default)
    return [layer_of(n) or n.name for n in graph.graph.nodes if n.op == "call_function" and n.target in kinds and n.args[3] is not None]


def undecayed(graph: GraphModule) -> tuple[list[Any], list[Any]]:
    """Parameters with and without weight decay: scales and biases (one axis or none) are not decayed."""
    parameters = [p for p in graph.parameters() if p.requires_grad]
    return [p for p in parameters if p.ndim > 1], [p for p in parameters if p.ndim <= 1]


def _results(value: Any) -> list[Node]:
    """The nodes in a result, in order, each as often as it stands there."""
    import torch
    from torch.utils import _pytree

    return [leaf for leaf in _pytree.tree_leaves(value) if isinstance(leaf, torch.fx.Node)]


def _flags() -> dict[Any, int]:
    """Operator -> position of the argument that says whether it trains."""
    import torch

    aten = torch.ops.aten
    flags: dict[Any, int] = {aten.batch_norm.default: 5, aten.instance_norm.default: 5}
    dropouts = (aten.dropout, aten.dropout_, aten.feature_dropout, aten.feature_dropout_, aten.alpha_dropout, aten.feature_alpha_dropout)
    flags |= dict.fromkeys((d.default for d in dropouts), 2)
    flags |= dict.fromkeys((aten.lstm.input, aten.gru.input, aten.rnn_tanh.input, aten.rnn_relu.input), 6)
    return flags


def _has_modes(node: Node) -> bool:
    """InstanceNorm without running statistics normalises by the input in both modes."""
    import torch

    return node.target is not torch.ops.aten.instance_norm.default or node.args[3] is not None
