"""The contract of every exporter: check, then write. Parity and the manifest are export/run.py's."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

import msgspec

from ..core.artifact import Ops
from ..core.registry import Registry
from ..core.tensor import Signature
from ..core.verdict import Verdict

if TYPE_CHECKING:
    from ..core.bundle import Bundle
    from ..targets.target import Target


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the user may choose.

    ``precision``: "fp32", "fp16", "int8" (the bundle must be quantized for int8 and float otherwise); TFLite also has "int16" (activations
    of 16 bits, weights of 8; the bundle quantized so), "weight-int8" (weights stored in int8, computed in float) and "dynamic-int8" (the
    kernels quantize each input when they run), both from a float bundle. ``batch``: None leaves the batch
    free where the format can. ``layout``: None takes the format's own (NCHW for ONNX and OpenVINO, NHWC for TFLite). ``doors``: whether an
    integer file takes and gives float32 or its own integers. ``opset``: ONNX only, None for the exporter's default. ``converter``: who
    writes the file, "" for packlight's own exporter, "litert-torch" for TFLite by that package.
    ``dynamic``: names of axes of the signature that must be free in the file; ONNX and OpenVINO keep all of the signature's free anyway,
    TFLite those that are named here, refused where its interpreters can't resize them.
    ``pictures``: OpenVINO only; the file takes uint8 NHWC "pixels" of the model's size, or "pictures" of any, and preprocesses them itself.
    ``recurrent``: TFLite only; an LSTM step by step, or as the fused operator, whose state outlives the call.
    """

    precision: str = "fp32"
    batch: int | None = None
    layout: Literal["NCHW", "NHWC"] | None = None
    doors: Literal["float32", "integer"] = "float32"
    opset: int | None = None
    converter: str = ""
    recurrent: Literal["unrolled", "fused"] = "unrolled"
    dynamic: tuple[str, ...] = ()
    pictures: Literal["", "pixels", "pictures"] = ""


class Written(msgspec.Struct, frozen=True, kw_only=True):
    """What an exporter wrote under its folder. ``file`` is the main file; ``signature`` describes the doors as stored.
    ``converter`` is the foreign converter's name and version, "" where packlight's own exporter wrote it."""

    file: str
    files: tuple[str, ...]
    signature: Signature
    ops: Ops
    notes: tuple[str, ...] = ()
    converter: str = ""


class Exporter(Protocol):
    """One format. It writes only under the folder given, never compresses, and imports its libraries inside its functions."""

    name: str
    suffix: str
    extra: str  # packlight's extra that installs what it needs
    precisions: tuple[str, ...]

    def check(self, bundle: Bundle, options: Options, target: Target) -> Verdict:
        """Whether it can write this bundle so; the reason (operator, layer, what to try) where it can't. Needs no runtime."""

    def write(self, bundle: Bundle, folder: Path, options: Options, target: Target) -> Written:
        """Writes ``<bundle.name>.<precision><suffix>``; the same bundle and options give the same bytes."""


exporters: Registry[Exporter] = Registry("format")
