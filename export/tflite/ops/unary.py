"""Elementwise operators of one tensor that are one TFLite operator each."""

from __future__ import annotations

from ..lower import Site, lowers
from .activation import subject
from .arithmetic import cast

_FLOAT = {
    "aten.sqrt.default": "SQRT",
    "aten.rsqrt.default": "RSQRT",
    "aten.exp.default": "EXP",
    "aten.log.default": "LOG",
    "aten.sin.default": "SIN",
    "aten.cos.default": "COS",
}
_ANY = {
    "aten.abs.default": "ABS",
    "aten.neg.default": "NEG",
    "aten.floor.default": "FLOOR",
    "aten.ceil.default": "CEIL",
    "aten.round.default": "ROUND",
    "aten.sign.default": "SIGN",
}


@lowers(*_FLOAT)
def of_reals(s: Site) -> None:
    """SQRT, RSQRT, EXP, LOG, SIN, COS."""
    _, order, x = subject(s)
    s.put(s.same(_FLOAT[s.op.name], [cast(s, x, "float32")]), order)


@lowers(*_ANY)
def of_any(s: Site) -> None:
    """ABS, NEG, FLOOR, CEIL, ROUND, SIGN in the tensor's own type."""
    _, order, x = subject(s)
    if s.out.dtype == "int64" and s.op.name == "aten.abs.default":  # ABS takes no int64
        s.put(s.same("MAXIMUM", [x, s.same("NEG", [x], dtype="int64")], dtype="int64"), order)
        return
    if s.out.dtype in ("int32", "int64") and s.op.name not in ("aten.abs.default", "aten.neg.default"):
        if s.op.name == "aten.sign.default":
            raise s.refuse(f"its input is {s.out.dtype}", "cast it to float32")
        s.put(x, order)  # whole numbers are round
        return
    s.put(s.same(_ANY[s.op.name], [x], dtype=s.out.dtype), order)


@lowers("aten.to.dtype", "aten._to_copy.default", "aten.to.dtype_layout", "aten.type_as.default", "aten.to.other")
def to(s: Site) -> None:
    """CAST."""
    _, order, x = subject(s)
    s.put(cast(s, x, s.out.dtype), order)


@lowers("aten.tan.default")
def tan(s: Site) -> None:
    """SIN / COS."""
    _, order, x = subject(s)
    s.put(s.same("DIV", [s.same("SIN", [x]), s.same("COS", [x])], fusedActivationFunction="NONE"), order)


@lowers("aten.trunc.default", "aten.fix.default")
def trunc(s: Site) -> None:
    """SIGN(x) FLOOR(|x|)."""
    _, order, x = subject(s)
    s.put(truncated(s, x), order)


def truncated(s: Site, x: int) -> int:
    """Rounded towards zero."""
    return s.same("MUL", [s.same("SIGN", [x]), s.same("FLOOR", [s.same("ABS", [x])])], fusedActivationFunction="NONE")


@lowers("aten.fmod.Scalar")
def fmod(s: Site) -> None:
    """x - b trunc(x / b): the sign of x."""
    _, order, x = subject(s)
    divisor = float(s["other"])
    whole = truncated(s, s.same("DIV", [x, s.const(divisor)], fusedActivationFunction="NONE"))
    s.put(
        s.same("SUB", [x, s.same("MUL", [whole, s.const(divisor)], fusedActivationFunction="NONE")], fusedActivationFunction="NONE"), order
    )


@lowers("aten.square.default")
def square(s: Site) -> None:
    """MUL of a tensor with itself."""
    _, order, x = subject(s)
    s.put(s.same("MUL", [x, x], fusedActivationFunction="NONE", dtype=s.out.dtype), order)


@lowers("aten.log2.default", "aten.log10.default")
def log_base(s: Site) -> None:
    """LOG, scaled."""
    from math import log

    _, order, x = subject(s)
    base = 2.0 if "log2" in s.op.name else 10.0
    s.put(s.same("MUL", [s.same("LOG", [x]), s.const(1 / log(base))], fusedActivationFunction="NONE"), order)


@lowers("aten.log1p.default")
def log1p(s: Site) -> None:
    """LOG(1 + x)."""
    _, order, x = subject(s)
    s.put(s.same("LOG", [s.same("ADD", [x, s.const(1.0)], fusedActivationFunction="NONE")]), order)
