"""Small files in all three formats with one and the same network in them: y = mean_hw(relu(conv3x3(x))), 3 -> 8 channels, 16 x 16."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from packlight.core.artifact import Artifact
from packlight.core.files import sha256
from packlight.core.report import Metric
from packlight.core.tensor import Signature, TensorSpec

SIDE = 16


def weights() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(7)
    return rng.normal(0, 0.3, (8, 3, 3, 3)).astype(np.float32), rng.normal(0, 0.1, 8).astype(np.float32)


def reference(x: np.ndarray, repeat: int = 1) -> np.ndarray:
    """The network in numpy: (N, 3, 16, 16) -> (N, 8)."""
    w, b = weights()
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    y = np.einsum("nchwij,ocij->nohw", windows, w) + b[None, :, None, None]
    return np.maximum(y, 0).mean((2, 3))


def write_onnx(path: Path, batch: int | str = "batch", repeat: int = 1) -> None:
    """``repeat`` adds that many identity convolutions (1 x 1) behind the first: the same answer, slower."""
    from onnx import TensorProto, helper, numpy_helper, save

    w, b = weights()
    nodes = [helper.make_node("Conv", ["x", "w", "b"], ["c0"], pads=[1, 1, 1, 1])]
    eye = np.eye(8, dtype=np.float32)[:, :, None, None]
    for i in range(repeat - 1):
        nodes.append(helper.make_node("Conv", [f"c{i}", "eye"], [f"c{i + 1}"]))
    nodes += [helper.make_node("Relu", [f"c{repeat - 1}"], ["r"]), helper.make_node("ReduceMean", ["r", "axes"], ["y"], keepdims=0)]
    inits = [numpy_helper.from_array(w, "w"), numpy_helper.from_array(b, "b"), numpy_helper.from_array(np.array([2, 3]), "axes")]
    inits.append(numpy_helper.from_array(eye, "eye"))
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 3, SIDE, SIDE])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 8])
    graph = helper.make_graph(nodes, "g", [x], [y], inits)
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), str(path))


def write_tflite(path: Path) -> None:
    """The same with NHWC doors and a batch of one."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as s

    w, b = weights()
    model, graph = s.ModelT(), s.SubGraphT()
    model.version, model.buffers, model.operatorCodes = 3, [s.BufferT()], []

    def tensor(name: str, shape: list[int], kind: int, data: np.ndarray | None = None) -> int:
        t = s.TensorT()
        t.name, t.shape, t.type, t.buffer = name, shape, kind, 0
        if data is not None:
            buffer = s.BufferT()
            buffer.data = np.frombuffer(data.tobytes(), np.uint8)
            model.buffers.append(buffer)
            t.buffer = len(model.buffers) - 1
        graph.tensors.append(t)
        return len(graph.tensors) - 1

    def op(code: int, inputs: list[int], outputs: list[int], kind: int, options: Any) -> None:
        oc = s.OperatorCodeT()
        oc.builtinCode, oc.deprecatedBuiltinCode, oc.version = code, code, 1
        model.operatorCodes.append(oc)
        o = s.OperatorT()
        o.opcodeIndex, o.inputs, o.outputs = len(model.operatorCodes) - 1, inputs, outputs
        o.builtinOptionsType, o.builtinOptions = kind, options
        graph.operators.append(o)

    graph.tensors, graph.operators = [], []
    f32, i32 = s.TensorType.FLOAT32, s.TensorType.INT32
    x = tensor("x", [1, SIDE, SIDE, 3], f32)
    wt = tensor("w", [8, 3, 3, 3], f32, np.ascontiguousarray(w.transpose(0, 2, 3, 1)))
    bt = tensor("b", [8], f32, b)
    axes = tensor("axes", [2], i32, np.array([1, 2], np.int32))
    c, y = tensor("c", [1, SIDE, SIDE, 8], f32), tensor("y", [1, 8], f32)
    conv, mean = s.Conv2DOptionsT(), s.ReducerOptionsT()
    conv.padding, conv.strideH, conv.strideW = s.Padding.SAME, 1, 1
    conv.fusedActivationFunction, conv.dilationHFactor, conv.dilationWFactor = s.ActivationFunctionType.RELU, 1, 1
    mean.keepDims = False
    op(s.BuiltinOperator.CONV_2D, [x, wt, bt], [c], s.BuiltinOptions.Conv2DOptions, conv)
    op(s.BuiltinOperator.MEAN, [c, axes], [y], s.BuiltinOptions.ReducerOptions, mean)
    graph.inputs, graph.outputs = [x], [y]
    model.subgraphs = [graph]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    path.write_bytes(bytes(builder.Output()))


def write_openvino(path: Path) -> None:
    import openvino as ov

    source = path.with_suffix(".source.onnx")
    write_onnx(source)
    ov.save_model(ov.convert_model(str(source)), str(path), compress_to_fp16=False)
    source.unlink()


def signature(batch: int | str = "batch", layout: str = "NCHW") -> Signature:
    shape = (batch, 3, SIDE, SIDE) if layout == "NCHW" else (batch, SIDE, SIDE, 3)
    x = TensorSpec(name="x", shape=shape, layout=layout)
    return Signature((x,), (TensorSpec(name="y", shape=(batch, 8)),))


def artifact(
    folder: Path, file: str, format: str, runtime: str, doors: Signature, extra: tuple[str, ...] = (), precision: str = "fp32"
) -> Artifact:
    files = {name: sha256(folder / name) for name in (file, *extra)}
    size = sum((folder / name).stat().st_size for name in files)
    return Artifact(
        file=file,
        files=files,
        model="net",
        format=format,
        precision=precision,
        runtimes=(runtime,),
        target="t",
        bytes=size,
        signature=doors,
    )


class Data:
    """Labelled random images: the label is what the numpy reference answers, except for every tenth sample."""

    classes = tuple("abcdefgh")
    source = "random"

    def __init__(self, n: int = 50) -> None:
        self.x = np.random.default_rng(1).normal(0, 1, (n, 3, SIDE, SIDE)).astype(np.float32)
        self.y = reference(self.x).argmax(1)
        self.y[::10] = (self.y[::10] + 1) % 8

    def __len__(self) -> int:
        return len(self.x)

    def batch(self, indices: Any) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
        index = list(indices)
        return (self.x[index],), self.y[index]

    def raw(self, index: int) -> None:
        return None


class Labels:
    """The least task: top-1 of the first output."""

    name, metric, unit, higher_is_better, truth = "labels", "top1", "%", True, "data"

    def score(self, outputs: Any, target: Any) -> Metric:
        right = self.per_sample(outputs, target)
        return Metric(name="top1", value=float(right.mean()), n=len(right))

    def per_sample(self, outputs: Any, target: Any) -> np.ndarray:
        return (self.answers(outputs) == target).astype(float)

    def figures(self, outputs: Any, target: Any) -> dict[str, np.ndarray]:
        return {"top1": self.per_sample(outputs, target)}

    def answers(self, outputs: Any) -> np.ndarray:
        return outputs[0].argmax(1)


class Files(msgspec.Struct):
    """The helpers above, for tests (importing from a conftest is awkward)."""

    folder: Path
    onnx: Artifact
    tflite: Artifact
    openvino: Artifact

    def write_onnx(self, name: str, *, batch: int | str = "batch", repeat: int = 1, precision: str = "fp32") -> Artifact:
        write_onnx(self.folder / name, batch, repeat)
        return artifact(self.folder, name, "onnx", "onnxruntime", signature(batch), precision=precision)

    def reference(self, x: np.ndarray) -> np.ndarray:
        return reference(x)

    def data(self, n: int = 50) -> Data:
        return Data(n)

    def task(self) -> Any:
        return Labels()


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    for module in ("onnx", "openvino", "ai_edge_litert", "flatbuffers"):
        pytest.importorskip(module)
    folder = tmp_path_factory.mktemp("files")
    write_onnx(folder / "net.fp32.onnx")
    write_tflite(folder / "net.fp32.tflite")
    write_openvino(folder / "net.fp32.xml")
    return Files(
        folder,
        artifact(folder, "net.fp32.onnx", "onnx", "onnxruntime", signature()),
        artifact(folder, "net.fp32.tflite", "tflite", "litert", signature(1, "NHWC")),
        artifact(folder, "net.fp32.xml", "openvino", "openvino", signature(), ("net.fp32.bin",)),
    )
