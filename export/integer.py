"""What was meant to be integer is: the plan's layers, held against what the runtime made of the file.

A runtime that finds no integer kernel for a pattern says nothing: it computes the layer in float behind its dequantized inputs, slower than
the float file. So the operators that are left in float after its own optimisation (``Ops.float_left``) may not hold a layer that the plan
calls int8.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..core.errors import GateError

if TYPE_CHECKING:
    from ..core.artifact import Ops
    from ..core.bundle import Bundle

WEIGHTED = {
    "onnx": ("Conv", "FusedConv", "Gemm", "FusedGemm", "MatMul", "FusedMatMul", "MatMulNBits", "ConvTranspose"),
    "openvino": ("Convolution", "Deconvolution", "FullyConnected", "MatMul"),
    "tflite": ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV"),
}
"""Operators with a weight, by format and by the runtime's own names."""


HANDFUL = 16
"""Weights below which a layer in float is not worth a word."""


def require_integer(file: str, format: str, bundle: Bundle, ops: Ops) -> None:
    """Raises GateError with the layers of ``bundle.quantized["layers"]`` that compute in float in ``file``, or that no integer kernel was
    found for (one may be lost to a rewrite under another name: then nothing is proven of it).

    Layers of a handful of weights (a gate of one channel) don't count: OpenVINO computes a 1x1 convolution of one channel in float, which
    costs nothing.
    """
    named: tuple[str, ...] = tuple(bundle.quantized["layers"]) if bundle.quantized else ()
    stored = bundle.graph.state_dict()
    sizes = {layer: stored[f"{layer}.weight"].numel() for layer in named if f"{layer}.weight" in stored}
    judged = tuple(layer for layer in named if sizes.get(layer, HANDFUL) >= HANDFUL)
    found = left_float(format, judged, ops)
    lost = not_found(tuple(layer for layer in judged if layer in sizes), ops)
    remedy = 'keep these layers float (quantize with keep-float = ["..."]) or leave this format out'
    if found:
        raise GateError(f"'{file}': planned as int8, but the runtime computes in float: {_told(found)}; {remedy}")
    if lost:
        raise GateError(f"'{file}': planned as int8, but no integer kernel of the runtime has the name of: {_told(lost)}; {remedy}")


def _told(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def not_found(layers: tuple[str, ...], ops: Ops) -> tuple[str, ...]:
    """The planned layers that are not among those found in integer kernels. Empty where the runtime could not be asked."""
    if ops.integer_layers is None:
        return ()
    known = set(ops.integer_layers)
    return tuple(layer for layer in layers if layer not in known)


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
