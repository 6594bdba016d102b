"""From a float graph to an integer one, in three moves: prepare (observers in place), feed (calibrate), convert.

The converted graph is torchao's: ``quantize_per_tensor`` / ``dequantize_per_tensor`` on activations (int8, affine), weights as
int8 buffers behind ``dequantize_per_channel``, biases in float. Weights keep the user's names: ``conv.weight`` is int8 and
``conv.weight_scale``, ``conv.weight_zero_point`` stand beside it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..graph import drop_dead, drop_weight, set_weight, weight_of
from .affine import bias_floor
from .calibrate.sufficiency import Sufficiency, sufficiency
from .lower import lower
from .ops.role import Kind
from .plan import Plan, layer_name, make_plan
from .quantizer import Calibration, quantizer
from .torchao import pt2e, quiet

if TYPE_CHECKING:
    from torch.fx import GraphModule, Node

    from ...core.bundle import Bundle
    from ...targets.scheme import Scheme


@dataclass
class Prepared:
    """A graph with observers. ``plan`` speaks of the nodes of the lowered graph, which are still in ``graph``."""

    graph: GraphModule
    plan: Plan
    scheme: Scheme
    fed: int = 0

    def feed(self, batches: Iterable[tuple[Any, ...]]) -> int:
        """Runs calibration batches (tuples of tensors, one per input); how many samples there were."""
        import torch

        count = 0
        observers = self.activations()
        with torch.no_grad():
            for inputs in batches:
                for observer in observers:
                    observer.half = self.fed % 2
                self.graph(*inputs)
                self.fed += 1
                count += int(inputs[0].shape[0])
        return count

    def activations(self) -> list[Any]:
        """The observers of activations, each once."""
        found = {id(m): m for m in self.graph.modules() if hasattr(m, "halves")}
        return list(found.values())

    def not_finite(self) -> str:
        """The first layer whose values were not all finite; "" where all were."""
        for node in self.graph.graph.nodes:
            observer = self.observer(node)
            if observer is not None and any(h.histogram.skipped for h in getattr(observer, "halves", ())):
                return layer_name(self._source(node))
        return ""

    def sufficiency(self, samples: int) -> Sufficiency:
        """Whether the ``samples`` inputs seen tell the scales (see calibrate/sufficiency.py). One batch alone tells nothing."""
        halves: tuple[list[float], list[float]] = ([], [])
        for observer in self.activations():
            if all(h.batches for h in observer.halves):
                for scales, half in zip(halves, observer.halves, strict=True):
                    scales.append(observer.from_statistics(half).scale)
        return sufficiency(*halves, samples)

    def observer(self, node: object) -> Any:
        """The observer that ``node`` is, or None."""
        import torch

        if isinstance(node, torch.fx.Node) and node.op == "call_module":
            return self.graph.get_submodule(str(node.target))
        return None

    def layers(self) -> Iterator[tuple[Node, Any, Any, Any]]:
        """Each integer layer with a stored weight: its node, its input's observer, its weight's observer, its bias (or None)."""
        for node, role in self.plan.roles.items():
            if role.kind is Kind.COMPUTE and len(role.weights) == 1:
                at = {self._source(a): a for a in node.args[:2]}
                weight = role.weights[0].node
                yield node, self.observer(at[role.inputs[0]]), self.observer(at[weight]), weight_of(self.graph, role.bias)

    def _source(self, node: Any) -> Any:
        while self.observer(node) is not None:
            node = node.args[0]
        return node


def prepare(bundle: Bundle, scheme: Scheme, calibration: Calibration, keep_float: Sequence[str] = ()) -> Prepared:
    """Lowers a copy of the bundle's graph, plans it and puts observers in."""
    graph = bundle.copy_graph()
    lower(graph)
    return prepare_lowered(graph, scheme, calibration, keep_float)


def prepare_lowered(graph: GraphModule, scheme: Scheme, calibration: Calibration, keep_float: Sequence[str] = ()) -> Prepared:
    """The same for a graph that is lowered already; it is used up."""
    plan = make_plan(graph, keep_float)
    with quiet():
        prepared = pt2e("quantize_pt2e").prepare_pt2e(graph, quantizer(plan, scheme, calibration))
    return Prepared(prepared, plan, scheme)


def convert(prepared: Prepared) -> GraphModule:
    """The integer graph. ``prepared`` is used up."""
    import torch

    hold_biases(prepared)
    names = _weight_names(prepared)
    with quiet(), torch.random.fork_rng(devices=[]):  # its constant folding draws random numbers
        graph = pt2e("quantize_pt2e").convert_pt2e(prepared.graph)
    for node in graph.graph.nodes:
        node.meta.pop("quantization_annotation", None)
    _read_sizes_outside(graph)
    _name_weights(graph, names)
    drop_dead(graph)
    for method in ("train", "eval"):  # torchao puts methods there that raise
        graph.__dict__.pop(method, None)
    graph.meta.pop("_observed_graph_module_attrs", None)
    assert isinstance(graph, torch.fx.GraphModule)
    return graph


def hold_biases(prepared: Prepared) -> None:
    """Raises the weight scale of channels whose bias would not fit into int32 (see ``affine.bias_floor``)."""
    for _, x, weight, bias in prepared.layers():
        if bias is not None and x is not None and weight is not None:
            scale = float(x.calculate_qparams()[0])
            floor = bias_floor(bias.detach().cpu().numpy(), scale)
            if weight.axis is not None and weight.weight is not None and len(floor) != weight.weight.shape[weight.axis]:
                groups = len(floor) // weight.weight.shape[weight.axis]
                floor = floor.reshape(groups, -1).max(0)
            weight.floor = np.maximum(weight.floor, floor)


def _weight_names(prepared: Prepared) -> dict[str, str]:
    """Observer node -> name of the stored tensor that it watches."""
    names = {}
    for node in prepared.graph.graph.nodes:
        if prepared.observer(node) is not None:
            source = prepared._source(node)
            if source.op == "get_attr":
                names[str(node.name)] = str(source.target)
    return names


def _read_sizes_outside(graph: GraphModule) -> None:
    """A size is read from the value itself, not from its quantized copy."""
    import torch

    dequantize = torch.ops.quantized_decomposed.dequantize_per_tensor.default
    for node in graph.graph.nodes:
        if node.op == "call_function" and str(node.target).startswith("aten.sym_size"):
            source = node.args[0]
            while source.target in (dequantize, torch.ops.quantized_decomposed.quantize_per_tensor.default):
                source = source.args[0]
            node.args = (source, *node.args[1:])


def _name_weights(graph: GraphModule, names: dict[str, str]) -> None:
    """Gives folded weights, scales and zero points the names of what they were made from; a weight read twice is kept once."""
    import torch

    decomposed = torch.ops.quantized_decomposed
    kept: dict[str, Any] = {}
    for node in graph.graph.nodes:
        if node.op != "call_function" or node.target not in (
            decomposed.dequantize_per_channel.default,
            decomposed.dequantize_per_tensor.default,
        ):
            continue
        stored = node.args[0]
        if stored.op != "get_attr":
            continue
        original = _origin(stored, names)
        if original is None:
            continue
        parts = {original: stored}
        if node.target is decomposed.dequantize_per_channel.default:
            parts |= {f"{original}_scale": node.args[1], f"{original}_zero_point": node.args[2]}
        for name, reader in parts.items():
            value = weight_of(graph, reader)
            if value is None or reader.target == name:
                continue
            if name in kept and not torch.equal(kept[name], value):
                continue
            drop_weight(graph, name)
            set_weight(graph, name, value.detach().clone().contiguous())
            kept[name] = value
            reader.target = name
            reader.meta.pop("from_node", None)


def _origin(stored: Node, names: dict[str, str]) -> str | None:
    """The name of the float tensor that was folded into ``stored``."""
    for source in stored.meta.get("from_node", ()):
        if source.name in names:
            return names[source.name]
    return None
