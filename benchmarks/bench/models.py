"""A small plain CNN as ONNX, written by hand so that the benchmarks of the harness need no exporter: 3 x 32 x 32 in, ten 3x3 convolutions
with ReLU, average, ten classes; random weights. ``extra`` adds 1x1 convolutions, so that a slowdown of known origin can be looked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from packlight.core.artifact import Artifact
from packlight.core.files import sha256
from packlight.core.tensor import Signature, TensorSpec

SIDE = 32
WIDTHS = (16, 16, 16, 16, 32, 32, 32, 64, 64, 64)
STRIDES = (1, 1, 1, 1, 2, 1, 1, 2, 1, 1)


def write(path: Path, *, extra: int = 0, scale: int = 1) -> None:
    """``scale`` times the channels; ``extra`` more 1x1 convolutions of 16 channels at full size, with ReLU, behind the fourth 3x3."""
    from onnx import TensorProto, helper, numpy_helper, save

    rng = np.random.default_rng(0)
    nodes, inits, name, inputs = [], [], "x", 3
    layers = [(w * scale, s, 3) for w, s in zip(WIDTHS[:4], STRIDES[:4])] + [(16 * scale, 1, 1)] * extra
    layers += [(w * scale, s, 3) for w, s in zip(WIDTHS[4:], STRIDES[4:])]
    for i, (width, stride, kernel) in enumerate(layers):
        weight = rng.normal(0, (2 / (kernel**2 * inputs)) ** 0.5, (width, inputs, kernel, kernel)).astype(np.float32)
        inits.append(numpy_helper.from_array(weight, f"w{i}"))
        nodes.append(helper.make_node("Conv", [name, f"w{i}"], [f"c{i}"], pads=[kernel // 2] * 4, strides=[stride, stride]))
        nodes.append(helper.make_node("Relu", [f"c{i}"], [f"r{i}"]))
        name, inputs = f"r{i}", width
    inits += [
        numpy_helper.from_array(np.array([2, 3]), "axes"),
        numpy_helper.from_array(rng.normal(0, 0.1, (inputs, 10)).astype(np.float32), "fc"),
    ]
    nodes += [helper.make_node("ReduceMean", [name, "axes"], ["m"], keepdims=0), helper.make_node("MatMul", ["m", "fc"], ["y"])]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, SIDE, SIDE])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 10])
    graph = helper.make_graph(nodes, "net", [x], [y], inits)
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), str(path))


def artifact(folder: Path, file: str, *, extra: int = 0, scale: int = 1, precision: str = "fp32") -> Artifact:
    """Writes the file and describes it."""
    write(folder / file, extra=extra, scale=scale)
    x = TensorSpec(name="x", shape=("batch", 3, SIDE, SIDE), layout="NCHW")
    doors = Signature((x,), (TensorSpec(name="y", shape=("batch", 10)),))
    return Artifact(
        file=file,
        files={file: sha256(folder / file)},
        model="net",
        format="onnx",
        precision=precision,
        runtimes=("onnxruntime", "openvino"),
        target="x86-64-avx2",
        bytes=(folder / file).stat().st_size,
        signature=doors,
    )
