"""The interface of a criterion, and how the members of a group are reduced to one figure a unit."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from ....core.errors import RecipeError
from ....core.registry import Registry
from ..group import Group

if TYPE_CHECKING:
    from torch import Tensor

Scores = NDArray[np.float64]
Reduction = Literal["mean", "sum", "max", "first"]
Normalisation = Literal["none", "mean", "max", "sum", "rank"]


@dataclasses.dataclass(frozen=True)
class Slices:
    """What a criterion sees of one member: ``weight`` (units, elements), one row a unit, and ``gradient`` alike where it asked for it."""

    weight: NDArray[np.float32]
    role: str
    gradient: NDArray[np.float32] | None = None
    draw: np.random.Generator = dataclasses.field(default_factory=lambda: np.random.default_rng(0))


class Criterion(Protocol):
    """Higher is more important. ``roles``: which members speak; ``needs``: "weights" or "gradients" (then data is used)."""

    roles: tuple[str, ...]
    needs: Literal["weights", "gradients"]

    def __call__(self, slices: Slices) -> Scores:
        """One figure a unit, none negative."""


criteria: Registry[Criterion] = Registry("criterion", RecipeError)


def score(
    group: Group,
    criterion: Criterion,
    tensor: Callable[[str], Tensor],
    gradient: Callable[[str], Tensor] | None = None,
    *,
    draw: np.random.Generator,
    reduction: Reduction = "mean",
    normalise: Normalisation = "mean",
) -> Scores | None:
    """The units' figures, or None where no member of the group has a role that the criterion looks at."""
    parts: list[Scores] = []
    for member in group.members:
        if member.role in criterion.roles:
            weight = _rows(tensor(member.name), member.dim, member.indices)
            slope = None if gradient is None else _rows(gradient(member.name), member.dim, member.indices)
            parts.append(criterion(Slices(weight, member.role, slope, draw)).astype(np.float64))
    if not parts:
        return None
    return normalised(reduced(parts, reduction), normalise)


def reduced(parts: Sequence[Scores], how: Reduction) -> Scores:
    """One figure from those of several members."""
    table = np.stack(parts)
    if how == "first":
        return np.asarray(table[0])
    return np.asarray(table.sum(0) if how == "sum" else table.max(0) if how == "max" else table.mean(0))


def normalised(scores: Scores, how: Normalisation) -> Scores:
    """Figures that can be compared between groups: divided by their mean, maximum or sum, or replaced by their rank in (0, 1]."""
    if how == "none":
        return scores
    if how == "rank":
        return (np.argsort(np.argsort(scores, kind="stable")) + 1.0) / len(scores)
    scale = float(scores.sum() if how == "sum" else scores.max() if how == "max" else scores.mean())
    return scores / scale if scale > 0 else scores


def _rows(tensor: Tensor, dim: int, indices: NDArray[np.int64]) -> NDArray[np.float32]:
    values = np.moveaxis(tensor.detach().float().numpy(), dim, 0)
    return np.ascontiguousarray(values[indices.ravel()].reshape(len(indices), -1))
