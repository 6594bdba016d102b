"""Allocation: how many units go, and from where."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ...core.errors import RecipeError
from .coupling import Coupling
from .group import Group

Scores = NDArray[np.float64]
Mask = NDArray[np.bool_]
Scope = Literal["global", "layer"]
FINEST = 40  # halvings of the interval


class Price:
    """What is left of the multiply-accumulates and the parameters for any choice of units."""

    def __init__(self, coupling: Coupling) -> None:
        self._coupling = coupling
        self._costs = [(cost.macs, [coupling.unit[ids] for ids in cost.dims]) for cost in coupling.costs]
        self._weights = [
            (np.prod(_sizes(coupling, name), dtype=np.float64), [coupling.unit[f.ids] for f in labels])
            for name, labels in coupling.weights.items()
            if _is_parameter(coupling, name)
        ]

    def macs(self, removed: Mask) -> float:
        """Multiply-accumulates of one sample."""
        return _total(self._costs, removed)

    def params(self, removed: Mask) -> float:
        """Number of parameters."""
        return _total(self._weights, removed)


def _total(terms: Sequence[tuple[float, list[NDArray[np.int64]]]], removed: Mask) -> float:
    return float(sum(base * np.prod([1 - removed[ids].mean() for ids in dims]) for base, dims in terms))


def _sizes(coupling: Coupling, name: str) -> tuple[int, ...]:
    from .surgery import tensor_of

    return tuple(tensor_of(coupling.graph, name).shape)


def _is_parameter(coupling: Coupling, name: str) -> bool:
    import torch

    from .surgery import tensor_of

    return isinstance(tensor_of(coupling.graph, name), torch.nn.Parameter)


@dataclasses.dataclass(frozen=True)
class Limits:
    """``round_to``: a group keeps a multiple of it. ``most``: the largest share that may go from one group."""

    round_to: int = 1
    most: float = 0.9


def by_ratio(groups: Sequence[Group], scores: Sequence[Scores], units: int, ratio: float, limits: Limits, scope: Scope) -> Mask:
    """The ``ratio`` least important units go: of each group, or of all together."""
    removed = np.zeros(units, bool)
    counts = [ratio * len(g) for g in groups] if scope == "layer" else _global_counts(groups, scores, ratio)
    for group, mine, count in zip(groups, scores, counts, strict=True):
        gone = len(group) - _kept(len(group), count, limits)
        removed[group.units[np.argsort(mine, kind="stable")[:gone]]] = True
    return removed


def to_target(
    groups: Sequence[Group],
    scores: Sequence[Scores],
    units: int,
    left: Callable[[Mask], float],
    target: float,
    limits: Limits,
    scope: Scope,
) -> Mask:
    """The smallest ratio with which ``left(removed)`` is at most ``target``, by halving; then units are given back while it stays so.

    Raises RecipeError where the target can't be reached.
    """
    low, high = 0.0, 1.0
    best = by_ratio(groups, scores, units, 1.0, limits, scope)
    if left(best) > target:
        raise RecipeError(
            f"prune: {target:.4g} can't be reached, the least possible is {left(best):.4g}; ask for more, protect less or lower round-to"
        )
    for _ in range(FINEST):
        middle = (low + high) / 2
        removed = by_ratio(groups, scores, units, middle, limits, scope)
        if left(removed) <= target:
            high, best = middle, removed
        else:
            low = middle
    return _give_back(groups, scores, best, left, target, limits)


def _give_back(
    groups: Sequence[Group], scores: Sequence[Scores], removed: Mask, left: Callable[[Mask], float], target: float, limits: Limits
) -> Mask:
    """One step of each group, the most important units first, comes back where the target still holds."""
    steps = []
    for group, mine in zip(groups, scores, strict=True):
        gone = removed[group.units]
        if gone.sum() >= limits.round_to:
            back = np.argsort(np.where(gone, mine, -1.0), kind="stable")[-limits.round_to :]
            steps.append((float(mine[back].mean()), group.units[back]))
    for _, units in sorted(steps, key=lambda step: -step[0]):
        trial = removed.copy()
        trial[units] = False
        if left(trial) <= target:
            removed = trial
    return removed


def _global_counts(groups: Sequence[Group], scores: Sequence[Scores], ratio: float) -> list[float]:
    """How many of each group are among the ``ratio`` least important of all; equal figures in the groups' order."""
    if not groups:
        return []
    owner = np.concatenate([np.full(len(g), i) for i, g in enumerate(groups)])
    order = np.argsort(np.concatenate(list(scores)), kind="stable")
    gone = owner[order[: round(ratio * len(owner))]]
    return [float(n) for n in np.bincount(gone, minlength=len(groups))]


def _kept(size: int, gone: float, limits: Limits) -> int:
    """How many units a group keeps: a multiple of ``round_to``, at least one (or one multiple), at least 1 - ``most`` of them."""
    least = max(1, int(np.ceil(size * (1 - limits.most) - 1e-9)))
    kept = max(size - round(gone), least)
    step = limits.round_to
    if step > 1:
        kept = min(size, max(step, round(kept / step) * step) if size >= step else size)
    return kept
