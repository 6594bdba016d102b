"""From a plan to the bytes of a ``.tflite`` file: a flatbuffer of schema version 3. No decisions are made here."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from ...core.errors import require
from .plan import Plan, Quant, Tensor, constant_bytes
from .versions import version

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

DESCRIPTION = "packlight"
LIMIT_BYTES = 2**31 - 2**20
_ALIGN = 16  # the schema's force_align of buffers; kernels read vectors from them

_OPTIONS = {  # operators whose options don't have their name in the schema
    "AVERAGE_POOL_2D": "Pool2DOptions",
    "MAX_POOL_2D": "Pool2DOptions",
    "L2_POOL_2D": "Pool2DOptions",
    "MEAN": "ReducerOptions",
    "SUM": "ReducerOptions",
    "REDUCE_MAX": "ReducerOptions",
    "REDUCE_MIN": "ReducerOptions",
    "REDUCE_PROD": "ReducerOptions",
    "REDUCE_ANY": "ReducerOptions",
    "REDUCE_ALL": "ReducerOptions",
    "MAXIMUM": "MaximumMinimumOptions",
    "MINIMUM": "MaximumMinimumOptions",
    "CONV_2D": "Conv2DOptions",
    "CONV_3D": "Conv3DOptions",
    "BATCH_MATMUL": "BatchMatMulOptions",
    "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptions",
    "L2_NORMALIZATION": "L2NormOptions",
    "TOPK_V2": "TopKV2Options",
    "SELECT_V2": "SelectV2Options",
    "PADV2": "PadV2Options",
    "REVERSE_V2": "ReverseV2Options",
    "SPLIT_V": "SplitVOptions",
    "UNIDIRECTIONAL_SEQUENCE_LSTM": "UnidirectionalSequenceLSTMOptions",
    "GATHER_ND": "GatherNdOptions",
}
_NO_OPTIONS = frozenset(
    [
        "RELU",
        "RELU6",
        "RELU_N1_TO_1",
        "RELU_0_TO_1",
        "LOGISTIC",
        "TANH",
        "SQRT",
        "RSQRT",
        "LOG",
        "SIN",
        "FLOOR",
        "CEIL",
        "ROUND",
        "PRELU",
        "ELU",
    ]
)


def write(
    plan: Plan,
    input_names: Sequence[str],
    output_names: Sequence[str],
    metadata: dict[str, bytes] | None = None,
    shapes: Mapping[int, tuple[int | str, ...]] | None = None,
) -> bytes:
    """The file. Its one signature, "serving_default", maps the names given to the doors; the same plan gives the same bytes.

    ``shapes`` are those of the doors, with names for axes that an interpreter may resize (shape_signature, -1 there).
    """
    schema: Any = require("ai_edge_litert.schema_py_generated", "tflite")
    flatbuffers: Any = require("flatbuffers", "tflite")

    model, graph = schema.ModelT(), schema.SubGraphT()
    model.version, model.description, model.subgraphs = 3, DESCRIPTION, [graph]
    buffers = _Buffers(schema)
    graph.name = "main"
    graph.tensors = [_tensor(schema, t, buffers) for t in plan.tensors]
    for index, shape in (shapes or {}).items():
        if any(isinstance(a, str) for a in shape):
            graph.tensors[index].shapeSignature = _ints([-1 if isinstance(a, str) else a for a in shape])
    model.operatorCodes, graph.operators = [], []
    codes: dict[tuple[str, int], int] = {}
    for step in plan.instructions:
        key = (step.op, version(plan, step))
        if key not in codes:
            codes[key] = len(codes)
            model.operatorCodes.append(_code(schema, *key))
        operator = schema.OperatorT()
        operator.opcodeIndex = codes[key]
        operator.inputs, operator.outputs = _ints(step.inputs), _ints(step.outputs)
        _set_options(schema, operator, step.op, dict(step.options))
        graph.operators.append(operator)
    graph.inputs, graph.outputs = _ints(plan.inputs), _ints(plan.outputs)
    model.signatureDefs = [_signature(schema, plan, input_names, output_names)]
    model.metadata = [_metadata(schema, name, data, buffers) for name, data in sorted((metadata or {}).items())]
    model.buffers = buffers.all
    builder = flatbuffers.Builder(buffers.bytes + (1 << 16))
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


class _Buffers:
    """The file's buffers: number 0 is empty, equal constants share one."""

    def __init__(self, schema: Any) -> None:
        self._kind = aligned_buffer(schema)
        self.all = [self._kind()]
        self.bytes = 0
        self._seen: dict[bytes, int] = {}

    def add(self, data: bytes) -> int:
        import numpy as np

        if data not in self._seen:
            buffer = self._kind()
            buffer.data = np.frombuffer(data, np.uint8)
            self._seen[data] = len(self.all)
            self.all.append(buffer)
            self.bytes += len(data) + 64
        return self._seen[data]


@functools.cache
def aligned_buffer(schema: Any) -> Any:
    """The generated Packer forgets force_align; this one keeps it."""

    class Aligned(schema.BufferT):  # type: ignore[misc]
        def Pack(self, builder: Any) -> Any:
            data = None
            if self.data is not None and len(self.data):
                builder.StartVector(1, len(self.data), _ALIGN)
                builder.head = builder.Head() - len(self.data)
                builder.Bytes[builder.Head() : builder.Head() + len(self.data)] = self.data.tobytes()
                data = builder.EndVector()
            schema.BufferStart(builder)
            if data is not None:
                schema.BufferAddData(builder, data)
            return schema.BufferEnd(builder)

    return Aligned


def _tensor(schema: Any, tensor: Tensor, buffers: _Buffers) -> Any:
    out = schema.TensorT()
    out.name, out.shape = tensor.name, _ints(tensor.shape)
    out.type = getattr(schema.TensorType, tensor.dtype.upper())
    out.hasRank, out.isVariable = True, tensor.variable
    out.buffer = buffers.add(constant_bytes(tensor)) if tensor.data is not None and tensor.data.size else 0
    if tensor.quant is not None:
        out.quantization = _quantization(schema, tensor.quant)
    return out


def _quantization(schema: Any, quant: Quant) -> Any:
    import numpy as np

    out = schema.QuantizationParametersT()
    out.scale, out.zeroPoint = np.asarray(quant.scale, np.float32), np.asarray(quant.zero_point, np.int64)
    out.quantizedDimension = quant.axis or 0
    return out


def _code(schema: Any, op: str, number: int) -> Any:
    out = schema.OperatorCodeT()
    out.builtinCode = getattr(schema.BuiltinOperator, op)
    out.deprecatedBuiltinCode = min(out.builtinCode, 127)
    out.version = number
    return out


def _set_options(schema: Any, operator: Any, op: str, options: dict[str, Any]) -> None:
    if op in _NO_OPTIONS:
        assert not options, (op, options)
        return
    name = _OPTIONS.get(op) or "".join(word.capitalize() for word in op.split("_")) + "Options"
    made = getattr(schema, f"{name}T")()
    for key, value in options.items():
        assert hasattr(made, key), (name, key)
        if isinstance(value, str):
            value = getattr(schema.ActivationFunctionType, value) if "ctivation" in key else getattr(_enum(schema, key), value)
        setattr(made, key, value)
    operator.builtinOptions = made
    operator.builtinOptionsType = getattr(schema.BuiltinOptions, name)


def _enum(schema: Any, key: str) -> Any:
    return {"padding": schema.Padding, "mode": schema.MirrorPadMode}.get(key, schema.TensorType)


def _signature(schema: Any, plan: Plan, input_names: Sequence[str], output_names: Sequence[str]) -> Any:
    def maps(names: Sequence[str], tensors: Sequence[int]) -> list[Any]:
        out = []
        for name, index in zip(names, tensors, strict=True):
            entry = schema.TensorMapT()
            entry.name, entry.tensorIndex = name, index
            out.append(entry)
        return out

    out = schema.SignatureDefT()
    out.inputs, out.outputs = maps(input_names, plan.inputs), maps(output_names, plan.outputs)
    out.signatureKey, out.subgraphIndex = "serving_default", 0
    return out


def _metadata(schema: Any, name: str, data: bytes, buffers: _Buffers) -> Any:
    out = schema.MetadataT()
    out.name, out.buffer = name, buffers.add(data)
    return out


def _ints(values: Sequence[int]) -> Any:
    import numpy as np

    return np.asarray(values, np.int32)
