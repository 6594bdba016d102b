"""From a graph to a plan: chooses integers or reals for each operator, lowers them in order, and opens the doors."""

from __future__ import annotations

from typing import Any, Literal

from ...core.errors import UnsupportedOpError
from .builder import Builder
from .graph import Graph, Op, Read, Value
from .layout import Order, channels_last, identity, stored
from .lower import Site, entry
from .passes import narrow, prune
from .plan import Plan, Quant
from .wide import runs_wide

_TYPES = {"float32", "bool", "uint8", "int8", "int16", "int32", "int64", "none"}


def build(
    graph: Graph,
    *,
    layout: Literal["NCHW", "NHWC"] = "NHWC",
    integer_doors: bool = False,
    fused_recurrent: bool = False,
    dynamic_recurrent: int = 0,
) -> Plan:
    """The plan of ``graph``. Images (rank four) pass the doors in ``layout``; everything else in torch's order.

    ``integer_doors``: inputs and outputs whose values are quantized pass as those integers.
    ``fused_recurrent``: an LSTM is one operator a layer where it can be, with a state that outlives the call.
    ``dynamic_recurrent``: unrolled recurrent layers whose matrices lie on the grid of so large integers have them in int8 and quantize what
    they multiply when they run.
    """
    from . import ops  # noqa: F401  files every lowering

    infer_transparent(graph)
    builder = Builder(fused_recurrent, dynamic_recurrent)
    inputs = [_open(builder, value, _door(value, layout), integer_doors) for value in graph.inputs]
    for op in graph.ops:
        lower_op(builder, op)
    builder.layer = ""
    outputs = []
    for read in graph.outputs:
        q = (read.q or read.value.q) if integer_doors and not read.constant else None
        order = _door(read.value, layout)
        if q is None and read.q is not None:
            outputs.append(builder.convert(builder.read(read, order, read.q), None))
        else:
            outputs.append(builder.read(read, order, q))
    outputs = [_distinct(builder, index, outputs[:i], inputs) for i, index in enumerate(outputs)]
    return narrow(prune(builder.plan(inputs, outputs)))


def lower_op(builder: Builder, op: Op) -> None:
    """Adds one operator to the plan."""
    found = entry(op.name)
    if found is None:
        remedy = "write the layer with other operators, or export to ONNX or OpenVINO"
        raise UnsupportedOpError("the TFLite exporter", op.name, op.layer or op.label, "it has no TFLite counterpart here", remedy)
    for output in op.outputs:
        if output.dtype not in _TYPES:
            why, remedy = f"it gives {output.dtype} numbers, which TFLite kernels don't take", "cast the model to float32 and keep integers"
            raise UnsupportedOpError("the TFLite exporter", op.name, op.layer or op.label, why, remedy)
    builder.layer = op.layer
    integer = _integer(op)
    q = None
    if integer:
        q = next((r.q for r in op.reads() if not r.constant), None) if found.shared else op.outputs[0].q
    found.lower(Site(builder, op, integer, q))


def infer_transparent(graph: Graph) -> None:
    """Operators that only move or select numbers give their input's integers, whether the graph says so or not.

    Before: ``conv -> int8 -> reshape -> float -> linear``; after: ``conv -> int8 -> reshape -> int8 -> linear``: exact, and no
    DEQUANTIZE in between.
    """
    exact: dict[Value, Quant] = {}
    for op in graph.ops:
        op.args = {name: _exact(value, exact) for name, value in op.args.items()}
        found = entry(op.name)
        if found is None or not found.transparent:
            continue
        reads = [r for r in op.reads() if not r.constant and r.value.floating]
        if reads and reads[0].q is not None and all(r.q == reads[0].q for r in reads):
            for output in op.outputs:
                if output.floating:
                    exact[output] = reads[0].q
                    output.q = output.q or reads[0].q
    graph.outputs = [_exact(read, exact) for read in graph.outputs]


def _exact(value: Any, exact: dict[Value, Quant]) -> Any:
    if isinstance(value, Read):
        return Read(value.value, exact[value.value]) if value.q is None and value.value in exact else value
    if isinstance(value, (list, tuple)):
        return [_exact(item, exact) for item in value]
    return value


def _integer(op: Op) -> bool:
    """Whether the operator computes on integers: kernels exist, and the graph quantizes what goes in and what comes out."""
    found = entry(op.name)
    if found is None or not (found.integer(op) if callable(found.integer) else found.integer):
        return False
    reads = [r for r in op.reads() if not r.constant and r.value.floating]
    if not reads or any(r.q is None for r in reads):
        return False
    if any(q is not None and q.dtype == "int16" for q in (*(r.q for r in reads), *(o.q for o in op.outputs))):
        return runs_wide(op)
    return all(o.q is not None for o in op.outputs if o.floating)


def _door(value: Value, layout: str) -> Order:
    rank = len(value.shape)
    return channels_last(rank) if rank == 4 and layout == "NHWC" else identity(rank)


def _open(builder: Builder, value: Value, order: Order, integer: bool) -> int:
    q = value.q if integer else None
    tensor = builder.tensor(value.name, stored(value.shape, order), q.dtype if q else value.dtype, q)
    builder.bind(value, tensor, order)
    return tensor


def _distinct(builder: Builder, tensor: int, before: list[int], inputs: list[int]) -> int:
    """An output that is an input, a constant or another output again gets a tensor of its own."""
    source = builder.tensors[tensor]
    if tensor not in before and tensor not in inputs and source.data is None:
        return tensor
    shape = builder.ints(source.shape)
    return builder.run(
        "RESHAPE", [tensor, shape], source.shape, source.dtype, source.quant, f"{source.name}.copy", newShape=list(source.shape)
    )
