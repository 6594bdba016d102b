"""The ONNX exporter: trace, simplify, rewrite for the precision, name, check, write."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import msgspec

from ...core.errors import ContractError, InputError, require
from ...core.pt2 import first_line
from ...core.verdict import YES, Verdict, no
from ..exporter import Options, Written, exporters
from ..reasons import explain
from ..recurrent import recurrent_road, weight_max
from ..there import runs_there
from . import clean, count, doors, trace

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir

    from ...core.artifact import Ops
    from ...core.bundle import Bundle
    from ...core.tensor import Signature
    from ...targets.target import Target

LIMIT_BYTES = (1 << 31) - 1
SLACK_BYTES = 1 << 24
OPSETS = range(17, 24)


class OnnxExporter:
    """One ``.onnx`` file without external data.

    fp32: the graph as it is. fp16: weights and arithmetic in half precision between float32 doors. int8: QuantizeLinear and
    DequantizeLinear around every operator (QDQ), which ONNX Runtime and OpenVINO fuse to integer kernels.
    """

    name = "onnx"
    suffix = ".onnx"
    extra = "onnx"
    precisions: tuple[str, ...] = ("fp32", "fp16", "int8")

    def check(self, bundle: Bundle, options: Options, target: Target) -> Verdict:
        """Refuses a precision that doesn't fit the bundle, an opset out of range, and operators without a translation."""
        verdict = fits(self.name, self.precisions, bundle, options)
        if not verdict:
            return verdict
        if options.opset is not None and options.opset not in OPSETS:
            return no(f"ONNX opset {options.opset} is not written; choose one from {OPSETS.start} to {OPSETS.stop - 1}")
        refusal = trace.untranslatable(bundle, max(options.opset or trace.OPSET, 18))
        return YES if refusal is None else no(str(refusal))

    def write(self, bundle: Bundle, folder: Path, options: Options, target: Target) -> Written:
        """Writes ``<name>.<precision>.onnx``, checked by onnx's checker with shape inference."""
        path = folder / f"{bundle.name}.{options.precision}{self.suffix}"
        model, signature, notes = build(bundle, options)
        if target is not None:
            places = {n.op_type: str(n.name) for n in reversed(list(model.graph.all_nodes()))}
            runs_there(path.name, self.name, options.precision, target, places)
        path.write_bytes(serialize(model))
        ops = count.count(path, integer=options.precision == "int8")
        return Written(file=path.name, files=(path.name,), signature=signature, ops=ops, notes=(*notes, *left_notes(bundle, ops)))


def fits(format: str, precisions: tuple[str, ...], bundle: Bundle, options: Options) -> Verdict:
    """Whether the bundle is in the form that the precision needs."""
    if options.precision not in precisions:
        return no(f"{format} is not written in precision {options.precision}; choose from {', '.join(precisions)}")
    if options.precision == "int8" and bundle.quantized is None:
        return no(f"'{bundle.name}' is not quantized; run the quantize pass first, or choose fp32 or fp16")
    if bundle.quantized is not None and bundle.quantized.get("activation_bits") == 16:
        return no(f"'{bundle.name}' has 16-bit activations, for which {format} has no integer kernels; export it to tflite as int16")
    if options.precision != "int8" and bundle.quantized is not None:
        return no(f"'{bundle.name}' is quantized; {options.precision} is written from the float model")
    if options.doors == "integer" and options.precision != "int8":
        return no(f"integer doors need precision int8, not {options.precision}")
    return YES


def left_notes(bundle: Bundle, ops: Ops) -> tuple[str, ...]:
    """Why something computes in float in an integer file: what the quantizer left so, and what the runtime made of the rest."""
    if bundle.quantized is None:
        return ()
    notes = []
    kept: dict[str, str] = bundle.quantized.get("float", {})
    reasons: dict[str, list[str]] = {}
    for place, why in kept.items():
        reasons.setdefault(why, []).append(place)
    notes += [f"left in float by the quantizer: {_some(places)}: {why}" for why, places in reasons.items()]
    return (*notes, *explain(ops.float_left))


def _some(names: Sequence[str], most: int = 4) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def build(bundle: Bundle, options: Options, *, plain: bool = False) -> tuple[ir.Model, Signature, tuple[str, ...]]:
    """The finished model in memory, its doors, and notes. ``plain``: see qdq.py."""
    model = _traced(bundle, options.batch, options.opset or trace.OPSET)
    notes: list[str] = []
    signature = bundle.signature if options.batch is None else bundle.signature.fixed(batch=options.batch)
    clean.name_everything(model, bundle, free_axes(model, signature))
    if options.precision == "fp16":
        from . import half

        notes += half.convert(model)
    elif options.precision == "int8":
        from . import qdq

        notes += qdq.convert(model, plain=plain)
        if not plain:
            from . import recurrent

            notes += recurrent.convert(model, recurrent_road(bundle, "onnx"), weight_max(bundle))
        if options.doors == "integer":
            signature = doors.integer(model, signature)
    if options.layout == "NHWC":
        signature = doors.channels_last(model, signature)
    describe(model, bundle)
    return model, signature, tuple(notes)


_LAST: WeakKeyDictionary[Any, tuple[tuple[int | None, int], ir.Model, Signature]] = WeakKeyDictionary()


def _traced(bundle: Bundle, batch: int | None, opset: int) -> ir.Model:
    """The simplified ONNX model of the graph, free to be changed. The last one of a graph is kept, as ONNX and OpenVINO start from the same
    one and tracing is the long part; graphs of bundles are never changed in place."""
    key = (batch, opset)
    found = _LAST.get(bundle.graph)
    if found is None or found[0] != key or found[2] != bundle.signature:
        model = trace.trace(bundle, batch, opset)
        clean.simplify(model)
        _LAST.clear()
        _LAST[bundle.graph] = found = (key, model, bundle.signature)
    return found[1].clone()


def free_axes(model: ir.Model, signature: Signature) -> dict[str, str]:
    """torch's names of the free axes (``s77``) to the signature's (``batch``), read off the doors."""
    found: dict[str, str] = {}
    graph = model.graph
    for values, specs in ((graph.inputs, signature.inputs), (graph.outputs, signature.outputs)):
        for value, spec in zip(values, specs, strict=True):
            for have, want in zip(value.shape or (), spec.shape, strict=False):
                if not isinstance(have, int) and isinstance(want, str) and str(have.value).isidentifier():
                    found.setdefault(str(have.value), want)
    return found


def describe(model: ir.Model, bundle: Bundle) -> None:
    """Who wrote the file, and what a user needs to feed it: labels and preprocessing as JSON."""
    from ... import __version__

    model.producer_name, model.producer_version = "packlight", __version__
    model.graph.name = bundle.name
    model.metadata_props.clear()
    if bundle.task:
        model.metadata_props["task"] = bundle.task
    if bundle.labels:
        model.metadata_props["labels"] = msgspec.json.encode(bundle.labels).decode()
    if bundle.preprocess is not None:
        model.metadata_props["preprocess"] = msgspec.json.encode(bundle.preprocess).decode()


def serialize(model: ir.Model) -> bytes:
    """Deterministic bytes, after the checker and strict shape inference said yes."""
    onnx: Any = require("onnx", "onnx")
    import onnx_ir as ir

    weights = sum(v.const_value.nbytes for v in model.graph.initializers.values() if v.const_value is not None)
    if weights > LIMIT_BYTES - SLACK_BYTES:
        told = f"the weights take {weights:,} bytes, and an ONNX file (from which OpenVINO's is made) holds 2 GiB"
        raise InputError(f"{told}; write it in fp16 or int8, or compress the model further")
    proto = ir.to_proto(model)
    try:
        proto = onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True, data_prop=True)
        onnx.checker.check_model(proto, full_check=True)
    except Exception as error:  # checker and inference have types of their own
        raise ContractError(f"the ONNX file is not valid: {first_line(error)}") from error
    constants = {i.name for i in proto.graph.initializer}
    shapes = [v for v in proto.graph.value_info if v.name not in constants]  # an initialiser says its own shape
    del proto.graph.value_info[:]
    proto.graph.value_info.extend(shapes)
    data: bytes = proto.SerializeToString(deterministic=True)
    return data


exporters.register("onnx")(OnnxExporter())
