"""Choosing ranges from what calibration saw. Pure arithmetic on statistics; each calibrator is a small file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .calibrator import Calibrator, calibrators

if TYPE_CHECKING:
    from .statistics import Statistics

__all__ = ["Calibrator", "calibrate", "calibrators", "register"]


def register() -> None:
    """Makes the calibrators of this folder known."""
    from . import average, entropy, minmax, mse, percentile  # noqa: F401


def calibrate(name: str, seen: Statistics, *, levels: int = 256, percentile: float = 99.99) -> tuple[float, float]:
    """The range that the calibrator ``name`` chooses; an unknown name raises RecipeError with the known ones."""
    register()
    low, high = calibrators.get(name)(seen, levels=levels, percentile=percentile)
    return float(low), float(high)
