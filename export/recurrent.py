"""How an integer file holds its LSTM, GRU and plain recurrent layers.

float     as they are
weights   int8 matrices, one scale a gate's unit, made float when the file is loaded: a quarter of the bytes, no time
dynamic   int8 matrices, and what they are multiplied with is quantized at each step (where the runtime has no kernel: weights)

Nothing is calibrated for any of these: what a step reads is quantized over its own range. The target's scheme says which road pays in
which format (benchmarks/quantize/recurrent.md).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..core.bundle import Bundle

OPERATORS = ("aten.lstm.input", "aten.gru.input", "aten.rnn_tanh.input", "aten.rnn_relu.input")


def recurrent_road(bundle: Bundle, format: str) -> str:
    """What the scheme that ``bundle`` was quantized by says of ``format``; "float" where it says nothing."""
    scheme = (bundle.quantized or {}).get("scheme", {})
    return str(scheme.get("recurrent", {}).get(format, "float"))
