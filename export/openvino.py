"""The OpenVINO exporter: intermediate representation (IR) from the ONNX model that ``export/onnx`` builds.

From ONNX and never from the torch program: OpenVINO's own reader of those unrolls an LSTM into thousands of operators, takes InstanceNorm
apart, and fails on quantized programs with folded weights.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from ..core.artifact import Ops
from ..core.errors import ContractError, require
from ..core.pt2 import first_line
from ..core.rows import rounded_rows
from ..core.verdict import Verdict
from .exporter import Options, Written, exporters
from .integer import WEIGHTED
from .onnx.count import NAMED
from .onnx.exporter import OnnxExporter, build, fits, left_notes, serialize
from .pictures import can_take, put_inside
from .recurrent import is_thin, recurrent_road, weight_max
from .there import runs_there

if TYPE_CHECKING:
    from ..core.bundle import Bundle
    from ..core.tensor import Signature
    from ..targets.target import Target

_AUTOMATIC = re.compile(r"^[A-Za-z0-9]+_\d+$")
_COUNTED = re.compile(r"_\d{3,}")
_BESIDE = {"Const", "Input", "Output", "Result", "Parameter"}
SMALL = 64
LARGE = 4096
"""Numbers of a recurrent matrix from which int8 saves more than its operators take in the .xml."""
_MOVES = {"Reorder", "Convert", "Subgraph"}


class OpenVinoExporter:
    """``.xml`` with its ``.bin``.

    fp32: uncompressed. fp16: weights stored in half precision; the CPU computes in float32, GPUs in half. int8: the quantize/dequantize
    pairs of the ONNX model, which the CPU plugin turns into integer kernels.
    """

    name = "openvino"
    suffix = ".xml"
    extra = "openvino"
    precisions: tuple[str, ...] = ("fp32", "fp16", "int8")

    def check(self, bundle: Bundle, options: Options, target: Target) -> Verdict:
        """What the ONNX exporter can write and OpenVINO reads."""
        verdict = fits(self.name, self.precisions, bundle, options)
        if verdict and options.pictures:
            verdict = can_take(bundle, options)
        return verdict and OnnxExporter().check(bundle, _inner(options), target)

    def write(self, bundle: Bundle, folder: Path, options: Options, target: Target) -> Written:
        """Writes ``<name>.<precision>.xml`` and ``.bin``."""
        openvino: Any = require("openvino", self.extra)
        model, signature, notes = build(bundle, _inner(options), plain=True)
        try:
            network = openvino.Core().read_model(serialize(model))
        except RuntimeError as error:
            raise ContractError(f"OpenVINO can't read the ONNX model of '{bundle.name}': {first_line(error)}") from error
        simplify(network, integer=options.precision == "int8")
        if options.precision == "int8" and recurrent_road(bundle, self.name) != "float":
            notes = (*notes, *thin_recurrent(network, weight_max(bundle)))
        if options.pictures:
            assert bundle.preprocess is not None
            network, signature = put_inside(network, signature, bundle.preprocess, options.pictures)
        name_everything(network, bundle.name)
        describe_doors(network, signature)
        for key, value in model.metadata_props.items():
            network.set_rt_info(value, ["packlight", key])
        path = folder / f"{bundle.name}.{options.precision}{self.suffix}"
        if target is not None:
            places = {op.get_type_name(): op.get_friendly_name() for op in reversed(network.get_ordered_ops())}
            runs_there(path.name, self.name, options.precision, target, places)
        openvino.save_model(network, str(path), compress_to_fp16=options.precision == "fp16")
        path.write_text(re.sub(r">\s+<", "><", path.read_text(encoding="utf-8")), encoding="utf-8")  # a quarter of it is indentation
        ops = count(path, integer=options.precision == "int8")
        files = (path.name, f"{path.stem}.bin")
        return Written(file=path.name, files=files, signature=signature, ops=ops, notes=(*notes, *left_notes(bundle, ops)))


def _inner(options: Options) -> Options:
    """The options for the ONNX model inside: the opset is our choice, and OpenVINO itself stores weights in half precision."""
    return msgspec.structs.replace(options, opset=None, precision="fp32" if options.precision == "fp16" else options.precision)


def describe_doors(network: Any, signature: Signature) -> None:
    """What an IR has no other place for: the layout of image inputs, and the names of every door's axes, as JSON in the runtime info."""
    openvino: Any = require("openvino", "openvino")
    for parameter, spec in zip(network.get_parameters(), signature.inputs, strict=True):
        if spec.layout:
            parameter.set_layout(openvino.Layout(spec.layout))
    axes = {spec.name: list(spec.shape) for spec in (*signature.inputs, *signature.outputs) if spec.free_axes}
    if axes:
        network.set_rt_info(msgspec.json.encode(axes).decode(), ["packlight", "axes"])


def simplify(network: Any, integer: bool) -> None:
    """What OpenVINO's own converter does after reading: the reader alone leaves a dozen operators a bias, and no integer kernel for them.

    Integer graphs also get their weights in the form that the CPU plugin knows: i8 constant -> Convert -> Multiply.
    """
    passes: Any = require("openvino._offline_transformations", "openvino")
    passes.apply_moc_transformations(network, False)
    if integer:
        passes.compress_quantize_weights_transformation(network)
    passes.apply_fused_names_cleanup(network)
    _share_constants(network)


def thin_recurrent(network: Any, most: int) -> tuple[str, ...]:
    """int8 matrices within +-``most``, one scale a row, for LSTM, GRU and RNN sequences; the CPU plugin makes them float again."""
    import numpy as np

    ops: Any = require("openvino.opset13", "openvino")
    done = 0
    for op in network.get_ordered_ops():
        if op.get_type_name() not in ("LSTMSequence", "GRUSequence", "RNNSequence"):
            continue
        for value in op.inputs():
            matrix = value.get_source_output().get_node()
            if (
                matrix.get_type_name() != "Constant"
                or len(matrix.shape) != 3
                or matrix.data.dtype != np.float32
                or matrix.data.size < LARGE
                or not is_thin(matrix.data, most)
            ):
                continue
            stored, scale = rounded_rows(np.array(matrix.data), most)
            whole = ops.convert(ops.convert(ops.constant(stored), "i32"), "f32")  # by i32: i8 to f32 would be kept as a dequantizing
            real = ops.multiply(whole, ops.constant(scale))
            value.replace_source_output(real.output(0))
        done += 1
    return (f"int8 matrices, float arithmetic: {done} recurrent sequences",) if done else ()


def _share_constants(network: Any) -> None:
    """Small constants of the same numbers become one: every FakeQuantize comes with four."""
    seen: dict[tuple[str, str, bytes], Any] = {}
    for op in network.get_ordered_ops():
        if op.get_type_name() != "Constant" or op.get_byte_size() > SMALL:
            continue
        key = (str(op.get_element_type()), str(op.shape), op.data.tobytes())
        first = seen.setdefault(key, op)
        if first is not op:
            for target in op.output(0).get_target_inputs():
                target.replace_source_output(first.output(0))


def name_everything(network: Any, name: str) -> None:
    """Numbers what OpenVINO named by a counter of the whole process, in the order of the graph: the same bytes every time."""
    network.set_friendly_name(name)
    taken: Counter[str] = Counter()
    for op in network.get_ordered_ops():
        if _AUTOMATIC.match(op.get_friendly_name()):
            kind = op.get_type_name()
            op.set_friendly_name(f"{kind}.{taken[kind]}")
            taken[kind] += 1
        if op.get_type_name() not in ("Parameter", "Result") and not any(_is_result(t) for t in _readers(op)):
            for out in op.outputs():
                out.set_names(set())  # names of tensors inside are nobody's, and long


def count(path: Path, integer: bool) -> Ops:
    """Operators as written and as the CPU plugin runs them."""
    openvino: Any = require("openvino", "openvino")
    core = openvino.Core()
    network = core.read_model(str(path))
    file = Counter(op.get_type_name() for op in network.get_ordered_ops())
    for kind in ("Constant", "Parameter", "Result"):
        file.pop(kind, None)
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1}
    running = core.compile_model(network, "CPU", settings).get_runtime_model()
    optimised = Counter(_info(op, "layerType") for op in running.get_ordered_ops() if _info(op, "layerType") not in _BESIDE)
    return Ops(
        file=_sorted(file),
        optimised=_sorted(optimised),
        float_left=float_left(running) if integer else (),
        transposes=file["Transpose"],
        requantizes=file["FakeQuantize"],
        requantizes_left=requantizes(running) if integer else None,
        integer_layers=integer_layers(running) if integer else None,
    )


def integer_layers(running: Any) -> tuple[str, ...]:
    """The layers that an integer kernel computes, by the names of the operators that it was made of."""
    found = []
    for op in running.get_ordered_ops():
        if _info(op, "layerType") in WEIGHTED["openvino"] and not computes_float(op):
            named = (NAMED.match(name) for name in _info(op, "originalLayersNames").split(","))
            found += [m["layer"] for m in named if m is not None]
    return tuple(dict.fromkeys(found))


def computes_float(op: Any) -> bool:
    """Whether a running operator computes in float. The kernel's own name counts where it tells ("jit_avx2_I8"): a Deconvolution of i8
    weights is called i8 whatever its kernel is."""
    kernel = _info(op, "primitiveType").rpartition("_")[2] if _info(op, "layerType") in WEIGHTED["openvino"] else ""
    return _floats(kernel if kernel in ("I8", "f32", "f16", "bf16") else _info(op, "runtimePrecision"))


def requantizes(running: Any) -> int:
    """FakeQuantize, and Reorder or Convert from integers to float or back, on data; kernels that do so themselves are free."""
    count = 0
    for op in running.get_ordered_ops():
        kind, sources = _info(op, "layerType"), [v.get_node() for v in op.input_values()]
        data = [s for s in sources if _info(s, "layerType") != "Const"]
        if not data or kind not in ("FakeQuantize", "Reorder", "Convert"):
            continue
        changed = _floats(_info(data[0], "outputPrecisions")) != _floats(_info(op, "outputPrecisions"))
        count += kind == "FakeQuantize" or changed
    return count


def float_left(running: Any) -> tuple[str, ...]:
    """Operators that compute in float behind the first integer and before the last, "name (type)".

    ``running`` is a compiled model's runtime graph. Constants and what computes on constants only are left out, and so is the
    quantizing of an input and whatever gives an output.
    """
    left = []
    data: set[str] = set()
    behind: set[str] = set()
    for op in running.get_ordered_ops():
        name, kind = op.get_friendly_name(), _info(op, "layerType")
        sources = [value.get_node().get_friendly_name() for value in op.input_values()]
        if kind in ("Input", "Parameter"):
            data.add(name)
            continue
        if not any(s in data for s in sources):
            continue
        data.add(name)
        if any(s in behind for s in sources) or not _floats(_info(op, "outputPrecisions")):
            behind.add(name)
        gives = all(
            t.get_node().get_type_name() == "Result" or _info(t.get_node(), "layerType") in ("Output", "Result") for t in _readers(op)
        )
        if name in behind and not gives and kind not in _BESIDE | _MOVES and computes_float(op):
            door = kind == "FakeQuantize" and all(s not in behind for s in sources)
            if not door:
                left.append(f"{_COUNTED.sub('', _info(op, 'originalLayersNames').split(',')[0] or name)} ({kind})")
    return tuple(left)


def _is_result(target: Any) -> bool:
    return bool(target.get_node().get_type_name() == "Result")


def _readers(op: Any) -> list[Any]:
    return [target for out in op.outputs() for target in out.get_target_inputs()]


def _floats(precisions: str) -> bool:
    return any(p in precisions for p in ("f32", "f16", "bf16"))


def _info(op: Any, key: str) -> str:
    info = op.get_rt_info()
    return str(info[key].astype(str)) if key in info else ""


def _sorted(counts: Counter[str]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


exporters.register("openvino")(OpenVinoExporter())
