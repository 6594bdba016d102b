"""The same question asked of every class and every group: what did it lose?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from .paired import benjamini_hochberg, detectable, holm, loss_interval, mcnemar
from .result import ClassChange, Slice

LEAST = 30
"""Slices with fewer samples are not looked at when the worst is searched: one image would be more than three points."""


def whole(before: NDArray[Any], after: NDArray[Any], target: NDArray[Any]) -> Slice:
    """All samples as one slice."""
    return _slice("all", "whole", before == target, after == target)


def classes(
    before: NDArray[Any], after: NDArray[Any], target: NDArray[Any], names: Sequence[str], *, margin: float, alpha: float, checks: int
) -> tuple[ClassChange, ...]:
    """Every class that has samples, in order. ``margin`` (a share), ``alpha`` and the number of ``checks`` give what could be found."""
    was, now = before == target, after == target
    found = []
    for label in np.unique(target):
        mine = target == label
        recall = _slice(_name(names, label), "class", was[mine], now[mine])
        right_before, right_after = (before == label) == mine, (after == label) == mine
        power = detectable(recall.gained, recall.lost, recall.n, margin, alpha / max(1, checks))
        found.append(
            ClassChange(
                recall=recall,
                precision_before=_precision(before, mine, label),
                precision_after=_precision(after, mine, label),
                new_errors=int((right_before & ~right_after).sum()),
                mended_errors=int((~right_before & right_after).sum()),
                detectable_points=100 * power,
            )
        )
    corrected = _correct([c.recall for c in found])
    return tuple(msgspec.structs.replace(c, recall=r) for c, r in zip(found, corrected, strict=True))


def groups(before: NDArray[Any], after: NDArray[Any], target: NDArray[Any], group: NDArray[Any]) -> tuple[Slice, ...]:
    """Every value of ``group`` (one a sample), in order."""
    was, now = before == target, after == target
    return tuple(_correct([_slice(str(g), "group", was[group == g], now[group == g]) for g in np.unique(group)]))


def lengths(before: NDArray[Any], after: NDArray[Any], target: NDArray[Any]) -> tuple[Slice, ...]:
    """Texts by the length of the truth."""
    was, now, length = before == target, after == target, np.char.str_len(target)
    found = [(size, length == size) for size in np.unique(length)]
    return tuple(_correct([_slice(f"{size} characters", "length", was[mine], now[mine]) for size, mine in found]))


def worst(known: Sequence[Slice], crossed: Sequence[Slice] = (), least: int = LEAST) -> Slice | None:
    """The slice that lost most, by the lower end of its interval, so that chance in a small one doesn't win.

    Its ``p_holm`` and ``p_bh`` are corrected for all that were looked at.
    """
    looked = _correct([s for s in (*known, *crossed) if s.n >= least])
    return max(looked, key=lambda s: (s.ci95[0], s.loss), default=None)


def crossings(
    before: NDArray[Any], after: NDArray[Any], target: NDArray[Any], names: Sequence[str], group: NDArray[Any], least: int = LEAST
) -> tuple[Slice, ...]:
    """Every class within every group that has at least ``least`` samples."""
    was, now = before == target, after == target
    found = []
    for g in np.unique(group):
        for label in np.unique(target):
            mine = (group == g) & (target == label)
            if mine.sum() >= least:
                found.append(_slice(f"{_name(names, label)} in {g}", "class in group", was[mine], now[mine]))
    return tuple(found)


def _slice(name: str, kind: str, was: NDArray[Any], now: NDArray[Any]) -> Slice:
    n, lost, gained = len(was), int((was & ~now).sum()), int((~was & now).sum())
    test = mcnemar(lost, gained)
    return Slice(
        name=name,
        kind=kind,
        n=n,
        before=float(was.mean()),
        after=float(now.mean()),
        lost=lost,
        gained=gained,
        loss=(lost - gained) / n,
        ci95=loss_interval(lost, gained, n),
        p_exact=test.exact,
        p_mid=test.mid_p,
        p_holm=test.mid_p,
        p_bh=test.mid_p,
    )


def _correct(slices: list[Slice]) -> list[Slice]:
    p = [s.p_mid for s in slices]
    return [msgspec.structs.replace(s, p_holm=h, p_bh=b) for s, h, b in zip(slices, holm(p), benjamini_hochberg(p), strict=True)]


def _precision(answers: NDArray[Any], mine: NDArray[Any], label: Any) -> float | None:
    given = answers == label
    return float(mine[given].mean()) if given.any() else None


def _name(names: Sequence[str], label: Any) -> str:
    return names[int(label)] if 0 <= int(label) < len(names) else str(label)
