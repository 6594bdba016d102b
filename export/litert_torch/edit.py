"""A ``.tflite`` file of another converter, read and finished: names and metadata as ours have them, doors as asked, operators counted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from ...core.artifact import Ops
from ...core.errors import ContractError, require
from ...core.tensor import DoorQuantization, TensorSpec


class Seen(msgspec.Struct, frozen=True):
    """What is in a file: its operators, and its doors as stored (no layout)."""

    ops: Ops
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


def look(data: bytes, precision: str) -> Seen:
    """Counts the operators of the first subgraph; in an int8 file also those that compute in float (QUANTIZE and DEQUANTIZE don't)."""
    schema, model = _read(data)
    graph = model.subgraphs[0]
    names = _names(schema.BuiltinOperator)
    kinds = _names(schema.TensorType)
    file: dict[str, int] = {}
    left = []
    for operator in graph.operators:
        code = model.operatorCodes[operator.opcodeIndex]
        op = _text(code.customCode) if code.customCode else names[max(code.builtinCode, code.deprecatedBuiltinCode)]
        file[op] = file.get(op, 0) + 1
        used = [graph.tensors[i] for i in (*_list(operator.inputs), *_list(operator.outputs)) if i >= 0]
        floats = any(kinds[t.type] in ("FLOAT32", "FLOAT16") for t in used)
        if precision == "int8" and floats and op not in ("QUANTIZE", "DEQUANTIZE"):
            left.append(f"{_text(graph.tensors[operator.outputs[0]].name)} ({op})")
    ops = Ops(
        file=dict(sorted(file.items())),
        why="LiteRT doesn't tell what its delegate made of the operators",
        float_left=tuple(left),
        transposes=file.get("TRANSPOSE", 0),
        requantizes=file.get("QUANTIZE", 0) + file.get("DEQUANTIZE", 0),
    )

    def doors(tensors: Any) -> tuple[TensorSpec, ...]:
        return tuple(_spec(graph.tensors[i], kinds) for i in _list(tensors))

    return Seen(ops, doors(graph.inputs), doors(graph.outputs))


def finish(data: bytes, inputs: Sequence[str], outputs: Sequence[str], metadata: dict[str, bytes], *, float_doors: bool) -> bytes:
    """The file with its doors named ``inputs`` and ``outputs``, in that order (litert-torch names them args_0, ..., output_0, ...), and
    ``metadata``. ``float_doors``: integer doors get a QUANTIZE or DEQUANTIZE, so that real numbers pass."""
    from ..tflite.writer import aligned_buffer

    flatbuffers: Any = require("flatbuffers", "tflite")
    schema, model = _read(data)
    graph, (signature,) = model.subgraphs[0], model.signatureDefs
    if len(signature.inputs) != len(inputs) or len(signature.outputs) != len(outputs):
        raise ContractError(f"litert-torch gave {len(signature.inputs)} inputs and {len(signature.outputs)} outputs for one of each name")
    kind = aligned_buffer(schema)
    for buffer in model.buffers:
        buffer.__class__ = kind
    for entries, names, prefix in ((signature.inputs, inputs, b"args_"), (signature.outputs, outputs, b"output_")):
        entries.sort(key=lambda entry, prefix=prefix: _number(bytes(entry.name).removeprefix(prefix)))
        for entry, name in zip(entries, names, strict=True):
            entry.name = name
    if float_doors:
        for entry in signature.inputs:
            entry.tensorIndex = _real_door(schema, model, entry.tensorIndex, into=True)
        for entry in signature.outputs:
            entry.tensorIndex = _real_door(schema, model, entry.tensorIndex, into=False)
    graph.inputs = [entry.tensorIndex for entry in signature.inputs]
    graph.outputs = [entry.tensorIndex for entry in signature.outputs]
    signature.signatureKey = "serving_default"
    kept = [m for m in model.metadata or [] if _text(m.name) == "min_runtime_version"]
    for name, value in sorted(metadata.items()):
        import numpy as np

        made, buffer = schema.MetadataT(), kind()
        made.name, made.buffer = name, len(model.buffers)
        buffer.data = np.frombuffer(value, np.uint8)
        model.buffers.append(buffer)
        kept.append(made)
    model.metadata = kept
    builder = flatbuffers.Builder(len(data) + (1 << 16))
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def _number(text: bytes) -> int:
    """The number in a name; names without one keep their order."""
    return int(text) if text.isdigit() else 0


def _real_door(schema: Any, model: Any, index: int, into: bool) -> int:
    """The float32 tensor in front of or behind an integer door; ``index`` itself where the door has no scale."""
    graph = model.subgraphs[0]
    tensor = graph.tensors[index]
    if tensor.type not in (schema.TensorType.INT8, schema.TensorType.INT16) or not len(
        _list(tensor.quantization and tensor.quantization.scale)
    ):
        return index
    door = schema.TensorT()
    door.name, door.shape, door.type, door.buffer, door.hasRank = (
        _text(tensor.name) + ".float32",
        tensor.shape,
        schema.TensorType.FLOAT32,
        0,
        True,
    )
    door.shapeSignature = tensor.shapeSignature
    graph.tensors.append(door)
    outside = len(graph.tensors) - 1
    name = "QUANTIZE" if into else "DEQUANTIZE"
    operator = schema.OperatorT()
    operator.opcodeIndex = _code(schema, model, name)
    operator.inputs, operator.outputs = ([outside], [index]) if into else ([index], [outside])
    graph.operators.insert(0 if into else len(graph.operators), operator)
    return outside


def _code(schema: Any, model: Any, name: str) -> int:
    number = getattr(schema.BuiltinOperator, name)
    for i, code in enumerate(model.operatorCodes):
        if max(code.builtinCode, code.deprecatedBuiltinCode) == number:
            return i
    code = schema.OperatorCodeT()
    code.builtinCode, code.deprecatedBuiltinCode, code.version = number, number, 2
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1


def _read(data: bytes) -> tuple[Any, Any]:
    import numpy as np

    schema: Any = require("ai_edge_litert.schema_py_generated", "tflite")
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(data, 0))
    for buffer in model.buffers:
        if buffer.offset > 1:  # the bytes stand behind the flatbuffer
            buffer.data = np.frombuffer(data, np.uint8, buffer.size, buffer.offset)
            buffer.offset = buffer.size = 0
    return schema, model


def _spec(tensor: Any, kinds: dict[int, str]) -> TensorSpec:
    scale = _list(tensor.quantization.scale) if tensor.quantization is not None else []
    q = DoorQuantization(scale=float(scale[0]), zero_point=int(tensor.quantization.zeroPoint[0])) if len(scale) else None
    shape = tuple(int(s) for s in _list(tensor.shape))
    return TensorSpec(name=_text(tensor.name), shape=shape, dtype=kinds[tensor.type].lower(), quantization=q)


def _names(enum: Any) -> dict[int, str]:
    return {value: key for key, value in vars(enum).items() if isinstance(value, int)}


def _list(values: Any) -> list[Any]:
    return [] if values is None else list(values)


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
