"""Two models on the same samples, judged: what ``packlight trust`` does, and what compress and ship ask of every file."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from ..core.artifact import Manifest
from ..core.errors import DataError, InputError, LacksError
from ..core.progress import Progress
from ..core.trust import TrustLimits
from .groups import read_groups
from .pictures import thumbnail

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..bench.trust.result import Trust
    from ..core.preprocess import Preprocess
    from ..tasks.samples import Samples
    from ..tasks.task import Task

MOST_SCORES = 20_000_000
"""Scores (samples times classes) above this many are not kept: calibration is then not judged."""


@dataclasses.dataclass(frozen=True)
class Side:
    """What one model answered. ``answers`` and ``per_sample`` as the task gives them; ``scores`` (N, classes) or None."""

    name: str
    answers: NDArray[Any] | None
    per_sample: NDArray[Any] | None
    scores: NDArray[Any] | None = None


@dataclasses.dataclass(frozen=True)
class Subject:
    """One side before it has answered: an artifact of a manifest in a runtime, or a bundle folder in torch."""

    path: Path
    preprocess: Preprocess | None
    task: str | None
    labels: tuple[str, ...]

    @property
    def bundle(self) -> bool:
        return self.path.is_dir()


def trust_files(
    before: Path,
    after: Path,
    *,
    data: str,
    task: str | None,
    preprocess: Preprocess | None,
    group: str | None,
    limits: TrustLimits,
    runtime: str | None,
    seed: int,
    progress: Progress,
) -> Trust:
    """Runs both over the test split of ``data`` and judges what the second lost. Each is a bundle folder or a file beside its manifest."""
    from ..tasks.data.load import load_data
    from ..tasks.load import load_task
    from ..tasks.samples import gather_targets

    one, two = _subject(before), _subject(after)
    if preprocess is None and one.preprocess != two.preprocess:
        raise DataError(f"'{before}' and '{after}' state different preprocessing; give the one to judge by with --mean, --std, --size, ...")
    chosen = load_task(task or two.task or one.task or "classification")
    splits = load_data(data, preprocess=preprocess or two.preprocess, seed=seed)
    samples = splits.test or splits.val or splits.train
    assert samples is not None
    target = gather_targets(samples)
    if target is None:
        raise DataError(f"'{data}' has no labels to judge against; give labelled data with --data")
    names = two.labels or one.labels or samples.classes
    groups = read_groups(data, group, samples) if group else None
    sides = [_answer(s, samples, chosen, runtime, progress) for s in (one, two)]
    result = judge_sides(chosen, sides[0], sides[1], target, limits=limits, names=names, group=groups, seed=seed)
    return with_pictures(result, samples)


def judge_sides(
    task: Task,
    before: Side,
    after: Side,
    target: NDArray[Any],
    *,
    limits: TrustLimits,
    names: tuple[str, ...] = (),
    group: NDArray[Any] | None = None,
    seed: int = 0,
) -> Trust:
    """The gate for whatever the task answers with: labels, texts, or a figure a sample."""
    from ..bench.trust.gate import trust_labels, trust_text, trust_values

    if before.answers is not None and after.answers is not None:
        if _is_labels(before.answers) and _is_labels(target):
            both = before.scores is not None and after.scores is not None
            scores = (before.scores, after.scores) if both else None
            return trust_labels(
                before.answers,
                after.answers,
                target,
                limits=limits,
                names=names,
                group=group,
                scores=scores,  # type: ignore[arg-type]
                against=before.name,
                seed=seed,
            )
        if _is_text(before.answers) and _is_text(target):
            old, new, truth = (_texts(a) for a in (before.answers, after.answers, target))
            return trust_text(old, new, truth, limits=limits, group=group, against=before.name, seed=seed)
    if before.per_sample is None or after.per_sample is None:
        raise DataError(f"task '{task.name}' scores these samples only as a whole; there is nothing to pair")
    return trust_values(
        before.per_sample,
        after.per_sample,
        metric=task.metric,
        unit=task.unit,
        limits=limits,
        group=group,
        against=before.name,
        seed=seed,
    )


def with_pictures(result: Trust, samples: Samples) -> Trust:
    """The samples that lost most, each with a small picture where the data are images."""
    shown = tuple(msgspec.structs.replace(w, png=thumbnail(samples.raw(w.index))) for w in result.worst)
    return msgspec.structs.replace(result, worst=shown)


def scores_of(outputs: Any) -> NDArray[Any] | None:
    """The first output where it holds one score a class and is not too large to keep."""
    first = outputs[0] if len(outputs) else None
    return first if first is not None and first.ndim == 2 and first.size <= MOST_SCORES else None


def _subject(path: Path) -> Subject:
    if (path / "bundle.json").is_file():
        from ..core.artifact import read_json
        from ..core.bundle import BundleFile

        file: BundleFile = read_json(path / "bundle.json", BundleFile)
        return Subject(path, file.preprocess, file.task, file.labels)
    if path.is_dir():
        raise InputError(f"'{path}' is a folder without bundle.json; give a bundle folder, or a file beside its manifest.json")
    if not path.is_file():
        raise InputError(f"'{path}' does not exist; give a bundle folder, or a file beside its manifest.json")
    if not (path.parent / "manifest.json").is_file():
        raise InputError(f"'{path}' has no manifest.json beside it; 'packlight export' and 'compress' write files that have")
    artifact = Manifest.read(path.parent).find(path.name)
    return Subject(path, artifact.preprocess, artifact.task, artifact.labels)


def _answer(subject: Subject, samples: Samples, task: Task, runtime: str | None, progress: Progress) -> Side:
    if subject.bundle:
        from ..core.bundle import Bundle
        from ..tasks.evaluate import outputs_of

        outputs, target = outputs_of(Bundle.load(subject.path), samples, label=f"{subject.path.name} (torch)", progress=progress)
        per_sample = task.per_sample(outputs, target) if target is not None else None
        return Side(f"{subject.path} in torch", task.answers(outputs), per_sample, scores_of(outputs))
    from ..bench.accuracy import score_artifacts
    from ..bench.session import Subject as File
    from ..targets.link.local import Local
    from ..targets.runtime import installed

    artifact = Manifest.read(subject.path.parent).find(subject.path.name)
    artifact.verify(subject.path.parent)
    choices = [r for r in artifact.runtimes if installed(r) and runtime in (None, r)]
    if not choices:
        wanted = f"runtime '{runtime}'" if runtime else "no runtime"
        raise LacksError(f"'{subject.path}' runs in {', '.join(artifact.runtimes)}; {wanted} is not usable here: see 'packlight doctor'")
    with Local() as link:
        subjects = [File(artifact, subject.path.parent, choices[0])]
        (score,) = score_artifacts(subjects, link, samples=samples, task=task, keep_outputs=True, progress=progress)
    return Side(f"{subject.path} in {choices[0]}", score.answers, score.per_sample, scores_of(score.outputs))


def _is_labels(a: NDArray[Any]) -> bool:
    return hasattr(a, "dtype") and a.ndim == 1 and a.dtype.kind in "iu"


def _is_text(a: Any) -> bool:
    kind = getattr(getattr(a, "dtype", None), "kind", "")
    return (
        kind == "U"
        or (kind != "O" and not kind and all(isinstance(x, str) for x in a))
        or (kind == "O" and all(isinstance(x, str) for x in a))
    )


def _texts(a: Any) -> list[str]:
    return [str(x) for x in a]
