"""Activations of one tensor."""

from __future__ import annotations

from math import prod
from typing import Any

from ..fuse import activation, clamp_limits
from ..graph import Read
from ..layout import Order
from ..lower import Site, lowers
from ..plan import Quant

_PLAIN: dict[str, Any] = {"fusedActivationFunction": "NONE"}
HALF_OPEN = Quant.tensor(1 / 256, -128)  # [0, 1): what LOGISTIC and SOFTMAX give
FIXED = {"LOGISTIC": HALF_OPEN, "TANH": Quant.tensor(1 / 128, 0), "SOFTMAX": HALF_OPEN, "LOG_SOFTMAX": Quant.tensor(16 / 256, 127)}
_WIDE = {
    "LOGISTIC": Quant.tensor(1 / 32768, 0, "int16"),
    "TANH": Quant.tensor(1 / 32768, 0, "int16"),
    "SOFTMAX": Quant.tensor(1 / 32768, 0, "int16"),
}


def subject(s: Site) -> tuple[Read, Order, int]:
    """The operator's first argument, the order at hand, and its tensor."""
    read = s.op.args[next(iter(s.op.args))]
    order = s.order(read)
    return read, order, s.tensor(read, order)


def fixed_quant(s: Site, op: str) -> Quant | None:
    """The output quantization that an integer kernel insists on."""
    if not s.integer:
        return None
    return (_WIDE if s.q is not None and s.q.dtype == "int16" else FIXED)[op]


@lowers(
    "aten.relu.default",
    "aten.relu6.default",
    "aten.hardtanh.default",
    "aten.clamp.default",
    "aten.clamp_min.default",
    "aten.clamp_max.default",
    integer=True,
)
def clamp(s: Site) -> None:
    """RELU, RELU6, RELU_N1_TO_1; other limits by MAXIMUM and MINIMUM.

    Among integers QUANTIZE saturates, and XNNPACK has it but no integer RELU: to a zero point at the lowest integer, negative numbers
    become zero.
    """
    _, order, x = subject(s)
    limits = clamp_limits(s.op)
    assert limits is not None
    low, high = limits
    if s.q is not None:  # what the output's integers can't say needs no clipping
        lowest, highest = ((v - s.q.zero_point[0]) * s.q.scale[0] for v in (s.q.low, s.q.high))
        low = None if low is not None and low <= lowest + 1e-3 * s.q.scale[0] else low
        high = None if high is not None and high >= highest - 1e-3 * s.q.scale[0] else high
    name = activation(s.op)
    wide = s.q is not None and s.q.dtype == "int16"  # its zero point is always zero, so QUANTIZE saturates nothing
    if (low, high) != (None, None) and (name == "RELU6" or (name and not s.integer) or (name == "RELU" and wide)):
        s.put(s.same(name, [x]), order)
        return
    if s.q is not None:
        if (low, high) == (0.0, None):
            s.put(s.b.convert(s.b.convert(x, Quant((s.q.scale), (s.q.low,), None, s.q.dtype)), s.q), order)
            return
        x = s.b.convert(x, s.q)
    for op, limit in (("MAXIMUM", low), ("MINIMUM", high)):
        if limit is not None:
            x = s.same(op, [x, _limit(s, limit)], dtype="" if s.integer else s.dtype(x))
    s.put(x, order)


def _limit(s: Site, limit: float) -> int:
    """A limit as a constant; among integers it must have the tensor's own scale."""
    import numpy as np

    return s.b.constant(np.asarray(limit, s.out.dtype), "limit") if s.q is None else _limit_of(s, limit, s.q)


def _limit_of(s: Site, limit: float, q: Quant) -> int:
    import numpy as np

    return s.b.constant(np.clip(np.rint(limit / q.scale[0]) + q.zero_point[0], q.low, q.high).astype(q.dtype), "limit", q)


@lowers("aten.sigmoid.default", integer=True)
def sigmoid(s: Site) -> None:
    """LOGISTIC: 1 / (1 + e^-x)."""
    _, order, x = subject(s)
    s.put(s.same("LOGISTIC", [x], q=fixed_quant(s, "LOGISTIC")), order)


@lowers("aten.tanh.default", integer=True)
def tanh(s: Site) -> None:
    """TANH."""
    _, order, x = subject(s)
    s.put(s.same("TANH", [x], q=fixed_quant(s, "TANH")), order)


@lowers("aten.silu.default", integer=True)
def silu(s: Site) -> None:
    """x LOGISTIC(x): LOGISTIC, MUL."""
    _, order, x = subject(s)
    gate = s.same("LOGISTIC", [x], q=fixed_quant(s, "LOGISTIC"))
    s.put(s.same("MUL", [x, gate], fusedActivationFunction="NONE"), order)


@lowers("aten.hardsigmoid.default", integer=True)
def hardsigmoid(s: Site) -> None:
    """relu6(x + 3) / 6: ADD with RELU6, MUL. In integers x / 6 + 1/2, which saturates at 0 and 1 by itself."""
    _, order, x = subject(s)
    if s.q is not None:
        s.put(s.b.convert(_gate(s, x, s.q.dtype), s.q), order)
        return
    s.put(s.same("MUL", [_shifted_six(s, x), s.const(1 / 6)], fusedActivationFunction="NONE"), order)


@lowers("aten.hardswish.default", integer=True)
def hardswish(s: Site) -> None:
    """x relu6(x + 3) / 6: HARD_SWISH; in integers from parts that XNNPACK has (the kernel is ten times slower)."""
    _, order, x = subject(s)
    if s.q is not None:
        s.put(s.same("MUL", [x, _gate(s, x, s.q.dtype)], fusedActivationFunction="NONE"), order)
        return
    s.put(s.same("HARD_SWISH", [x]), order)


def _shifted_six(s: Site, x: int) -> int:
    return s.same("ADD", [x, s.const(3.0)], fusedActivationFunction="RELU6")


def _gate(s: Site, x: int, dtype: str) -> int:
    """clip(x / 6 + 1/2, 0, 1): x / 6 has x's integers under another scale, and the sum's scale ends at 0 and 1."""
    q = s.quant(x)
    sixth = s.same("MUL", [x, s.const(1 / 6)], q=Quant.tensor(q.scale[0] / 6, q.zero_point[0], dtype), fusedActivationFunction="NONE")
    unit = Quant.tensor(1 / 255, -128) if dtype == "int8" else Quant.tensor(1 / 32767, 0, "int16")
    total = s.same("ADD", [sixth, s.const(0.5)], q=unit, fusedActivationFunction="NONE")
    return total if dtype == "int8" else s.same("MAXIMUM", [total, _limit_of(s, 0.0, unit)], q=unit)


@lowers("aten.gelu.default", integer=lambda op: op.args.get("approximate") in (None, "none", "tanh"))
def gelu(s: Site) -> None:
    """GELU, exact or by tanh."""
    _, order, x = subject(s)
    s.put(s.same("GELU", [x], approximate=s["approximate"] == "tanh"), order)


@lowers("aten.elu.default", integer=lambda op: _plain_elu(op.args))
def elu(s: Site) -> None:
    """scale * (x where x > 0, else alpha (e^(beta x) - 1)): ELU for the plain case, else from its parts."""
    _, order, x = subject(s)
    if _plain_elu(s.op.args):
        s.put(s.same("ELU", [x]), order)
        return
    alpha, scale, beta = float(s["alpha"]), float(s["scale"]), float(s["input_scale"])
    s.put(_elu(s, x, alpha, scale, beta), order)


def _plain_elu(args: dict[str, object]) -> bool:
    return args["alpha"] == 1 and args["scale"] == 1 and args["input_scale"] == 1


def _elu(s: Site, x: int, alpha: float, scale: float, beta: float) -> int:
    """scale relu(x) + scale alpha ELU(beta min(x, 0))."""
    above = s.same("RELU", [x])
    below = s.same("MINIMUM", [x, s.const(0.0)])
    if beta != 1:
        below = s.same("MUL", [below, s.const(beta)], fusedActivationFunction="NONE")
    below = s.same("MUL", [s.same("ELU", [below]), s.const(alpha * scale)], fusedActivationFunction="NONE")
    if scale != 1:
        above = s.same("MUL", [above, s.const(scale)], fusedActivationFunction="NONE")
    return s.same("ADD", [above, below], fusedActivationFunction="NONE")


@lowers("aten.selu.default")
def selu(s: Site) -> None:
    """ELU with Klambauer et al.'s two constants (arXiv:1706.02515)."""
    _, order, x = subject(s)
    s.put(_elu(s, x, 1.6732632423543772848170429916717, 1.0507009873554804934193349852946, 1.0), order)


@lowers("aten.celu.default")
def celu(s: Site) -> None:
    """max(x, 0) + alpha (e^(min(x, 0) / alpha) - 1)."""
    _, order, x = subject(s)
    alpha = float(s["alpha"])
    s.put(_elu(s, x, alpha, 1.0, 1 / alpha), order)


@lowers("aten.leaky_relu.default", integer=True)
def leaky_relu(s: Site) -> None:
    """LEAKY_RELU."""
    _, order, x = subject(s)
    s.put(s.same("LEAKY_RELU", [x], alpha=float(s["negative_slope"])), order)


@lowers("aten.prelu.default", integer=True)
def prelu(s: Site) -> None:
    """PRELU with one slope a channel (torch's axis 1), or LEAKY_RELU with one for all."""
    _, order, x = subject(s)
    slope: Read = s["weight"]
    if not slope.constant or slope.value.data is None:
        raise s.refuse("its slope is computed", "use a constant slope")
    count = slope.value.data.numel()
    if count == 1:
        s.put(s.same("LEAKY_RELU", [x], alpha=float(slope.value.data)), order)
        return
    shape = [1] * len(order)
    shape[order.index(1)] = count
    if s.q is None and order[-1] == 1:
        rows = s.b.reshape(x, (prod(s.shape(x)[:-1]), count)) if len(order) > 4 else x  # tflite-runtime 2.14 broadcasts four axes
        y = s.same("PRELU", [rows, s.b.reshape(s.tensor(slope), [1] * (len(s.shape(rows)) - 2) + [count])])
        s.put(s.b.reshape(y, s.shape(x)), order)
        return
    if s.q is None:  # XNNPACK's PRELU has slopes along the last axis only
        row = s.const(slope.value.data.reshape(shape).numpy())
        below = s.spread("MUL", [s.same("MINIMUM", [x, s.const(0.0)]), row], s.shape(x), **_PLAIN)
        s.put(s.same("ADD", [s.same("RELU", [x]), below], **_PLAIN), order)
        return
    s.put(_integer_prelu(s, x, slope, shape), order)


def _integer_prelu(s: Site, x: int, slope: Read, shape: list[int]) -> int:
    """x + (a - 1) min(x, 0), or max(x, 0) + a min(x, 0) where that product's steps are finer and the first's are too coarse.

    QUANTIZE saturates what is above (or below) zero, then MUL and ADD: the PRELU kernel is fifty times slower.
    """
    assert slope.value.data is not None
    assert s.q is not None
    q = s.quant(x)
    below, own = s.b.convert(x, Quant(q.scale, (q.high,), None, q.dtype)), slope.value.data.reshape(shape).numpy()
    change, product = _range(own - 1, q), _range(own, q)
    if change.scale[0] <= s.q.scale[0] or change.scale[0] <= product.scale[0]:
        return s.same("ADD", [x, s.spread("MUL", [below, s.const(own - 1, slope.value.name)], s.shape(x), q=change, **_PLAIN)], **_PLAIN)
    above = s.b.convert(x, Quant(q.scale, (q.low,), None, q.dtype))
    return s.same("ADD", [above, s.spread("MUL", [below, s.const(own, slope.value.name)], s.shape(x), q=product, **_PLAIN)], **_PLAIN)


def _range(slopes: Any, q: Quant) -> Quant:
    """The integers that hold ``slopes`` times every number below zero that ``q`` holds."""
    deepest = q.scale[0] * (q.low - q.zero_point[0])
    ends = [float(slopes.min()) * deepest, float(slopes.max()) * deepest, 0.0]
    scale = max((max(ends) - min(ends)) / (q.high - q.low), 1e-9)
    return Quant.tensor(scale, q.low - round(min(ends) / scale), q.dtype)


@lowers("aten.softplus.default")
def softplus(s: Site) -> None:
    """log(1 + e^(beta x)) / beta, as relu(x) - LOG(LOGISTIC(beta |x|)) / beta, which neither overflows nor loses small numbers."""
    _, order, x = subject(s)
    s.put(_softplus(s, x, float(s["beta"])), order)


def _softplus(s: Site, x: int, beta: float = 1.0) -> int:
    size = s.same("ABS", [x])
    if beta != 1:
        size = s.same("MUL", [size, s.const(beta)], fusedActivationFunction="NONE")
    rest = s.same("LOG", [s.same("LOGISTIC", [size])])
    if beta != 1:
        rest = s.same("MUL", [rest, s.const(1 / beta)], fusedActivationFunction="NONE")
    return s.same("SUB", [s.same("RELU", [x]), rest], fusedActivationFunction="NONE")


@lowers("aten.log_sigmoid.default")
def log_sigmoid(s: Site) -> None:
    """-softplus(-x)."""
    _, order, x = subject(s)
    s.put(s.same("NEG", [_softplus(s, s.same("NEG", [x]))]), order)


@lowers("aten.mish.default")
def mish(s: Site) -> None:
    """x tanh(softplus(x))."""
    _, order, x = subject(s)
    s.put(s.same("MUL", [x, s.same("TANH", [_softplus(s, x)])], fusedActivationFunction="NONE"), order)


@lowers("aten.softmax.int", "aten._softmax.default", integer=True)
def softmax(s: Site) -> None:
    """SOFTMAX over the last stored axis."""
    x, order = _last(s)
    s.put(s.same("SOFTMAX", [x], q=fixed_quant(s, "SOFTMAX"), beta=1.0), order)


@lowers("aten.log_softmax.int", "aten._log_softmax.default", integer=lambda op: all(o.q is None or o.q.dtype == "int8" for o in op.outputs))
def log_softmax(s: Site) -> None:
    """LOG_SOFTMAX over the last stored axis."""
    x, order = _last(s)
    s.put(s.same("LOG_SOFTMAX", [x], q=fixed_quant(s, "LOG_SOFTMAX")), order)


def _last(s: Site) -> tuple[int, Order]:
    """The input with the operator's axis stored last."""
    read = s.op.args[next(iter(s.op.args))]
    rank = len(read.shape)
    axis = s["dim"] % rank
    order = s.order(read)
    if order[-1] != axis:
        order = (*(a for a in order if a != axis), axis)
    return s.tensor(read, order), order


@lowers("aten.glu.default")
def glu(s: Site) -> None:
    """The first half times the LOGISTIC of the second."""
    from .slices import part

    read, order, x = subject(s)
    place = order.index(s["dim"] % len(read.shape))
    size = s.shape(x)[place]
    left, right = part(s, x, place, 0, size // 2), part(s, x, place, size // 2, size)
    s.put(s.same("MUL", [left, s.same("LOGISTIC", [right])], fusedActivationFunction="NONE"), order)
