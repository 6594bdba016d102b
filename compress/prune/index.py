"""Index maps: which unit each channel index of a tensor belongs to, and how the maps follow a tensor's shape.

A *field* labels positions of a tensor: ``ids[i, j]`` is the unit of position ``(i, j)`` along ``dims``. Most fields cover one
dimension; a split of ``heads * width`` channels into two dimensions gives one field over both. A tensor's labels are fields over
disjoint dimensions; a dimension that no field covers (batch, height, width, a model input) is never pruned. Pure numpy.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Ids: TypeAlias = NDArray[np.int64]


@dataclasses.dataclass(frozen=True)
class Field:
    """Unit ids over ``dims`` (ascending); ``ids`` has the sizes of these dimensions."""

    dims: tuple[int, ...]
    ids: Ids

    def along(self, dim: int) -> Ids:
        """The ids as a matrix: ``dim`` first, everything else flattened."""
        return np.moveaxis(self.ids, self.dims.index(dim), 0).reshape(self.ids.shape[self.dims.index(dim)], -1)

    def spread(self, dims: Sequence[int]) -> Ids:
        """The ids with a length of one along the dimensions of ``dims`` that the field lacks."""
        shape = [self.ids.shape[self.dims.index(d)] if d in self.dims else 1 for d in dims]
        return self.ids.reshape(shape)


Labels: TypeAlias = tuple[Field, ...]


def line(dim: int, ids: Ids | None) -> Labels:
    """Labels of one dimension; none where it is never pruned."""
    return () if ids is None else (Field((dim,), ids),)


def simplify(field: Field) -> Field:
    """Drops dimensions along which the ids don't change; one dimension always stays."""
    for dim in field.dims[::-1]:
        if len(field.dims) > 1:
            axis = field.dims.index(dim)
            first = np.take(field.ids, [0], axis)
            if bool((field.ids == first).all()):
                field = Field(tuple(d for d in field.dims if d != dim), first.squeeze(axis))
    return field


def fields_of(value: Any) -> list[Field]:
    """All fields of what a node gives: a tensor's labels or several of them."""
    if isinstance(value, Field):
        return [value]
    return [f for item in value for f in fields_of(item)] if isinstance(value, tuple) else []


def covering(labels: Labels, dim: int) -> Field | None:
    """The field that covers ``dim``."""
    return next((f for f in labels if dim in f.dims), None)


def move(labels: Labels, new: Callable[[int], int]) -> Labels:
    """The labels after dimension ``d`` became dimension ``new(d)`` (permute, squeeze, unsqueeze)."""
    moved = []
    for field in labels:
        places = [new(d) for d in field.dims]
        order = sorted(range(len(places)), key=places.__getitem__)
        moved.append(Field(tuple(places[i] for i in order), np.transpose(field.ids, order)))
    return tuple(moved)


def take(labels: Labels, dim: int, indices: Ids) -> Labels:
    """The labels after ``indices`` were taken along ``dim``."""
    return tuple(Field(f.dims, np.take(f.ids, indices, f.dims.index(dim))) if dim in f.dims else f for f in labels)


def segments(old: Sequence[int], new: Sequence[int]) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """The smallest runs of dimensions with equal products: how a reshape regroups them.

    ``segments((2, 12, 5), (2, 3, 4, 5))`` is ``[((0,), (0,)), ((1,), (1, 2)), ((2,), (3,))]``.
    """
    runs: list[tuple[tuple[int, ...], tuple[int, ...]]] = []
    i = j = 0
    while i < len(old) or j < len(new):
        a, b = i, j
        left = old[i] if i < len(old) else 1
        right = new[j] if j < len(new) else 1
        i, j = min(i + 1, len(old)), min(j + 1, len(new))
        while left != right:
            if left < right:
                left, i = left * old[i], i + 1
            else:
                right, j = right * new[j], j + 1
        while i < len(old) and old[i] == 1 and (j >= len(new) or new[j] != 1):
            i += 1
        while j < len(new) and new[j] == 1 and (i >= len(old) or old[i] != 1):
            j += 1
        runs.append((tuple(range(a, i)), tuple(range(b, j))))
    return runs


def reshape(labels: Labels, old: Sequence[int], new: Sequence[int], conflict: Callable[[Field], None]) -> Labels:
    """The labels after a reshape from ``old`` to ``new``.

    Merging dimensions repeats ids, splitting one makes a field over several. Where two fields would have to share a dimension,
    the first wins and ``conflict`` is called with the other, which must then never be pruned.
    """
    runs = segments(old, new)
    taken: set[int] = set()
    result = []
    for field in labels:
        touched = [k for k, (before, _) in enumerate(runs) if set(before) & set(field.dims)]
        if taken & set(touched):
            conflict(field)
            continue
        taken |= set(touched)
        before = [d for k in touched for d in runs[k][0]]
        after = [d for k in touched for d in runs[k][1] if new[d] > 1]
        ids = np.broadcast_to(field.spread(before), [old[d] for d in before]).reshape([new[d] for d in after])
        result.append(simplify(Field(tuple(after), np.ascontiguousarray(ids))))
    return tuple(result)
