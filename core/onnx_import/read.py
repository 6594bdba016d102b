"""An ``.onnx`` file from anywhere, checked before anything of it is used.

Nothing in such a file is code, but its numbers can be large and its paths can lead out: sizes are limited, weights outside the file must
lie in its folder, in files that are long enough, and onnx's checker must accept the whole.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import ModelError, require
from ..pt2 import first_line

LIMIT_BYTES = 2 << 30
LIMIT_EXTERNAL = 16 << 30
LIMIT_NODES = 200_000
FIRST_OPSET = 6


def read(path: Path) -> Any:
    """The checked ``ModelProto`` with its weights, model-local functions inlined. Raises ModelError."""
    onnx: Any = require("onnx", "onnx")
    if not path.is_file():
        raise ModelError(f"model file '{path}' does not exist")
    if (size := path.stat().st_size) > LIMIT_BYTES:
        raise ModelError(f"'{path}' has {size} bytes; an ONNX file holds at most {LIMIT_BYTES}, put its weights beside it")
    try:
        model = onnx.load(str(path), load_external_data=False)
    except Exception as error:  # protobuf's own types
        raise ModelError(f"'{path}' is not an ONNX file: {first_line(error)}") from error
    if not model.graph.node:
        raise ModelError(f"'{path}' is not an ONNX file with a graph: it has no nodes")
    if len(model.graph.node) > LIMIT_NODES:
        raise ModelError(f"'{path}' has {len(model.graph.node)} nodes; the limit is {LIMIT_NODES}")
    _check_opset(onnx, path, model)
    _check_external(onnx, path, model)
    try:
        onnx.checker.check_model(str(path))
    except Exception as error:
        raise ModelError(f"'{path}' is not valid: {first_line(error)}") from error
    onnx.load_external_data_for_model(model, str(path.parent))
    if model.functions:
        model = require("onnx.inliner", "onnx").inline_local_functions(model)
    return model


def _check_opset(onnx: Any, path: Path, model: Any) -> None:
    version, last = opset(model), int(onnx.defs.onnx_opset_version())
    if not version:
        raise ModelError(f"'{path}' uses none of ONNX's own operators; only those are read")
    if not FIRST_OPSET <= version <= last:
        raise ModelError(f"'{path}' uses ONNX opset {version}; {FIRST_OPSET} to {last} are read: convert it with onnx.version_converter")


def opset(model: Any) -> int:
    """The version of ONNX's own operators that the file uses."""
    return max((int(o.version) for o in model.opset_import if o.domain in ("", "ai.onnx")), default=0)


def _check_external(onnx: Any, path: Path, model: Any) -> None:
    """Weights beside the file: inside its folder, in real files, not longer than these."""
    folder = path.resolve().parent
    total = 0
    for tensor in onnx.external_data_helper._get_all_tensors(model):
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        entries = {e.key: e.value for e in tensor.external_data}
        place = entries.get("location", "")
        file = folder / place
        if not place or Path(place).is_absolute() or ".." in Path(place).parts or not _inside(file, folder):
            raise ModelError(f"'{path}' keeps weight '{tensor.name}' at '{place[:80]}', outside its folder; it is not read")
        if not file.is_file():
            raise ModelError(f"'{path}' keeps weight '{tensor.name}' in '{place}', which is not beside it")
        try:
            offset, length = int(entries.get("offset", 0)), int(entries.get("length", 0))
        except ValueError:
            raise ModelError(f"'{path}': the place of weight '{tensor.name}' in '{place}' is not a number") from None
        if offset < 0 or length < 0 or offset + length > file.stat().st_size:
            raise ModelError(f"'{path}' keeps weight '{tensor.name}' behind the end of '{place}'; the file is cut short")
        total += length or file.stat().st_size - offset
    if total > LIMIT_EXTERNAL:
        raise ModelError(f"'{path}' has {total} bytes of weights; the limit is {LIMIT_EXTERNAL}")


def _inside(file: Path, folder: Path) -> bool:
    """Links are followed: what they lead to must lie in the folder too."""
    return file.resolve().is_relative_to(folder)
