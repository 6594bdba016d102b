"""The lowerings, one file a family; importing this package files them all."""

from . import (  # noqa: F401
    activation,
    arithmetic,
    conv,
    join,
    linear,
    norm,
    pad,
    pool,
    reduce,
    requantize,
    reshape,
    slices,
)
