"""Tiny models made on the spot, to see what a runtime does here. Run as ``python -m packlight.targets.probe RUNTIME``, one JSON line.

It runs in a process of its own: a wheel built for instructions that this CPU lacks ends with a signal, and that is an answer too.

The model is one convolution, so that the truth is a closed form:
    y[o, i, j] = sum over c, u, v of w[o, c, u, v] * x[c, i + u, j + v]
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from ..core.errors import PacklightError, require
from ..core.pt2 import first_line
from .runtime import RUNTIMES, open_session

if TYPE_CHECKING:
    from numpy.typing import NDArray

CHANNELS, SIZE, FILTERS = 16, 6, 8
# What rounding may cost: two of the output's 127 steps a side. Saturation costs half of the range.
ROUNDING = 2 / 127


class Probed(msgspec.Struct, frozen=True, kw_only=True):
    """What a runtime did. ``error`` is the largest difference to the closed form, as a share of the largest value.

    ``gap_full`` and ``gap_63`` are the same of a u8 x s8 convolution with weights within +-127 and +-63, integer kernels against the same
    quantize/dequantize graph in float; None where the runtime was not asked. ``saturates`` follows from them.
    """

    runtime: str
    ok: bool
    why: str = ""
    error: float | None = None
    open_s: float | None = None
    gap_full: float | None = None
    gap_63: float | None = None
    devices: tuple[str, ...] = ()

    @property
    def saturates(self) -> bool | None:
        """Whether integer kernels lose full-range products here; None where it wasn't measured."""
        return None if self.gap_full is None else self.gap_full > ROUNDING


def probe(runtime: str) -> Probed:
    """Opens and runs tiny models in ``runtime``, in this process."""
    import numpy as np

    random = np.random.default_rng(0)
    x = random.random((1, CHANNELS, SIZE, SIZE), np.float32)
    w = random.standard_normal((FILTERS, CHANNELS, 3, 3)).astype(np.float32)
    try:
        with tempfile.TemporaryDirectory(prefix="packlight-") as folder:
            path = Path(folder) / ("probe.tflite" if RUNTIMES[runtime].format == "tflite" else "probe.onnx")
            path.write_bytes(tflite_convolution(w) if path.suffix == ".tflite" else onnx_convolution(w))
            started = time.perf_counter()
            session = open_session(path, runtime)
            opened = time.perf_counter() - started
            tflite = path.suffix == ".tflite"
            (y,) = session.run(np.ascontiguousarray(x.transpose(0, 2, 3, 1)) if tflite else x)
            error = _gap(y.transpose(0, 3, 1, 2) if tflite else y, convolve(x, w))
            gaps = (None, None) if tflite else tuple(saturation(Path(folder), runtime, limit) for limit in (127, 63))
    except PacklightError as failed:
        return Probed(runtime=runtime, ok=False, why=str(failed))
    except Exception as failed:
        return Probed(runtime=runtime, ok=False, why=f"{type(failed).__name__}: {first_line(failed)}")
    right = error < 1e-3
    why = "" if right else f"a convolution came out wrong by {100 * error:.1f} % of its range"
    return Probed(
        runtime=runtime, ok=right, why=why, error=error, open_s=opened, gap_full=gaps[0], gap_63=gaps[1], devices=_devices(runtime)
    )


def saturation(folder: Path, runtime: str, limit: int) -> float:
    """How far the integer kernels of ``runtime`` are from the same quantized convolution in float, as a share of the output's range.

    All inputs are 255 and all weights +-``limit`` (one sign per filter), the worst case: with 127 a pair of products is 64,770, which 16
    signed bits can't hold. The float side is the same file in the same runtime with its optimisation off.
    """
    import numpy as np

    signs = np.where(np.arange(FILTERS) % 2, -1, 1)[:, None, None, None]
    weights = (signs * np.full((FILTERS, CHANNELS, 3, 3), limit)).astype(np.int8)
    scales = (1 / 255, 1 / 127, 2 * limit / 127 * CHANNELS * 9 / 255)  # input, weights, output (both signs)
    path = folder / f"probe-{limit}.onnx"
    path.write_bytes(onnx_quantized_convolution(weights, scales))
    x = np.ones((1, CHANNELS, SIZE, SIZE), np.float32)
    (integer,) = open_session(path, runtime).run(x)
    (real,) = open_session(path, runtime, optimise=False).run(x)
    return _gap(integer, real)


def convolve(x: NDArray[Any], w: NDArray[Any]) -> NDArray[Any]:
    """The closed form, in float64: (1, C, H, W) and (O, C, 3, 3) give (1, O, H - 2, W - 2)."""
    import numpy as np

    windows = np.lib.stride_tricks.sliding_window_view(x.astype(np.float64), (3, 3), axis=(2, 3))
    y: NDArray[Any] = np.einsum("nchwuv,ocuv->nohw", windows, w.astype(np.float64))
    return y


def onnx_convolution(w: NDArray[Any]) -> bytes:
    """x -> Conv -> y, float32, opset 13."""
    onnx = require("onnx", "onnx")
    node = onnx.helper.make_node("Conv", ["x", "w"], ["y"])
    return _model(onnx, [node], [onnx.numpy_helper.from_array(w, "w")])


def onnx_quantized_convolution(w: NDArray[Any], scales: tuple[float, float, float]) -> bytes:
    """x -> QDQ (u8, zero point 0) -> Conv with s8 weights -> QDQ (u8, zero point 128) -> y: standard QDQ, opset 13."""
    import numpy as np

    onnx = require("onnx", "onnx")
    helper, array = onnx.helper, onnx.numpy_helper.from_array
    constants = [array(np.float32(s), n) for s, n in zip(scales, ("sx", "sw", "sy"), strict=True)]
    constants += [array(np.uint8(0), "zx"), array(np.int8(0), "zw"), array(np.uint8(128), "zy"), array(w, "w")]
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "sx", "zx"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "sx", "zx"], ["xf"]),
        helper.make_node("DequantizeLinear", ["w", "sw", "zw"], ["wf"]),
        helper.make_node("Conv", ["xf", "wf"], ["c"]),
        helper.make_node("QuantizeLinear", ["c", "sy", "zy"], ["yq"]),
        helper.make_node("DequantizeLinear", ["yq", "sy", "zy"], ["y"]),
    ]
    return _model(onnx, nodes, constants)


def tflite_convolution(w: NDArray[Any]) -> bytes:
    """x (NHWC) -> CONV_2D -> y, float32: a flatbuffer written field by field."""
    import numpy as np

    s = require("ai_edge_litert.schema_py_generated", "tflite")
    flatbuffers = require("flatbuffers", "tflite")
    data = [b"", np.ascontiguousarray(w.transpose(0, 2, 3, 1)).tobytes(), np.zeros(FILTERS, np.float32).tobytes()]
    shapes = {"x": (1, SIZE, SIZE, CHANNELS), "w": (FILTERS, 3, 3, CHANNELS), "b": (FILTERS,), "y": (1, SIZE - 2, SIZE - 2, FILTERS)}
    graph = s.SubGraphT()
    graph.tensors = []
    for (name, shape), buffer in zip(shapes.items(), (0, 1, 2, 0), strict=True):
        tensor = s.TensorT()
        tensor.name, tensor.shape, tensor.type, tensor.buffer = name, list(shape), s.TensorType.FLOAT32, buffer
        graph.tensors.append(tensor)
    options = s.Conv2DOptionsT()
    options.padding, options.strideH, options.strideW, options.dilationHFactor, options.dilationWFactor = s.Padding.VALID, 1, 1, 1, 1
    operator = s.OperatorT()
    operator.opcodeIndex, operator.inputs, operator.outputs = 0, [0, 1, 2], [3]
    operator.builtinOptionsType, operator.builtinOptions = s.BuiltinOptions.Conv2DOptions, options
    graph.operators, graph.inputs, graph.outputs = [operator], [0], [3]
    code = s.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = s.BuiltinOperator.CONV_2D
    model = s.ModelT()
    model.version, model.operatorCodes, model.subgraphs, model.buffers = 3, [code], [graph], []
    for piece in data:
        buffer = s.BufferT()
        buffer.data = np.frombuffer(piece, np.uint8) if piece else None
        model.buffers.append(buffer)
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _model(onnx: Any, nodes: list[Any], constants: list[Any]) -> bytes:
    value = onnx.helper.make_tensor_value_info
    x = value("x", onnx.TensorProto.FLOAT, [1, CHANNELS, SIZE, SIZE])
    y = value("y", onnx.TensorProto.FLOAT, [1, FILTERS, SIZE - 2, SIZE - 2])
    graph = onnx.helper.make_graph(nodes, "probe", [x], [y], constants)
    return bytes(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)], ir_version=8).SerializeToString())


def _gap(a: NDArray[Any], b: NDArray[Any]) -> float:
    import numpy as np

    return float(np.abs(a.astype(np.float64) - b).max() / np.abs(b).max())


def _devices(runtime: str) -> tuple[str, ...]:
    """ONNX Runtime's execution providers, OpenVINO's devices."""
    if runtime == "onnxruntime":
        return tuple(require("onnxruntime", "onnx").get_available_providers())
    if runtime == "openvino":
        return tuple(require("openvino", "openvino").Core().available_devices)
    return ("cpu",)


if __name__ == "__main__":
    sys.stdout.write(msgspec.json.encode(probe(sys.argv[1])).decode() + "\n")
