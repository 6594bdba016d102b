"""One small file an operator family; ``registry.py`` says how to add one."""

from . import convolution, create, einsum, elementwise, matrix, norm, recurrent, reduce, shape, shuffle, spatial, written
from .registry import arguments, couple_rules, op_name, shrink_rules

__all__ = [
    "arguments",
    "convolution",
    "couple_rules",
    "create",
    "einsum",
    "elementwise",
    "matrix",
    "norm",
    "op_name",
    "recurrent",
    "reduce",
    "shape",
    "shrink_rules",
    "shuffle",
    "spatial",
    "written",
]
