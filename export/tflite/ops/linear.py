"""Linear layers: y = x W^T + b."""

from __future__ import annotations

from math import prod
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
    if s.q is not None and s.q.dtype == "int16":
        s.put(_pointwise(s, x), order)
        return
    outputs = s["weight"].shape[0]
    w = weight(s, s["weight"], (0, 1))
    b = bias(s, s["bias"], x, w, outputs)
    shape = (*s.shape(x)[:-1], outputs)
    options: dict[str, Any] = {"keepNumDims": True} if rank != 2 else {}
    s.put(s.run("FULLY_CONNECTED", [x, w, b], shape, fusedActivationFunction=s.op.fused, **options), order)


def _pointwise(s: Site, x: int) -> int:
    """CONV_2D of a row of pixels: FULLY_CONNECTED of int16 is wrong in tflite-runtime 2.14 with one scale a channel."""
    shape, read = s.shape(x), s["weight"]
    rows = s.b.reshape(x, (1, 1, prod(shape[:-1]), shape[-1]))
    w = weight(s, read, (0, 1))
    filters, q = s.b.tensors[w], s.quant(w)
    w = s.b.constant(filters.data.reshape(read.shape[0], 1, 1, -1), filters.name, q)  # type: ignore[union-attr]
    b = bias(s, s["bias"], rows, w, read.shape[0])
    ones: dict[str, Any] = {"strideH": 1, "strideW": 1, "dilationHFactor": 1, "dilationWFactor": 1}
    out = (1, 1, prod(shape[:-1]), read.shape[0])
    y = s.run("CONV_2D", [rows, w, b], out, padding="VALID", fusedActivationFunction=s.op.fused, **ones)
    return s.b.reshape(y, (*shape[:-1], read.shape[0]))
