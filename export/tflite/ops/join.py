"""Tensors put together."""

from __future__ import annotations

from ..layout import stored
from ..lower import Site, elementwise_order, lowers


@lowers("aten.cat.default", "aten.concat.default", transparent=True)
def cat(s: Site) -> None:
    """CONCATENATION; integer inputs come in the output's scale."""
    reads = [r for r in s["tensors"] if r.shape != (0,)]
    rank = len(s.out.shape)
    axis = s["dim"] % rank
    order = elementwise_order(s.b, reads, rank)
    q = s.out.q if s.integer else None
    tensors = [s.b.convert(s.tensor(r, order), q) if s.integer else s.tensor(r, order) for r in reads]
    shape = stored(s.out.shape, order)
    s.put(s.run("CONCATENATION", tensors, shape, q=q, axis=order.index(axis), fusedActivationFunction="NONE"), order)
