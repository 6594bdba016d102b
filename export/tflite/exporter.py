"""The TFLite exporter: plan, then write."""

from __future__ import annotations

import re
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from ...core.artifact import Ops
from ...core.errors import InputError, UnsupportedOpError
from ...core.tensor import Axis, DoorQuantization, Signature, TensorSpec, rows_axis
from ...core.verdict import YES, Verdict, no
from ..exporter import Options, Written
from ..recurrent import recurrent_road, weight_max

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch.fx import GraphModule

    from ...core.bundle import Bundle
    from ...targets.target import Target
    from .plan import Plan, Tensor


_INTEGER = ("int8", "int16")
KERNELS = {"CONV_2D": 0, "DEPTHWISE_CONV_2D": 0, "FULLY_CONNECTED": 0, "TRANSPOSE_CONV": 2, "CONV_3D": 0, "BATCH_MATMUL": 0}
"""Operators with a weight, and which input the data are."""


class TfliteExporter:
    """aten or PT2E graph -> NHWC flatbuffer, without a converter in between.

    Images pass the doors as NHWC unless ``Options.layout`` is "NCHW". The batch is ``Options.batch``, or 1: the format fixes it.
    """

    name = "tflite"
    suffix = ".tflite"
    extra = "tflite"
    precisions: tuple[str, ...] = ("fp32", "fp16", "int8", "int16", "weight-int8", "dynamic-int8")

    def __init__(self) -> None:
        self._planned: tuple[weakref.ref[GraphModule], Options, Plan] | None = None

    def check(self, bundle: Bundle, options: Options, target: Target) -> Verdict:
        """Plans the file, so that what can't be done is known before anything is written."""
        if options.precision not in self.precisions:
            return no(f"TFLite files are written in {', '.join(self.precisions)}, not '{options.precision}'")
        if (options.precision in _INTEGER) != (bundle.quantized is not None):
            have = "float" if bundle.quantized is None else "quantized"
            remedy = "quantize it first (packlight quantize)" if bundle.quantized is None else "export it as int8"
            return no(f"precision {options.precision} can't be written from a {have} model; {remedy}")
        if options.doors == "integer" and options.precision not in _INTEGER:
            return no(f"integer doors need precision int8 or int16, not {options.precision}")
        try:
            plan = self.plan(bundle, options)
        except UnsupportedOpError as error:
            return no(str(error))
        if options.precision in _INTEGER:
            widths = {t.dtype for t in plan.tensors if t.quant is not None and t.data is None}
            if widths and options.precision not in widths:
                return no(f"the model's activations are quantized to {', '.join(sorted(widths))}; export it so, or quantize it anew")
        self._planned = (weakref.ref(bundle.graph), options, plan)
        return self._runs_there(plan, options, target)

    def plan(self, bundle: Bundle, options: Options) -> Plan:
        """What ``write`` would write."""
        from . import ops  # noqa: F401  files every lowering
        from .build import build
        from .fuse import fuse
        from .lower import known
        from .normalise import normalise
        from .passes import free_batch, halve
        from .thin import thin

        graph = fuse(normalise(bundle.export(batch=options.batch or 1), known))
        plan = build(
            graph,
            layout=options.layout or "NHWC",
            integer_doors=options.doors == "integer",
            fused_recurrent=options.recurrent == "fused",
            dynamic_recurrent=weight_max(bundle) if options.precision in _INTEGER and recurrent_road(bundle, self.name) == "dynamic" else 0,
        )
        if options.batch is None and any(s.free_axes for s in bundle.signature.inputs):
            plan = free_batch(plan)
        if options.precision in ("weight-int8", "dynamic-int8"):
            return thin(plan, dynamic=options.precision == "dynamic-int8")
        return halve(plan) if options.precision == "fp16" else plan

    def write(self, bundle: Bundle, folder: Path, options: Options, target: Target) -> Written:
        """Writes ``<bundle.name>.<precision>.tflite``."""
        from .writer import LIMIT_BYTES, write

        plan = self._checked(bundle, options) or self.plan(bundle, options)
        signature = doors(bundle, plan, options)
        if sum(t.data.nbytes for t in plan.tensors if t.data is not None) > LIMIT_BYTES:
            raise InputError("the weights exceed 2 GiB, the most a .tflite file holds; export to ONNX, or compress the model further")
        names = [t.name for t in signature.inputs], [t.name for t in signature.outputs]
        open_axes = {i: spec.shape for i, spec in zip((*plan.inputs, *plan.outputs), (*signature.inputs, *signature.outputs), strict=True)}
        data = write(plan, *names, metadata=metadata(bundle), shapes=open_axes)
        file = f"{bundle.name}.{options.precision}{self.suffix}"
        (folder / file).write_bytes(data)
        notes = list(plan.notes)
        left = dict.fromkeys(a for s in bundle.signature.inputs for a in s.free_axes if a not in options.dynamic)
        if options.batch is None and "batch" in left:
            notes.append("the batch is 1: a TFLite file has fixed shapes; export with a batch for another")
        if fixed := [a for a in left if a != "batch"]:
            notes.append(f"{', '.join(fixed)} fixed at the example's size: a TFLite file has fixed shapes; --dynamic asks for free ones")
        return Written(file=file, files=(file,), signature=signature, ops=count(plan, options.precision), notes=tuple(notes))

    def _checked(self, bundle: Bundle, options: Options) -> Plan | None:
        """The plan that ``check`` made for this very graph, used once."""
        planned, self._planned = self._planned, None
        if planned is not None and planned[0]() is bundle.graph and planned[1] == options:
            return planned[2]
        return None

    @staticmethod
    def _runs_there(plan: Plan, options: Options, target: Target) -> Verdict:
        used = dict.fromkeys(s.op for s in plan.instructions)
        for runtime in target.runtimes_for("tflite", options.precision):
            refused = {op: why for op, why in runtime.refuses.items() if op in used}
            for op, why in refused.items():
                layer = next((s.layer for s in plan.instructions if s.op == op), "")
                return no(f"{runtime.name} on target '{target.name}' does not run {op} (layer '{layer}'): {why}")
        return YES


def doors(bundle: Bundle, plan: Plan, options: Options) -> Signature:
    """The bundle's signature as the file has it."""
    layout = options.layout or "NHWC"

    def door(spec: TensorSpec, tensor: Tensor) -> TensorSpec:
        q = tensor.quant
        return msgspec.structs.replace(
            spec,
            shape=_opened(spec, tensor, layout, options.dynamic),
            dtype=tensor.dtype,
            layout=layout if len(tensor.shape) == 4 else spec.layout,
            quantization=DoorQuantization(scale=_float32(q.scale[0]), zero_point=q.zero_point[0]) if q else None,
            rows=rows_axis(spec),
        )

    return Signature(
        tuple(door(s, plan.tensors[i]) for s, i in zip(bundle.signature.inputs, plan.inputs, strict=True)),
        tuple(door(s, plan.tensors[i]) for s, i in zip(bundle.signature.outputs, plan.outputs, strict=True)),
    )


def _opened(spec: TensorSpec, tensor: Tensor, layout: str, dynamic: Sequence[str]) -> tuple[Axis, ...]:
    """The door's shape, with the names of the axes that are asked to be free (and of what is computed from them) in their places."""
    names = spec.shape
    if layout == "NHWC" and len(tensor.shape) == 4:
        names = tuple(names[k] for k in (0, 2, 3, 1))
    words = [set(re.findall(r"[A-Za-z_]\w*", name)) if isinstance(name, str) else set() for name in names]
    return tuple(name if w & set(dynamic) else size for name, w, size in zip(names, words, tensor.shape, strict=True))


def count(plan: Plan, precision: str) -> Ops:
    """Operators as written; in an int8 file also those that still compute in float."""
    file: dict[str, int] = {}
    for step in plan.instructions:
        file[step.op] = file.get(step.op, 0) + 1
    left = [s for s in plan.instructions if precision in _INTEGER and plan.floats(s)]
    return Ops(
        file=dict(sorted(file.items())),
        why="LiteRT doesn't tell what its delegate made of the operators",
        float_left=tuple(f"{plan.tensors[s.outputs[0]].name} ({s.op})" for s in left),
        transposes=file.get("TRANSPOSE", 0),
        requantizes=file.get("QUANTIZE", 0) + file.get("DEQUANTIZE", 0),
        requantizes_left=file.get("QUANTIZE", 0) + file.get("DEQUANTIZE", 0) if precision in _INTEGER else None,
        integer_layers=_integer_layers(plan) if precision in _INTEGER else None,
    )


def _integer_layers(plan: Plan) -> tuple[str, ...]:
    """The layers whose kernel reads and gives integers."""
    found = []
    for step in plan.instructions:
        place = KERNELS.get(step.op)
        if place is not None and all(plan.tensors[i].quant is not None for i in (step.inputs[place], step.outputs[0])):
            found.append(step.layer)
    return tuple(dict.fromkeys(found))


def metadata(bundle: Bundle) -> dict[str, bytes]:
    """What an app needs beside the numbers, as JSON: labels and preprocessing."""
    known: dict[str, Any] = {"labels": list(bundle.labels)} if bundle.labels else {}
    if bundle.preprocess is not None:
        known["preprocess"] = msgspec.to_builtins(bundle.preprocess)
    if bundle.task:
        known["task"] = bundle.task
    return {"packlight": msgspec.json.encode(known, order="deterministic")} if known else {}


def _float32(value: float) -> float:
    import numpy as np

    return float(np.float32(value))
