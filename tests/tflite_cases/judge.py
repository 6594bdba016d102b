"""Makes a file of one case by the emitter and holds what the interpreters give against torch.

float32: the operator itself. int8 and int16: the operator between quantize/dequantize pairs, as a converted graph has them; the inputs'
integers go in and the output's come out, and the distance is counted in steps of the output.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from packlight.core.errors import UnsupportedOpError
from packlight.export.tflite.build import _integer, build
from packlight.export.tflite.fuse import fuse
from packlight.export.tflite.graph import Graph, Op, Read, Value
from packlight.export.tflite.lower import entry
from packlight.export.tflite.ops.activation import FIXED
from packlight.export.tflite.plan import Quant
from packlight.export.tflite.writer import write

from .aside import Aside
from .draw import Case

WAYS = ("LiteRT, XNNPACK", "LiteRT", "2.14, XNNPACK", "2.14")
_FIXED = {
    "aten.sigmoid.default": "LOGISTIC",
    "aten.tanh.default": "TANH",
    "aten.softmax.int": "SOFTMAX",
    "aten.log_softmax.int": "LOG_SOFTMAX",
}


@dataclass(frozen=True)
class Outcome:
    """``kind``: "right", "wrong", "fails" (an interpreter can't run the file), "refused" (by the emitter, with its reason), "error".

    ``error``: float: largest distance over max(1, largest value); integers: largest distance in steps.
    """

    case: Case
    precision: str
    kind: str
    error: float = 0.0
    why: str = ""
    way: str = ""

    def __str__(self) -> str:
        args = [f"{tuple(a.shape)}" if isinstance(a, Tensor) else str(_told(a)) for a in self.case.args]
        return (
            f"{self.case.row} {self.precision} {self.kind} {self.way} {self.error:.3g}: {self.case.name}({', '.join(args)}) "
            f"moving={self.case.moving} permuted={self.case.permuted is not None} seed={self.case.seed} {self.why}"
        )


@dataclass
class File:
    """One case as a file: bytes, inputs by name, expected outputs by name, and the largest distance that is right."""

    data: bytes
    inputs: dict[str, np.ndarray]
    outputs: dict[str, np.ndarray]
    limits: dict[str, tuple[float, float]]
    plan: str


class Judge:
    """``old`` runs the files in tflite-runtime too."""

    def __init__(self, old: Aside | None = None) -> None:
        self.old = old

    def __call__(self, case: Case, precision: str = "float32") -> Outcome | None:
        """None where the case has no form in this precision: no integer kernels are claimed for it."""
        try:
            file = made(case, precision)
        except UnsupportedOpError as refusal:
            return Outcome(case, precision, "refused", why=f"{refusal.why}")
        except Exception as error:
            return Outcome(case, precision, "error", why=f"{type(error).__name__}: {error}")
        if file is None:
            return None
        worst = 0.0
        for way in WAYS:
            try:
                got = self._run(file, way)
            except (RuntimeError, ValueError) as error:
                return Outcome(case, precision, "fails", why=" ".join(str(error).split())[:200], way=way)
            if got is None:
                continue
            for name, want in file.outputs.items():
                error, right = distance(got[name], want, *file.limits[name])
                worst = max(worst, error)
                if not right:
                    return Outcome(case, precision, "wrong", error, way=way, why=file.plan)
        return Outcome(case, precision, "right", worst)

    def _run(self, file: File, way: str) -> dict[str, np.ndarray] | None:
        xnnpack = way.endswith("XNNPACK")
        if way.startswith("2.14"):
            return self.old.run(file.data, file.inputs, xnnpack) if self.old else None
        from ai_edge_litert.interpreter import Interpreter, OpResolverType

        kind = OpResolverType.AUTO if xnnpack else OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        runner = Interpreter(model_content=file.data, num_threads=1, experimental_op_resolver_type=kind).get_signature_runner()
        return dict(runner(**file.inputs))


def distance(got: np.ndarray, want: np.ndarray, limit: float, average: float) -> tuple[float, bool]:
    """The largest distance, and whether it is right: at most ``limit`` (and ``average`` on average)."""
    if got.shape != want.shape or got.dtype != want.dtype:
        return float("inf"), False
    if want.dtype.kind == "f":
        off = np.abs(got.astype(np.float64) - want.astype(np.float64)) / max(1.0, float(np.abs(want).max()) if want.size else 1.0)
    else:
        off = np.abs(got.astype(np.float64) - want.astype(np.float64))
    if not off.size:
        return 0.0, True
    if not np.isfinite(off).all():
        return float("inf"), False
    return float(off.max()), bool(off.max() <= limit and (off.mean() <= average or off.size < 48))


def made(case: Case, precision: str) -> File | None:
    """The case as a file."""
    graph, fed, own = Graph(), [], None
    integer = precision != "float32"
    if integer and entry(case.name) is None:
        return None
    named: dict[str, Any] = {}
    computed = list(case.args)
    keywords = getattr(case.call, "keywords", {})
    for i, schema in enumerate(case.call._schema.arguments):
        given = case.args[i] if i < len(case.args) else keywords.get(schema.name, schema.default_value)
        if i >= len(case.args):
            named[schema.name] = given
            continue
        moves = i in case.moving
        named[schema.name], computed[i] = _argument(graph, fed, case, given, i, moves, precision)
    expected = case.call(*computed)
    results = list(expected) if isinstance(expected, (tuple, list)) else [expected]
    results = results[: case.outputs]
    values = [Value(f"out{i}", tuple(o.shape), str(o.dtype).removeprefix("torch.")) for i, o in enumerate(results)]
    op = Op(case.name, named, tuple(values), "op")
    limits: dict[str, tuple[float, float]] = {}
    outputs: dict[str, np.ndarray] = {}
    if integer:
        own = next((r.q for r in op.reads() if r.q is not None and not r.constant), None)
        if own is None:
            return None
        for value, result in zip(values, results, strict=True):
            value.q = _output_quant(case, result, own, precision) if result.is_floating_point() else None
        if not _integer(op):
            return None
        results = [stored(r, v.q) if v.q is not None else r for r, v in zip(results, values, strict=True)]
    graph.ops.append(op)
    graph.outputs = [Read(v, v.q) for v in values]
    for i, result in enumerate(results):
        outputs[f"o{i}"] = _nhwc(result.numpy())
        limits[f"o{i}"] = _limits(case, precision, values[i], own)
    inputs = {f"i{i}": _nhwc(t.numpy()) for i, t in enumerate(fed)}
    plan = build(fuse(graph), integer_doors=integer)
    return File(write(plan, list(inputs), list(outputs)), inputs, outputs, limits, str(plan))


def _limits(case: Case, precision: str, value: Value, own: Quant | None) -> tuple[float, float]:
    """The largest distance and the largest average distance that are right.

    A kernel that insists on a scale (the input's, or one of its own) and then is quantized again rounds twice, the first time by a step
    of that scale.
    """
    if value.q is None or own is None:
        return (case.rtol, case.rtol) if value.floating else (0.0, 0.0)
    first = FIXED[_FIXED[case.name]] if case.name in _FIXED and precision == "int8" else own if _shares(case) else None
    steps = case.steps
    if first is not None and first != value.q:
        steps = 1.0 + case.steps * max(1.0, first.scale[0] / value.q.scale[0])
    return (steps, 0.5 * steps) if precision == "int8" else (16.0 * steps, 8.0 * steps)


def _shares(case: Case) -> bool:
    found = entry(case.name)
    return found is not None and (found.shared or "pool" in case.name)


def _argument(graph: Graph, fed: list[Tensor], case: Case, given: Any, place: int, moves: bool, precision: str) -> tuple[Any, Any]:
    """An argument as the graph has it, and as torch gets it."""
    if isinstance(given, (list, tuple)) and any(isinstance(v, Tensor) for v in given):
        pairs = [_argument(graph, fed, case, v, place, moves, precision) for v in given]
        return [p[0] for p in pairs], [p[1] for p in pairs]
    if not isinstance(given, Tensor):
        return given, given
    name = f"arg{place}" if not isinstance(case.args[place], (list, tuple)) else f"arg{place}.{len(fed)}"
    dtype = str(given.dtype).removeprefix("torch.")
    integer = precision != "float32" and given.is_floating_point()
    if not moves:
        if not integer or (given.ndim == 1 and case.weight is not None):
            return Read(Value(name, tuple(given.shape), dtype, None, given)), given
        axis = case.weight[1] if case.weight is not None and case.weight[0] == place else None
        return _constant(name, given, axis, precision)
    q = quant_of(given, precision, case.seed) if integer else None
    value = Value(name, tuple(given.shape), dtype, q)
    integers = stored(given, q) if q is not None else given
    door, dims = value, None
    if case.permuted is not None and given.ndim > 1:
        dims = random.Random(case.permuted).sample(range(given.ndim), given.ndim)
        back = [dims.index(a) for a in range(given.ndim)]
        door = Value(f"{name}.door", tuple(given.shape[a] for a in dims), dtype, q)
        graph.ops.append(Op("aten.permute.default", {"self": Read(door, q), "dims": back}, (value,), f"{name}.permuted"))
        integers = integers.permute(dims).contiguous()
    graph.inputs.append(door)
    fed.append(integers)
    return Read(value, q), real(stored(given, q), q) if q is not None else given


def _constant(name: str, given: Tensor, axis: int | None, precision: str) -> tuple[Any, Any]:
    """A constant as int8 weights (one scale along ``axis``), or in the precision of the activations."""
    q = quant_of(given, precision, 0, symmetric=True)
    if axis is not None:
        most = given.abs().amax([a for a in range(given.ndim) if a != axis]).clamp(min=1e-6)
        q = Quant(tuple((most / 127).tolist()), (0,) * len(most), axis, "int8")
    integers = stored(given, q)
    numbers = real(integers, q)
    return Read(Value(name, tuple(given.shape), "float32", q, numbers, integers), q), numbers


def quant_of(x: Tensor, precision: str, seed: int, symmetric: bool = False) -> Quant:
    """Integers for the numbers of ``x``, which reach a little further at random."""
    low, high = (min(0.0, float(x.min())), max(0.0, float(x.max()))) if x.numel() else (0.0, 1.0)
    grow = 1 + 0.2 * random.Random(seed).random()
    if precision == "int16" or symmetric:
        top = 32767 if precision == "int16" else 127
        return Quant.tensor(np.float32(max(-low, high, 1e-3) * grow / top), 0, precision)
    scale = np.float32(max(high - low, 1e-3) * grow / 255)
    return Quant.tensor(scale, int(np.clip(round(-128 - low * grow / float(scale)), -128, 127)), precision)


def _output_quant(case: Case, result: Tensor, own: Quant, precision: str) -> Quant:
    """As a quantizer chooses: the input's where numbers only move, the kernel's own where that is fixed; sometimes neither."""
    found = entry(case.name)
    rare = random.Random(case.seed + 1).random() < 0.3 and case.steps > 0
    if found is not None and found.shared and not rare:
        return own
    if case.name in _FIXED and not rare and precision == "int8":
        return FIXED[_FIXED[case.name]]
    return quant_of(result.float(), precision, case.seed + 2)


def stored(x: Tensor, q: Quant) -> Tensor:
    """clip(round(x / scale) + zero point)."""
    scale, zero = _along(x, q)
    return (torch.round(x / scale) + zero).clamp(q.low, q.high).to(getattr(torch, q.dtype))


def real(integers: Tensor, q: Quant) -> Tensor:
    scale, zero = _along(integers, q)
    return (integers.float() - zero) * scale


def _along(x: Tensor, q: Quant) -> tuple[Tensor, Tensor]:
    shape = [-1 if a == q.axis else 1 for a in range(x.ndim)] if q.axis is not None else [1] * x.ndim
    if not x.ndim:
        shape = []
    return torch.tensor(q.scale, dtype=torch.float32).reshape(shape), torch.tensor(q.zero_point, dtype=torch.float32).reshape(shape)


def _told(argument: Any) -> Any:
    if isinstance(argument, (list, tuple)):
        return [_told(a) for a in argument]
    return tuple(argument.shape) if isinstance(argument, Tensor) else argument


def _nhwc(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array.transpose(0, 2, 3, 1)) if array.ndim == 4 else array


def run_ways(data: bytes, inputs: dict[str, np.ndarray], old: Aside | None) -> dict[str, dict[str, np.ndarray]]:
    """What every interpreter at hand gives for one file: way -> output name -> array."""
    judge, file = Judge(old), File(data, inputs, {}, {}, "")
    found = {way: judge._run(file, way) for way in WAYS}
    return {way: got for way, got in found.items() if got is not None}
