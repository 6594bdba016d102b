"""The operator version that a file asks for, so that a runtime too old for it refuses to load it.

Source: tensorflow/lite/tools/versioning/op_version.cc, with one exception: a FULLY_CONNECTED with one scale a channel should ask for
version 12, which tflite-runtime 2.14 doesn't know although its kernel computes it right (measured against LiteRT), so 4 is asked for.
A version that no rule raises is 1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .plan import Instruction, Plan, Tensor

_INT8 = {  # the version that brought the int8 kernel, where it isn't 2
    **dict.fromkeys(("CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV"), 3),
    "FULLY_CONNECTED": 4,
    **dict.fromkeys(("HARD_SWISH", "PRELU", "ELU", "RESHAPE", "BATCH_TO_SPACE_ND", "CAST", "SQUEEZE", "RELU_N1_TO_1"), 1),
}
_INT16 = {  # the version that brought the int16 kernel, where it isn't 3
    **dict.fromkeys(("MUL", "CONV_2D", "GATHER", "SPLIT", "STRIDED_SLICE", "TRANSPOSE", "RESIZE_BILINEAR", "UNPACK"), 4),
    **dict.fromkeys(("SUB", "DEPTHWISE_CONV_2D"), 5),
    "FULLY_CONNECTED": 7,
    **dict.fromkeys(("LEAKY_RELU", "HARD_SWISH"), 2),
    "RESHAPE": 1,
}
_SAME = frozenset(("REVERSE_V2", "BROADCAST_TO", "CUMSUM", "SELECT_V2", "POW", "FLOOR_DIV", "FLOOR_MOD"))


def version(plan: Plan, step: Instruction) -> int:
    """The version of ``step``'s operator that does what it asks."""
    used = [plan.tensors[i] for i in (*step.inputs, *step.outputs) if i >= 0]
    rule = _RULES.get(step.op)
    number = rule(used, dict(step.options)) if rule else 1
    if step.op in _SAME:
        return number
    types = {t.dtype for t in used if t.quant is not None}
    if "int8" in types and step.op not in ("QUANTIZE", "DEQUANTIZE"):
        number = max(number, _INT8.get(step.op, 2))
    if "int16" in types:
        number = max(number, _INT16.get(step.op, 3))
    return number


def _dequantize(used: list[Tensor], options: dict[str, Any]) -> int:
    if used[0].dtype == "float16":
        return 3
    if used[0].quant is not None and used[0].quant.axis is not None:
        return 5
    return 2


def _resize(used: list[Tensor], options: dict[str, Any]) -> int:
    return 3 if options.get("halfPixelCenters") or options.get("alignCorners") else 1


def _wide(limit: int, number: int) -> Callable[[list[Tensor], dict[str, Any]], int]:
    """A version that brought more axes."""
    return lambda used, options: number if max(len(t.shape) for t in used) > limit else 1


_RULES: dict[str, Callable[[list[Tensor], dict[str, Any]], int]] = {
    "CONV_2D": lambda used, options: 6 if used[0].shape[3] != used[1].shape[3] else 1,
    "DEPTHWISE_CONV_2D": lambda used, options: 2 if options["dilationHFactor"] != 1 or options["dilationWFactor"] != 1 else 1,
    "FULLY_CONNECTED": lambda used, options: 5 if options.get("keepNumDims") else 1,
    "TRANSPOSE_CONV": lambda used, options: 4 if options.get("fusedActivationFunction", "NONE") != "NONE" else 3,
    "RESIZE_BILINEAR": _resize,
    "RESIZE_NEAREST_NEIGHBOR": _resize,
    "DEQUANTIZE": _dequantize,
    "QUANTIZE": lambda used, options: 2 if used[0].quant is not None else 1,
    "TRANSPOSE": _wide(5, 6),
    "STRIDED_SLICE": _wide(4, 4),
    "SLICE": _wide(4, 5),
    "SUB": _wide(4, 3),
    "DIV": _wide(4, 2),
    "BROADCAST_TO": lambda used, options: 3 if used[0].dtype == "int8" else 2,
}
