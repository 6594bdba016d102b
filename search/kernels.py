"""Integer kernels held against the arithmetic that they stand for: the same file run optimised, and as written, in float.

Kernels that add products of u8 and s8 in saturating 16 bits lose full-range weights, silently and on some CPUs only. How much, over some
samples, with r the float file's outputs in the same runtime::

    gap = SQNR(r, as written) - SQNR(r, integer kernels)                              in dB; near zero where nothing saturates

A gap above ``LIMIT_DB`` (half of all noise then comes from the kernels) fails. Where no float file of the model was measured beside it, the
share of answers that differ between the two runs decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from ..core.errors import TargetError
from ..core.report import Gate, Kernels, Measurement
from ..core.tensor import rows_first

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..bench.session import Subject
    from ..core.tensor import Signature
    from ..targets.target import Target
    from ..tasks.samples import Samples
    from ..tasks.task import Task

SAMPLES = 64
LIMIT_DB = 3.0
LIMIT_CHANGED = 0.05
RUNTIMES = ("onnxruntime", "openvino")
REMEDY = "quantize for a target whose weights keep to 7 bits (x86-64-avx2), or run it on a CPU with VNNI"


def check_kernels(subjects: Sequence[Subject], samples: Samples, task: Task | None) -> dict[tuple[str, str], Kernels]:
    """The check of every int8 file that runs here in a runtime which can also run it as written, by (file, runtime)."""
    from ..export.prove import run_file

    integers = [s for s in subjects if s.artifact.precision == "int8" and s.runtime in RUNTIMES]
    rows = chosen(samples, integers[0].artifact.signature) if integers else []
    if not rows:
        return {}
    inputs = samples.batch(rows)[0]

    def outputs(s: Subject, optimise: bool) -> list[NDArray[Any]]:
        made = run_file(s.folder / s.artifact.file, s.runtime, s.artifact.signature, inputs, optimise)
        return [rows_first(o, spec) for o, spec in zip(made, s.artifact.signature.outputs, strict=True)]

    found = {}
    for s in integers:
        twin = next((o for o in subjects if o.artifact.precision == "fp32" and o.runtime == s.runtime and _alike(o, s)), None)
        reference = None if twin is None else outputs(twin, True)
        found[s.artifact.file, s.runtime] = compare(outputs(s, False), outputs(s, True), reference, task, len(rows))
    return found


def chosen(samples: Samples, signature: Signature) -> list[int]:
    """Up to ``SAMPLES`` numbers from all over the data; of samples that differ in size those of the commonest that the file takes."""
    from ..tasks.samples import by_shape

    shape_of = getattr(samples, "shape_of", None)
    rows: Sequence[int] = range(len(samples))
    if shape_of is not None:
        door = signature.inputs[0]
        sizes = door.shape[1:-1] if door.layout == "NHWC" else door.shape[2:]

        def takes(index: int) -> bool:
            given = tuple(shape_of(index) or ())[-len(sizes) :] if sizes else ()
            return all(isinstance(want, str) or want == have for want, have in zip(sizes, given, strict=False))

        rows = next((r for r in by_shape(samples) if takes(r[0])), ())
    count = min(SAMPLES, len(rows))
    return [rows[i * len(rows) // count] for i in range(count)]


def compare(
    written: Sequence[NDArray[Any]],
    kernels: Sequence[NDArray[Any]],
    reference: Sequence[NDArray[Any]] | None,
    task: Task | None,
    count: int,
) -> Kernels:
    """The figures of one file from its outputs as written and by integer kernels, and the float file's."""
    gap = None
    if reference is not None:
        ends = [sqnr(reference, outputs) for outputs in (written, kernels)]
        if all(np.isfinite(ends)):
            gap = round(ends[0] - ends[1], 2)
    changed = None
    answers = [None if task is None else task.answers(list(o)) for o in (written, kernels)]
    if answers[0] is not None and answers[1] is not None:
        different = np.asarray(answers[0]) != np.asarray(answers[1])
        changed = round(float(different.reshape(len(different), -1).any(1).mean()), 4)
    db = sqnr(written, kernels)
    between = round(db, 2) if np.isfinite(db) else None
    ok = gap <= LIMIT_DB if gap is not None else changed is None or changed <= LIMIT_CHANGED
    why = "" if ok else f"this CPU's integer kernels lose what the file says (they saturate); {REMEDY}"
    return Kernels(gap_db=gap, between_db=between, changed=changed, samples=count, ok=ok, why=why)


def sqnr(reference: Sequence[NDArray[Any]], outputs: Sequence[NDArray[Any]]) -> float:
    """10 log10(sum r^2 / sum (r - v)^2) over all outputs; infinite where equal, nan where there is no signal."""
    signal = noise = 0.0
    for r, v in zip(reference, outputs, strict=True):
        r = r.astype(np.float64)
        signal, noise = signal + float((r * r).sum()), noise + float(((r - v) ** 2).sum())
    if noise == 0.0:
        return float("inf")
    return 10 * float(np.log10(signal / noise)) if signal else float("nan")


def with_kernels(measured: Sequence[Measurement], found: dict[tuple[str, str], Kernels]) -> tuple[Measurement, ...]:
    """The measurements with ``kernels`` where there was a check."""
    return tuple(msgspec.structs.replace(m, kernels=found.get((m.file, m.runtime))) for m in measured)


def target_of(name: str) -> Target | None:
    """The profile ``name``; None where it isn't known here."""
    from ..targets.load import load_target

    try:
        return load_target(name)
    except TargetError:
        return None


def kernel_gates(measured: Sequence[Measurement], target: Target | None = None) -> tuple[Gate, ...]:
    """One gate a check. Where ``target`` is another kind of CPU than this one, what its files lose here says nothing, and there is none."""
    if target is not None and _elsewhere(target):
        return ()
    gates = []
    for m in measured:
        if m.kernels is not None:
            k = m.kernels
            value, limit = (k.gap_db, LIMIT_DB) if k.gap_db is not None else (k.changed, LIMIT_CHANGED)
            why = k.why and f"in {m.runtime}: {k.why}"
            gates.append(Gate(name="saturation", limit=limit, value=value, ok=k.ok, file=m.file, why=why))
    return tuple(gates)


def _elsewhere(target: Target) -> bool:
    from ..targets.machine import look

    here = look()
    machine = {"AMD64": "x86_64", "arm64": "aarch64"}.get(here.machine, here.machine)
    vnni = [any("vnni" in i or i == "amx_int8" for i in isa) for isa in (target.device.isa, here.isa)]
    return target.device.machine != machine or vnni[0] != vnni[1]


def _alike(a: Subject, b: Subject) -> bool:
    """The same doors, whatever is between them."""
    doors = [[(d.shape[1:], d.layout) for d in s.artifact.signature.inputs + s.artifact.signature.outputs] for s in (a, b)]
    return doors[0] == doors[1]
