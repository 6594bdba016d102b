"""Reductions and what mixes a whole dimension: sum, mean, max, softmax, sort."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..index import Labels, move
from .registry import arguments, couples

if TYPE_CHECKING:
    from torch.fx import Node

    from ..coupling import Coupler

MIXING = (
    *("mean.dim", "mean.default", "amax.default", "amin.default", "max.dim", "min.dim", "max.default", "min.default"),
    *("var.correction", "var.dim", "std.dim", "std.correction", "argmax.default", "argmin.default", "prod.dim_int", "logsumexp.default"),
    *("linalg_vector_norm.default", "any.dim", "all.dim", "median.dim", "var_mean.correction", "var_mean.dim", "norm.Scalar"),
    *("norm.ScalarOpt_dim", "norm.ScalarOpt_dim_dtype"),
)
SUMS = ("sum.dim_IntList", "sum.default")
SAME_SHAPE = ("softmax.int", "_softmax.default", "log_softmax.int", "_log_softmax.default", "cumsum.default", "sort.default")


def _dims(node: Node, c: Coupler) -> tuple[Any, list[int], bool]:
    bound = arguments(node)
    x = next(v for v in bound.values() if hasattr(v, "op"))
    ndim = len(c.shape(x))
    dim = bound.get("dim")
    dims = list(range(ndim)) if dim is None or dim == [] else [int(d) % max(ndim, 1) for d in ([dim] if isinstance(dim, int) else dim)]
    return x, dims, bool(bound.get("keepdim", False))


def _reduced(labels: Labels, dims: list[int], keepdim: bool) -> Labels:
    return labels if keepdim else move(labels, lambda d: d - sum(k < d for k in dims))


@couples(*(f"aten.{name}" for name in MIXING))
def mixing(node: Node, c: Coupler) -> Any:
    """The result would change with every channel that goes, so the dimension stays."""
    x, dims, keepdim = _dims(node, c)
    labels = _reduced(c.freeze(c.labels(x), dims, f"reduced by {node.target}"), dims, keepdim)
    return (labels, labels) if c.shapes[node] and isinstance(c.shapes[node][0], tuple) else labels


@couples(*(f"aten.{name}" for name in SUMS))
def sums(node: Node, c: Coupler) -> Labels:
    """A channel that is gone adds nothing, so a sum over channels lets them go."""
    x, dims, keepdim = _dims(node, c)
    labels = c.labels(x)
    for field in labels:
        inside = [d for d in field.dims if d in dims]
        if inside and len(inside) < len(field.dims):
            labels = tuple(f for f in labels if f is not field) + c.freeze((field,), inside, "summed")
    return _reduced(tuple(f for f in labels if not set(f.dims) & set(dims)), dims, keepdim)


@couples(*(f"aten.{name}" for name in SAME_SHAPE), "aten.topk.default")
def normalised(node: Node, c: Coupler) -> Any:
    """Every value depends on the whole dimension, which stays."""
    bound = arguments(node)
    x = bound["self"]
    dim = int(bound["dim"]) % max(len(c.shape(x)), 1)
    labels = c.freeze(c.labels(x), [dim], f"mixed by {node.target}")
    return (labels, labels) if isinstance(c.shapes[node][0], tuple) else labels


@couples("aten.tril.default", "aten.triu.default")
def triangle(node: Node, c: Coupler) -> Labels:
    """What is zero depends on the places in the last two dimensions, which stay."""
    ndim = len(c.shape(node))
    return c.freeze(c.labels(arguments(node)["self"]), [ndim - 2, ndim - 1], "a triangle of this dimension is taken")


@couples("aten.nonzero.default")
def nonzero(node: Node, c: Coupler) -> Labels:
    """Places, whose number depends on every value: nothing of the operand goes."""
    x = arguments(node)["self"]
    return c.freeze(c.labels(x), range(len(c.shape(x))), "its nonzero places are counted")
