"""Matrix products: linear layers, products of two activations, attention."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

from ..index import Field, Ids, Labels, covering, line
from .registry import arguments, couples, shrinks

if TYPE_CHECKING:
    from torch.fx import Node

    from ..coupling import Coupler
    from ..surgery import Surgeon


@couples("aten.linear.default")
def linear(node: Node, c: Coupler) -> Labels:
    """Weight (out, in): the last dimension of the input is what is summed over."""
    bound = arguments(node)
    x, weight, bias = bound["input"], bound["weight"], bound["bias"]
    last = len(c.shape(x)) - 1
    c.join(c.line(x, last), c.line(weight, 1), "inputs of a linear layer come from a dimension that is never pruned")
    c.role(weight, 0, "out")
    c.role(weight, 1, "in")
    if bias is not None:
        c.join(c.line(bias, 0), c.line(weight, 0))
        c.role(bias, 0, "shift")
    c.cost(node, prod(c.shape(weight)) * prod(c.shape(x)[:last]) / c.batch, c.line(weight, 0), c.line(weight, 1))
    return (*(f for f in c.labels(x) if last not in f.dims), *line(last, c.line(weight, 0)))


@couples("aten.matmul.default", "aten.mm.default", "aten.bmm.default")
def matmul(node: Node, c: Coupler) -> Labels:
    """``(..., m, k) @ (..., k, n)``; the dimensions before are broadcast."""
    bound = arguments(node)
    return product(node, c, bound["self"], bound["other"] if "other" in bound else bound["mat2"])


def product(node: Node, c: Coupler, a: Node, b: Node) -> Labels:
    """The labels of a matrix product. ``a`` and ``b`` may be vectors.

    A field over a batch dimension and a matrix dimension (heads and their width) is made to follow one of them, as the coupler was told.
    """
    ashape, bshape, out = c.shape(a), c.shape(b), len(c.shape(node))
    first, second = _apart(c, c.labels(a), len(ashape)), _apart(c, c.labels(b), len(bshape))
    inner = _ids(second, max(len(bshape) - 2, 0))
    c.join(_ids(first, len(ashape) - 1), inner, "summed with a dimension that is never pruned")
    rows = _ids(first, len(ashape) - 2) if len(ashape) > 1 else None
    columns = _ids(second, len(bshape) - 1) if len(bshape) > 1 else None
    matrix = (len(ashape) > 1) + (len(bshape) > 1)
    batch = c.merge(
        c.shape(node)[: out - matrix],
        [(shape[:-2], tuple(f for f in labels if max(f.dims) < len(shape) - 2)) for shape, labels in ((ashape, first), (bshape, second))],
    )
    c.cost(node, prod(c.shape(node)) * ashape[-1] / c.batch, inner, rows, columns, *(f.ids for f in batch))
    where = out - 1 - (len(bshape) > 1)
    return (*batch, *line(where, rows), *line(out - 1, columns))


def _ids(labels: Labels, dim: int) -> Ids | None:
    field = covering(labels, dim)
    return None if field is None else field.ids


def _apart(c: Coupler, labels: Labels, ndim: int) -> Labels:
    """No field covers both a batch and a matrix dimension, or both matrix dimensions."""
    result: list[Field] = []
    for field in labels:
        batch, matrix = [d for d in field.dims if d < ndim - 2], [d for d in field.dims if d >= ndim - 2]
        drop = (matrix if c.attention == "heads" else [*batch, *matrix[:-1]]) if batch and matrix else matrix[:-1]
        result += c.freeze((field,), drop, "matrix product")
    return tuple(result)


@couples("aten.scaled_dot_product_attention.default")
def attention(node: Node, c: Coupler) -> Labels:
    """``softmax(q k^T / sqrt(width) + mask) v``: q (..., L, E), k (..., S, E), v (..., S, V). Heads, or widths, or both apart."""
    bound = arguments(node)
    q, k, v = (bound[name] for name in ("query", "key", "value"))
    last = len(c.shape(q)) - 1
    parts = []
    for tensor in (q, k, v):
        labels = _apart(c, c.labels(tensor), last + 1)
        labels = c.freeze(labels, [last - 1], "tokens of an attention")
        if c.module and tensor is not v and bound.get("scale") is None:
            labels = c.freeze(labels, [last], "the module's attention divides by the root of this width")
        parts.append(labels)
    if bound.get("enable_gqa") and c.shape(q)[-3] != c.shape(k)[-3]:
        parts = [c.freeze(labels, range(last - 1), "heads that share keys") for labels in parts]
    c.join(_ids(parts[0], last), _ids(parts[1], last), "summed with a dimension that is never pruned")
    shapes = [c.shape(t)[:-2] for t in (q, k, v)]
    heads = [tuple(f for f in labels if max(f.dims) < last - 1) for labels in parts]
    operands = list(zip(shapes, heads, strict=True))
    mask = bound.get("attn_mask")
    if mask is not None:
        operands.append((c.shape(mask)[:-2], tuple(f for f in c.freeze(c.labels(mask), (), "") if max(f.dims) < len(c.shape(mask)) - 2)))
        c.freeze(c.labels(mask), [len(c.shape(mask)) - 1, len(c.shape(mask)) - 2], "tokens of an attention")
    batch = c.merge(c.shape(node)[:-2], operands)
    scores = prod(c.shape(q)[:-1]) * c.shape(k)[-2] / c.batch
    c.cost(node, scores * c.shape(q)[-1], _ids(parts[0], last), *(f.ids for f in batch))
    c.cost(node, scores * c.shape(v)[-1], _ids(parts[2], last), *(f.ids for f in batch))
    return (*batch, *line(last, _ids(parts[2], last)))


@shrinks("aten.scaled_dot_product_attention.default")
def attention_scale(node: Node, s: Surgeon) -> None:
    """The scale stays that of the full width."""
    bound = arguments(node)
    if bound.get("scale") is None:
        s.set(node, "scale", float(s.shape(bound["query"])[-1]) ** -0.5)
