"""Files that were exported before, measured again: what ``packlight bench`` does."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from ..core.artifact import Artifact, Manifest
from ..core.errors import DataError, InputError, LacksError
from ..core.progress import Progress
from ..core.report import Measurement, Model, Report
from .kernels import check_kernels, kernel_gates, target_of, with_kernels

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..bench.accuracy import Score
    from ..bench.plan import BenchOptions
    from ..bench.runner import Bench
    from ..bench.session import Subject
    from ..core.preprocess import Preprocess
    from ..targets.link.link import Link
    from ..tasks.samples import Samples
    from ..tasks.task import Task


def bench_files(
    files: Sequence[Path],
    *,
    device: str,
    options: BenchOptions,
    data: str | None,
    task: str | None,
    preprocess: Preprocess | None,
    seed: int,
    progress: Progress,
    test: str | None = None,
    degrade: str | None = None,
    alphabet: tuple[str, ...] = (),
    judge: Path | None = None,
    offline: bool = False,
    native: Path | None = None,
) -> Report:
    """Latency, memory and, with labelled ``data``, accuracy of each file on ``device``; without data the inputs are seeded noise in
    [0, 1]. On another device than this one, answers that differ from the same file's here are counted. ``native`` is a
    ``benchmark_model`` for a device without Python: it gives latency and memory of TFLite files, no accuracy."""
    from ..bench.accuracy import score_artifacts, with_scores
    from ..bench.runner import bench_artifacts
    from ..targets.link.known import open_link

    artifacts = [artifact_at(file) for file in files]
    first = artifacts[0][0]
    samples = samples_of(data, test, degrade, preprocess or first.preprocess, seed)
    measured: Sequence[Measurement]
    with open_link(device) as link:
        if native is not None:
            return _report(first, _native(artifacts, link, native, options, progress), task, seed)
        subjects = _subjects(artifacts, link, here=device == "local")
        inputs = samples or noise(first, seed)
        result = bench_artifacts(subjects, link, options=options, inputs=inputs, progress=progress)
        measured = result.measurements
        if offline:
            measured = _with_throughput(measured, subjects, link, inputs, options, progress)
        if samples is not None:
            from ..tasks.load import load_task

            job = load_task(task or first.task or "classification", alphabet or first.labels, judge)
            if job.truth == "model":
                samples = _against_float(subjects, link, samples, job, options, progress)
            scores = score_artifacts(subjects, link, samples=samples, task=job, options=options, progress=progress)
            measured = with_scores(measured, scores)
            if device == "local":
                measured = with_kernels(measured, check_kernels(subjects, samples, job))
            if device != "local":
                measured = _with_differences(measured, subjects, scores, samples, job, options, progress)
    notes = result.notes if samples is not None else (*result.notes, "inputs are noise: no --data was given, so accuracy was not measured")
    return _report(first, msgspec.structs.replace(result, measurements=tuple(measured), notes=notes), task, seed)


def _report(first: Artifact, bench: Bench, task: str | None, seed: int) -> Report:
    from .. import __version__

    return Report(
        packlight=__version__,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        model=Model(name=first.model, parameters=first.parameters or 0, macs=first.macs),
        task=task or first.task,
        target=first.target,
        environment=bench.environment,
        artifacts=bench.measurements,
        gates=kernel_gates(bench.measurements, target_of(first.target)),
        history=first.history,
        notes=bench.notes,
        seed=seed,
    )


def _native(artifacts: Sequence[tuple[Artifact, Path]], link: Link, program: Path, options: BenchOptions, progress: Progress) -> Bench:
    from ..bench.native import bench_native
    from ..bench.session import Subject

    if not program.is_file():
        raise InputError(f"benchmark program '{program}' does not exist")
    return bench_native([Subject(a, f, "litert") for a, f in artifacts], link, program=program, options=options, progress=progress)


def artifact_at(file: Path) -> tuple[Artifact, Path]:
    if not file.is_file():
        raise InputError(f"artifact '{file}' does not exist")
    if not (file.parent / "manifest.json").is_file():
        raise InputError(f"'{file}' has no manifest.json beside it; bench reads files that 'packlight export' or 'compress' wrote")
    artifact = Manifest.read(file.parent).find(file.name)
    artifact.verify(file.parent)
    return artifact, file.parent


def _subjects(artifacts: Sequence[tuple[Artifact, Path]], link: Link, *, here: bool) -> list[Subject]:
    """Each file in each of its runtimes that the device has; TFLite files in tflite-runtime too where that is what it has."""
    from ..bench.device import check_device
    from ..bench.session import Subject
    from ..targets.runtime import RUNTIMES, installed

    has = [r for r in RUNTIMES if installed(r)] if here else list(check_device(link).runtimes)
    out = []
    for artifact, folder in artifacts:
        wanted = artifact.runtimes
        if artifact.format == "tflite" and not set(wanted) & set(has):
            wanted = ("litert", "tflite-runtime")
        runtimes = [r for r in wanted if r in has]
        if not runtimes:
            where = "here" if here else f"on device '{link.name}'"
            raise LacksError(
                f"no runtime for '{artifact.file}' is installed {where}; it runs in: {', '.join(wanted)}; see 'packlight doctor'"
            )
        out += [Subject(artifact, folder, runtime) for runtime in runtimes]
    return out


def _with_throughput(
    measured: Sequence[Measurement], subjects: list[Subject], link: Link, inputs: Any, options: BenchOptions, progress: Progress
) -> list[Measurement]:
    from ..bench.offline import offline

    found = offline(subjects, link, inputs=inputs, options=options, progress=progress)
    return [msgspec.structs.replace(m, throughput=o.throughput) for m, o in zip(measured, found, strict=True)]


def _with_differences(
    measured: Sequence[Measurement],
    subjects: list[Subject],
    there: Sequence[Score],
    samples: Samples,
    task: Task,
    options: BenchOptions,
    progress: Progress,
) -> list[Measurement]:
    """Notes to how many samples each file answers differently on the device than here."""
    from ..bench.accuracy import differences, score_artifacts
    from ..targets.link.local import Local
    from ..targets.runtime import installed

    both = [i for i, s in enumerate(subjects) if installed(s.runtime)]
    out = list(measured)
    if not both:
        return out
    with Local() as link:
        scores = score_artifacts([subjects[i] for i in both], link, samples=samples, task=task, options=options, progress=progress)
    for index, here in zip(both, scores, strict=True):
        count = differences(here, there[index])
        if count is not None:
            note = f"answers {count} of {here.n} samples differently on this device than on the host"
            out[index] = msgspec.structs.replace(out[index], notes=(*out[index].notes, note))
    return out


def _against_float(
    subjects: Sequence[Subject], link: Link, samples: Samples, task: Task, options: BenchOptions, progress: Progress
) -> Samples:
    """The samples with what the uncompressed float file makes of them as their truth."""
    from ..bench.accuracy import score_artifacts
    from ..tasks.samples import with_targets

    floating = next((s for s in subjects if s.artifact.precision == "fp32"), None)
    if floating is None:
        raise DataError(f"task '{task.name}' holds files against the uncompressed one; give its fp32 file along")
    (score,) = score_artifacts([floating], link, samples=samples, task=task, options=options, keep_outputs=True, progress=progress)
    return with_targets(samples, score.outputs[0])


def samples_of(data: str | None, test: str | None, degrade: str | None, spec: Preprocess | None, seed: int) -> Samples | None:
    if data is None and test is None:
        return None
    from ..tasks.data.load import load_data

    splits = load_data(data, test=test, calib=test if data is None else None, degrade=degrade, preprocess=spec, seed=seed)
    return splits.test or splits.val or splits.train


def noise(artifact: Artifact, seed: int) -> list[NDArray[np.float32]]:
    """Eight rows of noise in [0, 1] for each input, logical layout (images NCHW)."""
    rng = np.random.default_rng(seed)
    rows = []
    for spec in artifact.signature.inputs:
        sizes = [s if isinstance(s, int) else 8 for s in spec.shape]
        if spec.layout == "NHWC":
            sizes = [sizes[0], sizes[3], sizes[1], sizes[2]]
        rows.append(rng.random([8, *sizes[1:]], dtype=np.float32))
    return rows
