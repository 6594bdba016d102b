"""Pooling and resizing: height, width and depth change and can't be pruned, channels pass."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..index import Labels
from .registry import arguments, couples

if TYPE_CHECKING:
    from torch.fx import Node

    from ..coupling import Coupler


def _names() -> tuple[str, ...]:
    names = []
    for d in (1, 2, 3):
        pools = ("max_pool", "avg_pool", "adaptive_avg_pool", "_adaptive_avg_pool", "adaptive_max_pool")
        names += [f"aten.{pool}{d}d.default" for pool in pools]
    for kind in ("nearest1d", "nearest2d", "nearest3d", "_nearest_exact1d", "_nearest_exact2d", "_nearest_exact3d"):
        names += [f"aten.upsample_{kind}.{o}" if kind[0] != "_" else f"aten._upsample{kind}.{o}" for o in ("default", "vec")]
    for kind in ("linear1d", "bilinear2d", "trilinear3d", "bicubic2d"):
        names += [f"aten.upsample_{kind}.{o}" for o in ("default", "vec")]
    names += [f"aten._upsample_{kind}_aa.{o}" for kind in ("bilinear2d", "bicubic2d") for o in ("default", "vec")]
    return tuple(names)


@couples(*_names(), "aten.max_pool1d_with_indices.default", "aten.max_pool2d_with_indices.default", "aten.max_pool3d_with_indices.default")
def spatial(node: Node, c: Coupler) -> Any:
    """Everything behind batch and channels is frozen."""
    x = next(v for v in arguments(node).values() if hasattr(v, "op"))
    ndim = len(c.shape(x))
    dims = _dimensions(str(node.target))
    labels = c.freeze(c.labels(x), range(ndim - dims, ndim), "height, width or depth")
    several = isinstance(c.shapes[node][0], tuple)
    return (labels, labels) if several else labels


def _dimensions(name: str) -> int:
    return next(d for d in (3, 2, 1) if f"{d}d" in name)


@couples("aten.max_unpool2d.default", "aten.max_unpool3d.default")
def unpool(node: Node, c: Coupler) -> Labels:
    """Values go back to where a pooling found them: the channels of the indices are those of the values."""
    bound = arguments(node)
    x, indices = bound["self"], bound["indices"]
    ndim = len(c.shape(x))
    dims = range(ndim - _dimensions(str(node.target)), ndim)
    return c.freeze(c.merge(c.shape(x), [(c.shape(t), c.labels(t)) for t in (x, indices)]), dims, "height, width or depth")


@couples("aten.grid_sampler.default", "aten.grid_sampler_2d.default", "aten.grid_sampler_3d.default")
def grid_sampler(node: Node, c: Coupler) -> Labels:
    """The grid's last dimension is a place and stays."""
    bound = arguments(node)
    x, grid = bound["input"], bound["grid"]
    c.freeze(c.labels(grid), range(len(c.shape(grid))), "places to sample at")
    return c.freeze(c.labels(x), range(2, len(c.shape(x))), "height, width or depth")
