"""Tensors made in the graph, embeddings, and what has no channels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..index import Field, Labels, line
from .registry import arguments, couples, shrinks

if TYPE_CHECKING:
    from torch.fx import Node

    from ..coupling import Coupler
    from ..surgery import Surgeon

FILLED = ("aten.zeros.default", "aten.ones.default", "aten.full.default", "aten.empty.memory_format")
DRAWN = ("aten.rand.default", "aten.randn.default")
NEW = ("aten.new_zeros.default", "aten.new_ones.default", "aten.new_full.default", "aten.new_empty.default")


@couples(*FILLED, *DRAWN, *NEW)
def filled(node: Node, c: Coupler) -> Labels:
    """Every index is as good as another: new ids that follow whatever they meet. Symbolic sizes are batches and places, and stay."""
    shape = c.shape(node)
    sizes = arguments(node)["size"]
    return tuple(Field((d,), c.fresh(n)) for d, n in enumerate(shape) if n > 1 and not hasattr(sizes[d], "op"))


@shrinks(*FILLED, *DRAWN, *NEW)
def filled_sizes(node: Node, s: Surgeon) -> None:
    """New sizes."""
    s.sizes(node, "size")


@couples("aten.arange.default", "aten.arange.start", "aten.arange.start_step", "aten.linspace.default", "aten.scalar_tensor.default")
@couples("aten.eye.default", "aten.eye.m")
def counted(node: Node, c: Coupler) -> Labels:
    """Its values depend on its length, which stays."""
    return ()


@couples("aten.embedding.default")
def embedding(node: Node, c: Coupler) -> Labels:
    """Table (words, width): the words stay, the width is the last dimension of the result."""
    bound = arguments(node)
    weight, indices = bound["weight"], bound["indices"]
    c.freeze(c.labels(weight), [0], "rows of a table that is indexed")
    c.freeze(c.labels(indices), range(len(c.shape(indices))), "indices")
    c.role(weight, 1, "out")
    return line(len(c.shape(node)) - 1, c.line(weight, 1))


@couples("aten.index.Tensor")
def index(node: Node, c: Coupler) -> Labels:
    """Indexed dimensions stay; where the indexed ones stand together, the others keep their ids."""
    bound = arguments(node)
    x, indices = bound["self"], list(bound["indices"])
    used = [d for d, i in enumerate(indices) if i is not None]
    for i in indices:
        if i is not None:
            c.freeze(c.labels(i), range(len(c.shape(i))), "indices")
    labels = c.freeze(c.labels(x), used, "indexed by numbers")
    if used != list(range(used[0], used[-1] + 1)):
        for field in labels:
            c.keep(field.ids, "indexed by numbers")
        return ()
    grown = len(c.shape(node)) - (len(c.shape(x)) - len(used))
    return tuple(Field(tuple(d if d < used[0] else d - len(used) + grown for d in field.dims), field.ids) for field in labels)
