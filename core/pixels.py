"""Doors that take pixels: the file does the preprocessing itself.

    stored    uint8 NHWC, RGB (or one channel of grey), 0 to 255
    real      (stored / 255 - mean) / std, NCHW, in the order of ``colour``: what the model reads

Both ways, so that a benchmark that holds preprocessed samples can feed such a file: pixels that were normalised come back exactly.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from .preprocess import Preprocess


def to_pixels(real: NDArray[Any], spec: Preprocess) -> NDArray[np.uint8]:
    """Float (N, C, H, W) as the model reads it -> uint8 (N, H, W, C); what lies between two steps is rounded, beyond them cut."""
    import numpy as np

    x = np.asarray(real, np.float64).transpose(0, 2, 3, 1)
    x = x * np.asarray(spec.std or (1.0,)) + np.asarray(spec.mean or (0.0,))
    x = x[..., ::-1] if spec.colour == "BGR" else x
    return np.ascontiguousarray(np.clip(np.rint(x * 255), 0, 255).astype(np.uint8))


def from_pixels(stored: NDArray[np.uint8], spec: Preprocess) -> NDArray[np.float32]:
    """uint8 (N, H, W, C) -> float32 (N, C, H, W), as ``core.preprocess`` does."""
    import numpy as np

    x = stored[..., ::-1] if spec.colour == "BGR" else stored
    real = np.asarray(x, np.float32) / np.float32(255)
    if spec.mean:
        real -= np.asarray(spec.mean, np.float32)
    if spec.std:
        real /= np.asarray(spec.std, np.float32)
    return np.ascontiguousarray(real.transpose(0, 3, 1, 2))
