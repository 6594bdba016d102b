"""One class a pixel: scores (batch, classes, height, width), whole numbers (batch, height, width) as the truth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from ..core.errors import DataError
from ..core.report import Metric
from ..core.verdict import YES, Verdict, no
from .measures.mean import mean_interval
from .task import Given, TaskSettings, Truth, tasks

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from ..core.tensor import Signature
    from .samples import Samples


class SegmentationSettings(TaskSettings, frozen=True, kw_only=True):
    """``ignore`` is the value of pixels that don't count. ``loss`` trains: cross-entropy, dice, or the sum of both."""

    ignore: int = 255
    loss: Literal["cross-entropy", "dice", "both"] = "cross-entropy"


class Segmentation:
    """The intersection over union of each class over all pixels of all images, averaged over the classes that occur (mIoU)."""

    Settings = SegmentationSettings
    metric = "miou"
    unit = "%"
    higher_is_better = True
    truth: Truth = "data"

    def __init__(self, settings: SegmentationSettings, given: Given) -> None:
        self.settings, self.name, self.labels = settings, given.name, given.labels

    def fits(self, signature: Signature, samples: Samples) -> Verdict:
        output = signature.outputs[0]
        if len(output.shape) != 4 or not isinstance(output.shape[1], int) or output.shape[1] < 2:
            return no(f"segmentation needs scores (batch, classes, height, width), but the model's first output is {output}")
        inputs, target = samples.batch([0])
        for spec, value in zip(signature.inputs, inputs, strict=False):
            if not spec.fits(((spec.shape[0] if isinstance(spec.shape[0], int) else 1), *value.shape[1:])):
                wants, gives = ("x".join(map(str, shape[1:])) for shape in (spec.shape, value.shape))
                return no(f"the model wants {wants} a sample but '{samples.source}' gives {gives}; set --size or --colour")
        if target is None:
            return YES
        if target.ndim != 3 or target.dtype.kind not in "iu":
            return no(f"segmentation needs a class a pixel (N, H, W), but '{samples.source}' has {target.dtype} {list(target.shape)}")
        if any(isinstance(o, int) and o != t for o, t in zip(output.shape[2:], target.shape[1:], strict=True)):
            return no(f"the model gives {output.shape[2]}x{output.shape[3]} pixels, the truth has {target.shape[1]}x{target.shape[2]}")
        counted = target[target != self.settings.ignore]
        if counted.size and not 0 <= int(counted.max()) < output.shape[1]:
            return no(f"'{samples.source}' has class {int(counted.max())}; the model has {output.shape[1]}, counted from 0")
        return YES

    def loss(self, outputs: Sequence[torch.Tensor], target: torch.Tensor) -> torch.Tensor:
        """Cross-entropy over the pixels that count; Dice: 1 - mean over classes of 2 sum(p t) / (sum(p) + sum(t)), p the softmax
        (Milletari, Navab and Ahmadi, 2016, arXiv:1606.04797, with p and t to the first power below)."""
        from torch.nn.functional import cross_entropy, one_hot

        scores, s = outputs[0], self.settings
        total = scores.new_zeros(())
        if s.loss in ("cross-entropy", "both"):
            total = total + cross_entropy(scores, target, ignore_index=s.ignore)
        if s.loss in ("dice", "both"):
            counts = (target != s.ignore).unsqueeze(1)
            truth = one_hot(target.where(target != s.ignore, 0), scores.shape[1]).movedim(-1, 1) * counts
            likely = scores.softmax(1) * counts
            both, sizes = (likely * truth).sum((0, 2, 3)), (likely + truth).sum((0, 2, 3))
            total = total + 1 - (2 * both / sizes.clamp(min=1e-6)).mean()
        return total

    def soft_loss(self, outputs: Sequence[torch.Tensor], teacher: Sequence[torch.Tensor], temperature: float) -> torch.Tensor:
        """T^2 KL(softmax(teacher / T) || softmax(student / T)) of each pixel, mean over pixels (Hinton et al., 2015)."""
        from torch.nn.functional import kl_div, log_softmax

        classes = outputs[0].shape[1]
        own, taught = (log_softmax(x[0] / temperature, 1).movedim(1, -1).reshape(-1, classes) for x in (outputs, teacher))
        return kl_div(own, taught, reduction="batchmean", log_target=True) * temperature**2

    def score(self, outputs: Sequence[NDArray[Any]], target: NDArray[Any]) -> Metric:
        """mIoU of all pixels together; the interval is Student's of the images' own mIoU, moved to that figure. ``more``: pixel_accuracy,
        per_class (iou and the pixels it has)."""
        import numpy as np

        tables = self._tables(outputs, target)
        whole = np.sum(tables, axis=0)
        iou = _iou(whole)
        value = float(np.nanmean(iou))
        spread = mean_interval(np.asarray([np.nanmean(_iou(t)) for t in tables]))
        middle = sum(spread) / 2 if spread else 0.0
        names = self.labels or tuple(map(str, range(len(iou))))
        return Metric(
            name=self.metric,
            value=value,
            n=len(tables),
            ci95=(max(0.0, value + spread[0] - middle), min(1.0, value + spread[1] - middle)) if spread else None,
            unit=self.unit,
            more={
                "pixel_accuracy": float(np.trace(whole) / whole.sum()),
                "per_class_iou": [
                    {"name": names[k] if k < len(names) else str(k), "iou": None if np.isnan(iou[k]) else float(iou[k]), "pixels": int(n)}
                    for k, n in enumerate(whole.sum(1))
                ],
            },
        )

    def per_sample(self, outputs: Sequence[NDArray[Any]], target: NDArray[Any]) -> NDArray[Any]:
        return self.figures(outputs, target)[self.metric]

    def figures(self, outputs: Sequence[NDArray[Any]], target: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """miou over the classes that occur in an image or in the answer to it, and pixel_accuracy, of each image."""
        import numpy as np

        tables = self._tables(outputs, target)
        return {
            self.metric: np.asarray([np.nanmean(_iou(t)) for t in tables]),
            "pixel_accuracy": np.asarray([np.trace(t) / max(1, t.sum()) for t in tables]),
        }

    def answers(self, outputs: Sequence[NDArray[Any]]) -> None:
        return None

    def truths(self, target: NDArray[Any]) -> None:
        return None

    def numbers(self, target: NDArray[Any]) -> NDArray[Any]:
        return target

    def picture(self, value: NDArray[Any], *, truth: bool = False) -> NDArray[np.uint8] | None:
        """Each class in a colour of its own, the ignored black."""
        import numpy as np

        labels = value if truth else value.argmax(0)
        steps = np.asarray([[97, 37, 151], [67, 173, 59], [149, 89, 31]], np.int64)
        colours = ((labels[..., None] + 1) * steps.sum(0) // 2 + labels[..., None] * steps[0]) % 256
        return np.ascontiguousarray(np.where(labels[..., None] == self.settings.ignore, 0, colours).astype(np.uint8))

    def _tables(self, outputs: Sequence[NDArray[Any]], target: NDArray[Any]) -> list[NDArray[Any]]:
        """table[truth][answer] of each image, over the pixels that count."""
        import numpy as np

        scores = outputs[0]
        if len(scores) != len(target) or not len(scores):
            raise DataError(f"segmentation compares one image of classes with each output, got {len(scores)} and {len(target)}")
        out = []
        for i, (row, truth) in enumerate(zip(scores, target, strict=True)):
            if row.shape[1:] != truth.shape:
                raise DataError(f"segmentation: output {i} has {list(row.shape[1:])} pixels, the truth {list(truth.shape)}")
            if not np.isfinite(row).all():
                raise DataError(f"the model's scores of sample {i} are not finite; it can't be scored")
            classes = len(row)
            counts = truth != self.settings.ignore
            if not counts.any():
                raise DataError(f"segmentation: no pixel of sample {i} counts (all are {self.settings.ignore}); leave it out")
            table = np.bincount(truth[counts].astype(np.int64) * classes + row.argmax(0)[counts], minlength=classes * classes)
            if len(table) > classes * classes:
                raise DataError(f"segmentation: sample {i} has class {int(truth[counts].max())}; the model has {classes}")
            out.append(table.reshape(classes, classes))
        return out


def _iou(table: NDArray[Any]) -> NDArray[Any]:
    """Intersection over union of each class; NaN for one that neither occurs nor is answered."""
    import numpy as np

    both, union = np.diag(table), table.sum(0) + table.sum(1) - np.diag(table)
    return np.where(union > 0, both / np.maximum(union, 1), np.nan)


tasks.register("segmentation")(Segmentation)
