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
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from ..core.artifact import Artifact, write_json
from ..core.bundle import Bundle
from ..core.cost import macs
from ..core.errors import DataError
from ..core.files import refuse_existing, staged_folder
from ..core.progress import Progress, Silent
from ..core.report import Measurement, Metric, Model, Report
from ..tasks.samples import gather_targets, with_targets
from .clock import clocked
from .formats import folded, integer_precision, subjects_here
from .judge import Judgement, Limits, judge
from .kernels import check_kernels, kernel_gates, with_kernels
from .trust import trust_gates, with_trust
from .trust_gate import Side, side_of
from .trust_limits import for_drop

if TYPE_CHECKING:
    from ..bench.plan import BenchOptions
    from ..bench.runner import Bench
    from ..compress.passes import Context
    from ..compress.recipe import Recipe
    from ..targets.target import Target
    from ..tasks.samples import Samples, Splits
    from ..tasks.task import Task


@dataclasses.dataclass(frozen=True)
class Job:
    """Everything the main job needs, read and checked already. ``formats`` is empty for all that the target runs.

    ``blame``: the report says of each integer layer what it does alone. ``repair_minutes``: how long to mend a quantized model that loses
    more than ``limits.max_drop`` on the validation samples (0: not at all). ``dynamic``: axes that must be free in every file.
    ``pictures``: what OpenVINO files take instead of tensors.
    """

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
    blame: bool = False
    repair_minutes: float = 10.0
    dynamic: tuple[str, ...] = ()
    pictures: Literal["", "pixels", "pictures"] = ""


@dataclasses.dataclass(frozen=True)
class Result:
    """What came out: the report as written, whether every gate held, and the folder."""

    report: Report
    ok: bool
    folder: Path


@dataclasses.dataclass(frozen=True)
class Stages:
    """The models on the way: as it came (folded), the recipe's last float form (as it was, and folded), and its end."""

    baseline: Bundle
    before: Bundle
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
        reference, side, test = _reference(job, test, progress)
        context = _context(job, progress)
        with clocked(context, job.recipe.make_passes(), job.bench.threads) as timed:
            compressed = _compress(job, timed)
        stages, told = _repair(job, compressed, formats, context)
        layers = _blame(job, stages, context)
        stages.final.save(folder / "bundle")
        artifacts, baselines = _export(job, stages, folder, formats, test, progress)
        measured, bench = _measure(job, artifacts, baselines, folder, test, side, progress)
        judged = _judge(job, measured, frozenset(a.file for a in baselines), reference)
        report = _report(job, stages, reference, judged, baselines, bench)
        report = msgspec.structs.replace(report, blame=layers, notes=(*report.notes, *filter(None, [told])))
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


def _reference(job: Job, test: Samples, progress: Progress) -> tuple[Metric, Side, Samples]:
    """The metric of the model as it came, in torch, what it answered, and the samples with the targets that files are held against."""
    from ..tasks.evaluate import outputs_of

    progress.say(f"accuracy of the model as it came, in torch, on {len(test):,} samples")
    outputs, targets = outputs_of(job.bundle, test, progress=progress)
    if job.task.truth == "model":
        targets = outputs[0]
        test = with_targets(test, targets)
    if targets is None:
        raise DataError("the test data has no labels to score against; give labelled data with --data")
    metric = job.task.score(outputs, targets)
    progress.say(f"  {metric.name} {metric.value:.4f}")
    return metric, side_of("the model as it came, in torch", job.task, outputs, targets), test


def _context(job: Job, progress: Progress) -> Context:
    from ..compress.passes import Context
    from ..tasks.evaluate import outputs_of

    val = job.data.val
    if job.task.truth == "model" and val is not None:
        val = with_targets(val, outputs_of(job.bundle, val)[0][0])
    return Context(
        target=job.target,
        task=job.task,
        train=job.data.train,
        val=val,
        calib=job.data.calib,
        teacher=job.bundle,
        seed=job.seed,
        work=job.work,
        progress=progress,
    )


def _compress(job: Job, context: Context) -> Stages:
    from ..compress.passes import run_passes

    seen: list[Bundle] = [job.bundle]
    final = run_passes(job.bundle, job.recipe.make_passes(), context, seen=seen.append)
    floating = [b for b in seen if b.quantized is None][-1]
    return Stages(folded(job.bundle, context), floating, folded(floating, context), final)


def _repair(job: Job, stages: Stages, formats: tuple[str, ...], context: Context) -> tuple[Stages, str]:
    """The quantized model mended until ``max_drop`` holds on the validation samples, and a note; as it is where that is not asked for."""
    from .repair import Repair, repair

    limit, last = job.limits.max_drop, job.recipe.passes[-1] if job.recipe.passes else None
    if limit is None or job.repair_minutes <= 0 or stages.final.quantized is None or "int8" not in job.recipe.export.precisions:
        return stages, ""
    if last is None or last.use != "quantize":
        return stages, "not repaired: only what the pass 'quantize' made, as the recipe's last, can be quantized otherwise"
    context.progress.say(f"does the quantized model keep to {limit:g} points on validation samples? (at most {job.repair_minutes:g} min)")
    want = Repair(limit, job.repair_minutes, formats, job.bundle, job.bench)
    after, climbed, why = repair(stages.before, last.settings, want, context)
    if after is None or climbed is None:
        return stages, f"not repaired: {why}"
    lost = f"{climbed.outcome.drop:.2f} lost in {climbed.outcome.runtime} on validation samples"
    if len(climbed.log) == 1:
        return stages, ""
    told = f"repaired: {lost}" if climbed.held else f"repair did not reach {limit:g}: {lost}; {climbed.why}"
    return dataclasses.replace(stages, final=after), told


def _blame(job: Job, stages: Stages, context: Context) -> tuple[dict[str, Any], ...]:
    from .repair import blamed

    repaired = any(step.name == "repair" for step in stages.final.history)
    if stages.final.quantized is None or not (job.blame or repaired):
        return ()
    context.progress.say("what each integer layer does alone")
    return tuple(msgspec.to_builtins(b) for b in blamed(stages.before, stages.final, context))


def _export(
    job: Job, stages: Stages, folder: Path, formats: tuple[str, ...], test: Samples, progress: Progress
) -> tuple[list[Artifact], list[Artifact]]:
    """All artifacts, and those of the uncompressed model among them; the manifest is written."""
    from ..export.exporter import Options
    from ..export.run import export_bundle, write_manifest

    samples = job.data.calib or job.data.val or test

    def write(bundle: Bundle, precision: str) -> list[Artifact]:
        options = Options(precision=precision, dynamic=job.dynamic, pictures=job.pictures)
        progress.say(f"export {bundle.name}.{precision} to {', '.join(formats)}")
        return export_bundle(bundle, folder, formats, options, job.target, samples, progress=progress, float_bundle=stages.floating)

    baselines = write(stages.baseline, "fp32")
    artifacts = list(baselines)
    changed = stages.floating.name != stages.baseline.name
    for precision in job.recipe.export.precisions:
        if precision == "fp32" and not changed:
            continue
        integer = precision == "int8"
        artifacts += write(stages.final, integer_precision(stages.final)) if integer else write(stages.floating, precision)
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
        keep = reference.keeps
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
    progress.say("integer kernels against the same files in float")
    return list(with_kernels(measured, check_kernels(subjects, test, job.task))), bench


def _judge(job: Job, measured: list[Measurement], baselines: frozenset[str], reference: Metric) -> Judgement:
    """The limits, and what compression broke where the recipe has a [trust] table (else it is only reported)."""
    judged = judge(measured, baselines, reference, job.limits)
    gates = trust_gates(judged.artifacts, baselines) if job.recipe.trust is not None else []
    return dataclasses.replace(judged, gates=(*judged.gates, *gates, *kernel_gates(judged.artifacts, job.target)))


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
