"""How a target's kernels want numbers quantized. A scheme is data: it comes from the profile and is kept in every bundle."""

from __future__ import annotations

from typing import Literal

import msgspec


class Scheme(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Static integer quantization of one target.

    Weights: signed, symmetric, within +-``weight_max`` (63 is "7 bit": no pair of u8 x s8 products exceeds 16 bits, for CPUs
    that add them saturating; 127 is the full range), per output channel or per tensor. Activations: 8 bit, per tensor; written
    as u8 in ONNX and as s8 (zero point minus 128) in TFLite: the same quantization. ``recurrent`` says by format how LSTM and GRU are
    held, for which there is no calibrated integer kernel: "float", "weights" (int8 matrices, float arithmetic) or "dynamic" (int8
    matrices, their input quantized at each step; a layer for which the runtime has no such kernel gets int8 matrices).
    ``reason`` says why this scheme.
    """

    weight_max: int = 127
    per_channel: bool = True
    activation_symmetric: bool = False
    activation: Literal["u8"] = "u8"
    recurrent: dict[Literal["onnx", "openvino", "tflite"], Literal["float", "weights", "dynamic"]] = msgspec.field(
        default_factory=lambda: {"tflite": "dynamic"}
    )
    reason: str = ""
