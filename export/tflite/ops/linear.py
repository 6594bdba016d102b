"""Linear layers: y = x W^T + b."""

from __future__ import annotations

from typing import Any

from ..layout import identity
from ..lower import Site, lowers
from .weights import bias, weight


@lowers("aten.linear.default", integer=True)
def linear(s: Site) -> None:
    """FULLY_CONNECTED over the last stored axis; the axes before it may lie in any order."""
    rank = len(s["input"].shape)
    order = s.order(s["input"])
    if order[-1] != rank - 1:
        order = identity(rank)
    x = s.tensor(s["input"], order)
    outputs = s["weight"].shape[0]
    w = weight(s, s["weight"], (0, 1))
    b = bias(s, s["bias"], x, w, outputs)
    shape = (*s.shape(x)[:-1], outputs)
    options: dict[str, Any] = {"keepNumDims": True} if rank != 2 else {}
    s.put(s.run("FULLY_CONNECTED", [x, w, b], shape, fusedActivationFunction=s.op.fused, **options), order)
