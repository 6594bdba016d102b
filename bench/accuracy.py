"""The accuracy of the file itself, in its own runtime, on the device, over the evaluation samples."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from ..core.errors import DataError
from ..core.progress import Progress, Silent
from ..core.report import Measurement, Metric
from ..core.tensor import from_door, rows_axis
from ..targets.link.link import Link
from ..tasks.samples import Samples
from ..tasks.task import Task
from .plan import BenchOptions
from .session import Pusher, Subject, subjects_of
from .stage import Stage, fixed_rows

BATCH_BYTES = 4 << 20
MAX_ROWS = 128


class Score(msgspec.Struct, frozen=True, kw_only=True):
    """What a file answered. ``answers`` are what a user sees (labels), None for tasks without; ``per_sample`` one figure a sample,
    higher better. ``outputs`` are logical arrays, kept on request. ``seconds`` of pure inference, in batches of ``rows``."""

    file: str
    runtime: str
    metric: Metric | None
    answers: Any
    per_sample: Any
    outputs: tuple[Any, ...] = ()
    n: int = 0
    rows: int = 1
    seconds: float = 0.0


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

    Files with a free batch run up to 128 rows at a time, others as they must; the last group is filled up and the surplus cut.
    Unlabelled samples give answers without a metric.
    """
    options, progress = options or BenchOptions(), progress or Silent()
    subjects = subjects_of(artifacts)
    out = []
    with Stage(samples, [s.artifact.signature for s in subjects], limit) as stage:
        pusher = Pusher(link)
        for subject in subjects:
            out.append(_score(subject, link, pusher, stage, task, options, keep_outputs, progress))
    return out


def _score(
    subject: Subject, link: Link, pusher: Pusher, stage: Stage, task: Task, options: BenchOptions, keep: bool, progress: Progress
) -> Score:
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
                outputs.append(np.moveaxis(from_door(stored, spec), 0, rows_axis(spec)) if rows_axis(spec) else from_door(stored, spec))
    finally:
        session.stop()
    progress.step(label, stage.count, stage.count)
    return _judge(subject, outputs, stage, task, keep, rows, sum(answer["values_s"]))


def _judge(subject: Subject, outputs: list[NDArray[Any]], stage: Stage, task: Task, keep: bool, rows: int, seconds: float) -> Score:
    target = stage.targets
    metric = task.score(outputs, target) if target is not None else None
    return Score(
        file=subject.artifact.file,
        runtime=subject.runtime,
        metric=metric,
        answers=task.answers(outputs),
        per_sample=task.per_sample(outputs, target) if target is not None else None,
        outputs=tuple(outputs) if keep else (),
        n=stage.count,
        rows=rows,
        seconds=seconds,
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
            reason = "the samples have no labels" if score is not None else "the file was not scored"
            out.append(msgspec.structs.replace(m, why={**m.why, "metric": reason}))
    return tuple(out)
