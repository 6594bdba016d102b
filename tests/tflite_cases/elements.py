"""Elementwise operators."""

from __future__ import annotations

import torch

from .draw import Bound, Case, Draw, row

aten = torch.ops.aten
PLAIN = {
    "relu": aten.relu.default,
    "relu6": aten.relu6.default,
    "sigmoid": aten.sigmoid.default,
    "tanh": aten.tanh.default,
    "silu": aten.silu.default,
    "hard-swish": aten.hardswish.default,
    "hard-sigmoid": aten.hardsigmoid.default,
}
_STEPS = {"silu": 2, "hard-swish": 2, "hard-sigmoid": 2}
SELU = (aten.selu.default, aten.celu.default, aten.mish.default, aten.softplus.default, aten.log_sigmoid.default, aten.elu.default)


@row(*PLAIN)
def plain(d: Draw, name: str) -> Case:
    x = d.like(d.shape(0, 5)) * d.one([1.0, 4.0])
    if x.numel() > 2:  # a range that a model may have
        x.view(-1)[0], x.view(-1)[1] = 2.0, -2.0
    return Case(PLAIN[name], (x,), steps=_STEPS.get(name, 1) if x.numel() > 2 else 40)


@row("gelu")
def gelu(d: Draw) -> Case:
    x = d.like(d.shape()) * 2
    return Case(aten.gelu.default, (x,)) if d.coin() else Case(Bound(aten.gelu.default, approximate="tanh"), (x,))


@row("elu, selu, celu, mish, softplus")
def smooth(d: Draw) -> Case:
    call, x = d.one(SELU), d.like(d.shape()) * 3
    if call is aten.elu.default:
        return Case(call, (x, *d.one([(), (0.7,), (1.3, 0.8, 1.2)])))
    if call is aten.celu.default:
        return Case(call, (x, d.real(0.5, 2.0)))
    return Case(call, (x,))


@row("leaky_relu, prelu")
def leaky(d: Draw) -> Case:
    x = d.like([d.int(1, 3), d.int(1, 5), *d.shape(0, 3)]) * 2
    if d.coin(0.4):
        return Case(aten.leaky_relu.default, (x, d.real(-0.5, 0.9)))
    slope = d.normal(d.one([1, x.shape[1]])) * 0.4
    return Case(aten.prelu.default, (x, slope), steps=2)


@row("softmax, log_softmax")
def softmax(d: Draw) -> Case:
    x = d.like(d.shape(1, 5)) * 2
    return Case(d.one([aten.softmax.int, aten.log_softmax.int]), (x, d.int(-x.ndim, x.ndim - 1)))


@row("glu")
def glu(d: Draw) -> Case:
    shape = d.shape(1, 4)
    axis = d.int(0, len(shape) - 1)
    shape[axis] *= 2
    return Case(aten.glu.default, (d.like(shape), axis))


BINARY = {
    "add": (aten.add.Tensor, aten.add.Scalar),
    "sub": (aten.sub.Tensor, aten.rsub.Scalar),
    "mul": (aten.mul.Tensor, aten.mul.Scalar),
    "div": (aten.div.Tensor, aten.div.Scalar),
    "minimum, maximum": (aten.minimum.default, aten.maximum.default),
}


@row(*BINARY)
def binary(d: Draw, name: str) -> Case:
    first, second = BINARY[name]
    shape = d.shape(0, 5, 1, 4)
    other = [v if d.coin(0.6) else 1 for v in shape][d.int(0, len(shape)) :]
    x = d.like([v if d.coin(0.8) else 1 for v in shape])
    moving = d.one([(0, 1), (0, 1), (0,)])
    if name == "minimum, maximum":
        return Case(d.one([first, second]), (x, d.like(other)), moving=moving)
    if d.coin(0.2):
        return Case(second, (x, d.one([0.753, -2.0, 3, 0.1])))
    y = d.positive(other) if name == "div" else d.like(other)
    if d.coin(0.12) and name != "div":  # whole numbers
        kind = d.one([torch.int32, torch.int64])
        return Case(first, (d.whole(x.shape, dtype=kind), d.whole(y.shape, dtype=kind)), moving=moving)
    if name in ("add", "sub") and d.coin(0.15):
        return Case(Bound(first, alpha=d.one([2, -1, 0.5])), (x, y), moving=moving)
    if name in ("add", "mul") and d.coin(0.2) and len(other) == len(shape) and 0 in moving:
        return Case(first, (y, x), moving=moving)
    return Case(first, (x, y), moving=moving)


@row("floor division, remainder")
def floor(d: Draw) -> Case:
    shape = d.shape(1, 4)
    x = d.like(shape) * 5
    if d.coin(0.3):
        return Case(d.one([aten.remainder.Scalar, aten.fmod.Scalar]), (x, d.one([0.7, 2.0, 3.0])))
    y = d.positive(shape)
    call = d.one([aten.floor_divide.default, aten.remainder.Tensor])
    return Case(call, (x, y), moving=d.one([(0, 1), (0,)]))


@row("pow")
def power(d: Draw) -> Case:
    shape = d.shape()
    kind = d.int(0, 2)
    if kind == 0:
        return Case(aten.pow.Tensor_Scalar, (d.positive(shape), d.one([0, 1, 2, 3, 4, 0.5, -0.5, -1, -2, 1.7])), rtol=1e-4)
    if kind == 1:
        return Case(aten.pow.Tensor_Tensor, (d.positive(shape), d.like(shape)), moving=d.one([(0, 1), (0,)]), rtol=1e-4)
    return Case(aten.pow.Scalar, (2.0, d.like(shape)), moving=(1,), rtol=1e-4)


UNARY = {
    "sqrt, rsqrt, reciprocal": (aten.sqrt.default, aten.rsqrt.default, aten.reciprocal.default),
    "exp, log": (aten.exp.default, aten.log.default, aten.log1p.default, aten.log2.default, aten.log10.default),
    "sin, cos, tan": (aten.sin.default, aten.cos.default, aten.tan.default),
    "abs, neg, sign, square": (aten.abs.default, aten.neg.default, aten.sign.default, aten.square.default),
    "floor, ceil, round, trunc": (aten.floor.default, aten.ceil.default, aten.round.default, aten.trunc.default),
}


@row(*UNARY)
def unary(d: Draw, name: str) -> Case:
    call = d.one(UNARY[name])
    x = d.positive(d.shape(0, 5)) if name in ("sqrt, rsqrt, reciprocal", "exp, log") else d.like(d.shape(0, 5)) * 3
    if name == "sin, cos, tan":
        x = x.clamp(-1.3, 1.3)
    if name.startswith(("abs", "floor")) and d.coin(0.15) and call is aten.abs.default:
        return Case(call, (d.whole(x.shape),))
    return Case(call, (x,), rtol=5e-5)


@row("clamp, hardtanh")
def clamp(d: Draw) -> Case:
    x = d.like(d.shape(0, 5)) * 2
    low, high = d.one([(None, 0.7), (-0.4, None), (-0.3, 0.8), (0.0, 6.0), (-1.0, 1.0), (0, 1)])
    kind = d.int(0, 3)
    if kind == 0 and None not in (low, high):
        return Case(aten.hardtanh.default, (x, low, high))
    if kind == 1:
        return Case(aten.clamp.Tensor, (x, d.like(x.shape) - 1, d.like(x.shape).abs()), moving=d.one([(0, 1, 2), (0,)]))
    if kind == 2:
        return Case(aten.clamp_min.default, (x, 0.2)) if d.coin() else Case(aten.clamp_max.default, (x, -0.1))
    return Case(aten.clamp.default, (x, low, high))


@row("where, masked_fill")
def where(d: Draw) -> Case:
    shape = d.shape(1, 4)
    mask = d.like([v if d.coin(0.7) else 1 for v in shape]) > 0
    x, y = d.like(shape), d.like([v if d.coin(0.7) else 1 for v in shape])
    kind = d.int(0, 2)
    if kind == 0:
        return Case(aten.masked_fill.Scalar, (x, mask, d.real(-3, 3)), moving=d.one([(0, 1), (0,)]))
    if kind == 1:
        return Case(aten.where.ScalarOther, (mask, x, d.real(-3, 3)), moving=(0, 1))
    return Case(aten.where.self, (mask, x, y), moving=d.one([(0, 1, 2), (1,), (1, 2)]))


COMPARE = [getattr(aten, n) for n in ("eq", "ne", "lt", "le", "gt", "ge")]


@row("comparisons")
def compare(d: Draw) -> Case:
    shape = d.shape(1, 4)
    kind = d.one([torch.float32, torch.int32, torch.int64])
    x, y = d.whole(shape, -2, 2, kind), d.whole([v if d.coin(0.7) else 1 for v in shape], -2, 2, kind)
    call = d.one(COMPARE)
    if d.coin(0.3):
        return Case(call.Scalar, (x, d.one([0, 1, -1])))
    return Case(call.Tensor, (x, y), moving=d.one([(0, 1), (0,)]))


@row("logic")
def logic(d: Draw) -> Case:
    shape = d.shape(1, 4)
    x, y = d.like(shape) > 0, d.like([v if d.coin(0.7) else 1 for v in shape]) > 0
    call = d.one(
        [aten.logical_and.default, aten.logical_or.default, aten.bitwise_and.Tensor, aten.logical_not.default, aten.logical_xor.default]
    )
    return Case(call, (x,)) if call is aten.logical_not.default else Case(call, (x, y), moving=d.one([(0, 1), (0,)]))


@row("casts")
def cast(d: Draw) -> Case:
    x = d.one([d.like(d.shape()) * 5, d.whole(d.shape()), d.whole(d.shape(), dtype=torch.int32), d.like(d.shape()) > 0])
    return Case(aten.to.dtype, (x, d.one([torch.float32, torch.int32, torch.int64, torch.bool])))
