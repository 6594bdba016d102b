"""Activations of one tensor."""

from __future__ import annotations

from ..fuse import activation, clamp_limits
from ..lower import Site, lowers
from ..plan import Quant


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
    """RELU, RELU6, RELU_N1_TO_1; other limits by MAXIMUM and MINIMUM."""
    x = s.op.args[next(iter(s.op.args))]
    order = s.order(x)
    tensor = s.tensor(x, order)
    if (name := activation(s.op)) in ("RELU", "RELU6") or (name and not s.integer):
        s.put(s.same(name, [tensor]), order)
        return
    if s.integer:
        tensor = s.b.convert(tensor, s.q)
    limits = clamp_limits(s.op)
    assert limits is not None
    for op, limit in zip(("MAXIMUM", "MINIMUM"), limits, strict=True):
        if limit is not None:
            tensor = s.same(op, [tensor, _limit(s, limit)])
    s.put(tensor, order)


def _limit(s: Site, limit: float) -> int:
    """A limit as a constant; among integers it must have the tensor's own scale."""
    import numpy as np

    if s.q is None:
        return s.b.constant(np.float32(limit), "limit")
    q = s.q
    return s.b.constant(np.clip(np.rint(limit / q.scale[0]) + q.zero_point[0], q.low, q.high).astype(q.dtype), "limit", q)


FIXED = {"LOGISTIC": Quant.tensor(1 / 256, -128), "TANH": Quant.tensor(1 / 128, 0), "SOFTMAX": Quant.tensor(1 / 256, -128)}


@lowers("aten.sigmoid.default", integer=True)
def sigmoid(s: Site) -> None:
    """LOGISTIC: 1 / (1 + e^-x)."""
    fixed_range(s, "LOGISTIC")


@lowers("aten.tanh.default", integer=True)
def tanh(s: Site) -> None:
    """TANH."""
    fixed_range(s, "TANH")


def fixed_range(s: Site, op: str) -> None:
    """An operator whose integer kernel insists on one output scale; another one is reached by QUANTIZE."""
    read = s.op.args[next(iter(s.op.args))]
    order = s.order(read)
    s.put(s.same(op, [s.tensor(read, order)], q=FIXED[op]), order)
