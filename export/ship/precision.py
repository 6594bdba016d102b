"""Is a file of the precision that it claims? From its name and from the numbers inside it."""

from __future__ import annotations

from pathlib import Path

from ...core.artifact import Artifact
from ...core.files import inside

INTEGER_OPS = ("QuantizeLinear", "DequantizeLinear", "QLinear", "Integer", "DynamicQuantize")


def claimed(artifact: Artifact, folder: Path) -> str:
    """Why ``artifact`` (its files in ``folder``) is not of its ``precision``; "" where it is, or where nothing here can read the file."""
    said = artifact.file.split(".")
    if len(said) > 2 and said[-2] != artifact.precision:
        return f"'{artifact.file}' is said to be {artifact.precision}; its name says {said[-2]}"
    path = inside(folder, artifact.file)
    look = {"onnx": _of_onnx, "tflite": _of_tflite}.get(artifact.format)
    found = look(path) if look is not None and path.is_file() else None
    if found is None or found == artifact.precision:
        return ""
    return f"'{artifact.file}' is said to be {artifact.precision}; the numbers in it are {found}"


def _of_onnx(path: Path) -> str | None:
    try:
        import onnx
    except ImportError:
        return None
    try:
        graph = onnx.load(str(path), load_external_data=False).graph
    except Exception:  # a broken file raises what protobuf likes; the hashes and the runtime say what is wrong with it
        return None
    if any(word in node.op_type for node in graph.node for word in INTEGER_OPS):
        return "int8"
    kinds = [w.data_type for w in graph.initializer if len(w.dims) > 1]
    return "fp16" if onnx.TensorProto.FLOAT16 in kinds else "fp32"


def _of_tflite(path: Path) -> str | None:
    """By the constants of two axes and more."""
    try:
        from ai_edge_litert import schema_py_generated as schema
    except ImportError:
        return None
    try:
        model = schema.Model.GetRootAs(path.read_bytes(), 0)
        graph = model.Subgraphs(0)
        tensors = [graph.Tensors(i) for i in range(graph.TensorsLength())]
        kinds = {t.Type() for t in tensors if t.ShapeLength() > 1 and model.Buffers(t.Buffer()).DataLength()}
    except Exception:  # as above
        return None
    if schema.TensorType.INT8 in kinds:
        return "int8"
    return "fp16" if schema.TensorType.FLOAT16 in kinds else "fp32"
