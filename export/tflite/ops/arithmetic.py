"""Elementwise operators of two tensors, or of a tensor and a number, with torch's broadcasting and type promotion."""

from __future__ import annotations

from typing import Any

from ..graph import Op, Read
from ..layout import Order, identity, reshaped, stored
from ..lower import Site, elementwise_order, lowers

Operand = Read | float | int | bool


def operand(s: Site, item: Operand, order: Order, rank: int, dtype: str) -> int:
    """One operand in ``order``, of the full rank (or a single number), as ``dtype`` (or this site's integers)."""
    import numpy as np

    if not isinstance(item, Read):
        return s.const(float(item)) if dtype == "float32" else s.b.constant(np.asarray(item, dtype), "number")
    if item.constant and item.q is None and dtype == "float32":
        assert item.value.data is not None
        data = item.value.data.float()
        if data.ndim == 0:
            return s.const(float(data))
        return s.const(data.reshape((1,) * (rank - data.ndim) + tuple(data.shape)).permute(order).contiguous().numpy(), item.value.name)
    return cast(s, spread(s, item, order, rank), dtype)


def spread(s: Site, item: Read, order: Order, rank: int) -> int:
    """A tensor in ``order``, with axes of size one in front up to the full rank."""
    if len(item.shape) == rank:
        return s.tensor(item, order)
    full = (1,) * (rank - len(item.shape)) + item.shape
    have = s.order(item)
    if reshaped(item.shape, have, full) is None:
        have = identity(len(item.shape))
    tensor = s.tensor(item, have)
    got = reshaped(item.shape, have, full)
    assert got is not None
    return s.b.transpose(s.b.reshape(tensor, tuple(full[a] for a in got)), tuple(got.index(a) for a in order))


def cast(s: Site, tensor: int, dtype: str) -> int:
    """CAST, where the type differs."""
    have = s.dtype(tensor)
    if have == dtype or s.b.tensors[tensor].quant is not None:
        return tensor
    source = s.b.tensors[tensor]
    types = {"inDataType": have.upper(), "outDataType": dtype.upper()}
    return s.b.run("CAST", [tensor], source.shape, dtype, None, f"{s.out.name}.cast", **types)


def np_scalar(number: float, dtype: str) -> Any:
    """A number as an array without axes."""
    import numpy as np

    return np.asarray(number, dtype)


def promoted(items: tuple[Operand, ...]) -> str:
    """The type in which torch computes: the tensors' (float over integer over bool); a number can only make integers float."""
    ranks = {"bool": 0, "uint8": 1, "int8": 1, "int16": 2, "int32": 3, "int64": 4, "float32": 5}
    types = [i.value.dtype if i.value.dtype in ranks else "float32" for i in items if isinstance(i, Read)]
    best = max(types, key=lambda t: ranks[t])
    numbers = [i for i in items if not isinstance(i, Read)]
    if ranks[best] < 5 and any(isinstance(n, float) for n in numbers):
        return "float32"
    if best == "bool" and any(not isinstance(n, bool) for n in numbers):
        return "int64"
    return best


def operands(s: Site, *items: Operand, dtype: str = "") -> tuple[list[int], Order]:
    """All operands in the order that moves the least data."""
    rank = len(s.out.shape)
    order = elementwise_order(s.b, [i for i in items if isinstance(i, Read)], rank)
    kind = dtype or promoted(items)
    return [operand(s, i, order, rank, kind) for i in items], order


def binary(s: Site, op: str, left: Operand, right: Operand, fused: bool = True, dtype: str = "") -> None:
    """``op`` on two operands."""
    inputs, order = operands(s, left, right, dtype=dtype)
    if op in ("MUL", "DIV") and len(s.out.shape) > 4:
        kind = "" if s.out.floating else s.out.dtype
        whole = [s.b.reshape(t, (1,) * (len(order) - len(s.shape(t))) + s.shape(t)) if s.shape(t) else t for t in inputs]
        s.put(s.spread(op, whole, stored(s.out.shape, order), dtype=kind, fusedActivationFunction=s.op.fused), order)
        return
    s.result(op, inputs, order, **({"fusedActivationFunction": s.op.fused} if fused else {}))


def _plain(op: Op) -> bool:
    """Whether the sum needs no multiplication of a tensor before it."""
    alpha = op.args.get("alpha")
    return alpha in (None, 1, -1) or not isinstance(op.args["self" if "rsub" in op.name else "other"], Read)


@lowers("aten.add.Tensor", "aten.add.Scalar", integer=_plain)
def add(s: Site) -> None:
    """ADD: x + alpha y."""
    _sum(s, s["self"], s["other"], s["alpha"])


@lowers("aten.sub.Tensor", "aten.sub.Scalar", integer=_plain)
def sub(s: Site) -> None:
    """SUB: x - alpha y."""
    alpha = s["alpha"]
    _sum(s, s["self"], s["other"], -1 if alpha is None else -alpha)


@lowers("aten.rsub.Scalar", "aten.rsub.Tensor", integer=_plain)
def rsub(s: Site) -> None:
    """SUB: y - alpha x."""
    alpha = s["alpha"]
    _sum(s, s["other"], s["self"], -1 if alpha is None else -alpha)


def _sum(s: Site, left: Operand, right: Operand, alpha: float | None) -> None:
    """ADD, or SUB where alpha is below zero; MUL before it where alpha isn't one."""
    op = "SUB" if alpha is not None and alpha < 0 else "ADD"
    size = 1 if alpha is None else abs(alpha)
    if size == 1:
        binary(s, op, left, right)
    elif not isinstance(right, Read):
        binary(s, op, left, right * size)
    else:
        (x, y), order = operands(s, left, right)
        kind = s.dtype(y)
        scaled = s.same("MUL", [y, s.b.constant(np_scalar(size, kind), "alpha")], fusedActivationFunction="NONE", dtype=kind)
        s.result(op, [x, scaled], order, fusedActivationFunction=s.op.fused)


@lowers("aten.mul.Tensor", "aten.mul.Scalar", integer=True)
def mul(s: Site) -> None:
    """MUL; of booleans LOGICAL_AND."""
    if s.out.dtype == "bool":
        binary(s, "LOGICAL_AND", s["self"], s["other"], False)
        return
    binary(s, "MUL", s["self"], s["other"])


def _by_constant(op: Op) -> bool:
    args = op.args
    return args.get("rounding_mode") is None and (not isinstance(args["other"], Read) or args["other"].constant)


@lowers("aten.div.Tensor", "aten.div.Scalar", "aten.div.Tensor_mode", "aten.true_divide.Tensor", integer=_by_constant)
def div(s: Site) -> None:
    """MUL by the inverse of a constant, else DIV; FLOOR_DIV where torch rounds down."""
    import numpy as np

    left, right, mode = s["self"], s["other"], s["rounding_mode"]
    if mode == "floor":
        _floor_div(s, left, right)
        return
    if mode == "trunc":
        raise s.refuse("it rounds towards zero", "use rounding_mode='floor'")
    if isinstance(right, Read) and right.constant and isinstance(left, Read):
        assert right.value.data is not None
        rank = len(s.out.shape)
        order = elementwise_order(s.b, [left], rank)
        data = 1 / right.value.data.double()
        inverse = data.float() if data.ndim == 0 else data.float().reshape((1,) * (rank - data.ndim) + tuple(data.shape)).permute(order)
        both = [operand(s, left, order, rank, "float32"), s.const(np.asarray(inverse.numpy(), order="C"))]
        s.put(s.spread("MUL", both, stored(s.out.shape, order), fusedActivationFunction=s.op.fused), order)
    elif not isinstance(right, Read):
        binary(s, "MUL", left, 1 / float(right), dtype="float32")
    else:
        binary(s, "DIV", left, right, dtype="float32")


@lowers("aten.floor_divide.default")
def floor_divide(s: Site) -> None:
    """FLOOR_DIV."""
    _floor_div(s, s["self"], s["other"])


def _floor_div(s: Site, left: Operand, right: Operand) -> None:
    inputs, order = operands(s, left, right)
    if s.out.floating:
        ratio = s.run("DIV", inputs, tuple(s.out.shape[a] for a in order), fusedActivationFunction="NONE")
        s.put(s.same("FLOOR", [ratio]), order)
    else:
        s.result("FLOOR_DIV", inputs, order)


@lowers("aten.remainder.Scalar", "aten.remainder.Tensor")
def remainder(s: Site) -> None:
    """FLOOR_MOD: the sign of the divisor."""
    binary(s, "FLOOR_MOD", s["self"], s["other"], False)


@lowers("aten.minimum.default", "aten.min.other", transparent=True)
def minimum(s: Site) -> None:
    """MINIMUM."""
    _extreme(s, "MINIMUM")


@lowers("aten.maximum.default", "aten.max.other", transparent=True)
def maximum(s: Site) -> None:
    """MAXIMUM."""
    _extreme(s, "MAXIMUM")


def _extreme(s: Site, op: str) -> None:
    """Of integers in the output's scale, whatever the inputs' are: the kernels compare them as they are stored."""
    inputs, order = operands(s, s["self"], s["other"])
    if s.integer:
        s.q = s.out.q
        inputs = [s.b.convert(i, s.q) for i in inputs]
    s.result(op, inputs, order)


@lowers("aten.clamp.Tensor")
def clamp_tensor(s: Site) -> None:
    """MAXIMUM, then MINIMUM, with limits that are tensors."""
    read = s["self"]
    rank = len(s.out.shape)
    order = elementwise_order(s.b, [read], rank)
    x = operand(s, read, order, rank, "float32")
    for op, limit in (("MAXIMUM", s["min"]), ("MINIMUM", s["max"])):
        if limit is not None:
            x = s.run(op, [x, operand(s, limit, order, rank, "float32")], tuple(s.out.shape[a] for a in order))
    s.put(x, order)


@lowers("aten.pow.Tensor_Scalar")
def power(s: Site) -> None:
    """MUL, SQRT, RSQRT or SQUARE for common exponents, else POW."""
    exponent = float(s["exponent"])
    read = s["self"]
    order = s.order(read)
    x = cast(s, s.tensor(read, order), s.out.dtype)
    if exponent == 2:
        s.put(s.same("MUL", [x, x], fusedActivationFunction="NONE", dtype=s.out.dtype), order)
    elif exponent == 3:
        square = s.same("MUL", [x, x], fusedActivationFunction="NONE", dtype=s.out.dtype)
        s.put(s.same("MUL", [square, x], fusedActivationFunction="NONE", dtype=s.out.dtype), order)
    elif exponent == 1:
        s.put(x, order)
    elif exponent == 0.5:
        s.put(s.same("SQRT", [x]), order)
    elif exponent == -0.5:
        s.put(s.same("RSQRT", [x]), order)
    elif exponent == -1:
        s.put(s.same("DIV", [s.const(1.0), x], fusedActivationFunction="NONE") if not s.shape(x) else _inverse(s, x), order)
    else:
        s.put(s.same("POW", [x, s.const(exponent)]), order)


@lowers("aten.pow.Tensor_Tensor")
def power_tensor(s: Site) -> None:
    """POW."""
    binary(s, "POW", s["self"], s["exponent"], False)


@lowers("aten.pow.Scalar")
def power_of(s: Site) -> None:
    """base^x."""
    read = s["exponent"]
    order = s.order(read)
    x = s.tensor(read, order)
    s.put(s.run("POW", [s.const(float(s["self"])), x], s.shape(x)), order)


@lowers("aten.reciprocal.default")
def reciprocal(s: Site) -> None:
    """1 / x: DIV."""
    read = s["self"]
    order = s.order(read)
    s.put(_inverse(s, s.tensor(read, order)), order)


def _inverse(s: Site, x: int) -> int:
    return s.run("DIV", [s.const(1.0), x], s.shape(x), fusedActivationFunction="NONE")


_COMPARE = {"eq": "EQUAL", "ne": "NOT_EQUAL", "lt": "LESS", "le": "LESS_EQUAL", "gt": "GREATER", "ge": "GREATER_EQUAL"}


@lowers(*(f"aten.{name}.{kind}" for name in _COMPARE for kind in ("Tensor", "Scalar")))
def compare(s: Site) -> None:
    """EQUAL, NOT_EQUAL, LESS, LESS_EQUAL, GREATER, GREATER_EQUAL: a boolean tensor."""
    binary(s, _COMPARE[s.op.name.split(".")[1]], s["self"], s["other"], False)


@lowers("aten.logical_and.default", "aten.bitwise_and.Tensor", "aten.__and__.Tensor")
def logical_and(s: Site) -> None:
    """LOGICAL_AND."""
    _boolean(s)
    binary(s, "LOGICAL_AND", s["self"], s["other"], False, dtype="bool")


@lowers("aten.logical_or.default", "aten.bitwise_or.Tensor", "aten.__or__.Tensor")
def logical_or(s: Site) -> None:
    """LOGICAL_OR."""
    _boolean(s)
    binary(s, "LOGICAL_OR", s["self"], s["other"], False, dtype="bool")


def _boolean(s: Site) -> None:
    if s.out.dtype != "bool":
        raise s.refuse(f"it works on the bits of {s.out.dtype} numbers", "use logical operators on booleans")


@lowers("aten.logical_not.default", "aten.bitwise_not.default")
def logical_not(s: Site) -> None:
    """LOGICAL_NOT."""
    _boolean(s)
    read = s["self"]
    order = s.order(read)
    s.put(s.same("LOGICAL_NOT", [cast(s, s.tensor(read, order), "bool")], dtype="bool"), order)


@lowers("aten.logical_xor.default", "aten.bitwise_xor.Tensor", "aten.__xor__.Tensor")
def logical_xor(s: Site) -> None:
    """NOT_EQUAL of booleans."""
    _boolean(s)
    binary(s, "NOT_EQUAL", s["self"], s["other"], False, dtype="bool")


@lowers("aten.where.self", "aten.where.ScalarOther", "aten.where.ScalarSelf", "aten.where.Scalar")
def where(s: Site) -> None:
    """SELECT_V2."""
    _select(s, s["condition"], s["self"], s["other"])


@lowers("aten.masked_fill.Scalar", "aten.masked_fill.Tensor")
def masked_fill(s: Site) -> None:
    """SELECT_V2 of a number and the tensor."""
    _select(s, s["mask"], s["value"], s["self"])


def _select(s: Site, mask: Read, yes: Operand, no: Operand) -> None:
    rank = len(s.out.shape)
    order = elementwise_order(s.b, [i for i in (yes, no, mask) if isinstance(i, Read)], rank)
    inputs = [operand(s, mask, order, rank, "bool"), *(operand(s, i, order, rank, s.out.dtype) for i in (yes, no))]
    s.result("SELECT_V2", inputs, order)
