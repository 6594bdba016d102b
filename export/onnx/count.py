"""What is in an ONNX file: operators as written, as ONNX Runtime runs them, and which of those still compute in float."""

from __future__ import annotations

import re
import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...core.artifact import Ops
from ...core.pt2 import first_line

if TYPE_CHECKING:
    import onnx

_FLOAT = {"FLOAT", "FLOAT16", "DOUBLE", "BFLOAT16"}
_SHAPES = {"Shape": "INT64", "Size": "INT64", "NonZero": "INT64", "ArgMax": "INT64", "ArgMin": "INT64"}
_FROM_SECOND = {"Where"}
KERNELS = {"QLinearConv", "QGemm", "QLinearMatMul", "ConvInteger", "MatMulInteger", "MatMulIntegerToFloat", "DynamicQuantizeMatMul"}
"""ONNX Runtime's integer kernels for layers with a weight."""

NAMED = re.compile(r"(?P<layer>.+)/(Conv|ConvTranspose|Gemm|MatMul)(_\d+)?(_token_\d+)?(/|$)")
"""Layers in names, as the exporter gives them and runtimes extend them."""


def count(path: Path, integer: bool) -> Ops:
    """The operators of ``path``; for an ``integer`` file also what is left in float between the doors after optimisation."""
    import onnx

    written = onnx.load(str(path), load_external_data=False)
    file = _counts(written)
    optimised, why = optimise(path)
    requantizes = _requantizes(file)
    seen = optimised if integer else None
    return Ops(
        file=file,
        optimised=None if optimised is None else _counts(optimised),
        why=why,
        float_left=float_left(written if optimised is None else optimised) if integer else (),
        transposes=file.get("Transpose", 0),
        requantizes=requantizes,
        requantizes_left=None if seen is None else _requantizes(_counts(seen)),
        integer_layers=None if seen is None else integer_layers(seen),
    )


def integer_layers(model: onnx.ModelProto) -> tuple[str, ...]:
    """The layers that an integer kernel computes, by its name: ``layer/Conv``, to which ONNX Runtime adds a number."""
    found = (NAMED.match(node.name) for node in model.graph.node if node.op_type in KERNELS)
    return tuple(dict.fromkeys(m["layer"] for m in found if m is not None))


def _requantizes(counts: dict[str, int]) -> int:
    return counts.get("QuantizeLinear", 0) + counts.get("DequantizeLinear", 0)


def optimise(path: Path) -> tuple[onnx.ModelProto | None, str]:
    """The graph that ONNX Runtime makes of ``path`` on this CPU; None and the reason where it can't tell."""
    import onnx

    try:
        import onnxruntime as ort
    except ImportError:
        return None, "onnxruntime is not installed"
    with tempfile.TemporaryDirectory(prefix="packlight-") as folder:
        options = ort.SessionOptions()
        options.optimized_model_filepath = str(Path(folder) / "optimised.onnx")
        options.log_severity_level = 4
        options.intra_op_num_threads = 1
        try:
            ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
            return onnx.load(options.optimized_model_filepath), ""
        except Exception as error:  # onnxruntime raises a dozen types
            return None, f"onnxruntime can't open the file: {first_line(error)}"


def float_left(model: onnx.ModelProto) -> tuple[str, ...]:
    """Operators with a float input and a float output, "name (type)", without the quantize and dequantize at the doors."""
    import onnx

    names = {v: k for k, v in onnx.TensorProto.DataType.items()}
    kinds = {v.name: names[v.type.tensor_type.elem_type] for v in model.graph.input}
    constants = {i.name for i in model.graph.initializer}
    kinds |= {i.name: names[i.data_type] for i in model.graph.initializer}
    left = []
    for node in model.graph.node:
        out = _kind(node, kinds, names)
        for name in node.output:
            kinds[name] = out
        moving = [kinds.get(n, "") for n in node.input if n and n not in constants]
        if node.input and not moving:
            constants.update(node.output)
        if node.op_type.startswith("DynamicQuantize"):
            continue  # integers inside, floats at its doors
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear") and out in _FLOAT and any(k in _FLOAT for k in moving):
            left.append(f"{node.name or node.output[0]} ({node.op_type})")
    return tuple(left)


def _kind(node: onnx.NodeProto, kinds: dict[str, str], names: dict[int, str]) -> str:
    attributes: dict[str, Any] = {a.name: a for a in node.attribute}
    op = node.op_type
    if op in _SHAPES:
        return _SHAPES[op]
    if op == "Cast":
        return names[attributes["to"].i]
    if op == "ConstantOfShape":
        return names[attributes["value"].t.data_type] if "value" in attributes else "FLOAT"
    if op == "Constant":
        return names[attributes["value"].t.data_type] if "value" in attributes else "FLOAT"
    if op == "QuantizeLinear":
        return kinds[node.input[2]] if len(node.input) > 2 and node.input[2] else "UINT8"
    if op == "DequantizeLinear":
        return kinds.get(node.input[1], "FLOAT")
    if op in ("ConvInteger", "MatMulInteger"):
        return "INT32"
    if op == "QLinearConcat":  # (y_scale, y_zero, then a tensor, its scale and zero point each)
        return kinds.get(node.input[1], "UINT8")
    if op.startswith("Dynamic") or op == "MatMulIntegerToFloat":
        return "FLOAT"
    if op == "QGemm":  # (A, a_scale, a_zero, B, b_scale, b_zero, C, y_scale, y_zero): without the last two it gives float
        return kinds[node.input[0]] if len(node.input) > 7 and node.input[7] else "FLOAT"
    return kinds.get(node.input[1 if op in _FROM_SECOND else 0], "FLOAT") if node.input else "FLOAT"


def _counts(model: onnx.ModelProto) -> dict[str, int]:
    counts = Counter(node.op_type for node in model.graph.node)
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
