"""Numbers in, numbers out, element by element, with numpy's broadcasting (opset 7 and later)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..call import Call, convert, typed

if TYPE_CHECKING:
    from torch import Tensor

_UNARY = {
    "Abs": "abs", "Acos": "acos", "Acosh": "acosh", "Asin": "asin", "Asinh": "asinh", "Atan": "atan", "Atanh": "atanh", "Ceil": "ceil",
    "Cos": "cos", "Cosh": "cosh", "Erf": "erf", "Exp": "exp", "Floor": "floor", "Log": "log", "Neg": "neg", "Reciprocal": "reciprocal",
    "Round": "round", "Sign": "sign", "Sin": "sin", "Sinh": "sinh", "Sqrt": "sqrt", "Tan": "tan", "Det": "det", "BitwiseNot": "bitwise_not",
}  # fmt: skip
_BINARY = {"Add": "add", "Sub": "sub", "Mul": "mul", "BitwiseAnd": "bitwise_and", "BitwiseOr": "bitwise_or", "BitwiseXor": "bitwise_xor"}


@convert(*_UNARY)
def unary(c: Call) -> Tensor:
    import torch

    x = c.tensor(0)
    if c.op in ("Ceil", "Floor", "Round") and not x.is_floating_point():
        return x
    result: Tensor = getattr(torch, _UNARY[c.op])(x)
    return result


@convert(*_BINARY)
def binary(c: Call) -> Tensor:
    import torch

    result: Tensor = getattr(torch, _BINARY[c.op])(*operands(c))
    return result


def operands(c: Call) -> tuple[Any, Any]:
    """Both inputs; a constant that is one number as that number, so that the graph has no tensors of one element."""
    a, b = c.tensor(0), aligned(c)
    if c.constant(1) and b.numel() == 1 and b.ndim <= a.ndim:
        return a, c.scalar(1)
    if c.constant(0) and a.numel() == 1 and a.ndim <= b.ndim and c.op in ("Add", "Mul"):
        return b, c.scalar(0)
    return a, b


def aligned(c: Call) -> Tensor:
    """The second input. Opset 6 broadcasts on demand, from ``axis`` on: axes of one are put behind it."""
    a, b = c.tensor(0), c.tensor(1)
    if c.since < 7 and c.attr("broadcast", 0) and c.attr("axis") is not None:
        return b.reshape(*b.shape, *[1] * (a.ndim - c.attr("axis") % a.ndim - b.ndim))
    return b


@convert("Div")
def div(c: Call) -> Tensor:
    """Integers are divided toward zero."""
    import torch

    a, b = operands(c)
    return torch.div(a, b) if a.is_floating_point() else torch.div(a, b, rounding_mode="trunc")


@convert("Pow")
def pow_(c: Call) -> Tensor:
    """The result has the base's type. A constant exponent stays a number, so that squares stay squares."""
    import torch

    x = c.tensor(0)
    if c.is_known(1) and c.known(1).size == 1 and c.known(1).ndim <= x.ndim:
        return typed(torch.pow(x, c.scalar(1)), x.dtype)
    return typed(torch.pow(x, aligned(c)), x.dtype)


@convert("Mod")
def mod(c: Call) -> Tensor:
    """fmod = 1: the sign of the dividend (C); 0: of the divisor (Python), whole numbers only."""
    import torch

    return torch.fmod(c.tensor(0), c.tensor(1)) if c.attr("fmod", 0) else torch.remainder(c.tensor(0), c.tensor(1))


@convert("BitShift")
def bit_shift(c: Call) -> Tensor:
    import torch

    a, b = c.tensor(0), c.tensor(1)
    if a.dtype != torch.uint8:
        c.refuse(f"torch shifts {a.dtype} with another rule for the sign")
    return torch.bitwise_left_shift(a, b) if c.attr("direction") == "LEFT" else torch.bitwise_right_shift(a, b)


@convert("Max", "Min", "Sum", "Mean")
def several(c: Call) -> Tensor:
    import torch

    tensors = c.tensors()
    combine = {"Max": torch.maximum, "Min": torch.minimum}.get(c.op, torch.add)
    result = tensors[0]
    for other in tensors[1:]:
        result = combine(result, other)
    return result / len(tensors) if c.op == "Mean" else result


@convert("Clip")
def clip(c: Call) -> Tensor:
    """Bounds are attributes up to opset 10, optional inputs from 11. Where the lower is above the upper, the upper wins."""
    import torch

    x = c.tensor(0)
    if c.since < 11:
        low, high = c.attr("min"), c.attr("max")
    else:
        low, high = _bound(c, 1), _bound(c, 2)
    if low is None and high is None:
        return x
    if isinstance(low, torch.Tensor) or isinstance(high, torch.Tensor):
        x = torch.maximum(x, torch.as_tensor(low, dtype=x.dtype)) if low is not None else x
        return torch.minimum(x, torch.as_tensor(high, dtype=x.dtype)) if high is not None else x
    if (low, high) == (0.0, 6.0) and x.is_floating_point():
        return torch.nn.functional.relu6(x)
    return torch.clamp(x, low, high)


def _bound(c: Call, i: int) -> Any:
    if not c.has(i):
        return None
    return c.scalar(i) if c.is_known(i) else c.tensor(i)


@convert("CumSum")
def cumsum(c: Call) -> Tensor:
    """``reverse`` sums from the end, ``exclusive`` leaves the element itself out."""
    import torch

    x, axis = c.tensor(0), int(c.scalar(1, "axis"))
    if c.attr("reverse", 0):
        x = torch.flip(x, [axis])
    y = torch.cumsum(x, axis, dtype=x.dtype)
    if c.attr("exclusive", 0):
        y = y - x
    return torch.flip(y, [axis]) if c.attr("reverse", 0) else y


@convert("Identity")
def identity(c: Call) -> Any:
    return c.value(0)


@convert("Dropout")
def dropout(c: Call) -> Any:
    """Inference: the input itself; the mask says that all was kept."""
    import torch

    if c.has(2) and c.scalar(2, "training_mode"):
        c.refuse("it drops at random (training_mode is on)", "export the model in inference mode: model.eval()")
    x = c.tensor(0)
    return (x, torch.ones_like(x, dtype=torch.bool)) if c.wants(1) else x
