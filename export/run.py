"""Check, write, prove: one bundle in one precision to every format asked for, as artifacts; and the manifest of a folder.

A file goes into the folder only after it gave, in every runtime of the target that is installed here, what the graph gives on real samples.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from ..core.artifact import Artifact, Manifest, Parity
from ..core.cost import macs
from ..core.errors import ContractError, InputError, TargetError, require
from ..core.files import inside, sha256, storage_errors
from ..core.progress import Progress, Silent
from .exporter import Exporter, Options, Written
from .formats import exporter
from .integer import require_integer
from .known import places_counted
from .least import least
from .parity import judge
from .pictures import prove_pictures
from .pooled import plain_pools
from .projected import without_projections
from .prove import at_other_sizes, prove, references
from .sizes import unproven as untried
from .there import coverage, require_whole, runs_there, simulated

if TYPE_CHECKING:
    from ..core.bundle import Bundle
    from ..targets.target import Target
    from ..tasks.samples import Samples

_NEEDS = {
    "onnx": ("onnx", "onnxscript"),
    "openvino": ("openvino",),
    "tflite": ("ai_edge_litert", "flatbuffers"),
    "oracle": ("litert_torch", "ai_edge_litert", "flatbuffers"),
}
"""The modules that an exporter needs, by the extra that brings them."""


def export_bundle(
    bundle: Bundle,
    folder: Path,
    formats: Sequence[str],
    options: Options,
    target: Target,
    samples: Samples | None = None,
    *,
    float_bundle: Bundle | None = None,
    strict_target: bool = False,
    progress: Progress | None = None,
) -> list[Artifact]:
    """Writes ``bundle`` to ``folder`` in each of ``formats``, proven; returns the artifacts in that order.

    Everything that can be refused is refused before the first file is written: a format or precision that the target does not run
    (TargetError), a package that is missing (MissingDependencyError), what an exporter can't do (InputError, UnsupportedOpError).
    ``samples`` are the inputs of the proof; without them the bundle's own examples serve, and a note says so. ``float_bundle`` is the
    float graph that an integer file is compared with beside its own. Operators that a runtime of the target leaves to the CPU by its
    published list are named in the notes and the manifest; with ``strict_target`` they raise GateError before the file is kept. A file that
    fails its proof raises ParityError and is not left.
    """
    progress = progress or Silent()
    if options.pictures and "openvino" not in formats:
        raise InputError(f"only OpenVINO files take {options.pictures}, not {', '.join(formats)}; add --format openvino")
    chosen = [exporter(name, options.converter) for name in formats]
    plain = plain_pools(places_counted(without_projections(bundle)))
    for one in chosen:
        _refuse(one, plain, options, target)
    seen = bundle.preprocess if options.pictures and "openvino" in formats else None
    known = references(bundle, float_bundle, samples, options.precision, seen)
    others = at_other_sizes(bundle, float_bundle, known, options.precision)
    cost, size = macs(bundle), (float_bundle or bundle).parameters()
    artifacts = []
    for number, one in enumerate(chosen):
        progress.step(f"export {options.precision}", number, len(chosen), one.name)
        with tempfile.TemporaryDirectory(prefix=".export.", dir=folder) as stage, storage_errors(folder):
            written = one.write(plain, Path(stage), options, target)
            runtimes, refused = runs_there(written.file, one.name, options.precision, target, dict.fromkeys(written.ops.file, ""))
            compiled, unproven = simulated(Path(stage) / written.file, one.name, options.precision, target)
            known_there = (*coverage(Path(stage) / written.file, one.name, options.precision, target), *compiled)
            if strict_target:
                require_whole(written.file, target, known_there)
            ops = written.ops
            if options.precision in ("int8", "int16"):
                require_integer(written.file, one.name, bundle, ops)
                ops = msgspec.structs.replace(ops, requantizes_least=least(bundle))
            figures, told = prove(written, Path(stage), one.name, options.precision, target, bundle, known, others)
            if options.pictures == "pictures" and one.name == "openvino":
                found = prove_pictures(Path(stage) / written.file, written.signature, known.inputs, samples)
                judge(written.file, options.precision, found)
                figures = (*figures, found)
            missed = (*refused, *(n for c in known_there for n in c.notes()), *unproven)
            notes = (*written.notes, *missed, *told, *filter(None, [known.told, untried(written.signature, bundle.signature, others)]))
            artifact = _artifact(bundle, one, written, Path(stage), options, target, runtimes, figures, notes)
            artifacts.append(msgspec.structs.replace(artifact, macs=cost, parameters=size, coverage=known_there, ops=ops))
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
    fixed = [a for a in options.dynamic if a == "batch" and options.batch is not None]
    if fixed:
        raise InputError(f"--batch {options.batch} fixes the batch and --dynamic frees it; leave one of them out")
    for module in _NEEDS.get(one.extra, ()):
        require(module, one.extra)
    verdict = one.check(bundle, options, target)
    if not verdict:
        raise InputError(verdict.why)


def _artifact(
    bundle: Bundle,
    one: Exporter,
    written: Written,
    stage: Path,
    options: Options,
    target: Target,
    runtimes: tuple[str, ...],
    figures: tuple[Parity, ...],
    notes: tuple[str, ...],
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
        runtimes=runtimes,
        target=target.name,
        bytes=sum(path.stat().st_size for path in files.values()),
        signature=written.signature,
        preprocess=bundle.preprocess,
        labels=bundle.labels,
        task=bundle.task,
        parity=figures,
        ops=written.ops,
        history=bundle.history,
        notes=notes,
        converter=written.converter,
    )
