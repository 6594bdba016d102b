"""Allocation by measured time: the least important units for the milliseconds that they cost.

    while T(left) > target:    remove, of the group with the least (importance lost / seconds saved), its next step of units

The greedy rule for a knapsack, as in Shen et al., 2022, "Structural Pruning via Latency-Saliency Knapsack" (arXiv:2210.06659), whose units
are also groups of channels as wide as the device's vectors.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from ...core.errors import RecipeError
from .allocate import Floors, Limits, Mask, Scores
from .group import Group
from .index import Ids
from .timed import Seconds


@dataclasses.dataclass
class _Line:
    """A group on its way: its units from the least important on, how many are gone, and what the next step would bring."""

    units: Ids
    scores: Scores
    least: int
    layers: list[int]
    each: int = 1
    gone: int = 0
    rate: float = np.inf
    step: int = 0
    stale: bool = True


def shape_to(
    groups: Sequence[Group], scores: Sequence[Scores], units: int, limits: Limits, floors: Floors, seconds: Seconds, target_s: float
) -> Mask:
    """Which units go, so that ``seconds`` is at most ``target_s``. A group keeps a multiple of ``limits.step``.

    Raises RecipeError where the target can't be reached.
    """
    removed = np.zeros(units, bool)
    importance = np.zeros(units)
    lines = []
    for number, (group, mine) in enumerate(zip(groups, scores, strict=True)):
        order = np.argsort(mine, kind="stable")
        importance[group.units] = mine
        each = limits.step(number)
        least = max(min(each, len(group)), limits.floor(number, len(group)))
        lines.append(_Line(group.units[order], np.asarray(mine)[order], least, seconds.touching(group.units), each))
    now = seconds(removed)
    while now > target_s:
        for line in lines:
            if line.stale:
                _look_ahead(line, removed, seconds, floors, importance)
        best = min(lines, key=lambda line: line.rate, default=None)
        if best is None or not np.isfinite(best.rate):
            told = f"{target_s * 1e3:.4g} ms can't be reached, the least possible is {now * 1e3:.4g} ms"
            raise RecipeError(f"prune: {told}; ask for more, protect less or raise most")
        removed[best.units[best.gone : best.gone + best.step]] = True
        best.gone += best.step
        touched = set(best.layers)
        for line in lines:
            line.stale = line.stale or line is best or bool(touched.intersection(line.layers))
        now = seconds(removed)
    return removed


def _look_ahead(line: _Line, removed: Mask, seconds: Seconds, floors: Floors, importance: Scores) -> None:
    """The next stop at which a multiple of ``line.each`` is left and time was saved; steps that save nothing are taken along."""
    line.stale, line.rate, line.step = False, np.inf, 0
    before = seconds.layers(removed, line.layers)
    left = len(line.units) - line.gone
    step = (left % line.each) or line.each
    while left - step >= line.least:
        trial = removed.copy()
        trial[line.units[line.gone : line.gone + step]] = True
        if not np.array_equal(floors.mend(trial.copy(), importance), trial):
            return
        saved = before - seconds.layers(trial, line.layers)
        if saved > 0:
            lost = float(line.scores[line.gone : line.gone + step].sum())
            line.rate, line.step = lost / saved, step
            return
        step += line.each
