"""The lowerings, one file a family; importing this package files them all."""

from . import (  # noqa: F401
    activation,
    arithmetic,
    conv,
    conv_transpose,
    gather,
    join,
    linear,
    matmul,
    norm,
    pad,
    pool,
    recurrent,
    reduce,
    requantize,
    reshape,
    resize,
    shuffle,
    slices,
    unary,
    unpool,
)
