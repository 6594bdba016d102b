"""Matrices as int8 with one scale a row: how an integer model holds what LSTM, GRU and plain recurrent layers multiply by.

::

    scale = max |w| / most        stored = clip(round(w / scale), -most, most)        w on the grid: stored * scale

What lies on the grid is stored and read again without a loss.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

SMALL = 128
"""Matrices of fewer numbers stay float: their scales would cost what they save."""


def rounded_rows(data: NDArray[Any], most: int = 127) -> tuple[NDArray[Any], NDArray[Any]]:
    """``stored`` (int8) and ``scale`` (float32, the last axis kept as one of size one) of the rows along the last axis."""
    import numpy as np

    largest = np.maximum(np.abs(data).max(axis=-1, keepdims=True), 1e-12).astype(np.float32)
    scale = (largest / np.float32(most)).astype(np.float32)
    return np.clip(np.rint(data / scale), -most, most).astype(np.int8), scale


def on_grid(data: NDArray[Any], most: int = 127) -> bool:
    """Whether every row lies on its grid already, but for the last bits of a float32."""
    import numpy as np

    stored, scale = rounded_rows(data, most)
    return bool((np.abs(stored * scale - data) <= 1e-5 * most * scale).all())
