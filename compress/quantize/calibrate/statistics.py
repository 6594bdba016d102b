"""What calibration keeps of one tensor: its histogram and the extremes of each batch on average."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .histogram import Histogram

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass
class Statistics:
    """A stream of batches of one tensor. ``mean_low`` and ``mean_high`` are the batches' extremes, averaged."""

    histogram: Histogram = field(default_factory=Histogram)
    batches: int = 0
    mean_low: float = 0.0
    mean_high: float = 0.0

    def update(self, batch: NDArray[Any]) -> None:
        """Sees one batch."""
        if batch.size == 0:
            return
        self.histogram.update(batch)
        self.batches += 1
        self.mean_low += (float(batch.min()) - self.mean_low) / self.batches
        self.mean_high += (float(batch.max()) - self.mean_high) / self.batches

    def merge(self, other: Statistics) -> Statistics:
        """Both streams as one."""
        n = self.batches + other.batches
        share = other.batches / n if n else 0.0
        return Statistics(
            self.histogram.merge(other.histogram),
            n,
            self.mean_low + share * (other.mean_low - self.mean_low),
            self.mean_high + share * (other.mean_high - self.mean_high),
        )
