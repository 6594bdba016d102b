"""Comparisons, logic, selection and casts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..call import Call, convert, typed
from .arithmetic import aligned

if TYPE_CHECKING:
    from torch import Tensor

_TWO = {
    "Equal": "eq", "Greater": "gt", "GreaterOrEqual": "ge", "Less": "lt", "LessOrEqual": "le",
    "And": "logical_and", "Or": "logical_or", "Xor": "logical_xor",
}  # fmt: skip
_DTYPES = {
    1: "float32", 2: "uint8", 3: "int8", 5: "int16", 6: "int32", 7: "int64", 9: "bool", 10: "float32", 11: "float64", 16: "float32",
}  # fmt: skip
"""ONNX's numbers of types. Half precision (10, 16) is computed in float32 here."""


@convert(*_TWO)
def two(c: Call) -> Tensor:
    import torch

    result: Tensor = getattr(torch, _TWO[c.op])(c.tensor(0), aligned(c))
    return result


@convert("Not")
def not_(c: Call) -> Tensor:
    import torch

    return torch.logical_not(c.tensor(0))


@convert("IsNaN")
def is_nan(c: Call) -> Tensor:
    import torch

    return torch.isnan(c.tensor(0))


@convert("IsInf")
def is_inf(c: Call) -> Tensor:
    import torch

    x = c.tensor(0)
    both = torch.zeros_like(x, dtype=torch.bool)
    if c.attr("detect_positive", 1):
        both = both | torch.isposinf(x)
    return both | torch.isneginf(x) if c.attr("detect_negative", 1) else both


@convert("Where")
def where(c: Call) -> Tensor:
    import torch

    return torch.where(c.tensor(0), c.tensor(1), c.tensor(2))


@convert("Cast")
def cast(c: Call) -> Tensor:
    return typed(c.tensor(0), dtype_of(c, c.attr("to")))


@convert("CastLike")
def cast_like(c: Call) -> Tensor:
    return typed(c.tensor(0), c.tensor(1).dtype)


def dtype_of(c: Call, number: int) -> Any:
    """The torch type of ONNX's number of it."""
    import torch

    if number not in _DTYPES:
        import onnx

        c.refuse(f"torch has no arithmetic in {onnx.TensorProto.DataType.Name(number)}")
    return getattr(torch, _DTYPES[number])
