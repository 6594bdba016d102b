"""Files that were exported before, measured again: what ``packlight bench`` does."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..core.artifact import Artifact, Manifest
from ..core.errors import InputError, LacksError, TargetError
from ..core.progress import Progress
from ..core.report import Measurement, Model, Report

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..bench.plan import BenchOptions
    from ..bench.session import Subject
    from ..core.preprocess import Preprocess
    from ..tasks.samples import Samples


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
) -> Report:
    """Latency, memory and, with labelled ``data``, accuracy of each file; without data the inputs are seeded noise in [0, 1]."""
    from .. import __version__
    from ..bench.accuracy import score_artifacts, with_scores
    from ..bench.runner import bench_artifacts
    from ..targets.link.local import Local

    if device != "local":
        raise TargetError(f"unknown device '{device}'; known: local")
    subjects = [s for file in files for s in _subjects(file)]
    first = subjects[0].artifact
    samples = _samples(data, preprocess or first.preprocess, seed)
    measured: Sequence[Measurement]
    with Local() as link:
        result = bench_artifacts(subjects, link, options=options, inputs=samples or _noise(first, seed), progress=progress)
        measured = result.measurements
        if samples is not None:
            from ..tasks.load import load_task

            scores = score_artifacts(
                subjects, link, samples=samples, task=load_task(task or first.task or "classification"), options=options, progress=progress
            )
            measured = with_scores(measured, scores)
    notes = result.notes if samples is not None else (*result.notes, "inputs are noise: no --data was given, so accuracy was not measured")
    return Report(
        packlight=__version__,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        model=Model(name=first.model, parameters=first.parameters or 0, macs=first.macs),
        task=task or first.task,
        target=first.target,
        environment=result.environment,
        artifacts=tuple(measured),
        history=first.history,
        notes=notes,
        seed=seed,
    )


def _subjects(file: Path) -> list[Subject]:
    from ..bench.session import Subject
    from ..targets.runtime import installed

    if not file.is_file():
        raise InputError(f"artifact '{file}' does not exist")
    if not (file.parent / "manifest.json").is_file():
        raise InputError(f"'{file}' has no manifest.json beside it; bench reads files that 'packlight export' or 'compress' wrote")
    artifact = Manifest.read(file.parent).find(file.name)
    artifact.verify(file.parent)
    runtimes = [r for r in artifact.runtimes if installed(r)]
    if not runtimes:
        raise LacksError(f"no runtime for '{file}' is installed; it runs in: {', '.join(artifact.runtimes)}; see 'packlight doctor'")
    return [Subject(artifact, file.parent, runtime) for runtime in runtimes]


def _samples(data: str | None, spec: Preprocess | None, seed: int) -> Samples | None:
    if data is None:
        return None
    from ..tasks.data.load import load_data

    splits = load_data(data, preprocess=spec, seed=seed)
    return splits.test or splits.val or splits.train


def _noise(artifact: Artifact, seed: int) -> list[NDArray[np.float32]]:
    """Eight rows of noise in [0, 1] for each input, logical layout (images NCHW)."""
    rng = np.random.default_rng(seed)
    rows = []
    for spec in artifact.signature.inputs:
        sizes = [s if isinstance(s, int) else 8 for s in spec.shape]
        if spec.layout == "NHWC":
            sizes = [sizes[0], sizes[3], sizes[1], sizes[2]]
        rows.append(rng.random([8, *sizes[1:]], dtype=np.float32))
    return rows
