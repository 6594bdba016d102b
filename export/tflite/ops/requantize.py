"""From one set of integers to another."""

from __future__ import annotations

from ..lower import Site, lowers


@lowers("packlight.requantize", integer=True)
def requantize(s: Site) -> None:
    """QUANTIZE on integers."""
    read = s["input"]
    order = s.order(read)
    s.put(s.b.convert(s.tensor(read, order), s.q), order)
