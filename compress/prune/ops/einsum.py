"""Einstein sums: each letter is one dimension, the same in every operand that has it."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

from ....core.bundle import unsupported
from ..index import Field, Ids, Labels, covering
from .registry import arguments, couples

if TYPE_CHECKING:
    from torch.fx import Node

    from ..coupling import Coupler


@couples("aten.einsum.default")
def einsum(node: Node, c: Coupler) -> Labels:
    """Letters that are summed let channels go (they add nothing), the others stand in the result."""
    bound = arguments(node)
    equation, tensors = str(bound["equation"]).replace(" ", ""), bound["tensors"]
    if "." in equation or "->" not in equation:
        raise unsupported("prune", node, f"its equation '{equation}' leaves dimensions unnamed", "write every letter and the result")
    left, out = equation.split("->")
    terms = left.split(",")
    batch = {letter for letter in out if all(letter in letters for letters in terms)}
    ids: dict[str, Ids | None] = {}
    sizes: dict[str, int] = {}
    for letters, tensor in zip(terms, tensors, strict=True):
        labels = _apart(c, tensor, letters, batch)
        for dim, letter in enumerate(letters):
            size = c.shape(tensor)[dim]
            if size == 1:
                sizes.setdefault(letter, 1)
                continue
            field = covering(labels, dim)
            mine = None if field is None else field.ids if len(field.dims) == 1 else c.line(tensor, dim)
            if letter in ids:
                c.join(ids[letter], mine, "goes together with a dimension that is never pruned")
                mine = mine if ids[letter] is not None else None
            ids[letter], sizes[letter] = mine, size
    c.cost(node, prod(sizes.values()) / c.batch, *ids.values())
    fields = [Field((dim,), found) for dim, letter in enumerate(out) if (found := ids.get(letter)) is not None]
    return tuple(fields)


def _apart(c: Coupler, tensor: Node, letters: str, batch: set[str]) -> Labels:
    """A field over heads and their width follows one of them, as the coupler was told (``matrix.py`` does the same for products)."""
    result: list[Field] = []
    for field in c.labels(tensor):
        shared, own = [d for d in field.dims if letters[d] in batch], [d for d in field.dims if letters[d] not in batch]
        drop = (own if c.attention == "heads" else [*shared, *own[:-1]]) if shared and own else own[:-1]
        result += c.freeze((field,), drop, "einsum")
    return tuple(result)
