"""One label an image: logits (N, classes), integer labels (N,)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..core.errors import DataError
from ..core.report import Metric
from ..core.verdict import YES, Verdict, no
from .samples import gather_targets
from .task import Given, TaskSettings, Truth, tasks

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from ..core.tensor import Signature
    from .samples import Samples


class ClassificationSettings(TaskSettings, frozen=True, kw_only=True):
    """There is nothing to set."""


class Classification:
    """The model's first output holds one score a class (logits, log-probabilities or probabilities); the highest one wins."""

    Settings = ClassificationSettings
    metric = "top1"
    unit = "%"
    higher_is_better = True
    truth: Truth = "data"

    def __init__(self, settings: ClassificationSettings, given: Given) -> None:
        self.name = given.name

    def fits(self, signature: Signature, samples: Samples) -> Verdict:
        output = signature.outputs[0]
        if len(output.shape) != 2 or not isinstance(output.shape[1], int):
            return no(f"classification needs scores (batch, classes), but the model's first output is {output}; choose another --task")
        inputs, _ = samples.batch([0])
        if len(inputs) != len(signature.inputs):
            return no(f"the model has {len(signature.inputs)} inputs but '{samples.source}' gives {len(inputs)}")
        for spec, value in zip(signature.inputs, inputs, strict=True):
            if not spec.fits((*((spec.shape[0],) if isinstance(spec.shape[0], int) else (1,)), *value.shape[1:])):
                wants, gives = ("x".join(map(str, shape[1:])) for shape in (spec.shape, value.shape))
                return no(f"the model wants {wants} a sample but '{samples.source}' gives {gives}; set --size or --colour")
        targets = gather_targets(samples)
        return YES if targets is None else _labels_fit(targets, output.shape[1], samples.source)

    def loss(self, outputs: Sequence[torch.Tensor], target: torch.Tensor, smoothing: float = 0.0) -> torch.Tensor:
        """Cross-entropy; ``smoothing`` e spreads e over all classes (Szegedy et al., 2015, arXiv:1512.00567, section 7).

        ``target`` holds labels (N,), or probabilities (N, classes) where samples were mixed.
        """
        from torch.nn.functional import cross_entropy

        return cross_entropy(outputs[0], target, label_smoothing=smoothing)

    def soft_loss(self, outputs: Sequence[torch.Tensor], teacher: Sequence[torch.Tensor], temperature: float) -> torch.Tensor:
        """T^2 KL(softmax(teacher / T) || softmax(student / T)), mean over samples (Hinton et al., 2015, arXiv:1503.02531)."""
        from torch.nn.functional import kl_div, log_softmax

        student = log_softmax(outputs[0] / temperature, 1)
        return kl_div(student, log_softmax(teacher[0] / temperature, 1), reduction="batchmean", log_target=True) * temperature**2

    def score(self, outputs: Sequence[NDArray[Any]], target: NDArray[Any]) -> Metric:
        """Top-1 with Wilson's 95 % interval; ``more``: top5 (from six classes up), per_class (recall and n), confusion[truth][answer]."""
        import numpy as np

        scores, target = _checked(outputs, target)
        count, classes = scores.shape
        answers = scores.argmax(1)
        hits = answers == target
        confusion = np.zeros((classes, classes), np.int64)
        np.add.at(confusion, (target, answers), 1)
        sizes = confusion.sum(1)
        more: dict[str, Any] = {
            "per_class": [{"recall": float(confusion[c, c] / sizes[c]) if sizes[c] else None, "n": int(sizes[c])} for c in range(classes)],
            "confusion": confusion.tolist(),
        }
        if classes > 5:
            own = scores[np.arange(count), target]
            more["top5"] = float(np.mean((scores > own[:, None]).sum(1) < 5))
        value = float(hits.mean())
        interval = wilson(int(hits.sum()), count)
        return Metric(name=self.metric, value=value, n=count, ci95=interval, higher_is_better=True, unit=self.unit, more=more)

    def per_sample(self, outputs: Sequence[NDArray[Any]], target: NDArray[Any]) -> NDArray[Any]:
        """1.0 where the label is right, else 0.0."""
        scores, target = _checked(outputs, target)
        hits: NDArray[Any] = scores.argmax(1) == target
        return hits.astype("float64")

    def figures(self, outputs: Sequence[NDArray[Any]], target: NDArray[Any]) -> dict[str, NDArray[Any]]:
        return {self.metric: self.per_sample(outputs, target)}

    def answers(self, outputs: Sequence[NDArray[Any]]) -> NDArray[Any]:
        answers: NDArray[Any] = outputs[0].argmax(1)
        return answers

    def truths(self, target: NDArray[Any]) -> NDArray[Any]:
        return target

    def numbers(self, target: NDArray[Any]) -> NDArray[Any]:
        return target

    def picture(self, value: NDArray[Any], *, truth: bool = False) -> None:
        return None


def wilson(hits: int, count: int) -> tuple[float, float]:
    """Wilson's 95 % score interval of a proportion (Wilson, 1927, without continuity correction)."""
    from scipy.stats import binomtest

    interval = binomtest(hits, count).proportion_ci(0.95, method="wilson")
    return float(interval.low), float(interval.high)


def _checked(outputs: Sequence[NDArray[Any]], target: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    import numpy as np

    scores = outputs[0]
    if scores.ndim != 2 or len(scores) != len(target) or not len(target):
        raise DataError(f"classification scores (N, classes) with N labels, got scores {list(scores.shape)} and {len(target)} labels")
    fits = _labels_fit(target, scores.shape[1], "the data")
    if not fits:
        raise DataError(fits.why)
    if not np.isfinite(scores).all():
        raise DataError(f"the model's scores of sample {int(np.argmin(np.isfinite(scores).all(1)))} are not finite; it can't be scored")
    return scores, target


def _labels_fit(targets: NDArray[Any], classes: int, source: str) -> Verdict:
    if targets.ndim != 1 or targets.dtype.kind not in "iu":
        return no(
            f"classification needs integer labels (N,), but '{source}' has {targets.dtype} {list(targets.shape)}; choose another --task"
        )
    wrong = (targets < 0) | (targets >= classes)
    if wrong.any():
        at = int(wrong.argmax())
        return no(f"label {int(targets[at])} of sample {at} in '{source}' is out of range: the model has {classes} classes, counted from 0")
    return YES


tasks.register("classification")(Classification)
