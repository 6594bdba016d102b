"""What is done to every ONNX model after torch.onnx wrote it: one visible list, in order, each step with its reason."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ...core.axes import renamed
from ...core.errors import require
from .plain import plain_reshapes, zero_states
from .trace import quiet

if TYPE_CHECKING:
    import onnx_ir as ir

    from ...core.bundle import Bundle

GIGA = 1 << 30


def simplify(model: ir.Model) -> ir.Model:
    """The same function in fewer, plainer nodes."""
    passes: Any = require("onnx_ir.passes.common", "onnx")
    steps: list[tuple[Callable[[ir.Model], Any], str]] = [
        (_fold, "LSTM and GRU weights stand behind Slice and Concat; quantizers and converters want initialisers"),
        (passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0), "one place for every constant"),
        (zero_states, "torch.onnx expands and slices zeros to the batch's size for every recurrent layer"),
        (passes.ShapeInferencePass(data_prop=True), "the sizes behind recurrent layers are not filled in"),
        (plain_reshapes, "torch.onnx computes shapes that are known"),
        (passes.IdentityEliminationPass(), "torch.onnx leaves Identity where an alias was"),
        (passes.CommonSubexpressionEliminationPass(), "shape arithmetic repeats itself"),
        (passes.DeduplicateInitializersPass(size_limit=GIGA), "shared weights are written once"),
        (passes.RemoveUnusedNodesPass(), "what folding left behind"),
        (passes.RemoveUnusedFunctionsPass(), "no functions: runtimes inline them slowly or not at all"),
        (passes.RemoveUnusedOpsetsPass(), "a reader must know every domain that is named"),
        (passes.TopologicalSortPass(), "the format demands it"),
    ]
    with quiet():
        for step, _ in steps:
            step(model)
    return model


def _fold(model: ir.Model) -> None:
    optimizer: Any = require("onnxscript.optimizer", "onnx")
    optimizer.fold_constants(model, input_size_limit=GIGA, output_size_limit=GIGA, should_fold=_should_fold)


def _should_fold(node: ir.Node) -> bool | None:
    """Integer weights stay behind their DequantizeLinear: folding that would write them as float."""
    return False if node.op_type in ("DequantizeLinear", "QuantizeLinear") else None


def name_everything(model: ir.Model, bundle: Bundle, free: dict[str, str]) -> ir.Model:
    """Stable, readable names, and nothing in the file of where it was made.

    Nodes are called ``<layer>/<OpType>`` after the user's layer they come from (numbered where that repeats), values after their nodes;
    initialisers keep the state dict's names where they have them. ``free`` maps torch's names of free axes to the signature's.
    Document strings and metadata of nodes, values and graph (stack traces with paths) are dropped.
    """
    graph = model.graph
    doors = {v.name for v in (*graph.inputs, *graph.outputs)}
    taken: set[str] = set(filter(None, doors))
    for name in list(graph.initializers):
        taken.add(name)
    layers: dict[int, str] = {}
    for node in graph.all_nodes():
        layers[id(node)] = _layer(node) or _neighbour(node, layers)
    for node in graph.all_nodes():
        node.name = _unique(f"{layers[id(node)]}/{node.op_type}".lstrip("/"), taken)
        for i, value in enumerate(node.outputs):
            if value.name and value.name not in doors:
                value.name = _unique(f"{node.name}.{i}" if i else f"{node.name}.out", taken)
    _name_constants(graph, bundle)
    _rename_axes(graph, free)
    _strip(model)
    return model


def _layer(node: ir.Node) -> str:
    weight = node.inputs[1] if len(node.inputs) > 1 else None
    if weight is not None and weight.is_initializer() and str(weight.name).endswith(".weight"):
        return str(weight.name).removesuffix(".weight")  # a BatchNorm folded into a convolution leaves its own scope on it
    scopes = node.metadata_props.get("pkg.torch.onnx.name_scopes")
    if not scopes:
        return ""
    try:
        paths = [p for p in json.loads(scopes.replace("'", '"'))[:-1] if p]
    except ValueError:
        return ""
    return str(paths[-1]) if paths and not paths[-1].startswith("_empty_nn_module_stack") else ""


def _neighbour(node: ir.Node, layers: dict[int, str]) -> str:
    """A QuantizeLinear or DequantizeLinear belongs to the layer whose output it holds, a weight's to the layer that reads it."""
    if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
        return ""
    source = node.inputs[0]
    producer = source.producer() if source is not None else None
    if producer is not None:
        return layers.get(id(producer), "")
    if source is not None and source.is_graph_input():
        return str(source.name)
    return next((f"{_layer(n)}.weight" for n in node.successors() if _layer(n)), "")


def _name_constants(graph: ir.Graph, bundle: Bundle) -> None:
    """Constants that torch.onnx numbered (``val_161``) are called after their first reader."""
    known = {name for name in bundle.graph.state_dict() if not name.startswith("_frozen_param")}
    taken = {str(v.name) for v in _values(graph)}
    for name, value in list(graph.initializers.items()):
        if name in known:
            continue
        reader = next(iter(value.uses()), None)
        if reader is not None and reader.idx == 0 and reader.node.op_type == "DequantizeLinear" and not name.startswith("val_"):
            value.name = _unique(str(reader.node.name).removesuffix("/DequantizeLinear"), taken)
            continue
        stem = f"{reader.node.name}.in{reader.idx}" if reader is not None else "constant"
        if value in graph.outputs:
            continue
        value.name = _unique(stem, taken)


def _values(graph: ir.Graph) -> list[ir.Value]:
    return [*graph.inputs, *graph.initializers.values(), *(v for n in graph.all_nodes() for v in n.outputs)]


def _rename_axes(graph: ir.Graph, free: dict[str, str]) -> None:
    import onnx_ir as ir

    for value in _values(graph):
        if value.shape is None:
            continue
        axes = [a.value if isinstance(a, ir.SymbolicDim) else a for a in value.shape]
        value.shape = ir.Shape([renamed(a, free) if isinstance(a, str) else a for a in axes])


def _strip(model: ir.Model) -> None:
    graph = model.graph
    things: list[Any] = [model, graph, *graph.all_nodes(), *_values(graph)]
    for thing in things:
        thing.metadata_props.clear()
        thing.doc_string = None
    for node in graph.all_nodes():
        for attribute in node.attributes.values():
            attribute.doc_string = None


def _unique(name: str, taken: set[str]) -> str:
    candidate, number = name, 1
    while candidate in taken:
        number += 1
        candidate = f"{name}_{number}"
    taken.add(candidate)
    return candidate
