"""The accuracy of the file itself, in its own runtime, on the device, over the evaluation samples."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from ..core.artifact import Artifact
from ..core.errors import DataError
from ..core.progress import Progress, Silent
from ..core.report import Measurement, Metric
from ..core.tensor import from_door, rows_axis
from ..targets.link.link import Link
from ..tasks.samples import Samples, View, by_shape, joined
from ..tasks.task import Task
from .plan import BenchOptions
from .session import Pusher, Subject, subjects_of
from .stage import Stage, fixed_rows

BATCH_BYTES = 4 << 20
MAX_ROWS = 128


class Score(msgspec.Struct, frozen=True, kw_only=True):
    """What a file answered. ``answers`` are what a user sees (labels, texts), None for tasks without; ``per_sample`` one figure a sample,
    higher better, ``figures`` all of the task's by name. ``outputs`` are logical arrays, rows first, kept on request. ``seconds`` of pure
    inference, in batches of ``rows``. ``why`` tells why there is no metric."""

    file: str
    runtime: str
    metric: Metric | None
    answers: Any
    per_sample: Any
    figures: dict[str, Any] = {}
    outputs: tuple[Any, ...] = ()
    n: int = 0
    rows: int = 1
    seconds: float = 0.0
    why: str = ""


class Ran(msgspec.Struct, frozen=True):
    """What came out of a file: its outputs, rows first, ``rows`` at a time in ``seconds``."""

    outputs: list[Any]
    rows: int
    seconds: float


def score_artifacts(
    artifacts: Sequence[Subject | tuple[Any, ...]],
    link: Link,
    *,
    samples: Samples,
    task: Task,
    options: BenchOptions | None = None,
    limit: int | None = None,
    keep_outputs: bool = False,
    progress: Progress | None = None,
) -> list[Score]:
    """Runs every sample (or the first ``limit``) through each (artifact, folder, runtime) on the device and scores what comes out.

    Files with a free batch run up to 128 rows at a time, others as they must; the last group is filled up and the surplus cut. Samples
    that differ in size go one size after the other; a file that takes one size only is then not scored, and says so. Unlabelled samples
    give answers without a metric.
    """
    options, progress = options or BenchOptions(), progress or Silent()
    subjects = subjects_of(artifacts)
    sizes = by_shape(samples, limit)
    if not sizes:
        raise DataError("there are no samples to run; give --data with at least one")
    views: list[Samples] = [samples] if len(sizes) == 1 else [View(samples, tuple(rows)) for rows in sizes]
    why = [next(filter(None, (unfit(s.artifact, some) for some in views)), "") for s in subjects]
    ran: list[list[Ran]] = [[] for _ in subjects]
    targets: list[NDArray[Any] | None] = []
    pusher = Pusher(link)
    fit = [i for i, told in enumerate(why) if not told]
    for some, rows in zip(views, sizes, strict=True) if fit else ():
        with Stage(some, [subjects[i].artifact.signature for i in fit], len(rows)) as stage:
            targets.append(stage.targets)
            for i in fit:
                ran[i].append(_run(subjects[i], link, pusher, stage, options, progress))
    order = np.argsort([i for rows in sizes for i in rows], kind="stable")
    known = [t for t in targets if t is not None]
    target = _ordered(known, order) if known else None
    return [_judge(s, told, parts, order, target, task, keep_outputs) for s, told, parts in zip(subjects, why, ran, strict=True)]


def unfit(artifact: Artifact, samples: Samples) -> str:
    """Why samples (of one size) can't go through the file; "" where they can. Only the sizes of images are looked at."""
    if not hasattr(samples, "shape_of"):
        return ""
    inputs, _ = samples.batch([0])
    for spec, value in zip(artifact.signature.inputs, inputs, strict=False):
        height, width = (1, 2) if spec.layout == "NHWC" else (2, 3)
        if len(spec.shape) != 4 or value.ndim != 4:
            continue
        for axis, size in ((height, value.shape[2]), (width, value.shape[3])):
            if isinstance(spec.shape[axis], int) and spec.shape[axis] != size:
                takes = f"{spec.shape[height]}x{spec.shape[width]}"
                return f"the file takes images of {takes} only, the data have others; give all one size with --crop"
    return ""


def _run(subject: Subject, link: Link, pusher: Pusher, stage: Stage, options: BenchOptions, progress: Progress) -> Ran:
    signature = subject.artifact.signature
    rows = fixed_rows(signature) or _rows(stage.files(signature)[0], stage.count)
    session = pusher.start(subject, stage, options, rows=rows, threads=options.score_threads or 0)
    label = f"score {subject.label}"
    try:
        session.wait_ready()
        answer = session.ask("outputs", rows=rows, to="out", tell=lambda p: progress.step(label, p["done"], p["total"]))
        session.quit()
        outputs = []
        with tempfile.TemporaryDirectory(prefix="packlight-outputs-") as folder:
            for name, spec in zip(answer["files"], signature.outputs, strict=True):
                link.pull(f"{session.home}/{name}", Path(folder) / name)
                stored = np.load(Path(folder) / name, allow_pickle=False)
                axis = rows_axis(spec)  # the agent put it in front
                logical = from_door(np.moveaxis(stored, 0, axis), spec)
                outputs.append(np.moveaxis(logical, axis, 0))
    finally:
        session.stop()
    progress.step(label, stage.count, stage.count)
    return Ran(outputs, rows, sum(answer["values_s"]))


def _ordered(parts: list[NDArray[Any]], order: NDArray[np.intp]) -> NDArray[Any]:
    return parts[0] if len(parts) == 1 else joined(parts)[order]


def _judge(
    subject: Subject, why: str, ran: list[Ran], order: NDArray[np.intp], target: NDArray[Any] | None, task: Task, keep: bool
) -> Score:
    if why:
        return Score(file=subject.artifact.file, runtime=subject.runtime, metric=None, answers=None, per_sample=None, why=why)
    outputs = [_ordered(list(column), order) for column in zip(*(p.outputs for p in ran), strict=True)]
    figures = task.figures(outputs, target) if target is not None else {}
    return Score(
        file=subject.artifact.file,
        runtime=subject.runtime,
        metric=task.score(outputs, target) if target is not None else None,
        answers=task.answers(outputs),
        per_sample=next(iter(figures.values()), None),
        figures=figures,
        outputs=tuple(outputs) if keep else (),
        n=len(order),
        rows=ran[0].rows,
        seconds=sum(p.seconds for p in ran),
        why="" if target is not None else "the samples have no labels",
    )


def _rows(file: Path, count: int) -> int:
    row = max(1, file.stat().st_size // count)
    return int(max(1, min(MAX_ROWS, BATCH_BYTES // row, count)))


def agreement(a: Score, b: Score) -> float:
    """The share of samples to which both gave the same answer; DataError where the task has no discrete answers."""
    if a.answers is None or b.answers is None:
        raise DataError("this task's outputs are not discrete; agreement can't be counted")
    if np.shape(a.answers) != np.shape(b.answers):
        raise DataError(f"'{a.file}' and '{b.file}' answered different samples")
    return float(np.mean(np.asarray(a.answers) == np.asarray(b.answers)))


def differences(here: Score, there: Score) -> int | None:
    """To how many samples the same file answered differently on two devices; None where the task has no discrete answers."""
    if here.answers is None or there.answers is None:
        return None
    return round((1 - agreement(here, there)) * there.n)


def with_scores(measurements: Sequence[Measurement], scores: Sequence[Score]) -> tuple[Measurement, ...]:
    """The measurements with each file's metric; a metric that is absent has its reason."""
    found = {(s.file, s.runtime): s for s in scores}
    out = []
    for m in measurements:
        score = found.get((m.file, m.runtime))
        if score is not None and score.metric is not None:
            out.append(msgspec.structs.replace(m, metric=score.metric))
        else:
            reason = (score.why or "the samples have no labels") if score is not None else "the file was not scored"
            out.append(msgspec.structs.replace(m, why={**m.why, "metric": reason}))
    return tuple(out)
