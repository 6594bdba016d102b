"""Tasks that answer with text: how many edits it takes to the truth, by its length."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ...tasks.measures.text import edits
from .result import Length, Text
from .values import mean_bca


def all_edits(answers: Sequence[str], truth: Sequence[str]) -> NDArray[np.float64]:
    """Edits of each sample (N,)."""
    return np.asarray([edits(a, t) for a, t in zip(answers, truth, strict=True)], np.float64)


def text(before: NDArray[np.float64], after: NDArray[np.float64], truth: Sequence[str], *, seed: int = 0) -> Text:
    """``before`` and ``after``: edits of each sample (N,). Rates are edits a hundred characters of the truth."""
    length = np.asarray([len(t) for t in truth])
    scale = 100.0 / max(1e-12, float(length.mean()))
    low, high = mean_bca((after - before) * scale, seed)
    rows = []
    for size in np.unique(length):
        mine = length == size
        per = 100.0 / (max(1, int(size)) * int(mine.sum()))
        rows.append(
            Length(length=int(size), n=int(mine.sum()), before=float(before[mine].sum() * per), after=float(after[mine].sum() * per))
        )
    return Text(
        n=len(length),
        before=float(before.mean() * scale),
        after=float(after.mean() * scale),
        rise=float((after - before).mean() * scale),
        ci95=(low, high),
        by_length=tuple(rows),
    )
