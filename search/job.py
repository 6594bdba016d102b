"""The main job: one recipe, every format that the target runs, each file proven, measured and judged.

It is the smallest search there is (the uncompressed float model against one recipe's results), so it lives here, where
compress, export and bench may be imported. Everything that it writes goes into a folder aside, which appears when it is whole::

    <model>.fp32.onnx ...           the uncompressed model's files (BatchNorm folded, which changes nothing it computes)
    <model>[-pruned].int8.onnx ...  the recipe's files
    bundle/                         the compressed model, which every command takes as a MODEL
    manifest.json  report.json  report.html  recipe.toml
"""

from __future__ import annotations

import dataclasses
import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.artifact import Artifact, write_json
from ..core.bundle import Bundle
from ..core.cost import macs
from ..core.errors import DataError
from ..core.files import refuse_existing, staged_folder
from ..core.progress import Progress, Silent
from ..core.report import Measurement, Metric, Model, Report
from ..tasks.samples import gather_targets
from .formats import folded, subjects_here
from .judge import Judgement, Limits, judge
from .trust import trust_gates, with_trust
from .trust_gate import Side, scores_of
from .trust_limits import for_drop

if TYPE_CHECKING:
    from ..bench.plan import BenchOptions
    from ..bench.runner import Bench
    from ..compress.recipe import Recipe
    from ..targets.target import Target
    from ..tasks.samples import Samples, Splits
    from ..tasks.task import Task


@dataclasses.dataclass(frozen=True)
class Job:
    """Everything the main job needs, read and checked already. ``formats`` is empty for all that the target runs."""

    bundle: Bundle
    data: Splits
    task: Task
    target: Target
    recipe: Recipe
    out: Path
    bench: BenchOptions
    formats: tuple[str, ...] = ()
    limits: Limits = dataclasses.field(default_factory=Limits)
    seed: int = 0
    force: bool = False
    work: Path | None = None
    source: str = ""


@dataclasses.dataclass(frozen=True)
class Result:
    """What came out: the report as written, whether every gate held, and the folder."""

    report: Report
    ok: bool
    folder: Path


@dataclasses.dataclass(frozen=True)
class Stages:
    """The models on the way: as it came (folded), the recipe's last float form, and its end."""

    baseline: Bundle
    floating: Bundle
    final: Bundle


def run_job(job: Job, progress: Progress | None = None) -> Result:
    """Runs the job; raises before anything long where the input can't work."""
    progress = progress or Silent()
    refuse_existing(job.out, job.force)
    formats = job.formats or job.target.formats
    for name in formats:
        job.target.require_format(name)
    test = _test_split(job)
    with staged_folder(job.out, force=job.force) as folder:
        reference, side = _reference(job, test, progress)
        stages = _compress(job, progress)
        stages.final.save(folder / "bundle")
        artifacts, baselines = _export(job, stages, folder, formats, test, progress)
        measured, bench = _measure(job, artifacts, baselines, folder, test, side, progress)
        judged = _judge(job, measured, frozenset(a.file for a in baselines), reference)
        report = _report(job, stages, reference, judged, baselines, bench)
        write_json(folder / "report.json", report)
        (folder / "recipe.toml").write_text(job.recipe.to_toml())
        _write_page(report, folder, progress)
    return Result(report, judged.ok, job.out)


def _test_split(job: Job) -> Samples:
    if job.data.test is None or not len(job.data.test):
        raise DataError("the data has no test split to report accuracy on; give labelled data with --data")
    fits = job.task.fits(job.bundle.signature, job.data.test)
    if not fits:
        raise DataError(fits.why)
    return job.data.test


def _reference(job: Job, test: Samples, progress: Progress) -> tuple[Metric, Side]:
    """The metric of the model as it came, in torch, and what it answered."""
    from ..tasks.evaluate import outputs_of

    progress.say(f"accuracy of the model as it came, in torch, on {len(test):,} samples")
    outputs, targets = outputs_of(job.bundle, test, progress=progress)
    if targets is None:
        raise DataError("the test data has no labels to score against; give labelled data with --data")
    metric = job.task.score(outputs, targets)
    progress.say(f"  {metric.name} {metric.value:.4f}")
    side = Side("the model as it came, in torch", job.task.answers(outputs), job.task.per_sample(outputs, targets), scores_of(outputs))
    return metric, side


def _compress(job: Job, progress: Progress) -> Stages:
    from ..compress.passes import Context, run_passes

    context = Context(
        target=job.target,
        task=job.task,
        train=job.data.train,
        val=job.data.val,
        calib=job.data.calib,
        teacher=job.bundle,
        seed=job.seed,
        work=job.work,
        progress=progress,
    )
    seen: list[Bundle] = [job.bundle]
    final = run_passes(job.bundle, job.recipe.make_passes(), context, seen=seen.append)
    floating = [b for b in seen if b.quantized is None][-1]
    return Stages(folded(job.bundle, context), folded(floating, context), final)


def _export(
    job: Job, stages: Stages, folder: Path, formats: tuple[str, ...], test: Samples, progress: Progress
) -> tuple[list[Artifact], list[Artifact]]:
    """All artifacts, and those of the uncompressed model among them; the manifest is written."""
    from ..export.exporter import Options
    from ..export.run import export_bundle, write_manifest

    samples = job.data.calib or job.data.val or test

    def write(bundle: Bundle, precision: str) -> list[Artifact]:
        options = Options(precision=precision)
        progress.say(f"export {bundle.name}.{precision} to {', '.join(formats)}")
        return export_bundle(bundle, folder, formats, options, job.target, samples, progress=progress, float_bundle=stages.floating)

    baselines = write(stages.baseline, "fp32")
    artifacts = list(baselines)
    changed = stages.floating.name != stages.baseline.name
    for precision in job.recipe.export.precisions:
        if precision == "fp32" and not changed:
            continue
        artifacts += write(stages.final if precision == "int8" else stages.floating, precision)
    write_manifest(folder, artifacts)
    return artifacts, baselines


def _measure(
    job: Job,
    artifacts: list[Artifact],
    baselines: list[Artifact],
    folder: Path,
    test: Samples,
    reference: Side,
    progress: Progress,
) -> tuple[list[Measurement], Bench]:
    """Latency (interleaved) and accuracy of every file in every runtime of the target that is installed here."""
    from ..bench.accuracy import score_artifacts, with_scores
    from ..bench.runner import bench_artifacts
    from ..targets.link.local import Local

    base = {a.file for a in baselines}
    subjects = [s for a in artifacts for s in subjects_here(a, folder, job.target, baseline=a.file in base)]
    with Local() as link:
        progress.say(f"measure {len(subjects)} files, interleaved")
        bench = bench_artifacts(subjects, link, options=job.bench, inputs=test, progress=progress)
        progress.say(f"accuracy of each file in its own runtime, on {len(test):,} samples")
        keep = reference.scores is not None
        scores = score_artifacts(subjects, link, samples=test, task=job.task, options=job.bench, keep_outputs=keep, progress=progress)
    measured = with_trust(
        with_scores(bench.measurements, scores),
        scores,
        reference,
        gather_targets(test),
        job.task,
        limits=for_drop(job.recipe.trust, job.limits.max_drop),
        samples=test,
        names=job.bundle.labels or test.classes,
        seed=job.seed,
    )
    return list(measured), bench


def _judge(job: Job, measured: list[Measurement], baselines: frozenset[str], reference: Metric) -> Judgement:
    """The limits, and what compression broke where the recipe has a [trust] table (else it is only reported)."""
    judged = judge(measured, baselines, reference, job.limits)
    gates = trust_gates(judged.artifacts, baselines) if job.recipe.trust is not None else []
    return dataclasses.replace(judged, gates=(*judged.gates, *gates))


def _report(job: Job, stages: Stages, reference: Metric, judged: Judgement, baselines: list[Artifact], bench: Bench) -> Report:
    from .. import __version__

    first = next((m for m in judged.artifacts if m.file == baselines[0].file), None)
    return Report(
        packlight=__version__,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        model=Model(
            name=job.bundle.name,
            parameters=job.bundle.parameters(),
            macs=macs(job.bundle),
            metric=reference,
            source=job.source,
            labels=job.bundle.labels or (job.data.test.classes if job.data.test else ()),
        ),
        task=job.task.name,
        target=job.target.name,
        environment=bench.environment,
        baseline=first,
        artifacts=judged.artifacts,
        history=stages.final.history,
        gates=judged.gates,
        notes=(f"recommended: {judged.words}", *job.data.notes, *bench.notes),
        seed=job.seed,
    )


def _write_page(report: Report, folder: Path, progress: Progress) -> None:
    from ..bench.render.html import html

    (folder / "report.html").write_text(html(report), encoding="utf-8")
