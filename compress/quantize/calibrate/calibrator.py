"""The contract of a calibrator: which part of what a tensor may hold is worth covering."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from ....core.errors import RecipeError
from ....core.registry import Registry

if TYPE_CHECKING:
    from .statistics import Statistics


class Calibrator(Protocol):
    """Chooses a range; values beyond it will be clipped."""

    def __call__(self, seen: Statistics, *, levels: int = 256, percentile: float = 99.99) -> tuple[float, float]:
        """(low, high) within the extremes seen and with zero inside. ``levels`` integers will cover it.

        ``percentile`` is read by the percentile calibrator alone.
        """


calibrators: Registry[Calibrator] = Registry("calibrator", RecipeError)


def extremes(seen: Statistics) -> tuple[float, float]:
    """All that was seen, and zero; (0, 0) where nothing was."""
    low, high = seen.histogram.low, seen.histogram.high
    return (min(low, 0.0), max(high, 0.0)) if low <= high else (0.0, 0.0)
