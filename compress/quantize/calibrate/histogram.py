"""A histogram of a stream whose range isn't known beforehand: bounded memory, exact merging, no order.

Bins are ``2**exponent`` wide and their edges lie on multiples of that width. When values fall outside, the width doubles and
neighbouring bins are added up: no count is ever split, so the histogram of a stream is the same in whatever order or
pieces it was seen, and merging two is addition. At most ``BINS`` bins are kept (32 KiB of counts a tensor).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

BINS = 4096
_FINEST = -126  # the exponent of the least normal float32
_CHUNK = 1 << 18  # values counted at once: the memory beside the counts is a few MiB whatever comes
_BITS = 22  # so many bits number a bin at most


def _empty() -> NDArray[np.int64]:
    return np.zeros(0, np.int64)


@dataclass
class Histogram:
    """Counts of finite values. Bin i holds ``[(start + i) 2**exponent, (start + i + 1) 2**exponent)``.

    ``low`` and ``high`` are the exact extremes; ``zeros`` counts exact zeros apart (padding and ReLU make them common, and
    quantization costs them nothing); ``skipped`` counts infinities and NaNs.
    """

    exponent: int = _FINEST
    start: int = 0
    counts: NDArray[np.int64] = field(default_factory=_empty)
    low: float = math.inf
    high: float = -math.inf
    zeros: int = 0
    skipped: int = 0

    @property
    def total(self) -> int:
        """How many values were counted, zeros included."""
        return int(self.counts.sum()) + self.zeros

    def update(self, values: NDArray[Any]) -> None:
        """Counts ``values`` (any shape, any float type)."""
        x = np.asarray(values, dtype=np.float32).ravel()
        for start in range(0, x.size, _CHUNK):
            self._update(x[start : start + _CHUNK])

    def _update(self, x: NDArray[np.float32]) -> None:
        if x.size == 0:
            return
        low, high = float(x.min()), float(x.max())
        if not (math.isfinite(low) and math.isfinite(high)):
            finite = x[np.isfinite(x)]
            self.skipped += x.size - finite.size
            self._update(finite)
            return
        self.low, self.high = min(self.low, low), max(self.high, high)
        nonzero = x[x != 0] if low <= 0 <= high else x
        self.zeros += x.size - nonzero.size
        if nonzero.size == 0:
            return
        self._cover(low, high)
        index = np.floor(nonzero * np.float64(2.0**-self.exponent)).astype(np.int64) - self.start
        self.counts += np.bincount(index, minlength=self.counts.size)

    def merge(self, other: Histogram) -> Histogram:
        """The histogram of both streams."""
        out = Histogram(self.exponent, self.start, self.counts.copy(), self.low, self.high, self.zeros, self.skipped)
        out.zeros += other.zeros
        out.skipped += other.skipped
        out.low, out.high = min(out.low, other.low), max(out.high, other.high)
        if other.counts.size:
            out._cover(*other._edges())
            fine = other._coarser(out.exponent)
            at = fine.start - out.start
            out.counts[at : at + fine.counts.size] += fine.counts
        return out

    def centres(self) -> NDArray[np.float64]:
        """The middle of each bin, kept within the exact extremes."""
        width = 2.0**self.exponent
        middle = (self.start + np.arange(self.counts.size) + 0.5) * width
        return np.asarray(np.clip(middle, self.low, self.high) if self.counts.size else middle, np.float64)

    def points(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Values and their counts, ascending: the bins that hold anything, and zero."""
        x, n = self.centres(), self.counts.astype(np.float64)
        full = n > 0
        x, n = x[full], n[full]
        if self.zeros:
            at = int(np.searchsorted(x, 0.0))
            x, n = np.insert(x, at, 0.0), np.insert(n, at, float(self.zeros))
        return x, n

    def quantile(self, p: float) -> float:
        """The value below which a share ``p`` of the counts lies, to the width of a bin; exact at 0 and 1."""
        if p <= 0 or self.total == 0:
            return self.low
        if p >= 1:
            return self.high
        x, n = self.points()
        return float(x[min(int(np.searchsorted(np.cumsum(n), p * n.sum())), x.size - 1)])

    def _edges(self) -> tuple[float, float]:
        """Two values that fall into the first and the last bin."""
        width = 2.0**self.exponent
        return self.start * width, (self.start + self.counts.size - 1) * width

    def _cover(self, low: float, high: float) -> None:
        """Makes the bins include ``low`` and ``high``, doubling their width as often as needed."""
        if self.counts.size:
            first, last = self._edges()
            low, high = min(low, first), max(high, last)
        largest = math.frexp(max(abs(low), abs(high)))[1]
        exponent = max(self.exponent, largest - _BITS, _FINEST)
        while _index(high, exponent) - _index(low, exponent) >= BINS:
            exponent += 1
        old = self._coarser(exponent)
        start, stop = _index(low, exponent), _index(high, exponent) + 1
        counts = np.zeros(stop - start, np.int64)
        if old.counts.size:
            counts[old.start - start : old.start - start + old.counts.size] = old.counts
        self.exponent, self.start, self.counts = exponent, start, counts

    def _coarser(self, exponent: int) -> Histogram:
        """The same counts in bins of ``2**exponent``, no finer than now."""
        out = Histogram(self.exponent, self.start, self.counts)
        steps = exponent - self.exponent
        if steps and out.counts.size:
            bins = (out.start + np.arange(out.counts.size)) >> min(steps, 62)
            out.start = int(bins[0])
            out.counts = np.bincount(bins - out.start, weights=out.counts).astype(np.int64)
        out.exponent = exponent
        return out


def _index(value: float, exponent: int) -> int:
    return math.floor(math.ldexp(value, -exponent))
