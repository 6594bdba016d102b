"""The converters, one family a file; importing this room files them all. ``refused`` says why the rest isn't there."""

from __future__ import annotations

from . import activation, arithmetic, compare, convolution, index, linear, normalise, pad, pool, recurrent, reduce, resize, shape, softmax

__all__ = [
    "activation",
    "arithmetic",
    "compare",
    "convolution",
    "index",
    "linear",
    "normalise",
    "pad",
    "pool",
    "recurrent",
    "reduce",
    "resize",
    "shape",
    "softmax",
]
