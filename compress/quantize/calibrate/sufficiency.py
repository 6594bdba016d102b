"""Would another draw of calibration data have given other scales?

The calibration data are seen in two halves. With the scales a and b that each half gives, one value's relative difference is

    d = |a - b| / ((a + b) / 2)

Each half has n / 2 samples; two draws of n would differ by about d / sqrt(2), as the spread of an estimate falls with the square root
of its samples. Rounding noise grows with the square of the scale, so a tenth of that difference costs a fifth of a dB: draws are
enough where nine in ten values differ by at most ``TOLERANCE``. From the same law follows how many would be.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

TOLERANCE = 0.05


@dataclass(frozen=True)
class Sufficiency:
    """``spread``: the difference that two draws of ``samples`` would have, not exceeded by nine in ten scales; ``worst``: by all.
    ``enough`` samples keep it within the tolerance (an estimate; at least 32)."""

    samples: int
    spread: float
    worst: float
    enough: int

    @property
    def ok(self) -> bool:
        return self.samples >= self.enough


def sufficiency(first: Sequence[float], second: Sequence[float], samples: int, tolerance: float = TOLERANCE) -> Sufficiency:
    """From the scales of two halves of ``samples`` samples, value by value."""
    a, b = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if a.size == 0:
        return Sufficiency(samples, 0.0, 0.0, min(samples, 32))
    difference = np.abs(a - b) / ((a + b) / 2) / math.sqrt(2.0)
    spread = float(np.quantile(difference, 0.9, method="higher"))
    enough = max(32, math.ceil(samples * (spread / tolerance) ** 2))
    return Sufficiency(samples, round(spread, 4), round(float(difference.max()), 4), enough)
