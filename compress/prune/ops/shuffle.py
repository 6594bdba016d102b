"""Channel shuffles (Zhang et al., 2018, "ShuffleNet", arXiv:1707.01083): reshape to (groups, n), transpose, flatten.

As a whole a shuffle is a permutation of channels, so any channels may go: what stands between is not held to whole rows or columns.
Where rows or columns are left anyway, the reshapes stay with new sizes; else an index_select with the permutation of what is left
takes their place::

    view(x, [N, g, n, H, W]) -> transpose(1, 2) -> view([N, C, H, W])      becomes      index_select(x, 1, [...])
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..index import Field, Ids, Labels, take
from .registry import arguments, couples, op_name, shrinks

if TYPE_CHECKING:
    from torch.fx import Node

    from ..coupling import Coupler
    from ..surgery import Surgeon

VIEWS = ("aten.view.default", "aten.reshape.default", "aten._unsafe_view.default", "aten.flatten.using_ints", "aten.unflatten.int")
TURNS = ("aten.transpose.int", "aten.permute.default", "aten.swapaxes.default")
COPIES = ("aten.contiguous.default", "aten.clone.default")


@couples("aten.channel_shuffle.default")
def channel_shuffle(node: Node, c: Coupler) -> Labels:
    """Channels (g, n) become (n, g)."""
    x = arguments(node)["self"]
    return take(c.labels(x), 1, _shuffled(node, c.shape(x)[1]))


def _shuffled(node: Node, size: int) -> Ids:
    return np.arange(size, dtype=np.int64).reshape(int(arguments(node)["groups"]), -1).T.ravel()


@shrinks("aten.channel_shuffle.default")
def shuffle_left(node: Node, s: Surgeon) -> None:
    """An index_select, unless whole rows or columns are left."""
    x = arguments(node)["self"]
    mask = s.kept(x, 1)
    table = np.asarray(mask.reshape(int(arguments(node)["groups"]), -1))
    if not np.array_equal(table, table.any(1, keepdims=True) & table.any(0, keepdims=True)):
        s.select(node, x, 1, _positions(mask, _shuffled(node, len(mask))))
    elif not mask.all():
        s.set(node, "groups", int(table.any(1).sum()))


def _positions(mask: NDArray[np.bool_], order: Ids) -> Ids:
    """Where the kept channels of ``order`` lie among those that are left."""
    return np.asarray((np.cumsum(mask) - 1)[order[mask[order]]], dtype=np.int64)


def find(node: Node, shapes: dict[Node, tuple[int, ...]]) -> tuple[list[Node], int, Ids] | None:
    """Where ``node`` starts a shuffle: its nodes, the dimension, and the permutation."""
    if op_name(node) not in VIEWS:
        return None
    source = arguments(node)["self"]
    chain, turned = [node], False
    while shapes[chain[-1]] != shapes[source] or not turned:
        if len(chain[-1].users) != 1 or len(chain) > 6:
            return None
        following = next(iter(chain[-1].users))
        name = op_name(following) if following.op == "call_function" else ""
        if name not in (*VIEWS, *TURNS, *COPIES):
            return None
        turned = turned or name in TURNS
        chain.append(following)
    found = _permutation(chain, shapes, shapes[source])
    return None if found is None else (chain, *found)


def _permutation(chain: list[Node], shapes: dict[Node, tuple[int, ...]], shape: tuple[int, ...]) -> tuple[int, Ids] | None:
    """The one dimension that the chain permutes and how, seen on the numbers of the elements; None where it does more."""
    before = np.arange(np.prod(shape), dtype=np.int64).reshape(shape)
    after = before
    for node in chain:
        bound = arguments(node)
        if op_name(node) == "aten.permute.default":
            after = np.transpose(after, [int(d) for d in bound["dims"]])
        elif op_name(node) in TURNS:
            after = np.swapaxes(after, *(int(bound[k]) for k in bound if k != "self"))
        elif op_name(node) in VIEWS:
            after = after.reshape(shapes[node])
    for dim in range(1, len(shape)):
        first = [slice(None) if d == dim else 0 for d in range(len(shape))]
        order = (after[tuple(first)] // int(np.prod(shape[dim + 1 :]))) % shape[dim]
        if len(np.unique(order)) == shape[dim] and np.array_equal(after, np.take(before, order, dim)):
            return dim, order
    return None


def mend(chain: list[Node], dim: int, order: Ids, s: Surgeon) -> bool:
    """Where what is left is not rows or columns, makes the chain's last node an index_select; True when it did."""
    inner = [field for node in chain for field in s.labels(node) if len(field.dims) > 1]
    if all(_rectangular(field, s) for field in inner):
        return False
    source = arguments(chain[0])["self"]
    mask = s.kept(source, dim)
    s.select(chain[-1], source, dim, _positions(mask, order))
    for node in reversed(chain[:-1]):
        s.erase(node)
    return True


def _rectangular(field: Field, s: Surgeon) -> bool:
    alive = s.field_mask(field)
    whole = np.ones_like(alive)
    for axis in range(alive.ndim):
        others = tuple(a for a in range(alive.ndim) if a != axis)
        whole &= alive.any(others, keepdims=True)
    return bool((alive == whole).all())
