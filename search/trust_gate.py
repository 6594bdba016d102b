"""Two models on the same samples, judged: what ``packlight trust`` does, and what compress and ship ask of every file."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from ..core.artifact import Manifest
from ..core.errors import DataError, InputError, LacksError
from ..core.progress import Progress
from ..core.tensor import logical
from ..core.trust import TrustLimits
from .groups import read_groups
from .pictures import patches, thumbnail

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..bench.accuracy import Score
    from ..bench.trust.result import Trust
    from ..core.preprocess import Preprocess
    from ..core.tensor import Signature
    from ..tasks.samples import Samples
    from ..tasks.task import Task

MOST_SCORES = 20_000_000
"""Scores (samples times classes) above this many are not kept: calibration is then not judged."""
MOST_PIXELS = 50_000_000
"""Values of images above this many are not kept: there are then no pictures of what came out."""


@dataclasses.dataclass(frozen=True)
class Side:
    """What one model answered. ``answers`` and ``figures`` (by name, the first is what tests compare) as the task gives them; ``scores``
    (N, classes) or None; ``images`` its outputs where they are images, and small enough to keep."""

    name: str
    answers: NDArray[Any] | None
    figures: dict[str, NDArray[Any]]
    scores: NDArray[Any] | None = None
    images: NDArray[Any] | None = None

    @property
    def keeps(self) -> bool:
        """Whether the other side's outputs are worth keeping too."""
        return self.scores is not None or self.images is not None


def side_of(name: str, task: Task, outputs: Sequence[NDArray[Any]], target: NDArray[Any] | None) -> Side:
    """The side of a model that gave ``outputs`` (rows first)."""
    figures = task.figures(outputs, target) if target is not None else {}
    return Side(name, task.answers(outputs), figures, scores_of(outputs), images_of(task, outputs))


def side_of_score(name: str, task: Task, score: Score) -> Side:
    """The side of a file that was scored."""
    return Side(name, score.answers, score.figures, scores_of(score.outputs), images_of(task, score.outputs))


@dataclasses.dataclass(frozen=True)
class Subject:
    """One side before it has answered: an artifact of a manifest in a runtime, or a bundle folder in torch."""

    path: Path
    preprocess: Preprocess | None
    task: str | None
    labels: tuple[str, ...]
    signature: Signature

    @property
    def bundle(self) -> bool:
        return self.path.is_dir()


def trust_files(
    before: Path,
    after: Path,
    *,
    data: str | None,
    task: str | None,
    preprocess: Preprocess | None,
    test: str | None = None,
    degrade: str | None = None,
    alphabet: tuple[str, ...] = (),
    group: str | None,
    limits: TrustLimits,
    runtime: str | None,
    seed: int,
    progress: Progress,
) -> Trust:
    """Runs both over the test split of ``data`` and judges what the second lost. Each is a bundle folder or a file beside its manifest."""
    from ..tasks.data.load import load_data
    from ..tasks.load import load_task
    from ..tasks.samples import gather_targets, with_targets

    one, two = _subject(before), _subject(after)
    if preprocess is None and one.preprocess != two.preprocess:
        raise DataError(f"'{before}' and '{after}' state different preprocessing; give the one to judge by with --mean, --std, --size, ...")
    labels = alphabet or two.labels or one.labels
    chosen = load_task(task or two.task or one.task or "classification", labels)
    given = data if test is None else test
    calib = test if data is None else None  # nothing is calibrated here, so nothing of the test data is set aside
    splits = load_data(data, test=test, calib=calib, degrade=degrade, preprocess=preprocess or two.preprocess, seed=seed)
    samples = splits.test or splits.val or splits.train
    assert samples is not None
    fits = chosen.fits(two.signature, samples)
    if not fits:
        raise DataError(fits.why)
    target = gather_targets(samples) if chosen.truth == "data" else None
    if target is None and chosen.truth == "data":
        raise DataError(f"'{given}' has no labels to judge against; give labelled data with --data")
    groups = read_groups(str(given), group, samples) if group else None
    was, outputs = _answer(one, samples, chosen, runtime, progress)
    if target is None:
        target = outputs
        samples = with_targets(samples, target)
    now, _ = _answer(two, samples, chosen, runtime, progress)
    result = judge_sides(chosen, was, now, target, limits=limits, names=labels or samples.classes, group=groups, seed=seed)
    return with_pictures(result, samples, chosen, was, now, target)


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
    from ..bench.trust.gate import trust_fidelity, trust_labels, trust_text, trust_values

    fields: dict[str, Any] = {"limits": limits, "group": group, "against": before.name, "seed": seed}
    truths = task.truths(target)
    if before.answers is not None and after.answers is not None and truths is not None:
        if _is_labels(before.answers) and _is_labels(truths):
            both = before.scores is not None and after.scores is not None
            scores = (before.scores, after.scores) if both else None
            return trust_labels(before.answers, after.answers, truths, names=names, scores=scores, **fields)  # type: ignore[arg-type]
        return trust_text(*([str(t) for t in side] for side in (before.answers, after.answers, truths)), **fields)
    if not before.figures or not after.figures:
        raise DataError(f"task '{task.name}' scores these samples only as a whole; there is nothing to pair")
    (first, now), *more = after.figures.items()
    if task.truth == "model":
        return trust_fidelity(now, metric=first, unit=task.unit, others=dict(more), **fields)
    others = {name: (before.figures[name], values) for name, values in more if name in before.figures}
    return trust_values(before.figures[first], now, metric=first, unit=task.unit, others=others, **fields)


def with_pictures(result: Trust, samples: Samples, task: Task, before: Side, after: Side, target: NDArray[Any]) -> Trust:
    """The samples that lost most, each with a small picture where the data are images; where the answers are, side by side at the place
    where they differ most."""
    shown = []
    for w in result.worst:
        views: dict[str, NDArray[Any] | None] = {"input": samples.raw(w.index)}
        if before.images is not None and after.images is not None:
            views["before"] = task.picture(before.images[w.index])
            views["after"] = task.picture(after.images[w.index])
            views["truth"] = task.picture(target[w.index], truth=True) if task.truth == "data" else None
        made = patches({k: v for k, v in views.items() if v is not None}) if len(views) > 1 else {}
        shown.append(msgspec.structs.replace(w, png=thumbnail(views["input"]), views=made))
    return msgspec.structs.replace(result, worst=tuple(shown))


def scores_of(outputs: Any) -> NDArray[Any] | None:
    """The first output where it holds one score a class and is not too large to keep."""
    first = outputs[0] if len(outputs) else None
    return first if first is not None and first.dtype != object and first.ndim == 2 and first.size <= MOST_SCORES else None


def images_of(task: Task, outputs: Any) -> NDArray[Any] | None:
    """The first output where each row of it is an image and all are not too large to keep."""
    first = outputs[0] if len(outputs) else None
    if first is None or not len(first) or sum(row.size for row in first) > MOST_PIXELS or task.picture(first[0]) is None:
        return None
    images: NDArray[Any] = first
    return images


def _subject(path: Path) -> Subject:
    if (path / "bundle.json").is_file():
        from ..core.artifact import read_json
        from ..core.bundle import BundleFile

        file: BundleFile = read_json(path / "bundle.json", BundleFile)
        return Subject(path, file.preprocess, file.task, file.labels, file.signature)
    if path.is_dir():
        raise InputError(f"'{path}' is a folder without bundle.json; give a bundle folder, or a file beside its manifest.json")
    if not path.is_file():
        raise InputError(f"'{path}' does not exist; give a bundle folder, or a file beside its manifest.json")
    if not (path.parent / "manifest.json").is_file():
        raise InputError(f"'{path}' has no manifest.json beside it; 'packlight export' and 'compress' write files that have")
    artifact = Manifest.read(path.parent).find(path.name)
    return Subject(path, artifact.preprocess, artifact.task, artifact.labels, logical(artifact.signature))


def _answer(subject: Subject, samples: Samples, task: Task, runtime: str | None, progress: Progress) -> tuple[Side, NDArray[Any]]:
    """What a side answers, and its first output."""
    if subject.bundle:
        from ..core.bundle import Bundle
        from ..tasks.evaluate import outputs_of

        outputs, target = outputs_of(Bundle.load(subject.path), samples, label=f"{subject.path.name} (torch)", progress=progress)
        return side_of(f"{subject.path} in torch", task, outputs, target), outputs[0]
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
    if score.why and not score.outputs:
        raise DataError(f"'{subject.path}' can't be judged on '{samples.source}': {score.why}")
    return side_of_score(f"{subject.path} in {choices[0]}", task, score), score.outputs[0]


def _is_labels(a: NDArray[Any]) -> bool:
    return hasattr(a, "dtype") and a.ndim == 1 and a.dtype.kind in "iu"
