"""The interface of a criterion, and how figures of several members become one a unit and comparable between groups."""

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

    from .evidence import Evidence

Scores = NDArray[np.float64]
Reduction = Literal["mean", "sum", "max", "first"]
Normalisation = Literal["none", "mean", "max", "sum", "rank"]
Needs = Literal["weights", "images", "labels", "curvature"]


@dataclasses.dataclass(frozen=True)
class Slices:
    """One member of a group: ``weight`` (units, elements), one row a unit; ``role``: what the dimension is ("out", "in", "scale", ...)."""

    weight: NDArray[np.float32]
    role: str


@dataclasses.dataclass(frozen=True)
class View:
    """What a criterion sees of a group.

    ``gates`` (samples, units) and ``energy`` (units,) are what images tell (``evidence.Evidence``), ``curvature`` (2, units) what first and
    second derivatives of the loss do (``curvature.py``); None where it asked for none.
    """

    members: tuple[Slices, ...]
    size: int
    draw: np.random.Generator
    reduction: Reduction = "mean"
    gates: NDArray[np.float32] | None = None
    energy: Scores | None = None
    curvature: Scores | None = None

    def each(self, roles: Sequence[str], figure: Callable[[NDArray[np.float64]], Scores]) -> Scores | None:
        """``figure`` of every member with one of these roles, reduced; None where there is none."""
        parts = [figure(m.weight.astype(np.float64)) for m in self.members if m.role in roles]
        return reduced(parts, self.reduction) if parts else None


class Criterion(Protocol):
    """Higher is more important. ``needs``: the weights alone, images too, images with labels, or second derivatives on them."""

    needs: Needs

    def __call__(self, view: View) -> Scores | None:
        """One figure a unit, none negative; None where it has nothing to say about the group."""


criteria: Registry[Criterion] = Registry("criterion", RecipeError)


def view_of(
    group: Group,
    tensor: Callable[[str], Tensor],
    draw: np.random.Generator,
    reduction: Reduction,
    evidence: Evidence | None,
    curvature: Scores | None = None,
) -> View:
    """What the criterion sees."""
    members = tuple(Slices(_rows(tensor(m.name), m.dim, m.indices), m.role) for m in group.members)
    if curvature is not None:
        return View(members, len(group), draw, reduction, curvature=curvature[:, group.units])
    if evidence is None:
        return View(members, len(group), draw, reduction)
    return View(members, len(group), draw, reduction, evidence.gates[:, group.units], evidence.energy[group.units])


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
