"""From a calibrated graph to one that is trained, and back.

The training graph is the prepared one (see prepared.py) with every observer replaced by what rounds, and BatchNorm beside its layer
again. After training the weights and scales go back to the prepared graph, which is converted by the same road as ever.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from ...graph import fake, set_weight, weight_of
from .fake import fakes
from .norm import fold_weight, folded_bias, frozen, unfold

if TYPE_CHECKING:
    from torch.fx import Graph, GraphModule, Node

    from ...fold import Apart, Folded, Stored
    from ..prepared import Prepared


def training_graph(prepared: Prepared, folded: Folded, *, learned: bool, frozen_norms: bool, keep_zeros: bool) -> GraphModule:
    """A graph in inference mode that rounds as the integer graph will, over weights of its own.

    ``learned``: scales are parameters. ``frozen_norms``: BatchNorm keeps its running statistics in training. ``prepared`` is calibrated;
    it is not changed.
    """
    import torch

    source = prepared.graph
    graph = torch.fx.Graph()
    copies: dict[Node, Node] = {}
    output = graph.graph_copy(source.graph, copies)
    graph.output(output)
    root = torch.fx.GraphModule(torch.nn.Module(), torch.fx.Graph())
    made: dict[int, Any] = {}
    most = _bounds(prepared)
    for node in source.graph.nodes:
        if node.op == "get_attr":
            value = weight_of(source, node)
            assert value is not None
            set_weight(root, str(node.target), _own(value))
    for node, apart in ((n, folded.apart.get(n.name)) for n in source.graph.nodes):
        if apart is not None:
            _unfold(graph, root, copies[node], apart, frozen_norms)
    for node in source.graph.nodes:
        observer = prepared.observer(node)
        if observer is None:
            continue
        if id(observer) not in made:
            made[id(observer)] = _fake(observer, learned, keep_zeros, most.get(id(observer), math.inf))
        root.add_module(str(node.target), made[id(observer)])
        copies[node].meta.setdefault("val", node.args[0].meta.get("val"))
    result = torch.fx.GraphModule(root, graph)
    result.recompile()
    return result


def take_back(trained: GraphModule, prepared: Prepared, folded: Folded) -> None:
    """Puts the weights and scales of a trained graph into ``prepared``, in place; BatchNorm is folded."""
    import torch

    source = prepared.graph
    stored = dict(trained.state_dict())
    layers = {str(n.name): n for n in source.graph.nodes}
    for node in source.graph.nodes:
        if node.op == "get_attr" and str(node.target) in stored:
            set_weight(source, str(node.target), _like(weight_of(source, node), stored[str(node.target)]))
    for name, apart in folded.apart.items():
        node = layers.get(name)
        if node is None:
            continue

        def now(what: Stored | None) -> Any:
            return None if what is None else stored[what[0]].detach()

        gamma, variance = now(apart.gamma), now(apart.variance)
        weight = fold_weight(now(apart.weight), gamma, variance, apart.epsilon, apart.axis, apart.groups)
        bias = folded_bias(now(apart.bias), gamma, now(apart.beta), now(apart.mean), variance, apart.epsilon)
        set_weight(source, apart.weight[0], torch.nn.Parameter(weight))
        set_weight(source, str(node.args[2].target), torch.nn.Parameter(bias))
    for node in source.graph.nodes:
        observer = prepared.observer(node)
        if observer is None:
            continue
        rounder: Any = trained.get_submodule(str(node.target))
        if hasattr(observer, "halves"):
            observer.chosen = rounder.affine()
        elif hasattr(observer, "given"):
            value = weight_of(source, node.args[0])
            assert value is not None
            kept = rounder.kept(value.detach())
            set_weight(source, str(node.args[0].target), torch.nn.Parameter(kept))
            observer.weight = kept
            scales = rounder.scales()
            observer.given = None if scales is None else scales.cpu().numpy().reshape(() if observer.axis is None else -1)


def _own(value: Any) -> Any:
    import torch

    return _like(value, value.detach().clone()) if isinstance(value, torch.Tensor) else value


def _like(old: Any, new: Any) -> Any:
    """``new`` as a Parameter where ``old`` is one."""
    import torch

    return torch.nn.Parameter(new.detach(), requires_grad=old.requires_grad) if isinstance(old, torch.nn.Parameter) else new.detach()


def _bounds(prepared: Prepared) -> dict[int, float]:
    """Observer -> the largest scale with which storing clips as the activation before it does.

    A kernel does ReLU6 by saturation: the greatest integer must stand for at most 6.
    """
    most: dict[int, float] = {}
    for node, role in prepared.plan.roles.items():
        if role.clips is None:
            continue
        for reader in node.users:
            observer = prepared.observer(reader)
            if not hasattr(observer, "halves"):
                continue
            chosen = observer.choose()
            steps = (chosen.low - chosen.zero_point, chosen.high - chosen.zero_point)
            ends = [c / s for c, s in zip(role.clips, steps, strict=True) if s and math.isfinite(c) and c / s > 0]
            most[id(observer)] = min([most.get(id(observer), math.inf), *ends])
    return most


def _fake(observer: Any, learned: bool, keep_zeros: bool, most: float) -> Any:
    import torch

    from ..affine import Affine

    if hasattr(observer, "halves"):
        return fakes().Activation(observer.choose(), learned, most)
    if hasattr(observer, "given"):
        scales = torch.as_tensor(observer.scales()).reshape(-1)
        return fakes().Weight(observer.weight, scales, observer.axis, observer.quant_max, learned, keep_zeros)
    scale, zero = observer.calculate_qparams()  # a prescribed scale
    return fakes().Activation(Affine(float(scale), int(zero)), False)


def _unfold(graph: Graph, root: GraphModule, layer: Node, apart: Apart, frozen_norms: bool) -> None:
    """Puts BatchNorm beside ``layer`` again, as norm.py says."""
    import torch

    rounder: Any = layer.args[1]
    raw, bias = rounder.args[0], layer.args[2]

    def read(what: Stored | None) -> Node | None:
        if what is None:
            return None
        set_weight(root, what[0], _own(what[1]))
        node = graph.create_node("get_attr", what[0])
        fake(root, node)
        return node

    with graph.inserting_before(rounder):
        gamma, beta, mean, variance, old = (read(w) for w in (apart.gamma, apart.beta, apart.mean, apart.variance, apart.bias))
        set_weight(root, apart.weight[0], _own(apart.weight[1]))
        whole = graph.call_function(fold_weight, (raw, gamma, variance, apart.epsilon, apart.axis, apart.groups))
    rounder.args = (whole,)
    layer.args = (*layer.args[:2], None, *layer.args[3:])
    readers = list(layer.users)
    with graph.inserting_after(layer):
        apart_again = graph.call_function(unfold, (layer, gamma, variance, apart.epsilon, old))
    with graph.inserting_after(apart_again):
        if frozen_norms:
            norm = graph.call_function(frozen, (apart_again, gamma, beta, mean, variance, apart.epsilon))
        else:
            arguments = (apart_again, gamma, beta, mean, variance, False, apart.momentum, apart.epsilon, False)
            norm = graph.call_function(torch.ops.aten.batch_norm.default, arguments)
    for new in (apart_again, norm):
        new.meta.update(layer.meta)
    for reader in readers:
        reader.replace_input_with(layer, norm)
    if isinstance(bias, torch.fx.Node) and not bias.users:
        graph.erase_node(bias)
