"""Check, write, prove: one bundle in one precision to every format asked for, as artifacts; and the manifest of a folder.

A file goes into the folder only after it gave, in every runtime of the target that is installed here, what the graph gives on real samples.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from ..core.artifact import Artifact, Manifest, Parity
from ..core.cost import macs
from ..core.errors import ContractError, InputError, ParityError, TargetError, require
from ..core.files import inside, sha256, storage_errors
from ..core.progress import Progress, Silent
from ..core.tensor import Signature, from_door, to_door
from . import parity
from .exporter import Exporter, Options, Written
from .formats import exporter

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..core.bundle import Bundle
    from ..targets.target import Target
    from ..tasks.samples import Samples

PARITY_SAMPLES = 64
_NEEDS = {"onnx": ("onnx", "onnxscript"), "openvino": ("openvino",), "tflite": ("ai_edge_litert", "flatbuffers")}


def export_bundle(
    bundle: Bundle,
    folder: Path,
    formats: Sequence[str],
    options: Options,
    target: Target,
    samples: Samples | None = None,
    *,
    float_bundle: Bundle | None = None,
    progress: Progress | None = None,
) -> list[Artifact]:
    """Writes ``bundle`` to ``folder`` in each of ``formats``, proven; returns the artifacts in that order.

    Everything that can be refused is refused before the first file is written: a format or precision that the target does not run
    (TargetError), a package that is missing (MissingDependencyError), what an exporter can't do (InputError, UnsupportedOpError).
    ``samples`` are the inputs of the proof; without them the bundle's own examples serve, and a note says so. ``float_bundle`` is the
    float graph that an integer file is compared with beside its own. A file that fails its proof raises ParityError and is not left.
    """
    progress = progress or Silent()
    chosen = [exporter(name) for name in formats]
    for one in chosen:
        _refuse(one, bundle, options, target)
    inputs, told = _inputs(bundle, samples)
    references = _references(bundle, float_bundle, options.precision, inputs)
    cost, size = macs(bundle), bundle.parameters()
    artifacts = []
    for number, one in enumerate(chosen):
        progress.step(f"export {options.precision}", number, len(chosen), one.name)
        with tempfile.TemporaryDirectory(prefix=".export.", dir=folder) as stage, storage_errors(folder):
            written = one.write(bundle, Path(stage), options, target)
            proven = _prove(one, written, Path(stage), options, target, inputs, references)
            artifact = _artifact(bundle, one, written, Path(stage), options, target, proven, told)
            artifacts.append(msgspec.structs.replace(artifact, macs=cost, parameters=size))
            for name in written.files:
                shutil.move(inside(Path(stage), name), folder / name)
    progress.step(f"export {options.precision}", len(chosen), len(chosen))
    return artifacts


def write_manifest(folder: Path, artifacts: Sequence[Artifact]) -> Path:
    """Writes manifest.json beside the files."""
    from .. import __version__
    from ..targets.runtime import versions

    return Manifest(packlight=__version__, versions=versions(), artifacts=tuple(artifacts)).write(folder)


def _refuse(one: Exporter, bundle: Bundle, options: Options, target: Target) -> None:
    target.require_format(one.name)
    if options.precision not in one.precisions:
        raise InputError(f"{one.name} has no precision '{options.precision}'; it has: {', '.join(one.precisions)}")
    if not target.runtimes_for(one.name, options.precision):
        known = sorted({p for r in target.runtimes if r.format == one.name for p in r.precisions})
        raise TargetError(f"target '{target.name}' does not run {one.name} in {options.precision}; it runs: {', '.join(known)}")
    for module in _NEEDS.get(one.name, ()):
        require(module, one.extra)
    verdict = one.check(bundle, options, target)
    if not verdict:
        raise InputError(verdict.why)


def _inputs(bundle: Bundle, samples: Samples | None) -> tuple[tuple[NDArray[Any], ...], str]:
    """Logical inputs for the proof, and where they are not real, a note that says so."""
    if samples is not None and len(samples):
        spread = [i * len(samples) // min(PARITY_SAMPLES, len(samples)) for i in range(min(PARITY_SAMPLES, len(samples)))]
        return samples.batch(spread)[0], ""
    first = bundle.samples
    return tuple(
        s.numpy() for s in first
    ), f"parity was taken on {first[0].shape[0]} example inputs; give --data to take it on real samples"


def _references(
    bundle: Bundle, float_bundle: Bundle | None, precision: str, inputs: tuple[NDArray[Any], ...]
) -> dict[str, list[NDArray[Any]]]:
    """What the graphs give: "torch" for the float graph, "quantized graph" for a quantized one (it comes first)."""
    if precision != "int8":
        return {"torch": _run_graph(bundle, inputs)}
    found = {"quantized graph": _run_graph(bundle, inputs)}
    if float_bundle is not None:
        found["torch"] = _run_graph(float_bundle, inputs)
    return found


def _run_graph(bundle: Bundle, inputs: tuple[NDArray[Any], ...]) -> list[NDArray[Any]]:
    import torch

    batch = bundle.signature.inputs[0].shape[0] if bundle.signature.inputs[0].shape else None
    rows = inputs[0].shape[0]
    step = batch if isinstance(batch, int) else rows
    parts = [bundle.run(*(torch.from_numpy(x[i : i + step]) for x in inputs)) for i in range(0, rows - rows % step or step, step)]
    return _join([[t.numpy() for t in part] for part in parts], bundle.signature)


def _prove(
    one: Exporter,
    written: Written,
    stage: Path,
    options: Options,
    target: Target,
    inputs: tuple[NDArray[Any], ...],
    references: dict[str, list[NDArray[Any]]],
) -> tuple[tuple[Parity, ...], tuple[str, ...]]:
    """Parity in every runtime that is installed here (the worst is kept for each reference), and notes."""
    from ..targets.runtime import installed

    names = list(dict.fromkeys(r.name for r in target.runtimes_for(one.name, options.precision)))
    here = [name for name in names if installed(name)]
    if not here:
        return (), (f"not proven: none of its runtimes ({', '.join(names)}) is installed here",)
    worst: dict[str, Parity] = {}
    for runtime in here:
        outputs = _run_file(stage / written.file, runtime, written.signature, inputs)
        for against, reference in references.items():
            rows = min(len(inputs[0]), *(len(r) for r in reference)) if reference else 0
            found = parity.measure(against, reference, outputs, rows)
            parity.judge(written.file, runtime, options.precision, found)
            if against not in worst or _worse(found, worst[against]):
                worst[against] = found
    if any(not _finite(p) for p in worst.values()):
        raise ParityError(f"'{written.file}' gives values that are not finite; the file was removed")
    return tuple(worst.values()), ()


def _finite(found: Parity) -> bool:
    """True where the largest error is a finite number."""
    import math

    return math.isfinite(found.max_abs)


def _worse(one: Parity, other: Parity) -> bool:
    return other.sqnr_db is None or (one.sqnr_db is not None and one.sqnr_db < other.sqnr_db)


def _run_file(path: Path, runtime: str, signature: Signature, inputs: tuple[NDArray[Any], ...]) -> list[NDArray[Any]]:
    """Logical outputs of a file for all rows, in groups of its batch where that is fixed."""
    from ..targets.runtime import open_session

    session = open_session(path, runtime)
    rows = len(inputs[0])
    sizes = {spec.shape[0] for spec in signature.inputs if spec.shape and isinstance(spec.shape[0], int)}
    step = int(max(sizes)) if sizes else rows
    free = [msgspec.structs.replace(spec, shape=("rows", *spec.shape[1:])) for spec in signature.inputs]
    parts = []
    for start in range(0, rows - rows % step or step, step):
        doors = [to_door(x[start : start + step], spec) for x, spec in zip(inputs, free, strict=True)]
        parts.append([from_door(v, s) for v, s in zip(session.run(*doors), signature.outputs, strict=True)])
    return _join(parts, signature)


def _join(parts: list[list[NDArray[Any]]], signature: Signature) -> list[NDArray[Any]]:
    """Groups of rows put together along each output's batch axis."""
    import numpy as np

    joined = []
    for i, spec in enumerate(signature.outputs):
        axis = spec.shape.index("batch") if "batch" in spec.shape else 0
        joined.append(np.concatenate([part[i] for part in parts], axis=axis) if len(parts) > 1 else parts[0][i])
    return joined


def _artifact(
    bundle: Bundle,
    one: Exporter,
    written: Written,
    stage: Path,
    options: Options,
    target: Target,
    proven: tuple[tuple[Parity, ...], tuple[str, ...]],
    told: str,
) -> Artifact:
    files = {name: inside(stage, name) for name in written.files}
    if written.file not in files:
        raise ContractError(f"exporter {one.name} wrote '{written.file}' but does not list it")
    strays = {p.name for p in stage.iterdir()} - set(files)
    if strays:
        raise ContractError(f"exporter {one.name} left files it does not list: {', '.join(sorted(strays))}")
    return Artifact(
        file=written.file,
        files={name: sha256(path) for name, path in files.items()},
        model=bundle.name,
        format=one.name,
        precision=options.precision,
        runtimes=tuple(dict.fromkeys(r.name for r in target.runtimes_for(one.name, options.precision))),
        target=target.name,
        bytes=sum(path.stat().st_size for path in files.values()),
        signature=written.signature,
        preprocess=bundle.preprocess,
        labels=bundle.labels,
        task=bundle.task,
        parity=proven[0],
        ops=written.ops,
        history=bundle.history,
        notes=(*written.notes, *proven[1], *([told] if told else [])),
    )
