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
from .index import fields_of

Scores = NDArray[np.float64]
Mask = NDArray[np.bool_]
Scope = Literal["global", "layer", "isomorphic"]
FINEST = 40  # halvings of the interval


class Floors:
    """Sets of units of which one must stay: those of every slice of channels that a node gives, so that no tensor ends up empty."""

    def __init__(self, coupling: Coupling, groups: Sequence[Group]) -> None:
        kept = np.zeros(coupling.units, bool)
        kept[list(coupling.why)] = True
        owner = np.full(coupling.units, -1)
        for number, group in enumerate(groups):
            owner[group.units] = number
        sizes = np.array([len(g) for g in groups] or [0])
        found: dict[bytes, NDArray[np.int64]] = {}
        for value in coupling.values.values():
            for field in fields_of(value):
                units = np.unique(coupling.unit[field.ids])
                mine = owner[units]
                whole = np.bincount(mine[mine >= 0], minlength=len(sizes)) == sizes
                if not kept[units].any() and not (whole & (sizes > 0)).any():
                    found[units.tobytes()] = units
        self._sets = list(found.values())

    def mend(self, removed: Mask, importance: Scores) -> Mask:
        """Gives back the most important unit of every set that would be empty."""
        for units in self._sets:
            if removed[units].all():
                removed[units[np.argmax(importance[units])]] = False
        return removed


@dataclasses.dataclass(frozen=True)
class Limits:
    """``round_to``: a group keeps a multiple of it. ``most``: the largest share that may go from one group. ``least``: how many units each
    group keeps at least, in the groups' order, where that is more. ``steps``: what each keeps a multiple of, instead of ``round_to``.
    """

    round_to: int = 1
    most: float = 0.9
    least: tuple[int, ...] = ()
    steps: tuple[int, ...] = ()

    def step(self, number: int) -> int:
        """What group ``number`` keeps a multiple of."""
        return self.steps[number] if self.steps else self.round_to

    def floor(self, number: int, size: int) -> int:
        """The fewest units that group ``number`` of ``size`` units may keep."""
        least = self.least[number] if self.least else 0
        return min(size, max(1, least, int(np.ceil(size * (1 - self.most) - 1e-9))))


@dataclasses.dataclass(frozen=True)
class Allocator:
    """Chooses among the ``groups`` by their units' ``scores``. ``units`` is the number of units of the whole coupling.

    ``scope``: "layer" takes the same share of every group, "global" ranks the units of all together, "isomorphic" those of groups with
    equal ``kinds``, taking the same share of every kind.
    """

    groups: Sequence[Group]
    scores: Sequence[Scores]
    units: int
    limits: Limits
    scope: Scope
    floors: Floors
    kinds: Sequence[object] = ()

    def by_ratio(self, ratio: float) -> Mask:
        """The ``ratio`` least important units go."""
        removed = np.zeros(self.units, bool)
        importance = np.zeros(self.units)
        counts = self._counts(ratio)
        for number, (group, mine, count) in enumerate(zip(self.groups, self.scores, counts, strict=True)):
            gone = len(group) - _kept(len(group), count, self.limits.step(number), self.limits.floor(number, len(group)))
            removed[group.units[np.argsort(mine, kind="stable")[:gone]]] = True
            importance[group.units] = mine
        return self.floors.mend(removed, importance)

    def _counts(self, ratio: float) -> list[float]:
        if self.scope == "layer":
            return [ratio * len(g) for g in self.groups]
        kinds = list(self.kinds) if self.scope == "isomorphic" else [None] * len(self.groups)
        counts = [0.0] * len(self.groups)
        for kind in dict.fromkeys(kinds):
            mine = [i for i, other in enumerate(kinds) if other == kind]
            found = _global_counts([self.groups[i] for i in mine], [self.scores[i] for i in mine], ratio)
            for i, count in zip(mine, found, strict=True):
                counts[i] = count
        return counts

    def to_target(self, left: Callable[[Mask], float], target: float) -> Mask:
        """The smallest ratio with which ``left(removed)`` is at most ``target``, by halving; then units come back while it stays so.

        Raises RecipeError where the target can't be reached.
        """
        low, high = 0.0, 1.0
        best = self.by_ratio(1.0)
        if left(best) > target:
            least = f"the least possible is {left(best):.4g}"
            raise RecipeError(f"prune: {target:.4g} can't be reached, {least}; ask for more, protect less or raise most")
        for _ in range(FINEST):
            middle = (low + high) / 2
            removed = self.by_ratio(middle)
            if left(removed) <= target:
                high, best = middle, removed
            else:
                low = middle
        return self._give_back(best, left, target)

    def _give_back(self, removed: Mask, left: Callable[[Mask], float], target: float) -> Mask:
        """One step of each group, the most important units first, comes back where the target still holds."""
        steps = []
        for number, (group, mine) in enumerate(zip(self.groups, self.scores, strict=True)):
            gone, step = removed[group.units], self.limits.step(number)
            if gone.sum() >= step:
                back = np.argsort(np.where(gone, mine, -1.0), kind="stable")[-step:]
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


def _kept(size: int, gone: float, step: int, least: int) -> int:
    """How many units a group keeps: a multiple of ``step``, at least ``least`` (or one multiple)."""
    kept = max(size - round(gone), least)
    if step > 1:
        kept = min(size, max(step, round(kept / step) * step) if size >= step else size)
        while kept < least:
            kept = min(size, kept + step)
    return kept
