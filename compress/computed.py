"""Weights that are computed from other weights: weight_norm, spectral_norm, any parametrization. Computed once, they are plain weights.

    w = g v / |v|                    (Salimans and Kingma, 2016, arXiv:1602.07868)
    w = W / sigma(W), sigma = u' W v (Miyato et al., 2018, arXiv:1802.05957; u, v fixed in inference)

::

    conv2d(x, _weight_norm(v, g), b)      becomes      conv2d(x, w, b)

Only what is read as the weight or bias of a layer is folded, and only where it depends on no input. The result takes the name that the
layer's weight would have without it ("0.parametrizations.weight.original0" -> "0.weight"). "prune" folds by itself, and "fold-batchnorm"
(with it every export) whatever is computed from weights alone (``constants.py``); passes that train or mask weights refuse such layers
by name.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from ..core.bundle import Bundle, layer_of
from ..core.verdict import YES, Verdict, no
from .graph import computed_value, erase_unread, read_weight, set_weight, unique_name, weight_of
from .passes import Context, PassResult, Settings, passes

if TYPE_CHECKING:
    from torch.fx import GraphModule, Node

READERS = ("conv", "linear", "lstm", "gru", "rnn_", "batch_norm", "embedding", "prelu")
PLACES = ("weight", "bias", "params")


class ComputedSettings(Settings, frozen=True, kw_only=True):
    """It has none."""


@passes.register("fold-parametrised")
class FoldParametrised:
    """Computes such weights once. The function stays the same."""

    name = "fold-parametrised"
    Settings = ComputedSettings

    def __init__(self, settings: ComputedSettings) -> None:
        self.settings = settings

    def requires(self, bundle: Bundle, context: Context) -> Verdict:
        return YES if bundle.quantized is None else no("the model is quantized already")

    def __call__(self, bundle: Bundle, context: Context) -> PassResult:
        after, folded = plain(bundle)
        return PassResult(after, bool(folded), {"folded": folded})

    def ensures(self, before: Bundle, after: Bundle, context: Context) -> Verdict:
        left = computed(after.graph)
        return no(f"the weight of '{next(iter(left))}' is still computed") if left else YES


def plain(bundle: Bundle) -> tuple[Bundle, list[str]]:
    """The bundle with computed weights folded, and the names that they now have; the same bundle where there are none."""
    if not computed(bundle.graph):
        return bundle, []
    graph = bundle.copy_graph()
    return bundle.replace(graph=graph), fold_computed(graph)


def computed(graph: GraphModule) -> dict[str, Node]:
    """Computed weights and biases of layers, by the layer and the argument ("0.weight"), each once."""
    found: dict[str, Node] = {}
    for node in graph.graph.nodes:
        for place, source in _sources(node):
            if source.op == "call_function" and source not in found.values() and _constant(source, graph):
                found[f"{_layer(node, source)}.{place}"] = source
    return found


def fold_computed(graph: GraphModule) -> list[str]:
    """Folds them in place; the names of the weights made."""
    import torch

    made = []
    known: dict[Node, Any] = {}
    for place, node in computed(graph).items():
        value = computed_value(graph, node, known).detach().clone().contiguous()
        name = unique_name(graph, _name(node) or place)
        set_weight(graph, name, torch.nn.Parameter(value))
        node.replace_all_uses_with(read_weight(graph, name, node))
        erase_unread(graph, node)
        made.append(name)
    if made:
        graph.recompile()
    return made


def refuse_computed(bundle: Bundle, doing: str) -> Verdict:
    """No, by name, where a layer's weight is computed."""
    left = computed(bundle.graph)
    if not left:
        return YES
    return no(
        f"'{next(iter(left))}' is computed from other weights (weight_norm, a parametrization); run 'fold-parametrised' before {doing}"
    )


def _sources(node: Node) -> list[tuple[str, Node]]:
    """(argument, node) of what a layer takes as its weights."""
    import torch

    if node.op != "call_function" or not isinstance(node.target, torch._ops.OpOverload):
        return []
    if not node.target._schema.name.partition("::")[2].startswith(READERS):
        return []
    from .prune.ops import arguments

    found = []
    for place, value in arguments(node).items():
        if place in PLACES:
            for source in value if isinstance(value, (list, tuple)) else [value]:
                if isinstance(source, torch.fx.Node):
                    found.append((place, source))
    return found


def _constant(node: Node, graph: GraphModule) -> bool:
    """Whether a node depends on a parameter and on no input of the model."""
    import torch

    waiting, seen, parameter = [node], set(), False
    while waiting:
        one = waiting.pop()
        if one in seen:
            continue
        seen.add(one)
        if one.op == "placeholder":
            return False
        parameter = parameter or (one.op == "get_attr" and isinstance(weight_of(graph, one), torch.nn.Parameter))
        waiting += one.all_input_nodes
    return parameter


def _name(node: Node) -> str:
    """What the first parameter behind the node is called without its parametrization; "" where its name tells nothing."""
    waiting = [node]
    while waiting:
        one = waiting.pop(0)
        if one.op == "get_attr":
            for pattern in (r"^(.*?)(?:\.)?parametrizations\.(\w+)\.", r"^(.*)\.(\w+?)_(?:orig|g|v|u)$"):
                hit = re.match(pattern, str(one.target))
                if hit:
                    return ".".join(part for part in hit.groups() if part)
        waiting += one.all_input_nodes
    return ""


def _layer(reader: Node, source: Node) -> str:
    return _name(source).rpartition(".")[0] or layer_of(reader) or str(reader.name)
