"""How an integer file holds its LSTM, GRU and plain recurrent layers.

float     as they are
weights   int8 matrices, one scale a gate's unit, made float when the file is loaded: a quarter of the bytes, no time
dynamic   int8 matrices, and what they are multiplied with is quantized at each step (where the runtime has no kernel: weights)

Nothing is calibrated for any of these: what a step reads is quantized over its own range. The target's scheme says which road pays in
which format (benchmarks/quantize/recurrent.md). Quantization has put the matrices on their grid in the graph already
(``compress.quantize.recurrent``); a matrix that is not on it is of a layer that was to stay float.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..core.rows import SMALL, on_grid

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


def is_thin(data: NDArray[Any], most: int) -> bool:
    """Whether a matrix was quantized in the graph, so that its int8 form says the same."""
    return data.size >= SMALL and on_grid(data, most)
