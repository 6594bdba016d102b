"""Elementwise arithmetic of two tensors, or of a tensor and a number, with torch's broadcasting."""

from __future__ import annotations

from ..graph import Read
from ..layout import Order, identity, reshaped
from ..lower import Site, elementwise_order, lowers


def operand(s: Site, item: Read | float, order: Order, rank: int) -> int:
    """One operand in ``order``, of the full rank (or a single number)."""
    if not isinstance(item, Read):
        return s.const(float(item))
    if item.constant and item.q is None and s.integer:
        assert item.value.data is not None
        data = item.value.data.float()
        return s.const(data.reshape((1,) * (rank - data.ndim) + tuple(data.shape)).permute(order).numpy(), item.value.name)
    if len(item.shape) == rank:
        return s.tensor(item, order)
    if item.constant and not item.shape:
        return s.tensor(item)
    full = (1,) * (rank - len(item.shape)) + item.shape
    have = s.order(item)
    if reshaped(item.shape, have, full) is None:
        have = identity(len(item.shape))
    tensor = s.tensor(item, have)
    got = reshaped(item.shape, have, full)
    assert got is not None
    return s.b.transpose(s.b.reshape(tensor, tuple(full[a] for a in got)), tuple(got.index(a) for a in order))


def binary(s: Site, op: str, left: Read | float, right: Read | float, fused: bool = True) -> None:
    """``op`` on two operands, in the order that moves the least data."""
    rank = len(s.out.shape)
    order = elementwise_order(s.b, [r for r in (left, right) if isinstance(r, Read)], rank)
    inputs = [operand(s, left, order, rank), operand(s, right, order, rank)]
    s.result(op, inputs, order, **({"fusedActivationFunction": s.op.fused} if fused else {}))


@lowers("aten.add.Tensor", "aten.add.Scalar", integer=True)
def add(s: Site) -> None:
    """ADD: x + alpha y."""
    binary(s, "ADD", s["self"], _scaled(s, s["other"], s["alpha"]))


@lowers("aten.sub.Tensor", "aten.sub.Scalar", integer=True)
def sub(s: Site) -> None:
    """SUB: x - alpha y."""
    binary(s, "SUB", s["self"], _scaled(s, s["other"], s["alpha"]))


@lowers("aten.mul.Tensor", "aten.mul.Scalar", integer=True)
def mul(s: Site) -> None:
    """MUL."""
    binary(s, "MUL", s["self"], s["other"])


def _scaled(s: Site, other: Read | float, alpha: float | None) -> Read | float:
    if alpha in (None, 1):
        return other
    if isinstance(other, Read):
        raise s.refuse(f"alpha is {alpha}", "write the multiplication out")
    return other * float(alpha or 1)
