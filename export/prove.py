"""Runs a written file in every runtime of the target that is installed here, on real samples, and holds it to its limits.

Integer kernels of x86 without VNNI add products of u8 and full-range s8 saturating. A file made for a CPU without that fault is run here
with quantize/dequantize in float instead (the graph as written): what is proven is the file, not this machine.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from ..core.artifact import Parity
from ..core.errors import ContractError, InputError, ParityError
from ..core.tensor import Signature, from_door, rows_axis, to_door
from ..targets.machine import look
from ..targets.runtime import installed, open_session
from ..tasks.samples import spread
from . import parity
from .pictures import through_the_door
from .rounded import PRECISIONS, rounded
from .sizes import At, elsewhere, free_in, no_resize, worst

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..core.bundle import Bundle
    from ..core.preprocess import Preprocess
    from ..targets.target import Target
    from ..tasks.samples import Samples
    from .exporter import Written

SAMPLES = 64
SMALLEST = 128  # numbers: what exporters keep float too
SAFE_WEIGHT = 63
"""The largest weight for which two products with u8 fit in 16 bits: 2 * 255 * 63 = 32,130."""


class References(msgspec.Struct, frozen=True):
    """What the graphs give for ``inputs`` (logical arrays, one per model input). ``quantized`` is None for a float bundle, ``floating``
    where no float graph is known. ``told`` says so where the inputs are not real samples. ``exact`` computes what a float graph gives in
    float64, None where it can't be run so."""

    inputs: tuple[Any, ...]
    floating: list[Any] | None
    quantized: list[Any] | None
    told: str = ""
    exact: Callable[[], list[Any] | None] = lambda: None


def references(
    bundle: Bundle, float_bundle: Bundle | None, samples: Samples | None, precision: str = "", pixels: Preprocess | None = None
) -> References:
    """Runs the graphs once, for all formats; with ``pixels`` on inputs that pixels can be.

    A float bundle in a ``precision`` with int8 weights is its own quantized graph, rounded."""
    inputs, told = _inputs(bundle, samples)
    if pixels is not None:
        inputs = through_the_door(inputs, pixels)
    return _answers(bundle, float_bundle, inputs, precision, told)


def _answers(bundle: Bundle, float_bundle: Bundle | None, inputs: tuple[NDArray[Any], ...], precision: str, told: str = "") -> References:
    if bundle.quantized is None and precision in PRECISIONS:
        return References(inputs, run_graph(bundle, inputs), run_graph(rounded(bundle, SMALLEST), inputs), told)
    if bundle.quantized is None:
        return References(inputs, run_graph(bundle, inputs), None, told, functools.cache(lambda: run_double(bundle, inputs)))
    floating = run_graph(float_bundle, inputs) if float_bundle is not None else None
    return References(inputs, floating, run_graph(bundle, inputs), told)


def _inputs(bundle: Bundle, samples: Samples | None) -> tuple[tuple[NDArray[Any], ...], str]:
    if samples is not None and len(samples):
        rows = spread(samples, SAMPLES, tuple(bundle.samples[0].shape[2:]))
        return samples.batch(rows)[0], ""
    count = bundle.samples[0].shape[0] if bundle.samples[0].ndim else 1
    return tuple(s.numpy() for s in bundle.samples), f"parity was taken on {count} example inputs; give --data to take it on real samples"


def run_graph(bundle: Bundle, inputs: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
    """The graph's outputs for all rows, in groups of its batch where that is fixed."""
    import torch

    def once(group: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        return [t.numpy() for t in bundle.run(*(torch.from_numpy(x) for x in group))]

    return in_groups(once, inputs, bundle.signature)


def run_double(bundle: Bundle, inputs: Sequence[NDArray[Any]]) -> list[NDArray[Any]] | None:
    """The graph's outputs in float64; None where something in it is written for float32 only."""
    import numpy as np

    double = bundle.replace(graph=bundle.copy_graph().double())
    try:
        return run_graph(double, [x.astype(np.float64) if x.dtype == np.float32 else x for x in inputs])
    except RuntimeError:  # two types meet in one operator
        return None


def run_file(path: Path, runtime: str, signature: Signature, inputs: Sequence[NDArray[Any]], optimise: bool = True) -> list[NDArray[Any]]:
    """The file's logical outputs for all rows."""
    session = open_session(path, runtime, optimise=optimise)

    def once(group: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        doors = [to_door(x, spec) for x, spec in zip(group, signature.inputs, strict=True)]
        return [from_door(v, spec) for v, spec in zip(session.run(*doors), signature.outputs, strict=True)]

    return in_groups(once, inputs, signature)


def in_groups(run: Any, inputs: Sequence[NDArray[Any]], signature: Signature) -> list[NDArray[Any]]:
    """``run`` on as many rows at a time as the signature's first axis holds (all where it is free); the last group is filled up.

    Outputs are put together along the axis that counts rows. A signature whose inputs don't share one first axis is run once.
    """
    import numpy as np

    first = {spec.shape[0] for spec in signature.inputs if spec.shape}
    rows = {x.shape[0] for x in inputs if x.ndim}
    if len(first) != 1 or len(rows) != 1 or not all(isinstance(a, int) for a in first):
        return list(run(inputs))
    (size,), (count,) = first, rows
    if size == count:
        return list(run(inputs))
    parts = []
    for start in range(0, count, int(size)):
        group = [x[start : start + int(size)] for x in inputs]
        missing = int(size) - group[0].shape[0]
        parts.append(run([np.concatenate([x, np.repeat(x[:1], missing, axis=0)]) for x in group] if missing else group))
    axes = [rows_axis(spec) for spec in signature.outputs]
    whole = [np.concatenate(column, axis) for column, axis in zip(zip(*parts, strict=True), axes, strict=True)]
    return [np.take(out, range(count), axis) for out, axis in zip(whole, axes, strict=True)]


def at_other_sizes(bundle: Bundle, float_bundle: Bundle | None, known: References, precision: str = "") -> list[At]:
    """What the graphs give at other sizes of their free axes; empty where only the batch is free."""
    return elsewhere(bundle, known, lambda inputs: _answers(bundle, float_bundle, inputs, precision))


def prove(
    written: Written, stage: Path, format: str, precision: str, target: Target, bundle: Bundle, known: References, others: Sequence[At] = ()
) -> tuple[tuple[Parity, ...], tuple[str, ...]]:
    """The figures of every runtime, the worst judged one first, and notes. Raises ParityError where a limit is not kept.

    ``others`` are further answers, at other sizes, that a file with these axes free must give too. InputError where a TFLite file can't.
    """
    try:
        return _prove(written, stage, format, precision, target, bundle, known, others if free_in(written.signature) else ())
    except (ContractError, ParityError, RuntimeError, ValueError, InputError) as error:
        if format != "tflite" or not any(s.free_axes for s in written.signature.inputs):
            raise
        raise no_resize(written.file, written.signature, error) from error


def _prove(
    written: Written, stage: Path, format: str, precision: str, target: Target, bundle: Bundle, known: References, others: Sequence[At]
) -> tuple[tuple[Parity, ...], tuple[str, ...]]:
    names = list(dict.fromkeys(r.name for r in target.runtimes_for(format, precision)))
    here = [name for name in names if installed(name)]
    if not here:
        return (), (f"not proven: none of its runtimes ({', '.join(names)}) is installed here",)
    found: list[Parity] = []
    notes: list[str] = []
    for runtime in here:
        for told, optimise in _ways(runtime, bundle):
            outputs = run_file(stage / written.file, runtime, written.signature, known.inputs, optimise)
            found += judged(written.file, runtime + told, precision, known, outputs)
            sized = [(at, run_file(stage / written.file, runtime, written.signature, at.known.inputs, optimise)) for at in others]
            found += worst([(at, p) for at, out in sized for p in judged(written.file, runtime + told, precision, at.known, out, str(at))])
            if not optimise and format != "tflite":
                notes.append(
                    f"proven in {runtime} with its integer kernels off: on this CPU they saturate with weights beyond {SAFE_WEIGHT}, "
                    f"on '{target.name}' they don't"
                )
        if format == "tflite" and (told := resized(stage / written.file, runtime, written, known)):
            notes.append(told)
    against = "torch" if known.quantized is None else "quantized graph"
    found.sort(key=lambda p: (p.against != against, float("inf") if p.sqnr_db is None else p.sqnr_db))
    return tuple(found), tuple(notes)


def resized(path: Path, runtime: str, written: Written, known: References) -> str:
    """Whether the file's batch of one can be resized, tried with two inputs; "" where it has another batch, or there is one input.

    Right means: what two runs of one input give.
    """
    import importlib

    import numpy as np

    rows = [x[:2] for x in known.inputs]
    if any(s.shape[:1] != (1,) for s in written.signature.inputs) or any(len(x) < 2 for x in rows):
        return ""
    module = importlib.import_module({"litert": "ai_edge_litert.interpreter", "tflite-runtime": "tflite_runtime.interpreter"}[runtime])
    alone = run_file(path, runtime, written.signature, rows)
    interpreter = module.Interpreter(str(path), num_threads=1)
    try:
        doors = interpreter.get_input_details()  # in the order of the signature
        for door, spec in zip(doors, written.signature.inputs, strict=True):
            interpreter.resize_tensor_input(door["index"], [2, *spec.shape[1:]])
        interpreter.allocate_tensors()
        for door, spec, x in zip(doors, written.signature.inputs, rows, strict=True):
            interpreter.set_tensor(door["index"], np.concatenate([to_door(x[i : i + 1], spec) for i in range(2)]))
        interpreter.invoke()
        out = [interpreter.get_tensor(d["index"]) for d in interpreter.get_output_details()]
    except (RuntimeError, ValueError):
        return f"{runtime} can't resize the batch: some operator holds it; export with --batch for another"
    same = all(len(o) == 2 and o.shape[1:] == s.shape[1:] for o, s in zip(out, written.signature.outputs, strict=True))
    same = same and all(_near(from_door(o, s), a) for o, s, a in zip(out, written.signature.outputs, alone, strict=True))
    if not same:
        return (
            f"the batch must not be resized: in {runtime} the answer for two inputs is not the two answers; export with --batch for another"
        )
    return f"the batch can be resized: resize_tensor_input to two inputs gives in {runtime} what one by one gives"


def _near(a: NDArray[Any], b: NDArray[Any]) -> bool:
    figure = parity.sqnr_db(b, a)
    return figure is None or figure > 40


def _ways(runtime: str, bundle: Bundle) -> list[tuple[str, bool]]:
    """How a file is run in a runtime: a word for the report, and whether optimised."""
    if runtime in ("litert", "tflite-runtime"):
        return [("", True), (" without XNNPACK", False)]
    return [("", not (_full_range(bundle) and saturates_here()))]


def _full_range(bundle: Bundle) -> bool:
    return bundle.quantized is not None and int(bundle.quantized.get("scheme", {}).get("weight_max", 127)) > SAFE_WEIGHT


def saturates_here() -> bool:
    """Whether this CPU's integer kernels add u8 x s8 saturating: x86 without VNNI or AMX."""
    machine = look()
    return machine.machine in ("x86_64", "AMD64") and not any("vnni" in i or i == "amx_int8" for i in machine.isa)


def judged(file: str, runtime: str, precision: str, known: References, outputs: list[NDArray[Any]], at: str = "") -> list[Parity]:
    """The figures of one run, once they are known to keep their limits. ``at``: see Parity."""
    import math

    rows = len(known.inputs[0])
    if known.quantized is None:
        assert known.floating is not None
        own = parity.measure("torch", known.floating, outputs, rows, runtime, at)
        if parity.keeps(precision, own) or precision != "fp32" or (exact := known.exact()) is None:
            parity.judge(file, precision, own)
            return [own]
        far = parity.measure("torch in float64", exact, outputs, rows, runtime, at)
        parity.judge_float(file, own, far, parity.measure("torch in float64", exact, known.floating, rows))
        return [own, far]
    own = parity.measure("quantized graph", known.quantized, outputs, rows, runtime, at)
    if not math.isfinite(own.max_abs):
        raise ParityError(f"'{file}' in {runtime} gives values that are not finite; the file was removed")
    if known.floating is None:
        parity.judge(file, precision, own)
        return [own]
    far = parity.measure("torch", known.floating, outputs, rows, runtime, at)
    parity.judge_quantized(file, precision, own, far, parity.measure("torch", known.floating, known.quantized, rows))
    return [own, far]
