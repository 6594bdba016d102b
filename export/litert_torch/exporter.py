"""The exporter "litert-torch": Google's own converter behind the contract of every exporter.

For models with an operator that packlight's emitter refuses. It is slower to install (1.2 GB) and to convert (10 to 60 s), its integer
files keep the quantized graph's scales, and what it leaves in float is counted. Parity is proven as for every file.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from ...core.bundle import flatten_outputs
from ...core.errors import InputError, require
from ...core.pt2 import first_line
from ...core.tensor import Signature, TensorSpec
from ...core.verdict import YES, Verdict, no
from ..exporter import Options, Written

if TYPE_CHECKING:
    import torch

    from ...core.bundle import Bundle
    from ...targets.target import Target


class LitertTorchExporter:
    """torch.export graph -> StableHLO -> TFLite by litert-torch. Images pass the doors as NHWC unless ``Options.layout`` is "NCHW"."""

    name = "tflite"
    suffix = ".tflite"
    extra = "oracle"
    precisions: tuple[str, ...] = ("fp32", "int8")

    def check(self, bundle: Bundle, options: Options, target: Target) -> Verdict:
        """What is known without converting; what the converter refuses is known when it has run."""
        if options.precision not in self.precisions:
            return no(f"litert-torch writes {' and '.join(self.precisions)}, not '{options.precision}'; leave --converter out for it")
        if (options.precision == "int8") != (bundle.quantized is not None):
            have = "float" if bundle.quantized is None else "quantized"
            remedy = "quantize it first (packlight quantize)" if bundle.quantized is None else "export it as int8"
            return no(f"precision {options.precision} can't be written from a {have} model; {remedy}")
        if options.doors == "integer" and options.precision != "int8":
            return no(f"integer doors need precision int8, not {options.precision}")
        return YES

    def write(self, bundle: Bundle, folder: Path, options: Options, target: Target) -> Written:
        """Writes ``<bundle.name>.<precision>.tflite``. InputError where litert-torch can't convert the model."""
        from ..tflite.exporter import metadata
        from .edit import finish, look

        data = convert(bundle, options)
        names = [s.name for s in bundle.signature.inputs], [s.name for s in bundle.signature.outputs]
        data = finish(data, *names, metadata(bundle), float_doors=options.doors == "float32")
        seen = look(data, options.precision)
        file = f"{bundle.name}.{options.precision}{self.suffix}"
        (folder / file).write_bytes(data)
        notes = []
        if options.batch is None and any(s.free_axes for s in bundle.signature.inputs):
            notes.append("the batch is fixed to 1: a TFLite file has fixed shapes; export with a batch for another")
        return Written(
            file=file,
            files=(file,),
            signature=_signature(bundle, seen.inputs, seen.outputs, options.layout or "NHWC"),
            ops=seen.ops,
            notes=tuple(notes),
            converter=f"litert-torch {importlib.metadata.version('litert-torch')}",
        )


def convert(bundle: Bundle, options: Options) -> bytes:
    """The bytes that litert-torch gives. Its doors are named args_0, ... and output_0, ...; integer where the graph quantizes them."""
    import torch

    from .rewrite import rewrite

    litert_torch: Any = require("litert_torch", LitertTorchExporter.extra)
    program = bundle.export(batch=options.batch or 1)
    graph = rewrite(program.module(check_guards=False))
    graph._forward_pre_hooks.clear()
    graph._forward_pre_hooks_with_kwargs.clear()
    last = (options.layout or "NHWC") == "NHWC"
    samples = tuple(s.permute(0, 2, 3, 1).contiguous() if last and s.ndim == 4 else s for s in bundle.sized(options.batch or 1))
    doors = _doors(graph, last)
    settings = {"quant_config": _quant_config()} if options.precision == "int8" else {}
    try:
        with contextlib.redirect_stdout(io.StringIO()), torch.no_grad():  # it prints its progress
            return bytes(litert_torch.convert(doors, samples, **settings).model_content())
    except Exception as error:  # torch, MLIR and its own raise a dozen types
        told = first_line(error) or type(error).__name__
        raise InputError(f"litert-torch can't convert '{bundle.name}': {told}; leave --converter out, or export to ONNX") from error


def _doors(graph: torch.nn.Module, last: bool) -> torch.nn.Module:
    """Images of rank four enter and leave channels last; the outputs become one flat tuple."""
    import torch

    class Doors(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.wrapped = graph
            self.training = False

        def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
            given = (x.permute(0, 3, 1, 2) if last and x.ndim == 4 else x for x in inputs)
            return tuple(y.permute(0, 2, 3, 1) if last and y.ndim == 4 else y for y in flatten_outputs(self.wrapped(*given)))

    return Doors()


def _quant_config() -> Any:
    """Says that the graph has quantize/dequantize pairs; its quantizer is an argument that must be there and does nothing."""
    from litert_torch.quantize.pt2e_quantizer import PT2EQuantizer, get_symmetric_quantization_config
    from litert_torch.quantize.quant_config import QuantConfig

    return QuantConfig(pt2e_quantizer=PT2EQuantizer().set_global(get_symmetric_quantization_config()))


def _signature(bundle: Bundle, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...], layout: str) -> Signature:
    """The bundle's signature with the doors that the file has."""

    def door(spec: TensorSpec, seen: TensorSpec) -> TensorSpec:
        kept = layout if len(seen.shape) == 4 and spec.layout else spec.layout
        return msgspec.structs.replace(spec, shape=seen.shape, dtype=seen.dtype, layout=kept, quantization=seen.quantization)

    return Signature(
        tuple(door(s, t) for s, t in zip(bundle.signature.inputs, inputs, strict=True)),
        tuple(door(s, t) for s, t in zip(bundle.signature.outputs, outputs, strict=True)),
    )
