"""The operator version that a file must ask for, so that a runtime too old for it refuses to load it.

Source: tensorflow/lite/tools/versioning/op_version.cc. A version that is not listed is 1.
"""

from __future__ import annotations

from .plan import Instruction, Plan, Tensor

_INT8 = {  # operators whose int8 kernel came with this version and that have no other rule
    **dict.fromkeys(
        [
            "ADD",
            "AVERAGE_POOL_2D",
            "BATCH_TO_SPACE_ND",
            "CONCATENATION",
            "DEPTH_TO_SPACE",
            "EQUAL",
            "GREATER",
            "GREATER_EQUAL",
            "LESS",
            "LESS_EQUAL",
            "L2_NORMALIZATION",
            "LOGISTIC",
            "LOG_SOFTMAX",
            "MAXIMUM",
            "MAX_POOL_2D",
            "MEAN",
            "MINIMUM",
            "MUL",
            "NOT_EQUAL",
            "PACK",
            "PAD",
            "PADV2",
            "QUANTIZE",
            "REDUCE_MAX",
            "REDUCE_MIN",
            "RELU",
            "RELU6",
            "SLICE",
            "SOFTMAX",
            "SPACE_TO_BATCH_ND",
            "SPACE_TO_DEPTH",
            "SPLIT",
            "SPLIT_V",
            "SQUARED_DIFFERENCE",
            "STRIDED_SLICE",
            "SUB",
            "SUM",
            "TANH",
            "TOPK_V2",
            "TRANSPOSE",
            "UNPACK",
            "GATHER",
            "LEAKY_RELU",
            "ARG_MAX",
            "ARG_MIN",
            "EXP",
            "LOG",
            "RSQRT",
            "ABS",
            "TILE",
            "GELU",
        ],
        2,
    ),
    "CONV_2D": 3,
    "DEPTHWISE_CONV_2D": 3,
    "TRANSPOSE_CONV": 3,
    "FULLY_CONNECTED": 4,
    "BATCH_MATMUL": 2,
    "HARD_SWISH": 1,
    "PRELU": 1,
    "ELU": 1,
    "DEQUANTIZE": 2,
    "MIRROR_PAD": 2,
}
_INT8["GELU"] = 2


def version(plan: Plan, step: Instruction) -> int:
    """The version of ``step``'s operator that does what it asks."""
    used = [plan.tensors[i] for i in (*step.inputs, *step.outputs) if i >= 0]
    options = dict(step.options)
    rule = _RULES.get(step.op)
    own = rule(used, options) if rule else 1
    integer = any(t.quant is not None and t.dtype == "int8" for t in used)
    wide = any(t.quant is not None and t.dtype == "int16" for t in used)
    return max(own, _INT8.get(step.op, 1) if integer else 1, _INT16.get(step.op, 1) if wide else 1)


_INT16 = {
    "ADD": 3, "SUB": 5, "MUL": 4, "CONV_2D": 4, "DEPTHWISE_CONV_2D": 5, "FULLY_CONNECTED": 7, "AVERAGE_POOL_2D": 3, "MAX_POOL_2D": 3,
    "CONCATENATION": 3, "SOFTMAX": 3, "LOGISTIC": 3, "TANH": 3, "QUANTIZE": 3, "DEQUANTIZE": 3, "RELU": 3, "RELU6": 3, "LEAKY_RELU": 2,
    "MEAN": 3, "SUM": 3, "PAD": 3, "PADV2": 3, "SLICE": 3, "STRIDED_SLICE": 4, "TRANSPOSE": 4, "TRANSPOSE_CONV": 3, "RESIZE_BILINEAR": 4,
    "MAXIMUM": 3, "MINIMUM": 3, "PACK": 3, "UNPACK": 4, "SPLIT": 4, "GATHER": 4, "BATCH_MATMUL": 3,
}  # fmt: skip


def _broadcast(limit: int, number: int) -> object:
    return lambda used, options: number if max(len(t.shape) for t in used) > limit else 1


def _fully_connected(used: list[Tensor], options: dict[str, object]) -> int:
    if len(used) > 1 and used[1].quant is not None and used[1].quant.axis is not None and len(used[1].quant.scale) > 1:
        return 12 if used[0].dtype == "int8" else 11
    if options.get("keepNumDims"):
        return 5
    return 1


_RULES: dict[str, object] = {}
_RULES.update(
    {
        "CONV_2D": lambda used, options: 6 if used[0].shape[3] != used[1].shape[3] else 1,
        "DEPTHWISE_CONV_2D": lambda used, options: (
            2 if (options.get("dilationHFactor", 1), options.get("dilationWFactor", 1)) != (1, 1) else 1
        ),
        "FULLY_CONNECTED": _fully_connected,
        "TRANSPOSE_CONV": lambda used, options: (4 if options.get("fusedActivationFunction") else 2) if len(used) > 4 else 1,
        "RESIZE_BILINEAR": lambda used, options: 3 if options.get("halfPixelCenters") else (2 if used[0].dtype == "int8" else 1),
        "RESIZE_NEAREST_NEIGHBOR": lambda used, options: (
            3 if options.get("halfPixelCenters") or options.get("alignCorners") else (2 if used[0].dtype == "int8" else 1)
        ),
        "DEQUANTIZE": lambda used, options: (
            3 if used[0].dtype == "float16" else (5 if used[0].quant is not None and used[0].quant.axis is not None else 1)
        ),
        "QUANTIZE": lambda used, options: 2 if used[0].quant is not None else 1,
        "TRANSPOSE": lambda used, options: 5 if len(used[0].shape) > 5 else (1 if len(used[0].shape) < 5 else 4),
        "STRIDED_SLICE": lambda used, options: 4 if len(used[0].shape) == 5 else 1,
        "SLICE": lambda used, options: 5 if len(used[0].shape) > 4 else 1,
        "ADD": lambda used, options: 1,
        "SUB": lambda used, options: 3 if max(len(t.shape) for t in used) > 4 else 1,
        "DIV": lambda used, options: 2 if max(len(t.shape) for t in used) > 4 else 1,
        "GATHER": lambda used, options: 5 if options.get("batchDims") else 1,
        "ARG_MAX": lambda used, options: 1,
        "BATCH_MATMUL": lambda used, options: 1,
    }
)
