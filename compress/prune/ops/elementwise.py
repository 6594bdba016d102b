"""Operators that work element by element: the result's channels are the operands', joined where there are several.

A channel that is gone takes with it whatever the operator makes of it (even sigmoid(0) = 1/2): nobody downstream reads it any more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..index import Labels
from .registry import arguments, couples

if TYPE_CHECKING:
    from torch.fx import Node

    from ..coupling import Coupler

UNARY = (
    *("relu", "gelu", "silu", "sigmoid", "tanh", "hardtanh", "hardswish", "hardsigmoid", "leaky_relu", "elu", "selu", "celu", "relu6"),
    *("softplus", "mish", "log_sigmoid", "hardshrink", "softshrink", "threshold", "clamp", "clamp_min", "clamp_max", "exp", "expm1"),
    *("log", "log2", "log10", "log1p", "sqrt", "rsqrt", "abs", "neg", "sin", "cos", "tan", "atan", "asin", "acos", "sinh", "cosh"),
    *("erf", "square", "reciprocal", "floor", "ceil", "round", "trunc", "frac", "sign", "logical_not", "bitwise_not", "isnan", "isinf"),
    *("nan_to_num", "dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout", "contiguous", "clone", "detach"),
    *("alias", "lift_fresh_copy", "_to_copy", "type_as", "positive", "zeros_like", "ones_like", "rand_like", "randn_like", "full_like"),
    *("empty_like", "rrelu", "exp2", "sinc", "view_as_complex_copy", "softsign", "deg2rad"),
)
UNARY_OVERLOADS = (
    *("pow.Tensor_Scalar", "pow.Scalar", "add.Scalar", "sub.Scalar", "mul.Scalar", "div.Scalar", "rsub.Scalar", "remainder.Scalar"),
    *("to.dtype", "to.dtype_layout", "to.device", "to.other", "eq.Scalar", "ne.Scalar", "gt.Scalar", "ge.Scalar", "lt.Scalar", "le.Scalar"),
    *("round.decimals", "div.Scalar_mode", "floor_divide.Scalar", "clamp_min.default", "fill.Scalar", "zero.default"),
)
BROADCAST = (
    *("add.Tensor", "sub.Tensor", "mul.Tensor", "div.Tensor", "div.Tensor_mode", "rsub.Tensor", "pow.Tensor_Tensor", "maximum.default"),
    *("minimum.default", "max.other", "min.other", "eq.Tensor", "ne.Tensor", "gt.Tensor", "ge.Tensor", "lt.Tensor", "le.Tensor"),
    *("where.self", "where.ScalarSelf", "where.ScalarOther", "where.Scalar", "masked_fill.Scalar", "masked_fill.Tensor", "addcmul.default"),
    *("addcdiv.default", "lerp.Tensor", "lerp.Scalar", "atan2.default", "remainder.Tensor", "fmod.Tensor", "logical_and.default"),
    *("logical_or.default", "bitwise_and.Tensor", "bitwise_or.Tensor", "floor_divide.default", "clamp.Tensor", "true_divide.Tensor"),
    *("multiply.Tensor", "subtract.Tensor", "divide.Tensor", "fill.Tensor", "copy.default"),
)


def _with_in_place(names: tuple[str, ...]) -> tuple[str, ...]:
    both = (f"aten.{form}" for name in names for base, _, over in [name.partition(".")] for form in (name, f"{base}_.{over}"))
    return tuple(dict.fromkeys(both))


NAMES = _with_in_place(tuple(dict.fromkeys((*(f"{name}.default" for name in UNARY), *UNARY_OVERLOADS))))


@couples(*NAMES)
def unary(node: Node, c: Coupler) -> Labels:
    """One tensor in, the same labels out."""
    bound = arguments(node)
    return c.labels(next(value for value in bound.values() if hasattr(value, "op")))


@couples(*_with_in_place(BROADCAST))
def broadcast(node: Node, c: Coupler) -> Labels:
    """Several tensors, broadcast."""
    return c.broadcast(node, list(arguments(node).values()))


@couples("aten.prelu.default")
def prelu(node: Node, c: Coupler) -> Labels:
    """One slope for all, or one a channel (dimension 1)."""
    x, weight = arguments(node)["self"], arguments(node)["weight"]
    if len(c.shape(weight)) and c.shape(weight)[0] > 1:
        c.join(c.line(weight, 0), c.line(x, 1 if len(c.shape(x)) > 1 else 0))
        c.role(weight, 0, "other")
    return c.labels(x)


@couples("aten.glu.default")
def glu(node: Node, c: Coupler) -> Labels:
    """``a * sigmoid(b)`` where a and b are the halves of one dimension: position by position one unit."""
    import numpy as np

    from ..index import take

    bound = arguments(node)
    x = bound["self"]
    dim = int(bound["dim"]) % len(c.shape(x))
    ids = c.line(x, dim)
    if ids is None:
        return c.labels(x)
    first, second = np.split(ids, 2)
    c.join(first, second)
    return take(c.labels(x), dim, np.arange(len(first)))
