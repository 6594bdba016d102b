"""What was meant to be integer is: the plan's layers, held against what the runtime made of the file.

A runtime that finds no integer kernel for a pattern says nothing: it computes the layer in float behind its dequantized inputs, slower than
the float file. So the operators that are left in float after its own optimisation (``Ops.float_left``) may not hold a layer that the plan
calls int8.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..core.errors import GateError

if TYPE_CHECKING:
    from ..core.artifact import Ops
    from ..core.bundle import Bundle

WEIGHTED = {
    "onnx": ("Conv", "FusedConv", "Gemm", "FusedGemm", "MatMul", "FusedMatMul", "MatMulNBits"),
    "openvino": ("Convolution", "FullyConnected", "MatMul"),
    "tflite": ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV"),
}
"""Operators with a weight, by format and by the runtime's own names. Transposed convolutions are absent where a runtime has no integer
kernel for some of them: the manifest's notes say so (see reasons.py)."""


HANDFUL = 16
"""Weights below which a layer in float is not worth a word."""


def require_integer(file: str, format: str, bundle: Bundle, ops: Ops) -> None:
    """Raises GateError with the layers of ``bundle.quantized["layers"]`` that compute in float in ``file``.

    Layers of a handful of weights (a gate of one channel) don't count: OpenVINO computes a 1x1 convolution of one channel in float, which
    costs nothing.
    """
    named: tuple[str, ...] = tuple(bundle.quantized["layers"]) if bundle.quantized else ()
    stored = bundle.graph.state_dict()
    sizes = {layer: stored[f"{layer}.weight"].numel() for layer in named if f"{layer}.weight" in stored}
    found = left_float(format, tuple(layer for layer in named if sizes.get(layer, HANDFUL) >= HANDFUL), ops)
    if found:
        told = ", ".join(found[:4]) + (f" and {len(found) - 4} more" if len(found) > 4 else "")
        raise GateError(
            f"'{file}': planned as int8, but the runtime computes in float: {told}; "
            'keep these layers float (quantize with keep-float = ["..."]) or leave this format out'
        )


def left_float(format: str, layers: tuple[str, ...], ops: Ops) -> tuple[str, ...]:
    """The planned layers that are in float, as "layer (type)". Empty where the runtime could not be asked."""
    if format == "onnx" and ops.optimised is None:
        return ()
    found = []
    for entry in ops.float_left:
        place, _, kind = entry.rpartition(" (")
        kind = kind.removesuffix(")")
        layer = place.rpartition("/")[0] or place
        if kind in WEIGHTED.get(format, ()) and layer in layers:
            found.append(f"{layer} ({kind})")
    return tuple(dict.fromkeys(found))
