"""Text in an image, read by a connectionist temporal classifier (CTC): scores (rows, steps, classes), the best path is the answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from ..core.errors import DataError
from ..core.report import Metric
from ..core.verdict import YES, Verdict, no
from .classification import wilson
from .measures.text import best_path, edits, greedy
from .samples import gather_targets
from .task import Given, TaskSettings, Truth, tasks

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from ..core.tensor import Signature
    from .samples import Samples

PADDING = -1


class RecognitionSettings(TaskSettings, frozen=True, kw_only=True):
    """How texts are compared. ``case``: "ignore" or "keep"; ``characters`` that count: "alphanumeric" (letters and digits of ASCII) or
    "all". Benchmarks of word reading publish the defaults. ``blank`` is the class that stands for no character."""

    case: Literal["ignore", "keep"] = "ignore"
    characters: Literal["alphanumeric", "all"] = "alphanumeric"
    blank: int = 0


class Recognition:
    """The share of texts read without a fault. The model's labels are the alphabet: class k is
    ``labels[k - (k > blank)]``."""

    Settings = RecognitionSettings
    metric = "word_accuracy"
    unit = "%"
    higher_is_better = True
    truth: Truth = "data"

    def __init__(self, settings: RecognitionSettings, given: Given) -> None:
        self.settings, self.name, self.alphabet = settings, given.name, given.labels

    def fits(self, signature: Signature, samples: Samples) -> Verdict:
        output = signature.outputs[0]
        if len(output.shape) != 3:
            return no(f"recognition needs scores with a row, a step and a class axis, but the model's first output is {output}")
        if not self.alphabet:
            return no("recognition needs the characters of the model's classes; give them with --alphabet")
        if output.shape[2] != len(self.alphabet) + 1:
            room = f"{int(output.shape[2]) - 1} characters" if isinstance(output.shape[2], int) else "another number"
            return no(f"the alphabet has {len(self.alphabet)} characters; {output} has room for {room} and the blank; mend --alphabet")
        if not 0 <= self.settings.blank <= len(self.alphabet):
            return no(f"blank={self.settings.blank} is no class of a model with {len(self.alphabet) + 1}")
        inputs, target = samples.batch([0])
        for spec, value in zip(signature.inputs, inputs, strict=False):
            if not spec.fits(((spec.shape[0] if isinstance(spec.shape[0], int) else 1), *value.shape[1:])):
                wants, gives = ("x".join(map(str, shape[1:])) for shape in (spec.shape, value.shape))
                return no(f"the model wants {wants} a sample but '{samples.source}' gives {gives}; set --size or --colour")
        if target is not None and target.dtype.kind != "U":
            return no(f"recognition needs text to compare with, but '{samples.source}' has {target.dtype}; choose another --task")
        targets = gather_targets(samples)
        if targets is not None and not any(self._counted(t) for t in targets.tolist()):
            return no(f"no text of '{samples.source}' has a character that counts; set characters=all in --task")
        return YES

    def loss(self, outputs: Sequence[torch.Tensor], target: torch.Tensor) -> torch.Tensor:
        """The CTC loss (Graves et al., 2006), each text's divided by its length, mean over texts; ``target`` as ``numbers`` gives it."""
        from torch.nn.functional import ctc_loss, log_softmax

        scores = log_softmax(outputs[0], -1).transpose(0, 1)
        steps = scores.new_full((scores.shape[1],), scores.shape[0], dtype=target.dtype)
        lengths = (target != PADDING).sum(1)
        return ctc_loss(scores, target.clamp(min=0), steps, lengths, blank=self.settings.blank, zero_infinity=True)

    def soft_loss(self, outputs: Sequence[torch.Tensor], teacher: Sequence[torch.Tensor], temperature: float) -> torch.Tensor:
        """T^2 KL(softmax(teacher / T) || softmax(student / T)) of each step, mean over steps and rows (Hinton et al., 2015)."""
        from torch.nn.functional import kl_div, log_softmax

        classes = outputs[0].shape[-1]
        own = log_softmax(outputs[0] / temperature, -1).reshape(-1, classes)
        taught = log_softmax(teacher[0] / temperature, -1).reshape(-1, classes)
        return kl_div(own, taught, reduction="batchmean", log_target=True) * temperature**2

    def score(self, outputs: Sequence[NDArray[Any]], target: NDArray[Any]) -> Metric:
        """The share of right texts with Wilson's 95 % interval; ``more``: edits a hundred characters, and both
        by the length of the truth."""
        answers, truths = self._both(outputs, target)
        right = [a == t for a, t in zip(answers, truths, strict=True)]
        wrong = [edits(a, t) for a, t in zip(answers, truths, strict=True)]
        by_length: dict[int, list[int]] = {}
        for fits, fault, truth in zip(right, wrong, truths, strict=True):
            row = by_length.setdefault(len(truth), [0, 0, 0])
            row[0], row[1], row[2] = row[0] + 1, row[1] + fits, row[2] + fault
        lengths = [{"length": k, "n": n, "right": hits, "edits": off} for k, (n, hits, off) in sorted(by_length.items())]
        return Metric(
            name=self.metric,
            value=sum(right) / len(right),
            n=len(right),
            ci95=wilson(sum(right), len(right)),
            unit=self.unit,
            more={"edits_per_100": 100 * sum(wrong) / max(1, sum(map(len, truths))), "by_length": lengths},
        )

    def per_sample(self, outputs: Sequence[NDArray[Any]], target: NDArray[Any]) -> NDArray[Any]:
        """1.0 where the text is right, else 0.0."""
        return self.figures(outputs, target)[self.metric]

    def figures(self, outputs: Sequence[NDArray[Any]], target: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """word_accuracy (1.0 or 0.0), and ``edits`` with its sign turned, so that higher is better."""
        import numpy as np

        answers, truths = self._both(outputs, target)
        right = np.asarray([a == t for a, t in zip(answers, truths, strict=True)], np.float64)
        return {self.metric: right, "edits": -np.asarray([edits(a, t) for a, t in zip(answers, truths, strict=True)], np.float64)}

    def answers(self, outputs: Sequence[NDArray[Any]]) -> NDArray[Any]:
        """The texts, in the form in which they are compared."""
        import numpy as np

        return np.asarray([self._counted(t) for t in self.read(outputs[0])], dtype=np.str_)

    def truths(self, target: NDArray[Any]) -> NDArray[Any]:
        import numpy as np

        return np.asarray([self._counted(t) for t in self._texts(target)], dtype=np.str_)

    def read(self, scores: NDArray[Any]) -> list[str]:
        """The texts of scores (rows, steps, classes) as the model spells them."""
        if scores.ndim != 3 or scores.shape[2] != len(self.alphabet) + 1:
            raise DataError(f"recognition reads scores (rows, steps, {len(self.alphabet) + 1}), got {list(scores.shape)}")
        return [greedy(best_path(row), self.alphabet, self.settings.blank) for row in scores]

    def numbers(self, target: NDArray[Any]) -> NDArray[Any]:
        """Classes (rows, longest text), padded with -1. A letter that the alphabet lacks is taken in its other case."""
        import numpy as np

        if target.dtype.kind in "iu":
            return target
        blank = self.settings.blank
        classes = {c: k + (k >= blank) for k, c in enumerate(self.alphabet)}
        out = np.full((len(target), max(1, *(len(t) for t in target.tolist()))), PADDING, np.int64)
        for row, text in enumerate(target.tolist()):
            for column, character in enumerate(text):
                found = next((c for c in (character, character.lower(), character.upper()) if c in classes), None)
                if found is None:
                    raise DataError(f"text '{text}' of sample {row} has '{character}', which the alphabet lacks; leave it out to train")
                out[row, column] = classes[found]
        return out

    def picture(self, value: NDArray[Any], *, truth: bool = False) -> None:
        return None

    def _texts(self, target: NDArray[Any]) -> list[str]:
        if target.dtype.kind == "U":
            texts: list[str] = target.tolist()
            return texts
        blank = self.settings.blank
        return ["".join(self.alphabet[k - (k > blank)] for k in row if k != PADDING) for row in target.tolist()]

    def _counted(self, text: str) -> str:
        """What of a text counts."""
        if self.settings.case == "ignore":
            text = text.lower()
        return "".join(c for c in text if c.isascii() and c.isalnum()) if self.settings.characters == "alphanumeric" else text

    def _both(self, outputs: Sequence[NDArray[Any]], target: NDArray[Any]) -> tuple[list[str], list[str]]:
        import numpy as np

        scores = outputs[0]
        if len(scores) != len(target) or not len(scores):
            raise DataError(f"recognition compares one text with each row of scores, got {len(scores)} rows and {len(target)} texts")
        if not np.isfinite(scores).all():
            raise DataError("the model's scores are not finite; they can't be read")
        return self.answers(outputs).tolist(), self.truths(target).tolist()


tasks.register("recognition")(Recognition)
