"""How an integer file holds its LSTM, GRU and plain recurrent layers.

float     as they are
weights   int8 matrices, one scale a gate's unit, made float when the file is loaded: a quarter of the bytes, no time
dynamic   int8 matrices, and what they are multiplied with is quantized at each step (where the runtime has no kernel: weights)

Nothing is calibrated for any of these: what a step reads is quantized over its own range. The target's scheme says which road pays in
which format (benchmarks/quantize/recurrent.md).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..core.bundle import Bundle


def recurrent_road(bundle: Bundle, format: str) -> str:
    """What the scheme that ``bundle`` was quantized by says of ``format``; "float" where it says nothing."""
    scheme = (bundle.quantized or {}).get("scheme", {})
    return str(scheme.get("recurrent", {}).get(format, "float"))


def weight_max(bundle: Bundle) -> int:
    """The largest integer that the bundle's scheme lets a weight be."""
    return int((bundle.quantized or {}).get("scheme", {}).get("weight_max", 127))


def rounded_rows(data: NDArray[Any], most: int = 127) -> tuple[NDArray[Any], NDArray[Any]]:
    """int8 clip(round(w / scale)) and float32 scale = max |w| / most over the last axis, kept as one of size one."""
    import numpy as np

    largest = np.maximum(np.abs(data).max(axis=-1, keepdims=True), 1e-12).astype(np.float32)
    scale = (largest / np.float32(most)).astype(np.float32)
    return np.clip(np.rint(data / scale), -most, most).astype(np.int8), scale
