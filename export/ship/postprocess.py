"""From a model's outputs to what a user sees: a small specification and the one function that executes it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from ...core.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ...core.tensor import Signature


class Postprocess(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What an app does with output number ``output``.

    - "labels": the class with the highest score; its probability is the score itself, or its softmax where ``scores`` is "logits".
    - "text": CTC, greedy: the best class of every step, repeats dropped, then ``blank``; class k is ``alphabet[k - (k > blank)]``.
      Steps lie along the axis that is neither the rows' (samples) nor the last.
    - "image": NCHW values in ``range`` become 8 bits: clip, scale to [0, 255], round half to even.
    - "raw": the numbers as they are.
    """

    kind: Literal["labels", "text", "image", "raw"]
    output: int = 0
    scores: Literal["logits", "probabilities"] = "logits"
    alphabet: str = ""
    blank: int = 0
    range: tuple[float, float] = (0.0, 1.0)


class Answer(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a user sees for one input. ``decided`` is False where the two best scores are closer than the output's tolerance: another
    machine may then answer otherwise and be right."""

    label: str = ""
    index: int | None = None
    score: float | None = None
    text: str | None = None
    decided: bool = True


def text_of(signature: Signature, alphabet: str, blank: int = 0) -> Postprocess:
    """CTC over the last axis of the first output; DataError where the alphabet doesn't fit, or one of its characters takes two
    places in some of the languages."""
    first = signature.outputs[0]
    if len(first.shape) != 3 or first.shape[2] != len(alphabet) + 1:
        raise DataError(f"text needs steps and {len(alphabet) + 1} classes (the alphabet and the blank); the first output is {first}")
    if wide := [c for c in alphabet if ord(c) > 0xFFFF]:
        raise DataError(f"character '{wide[0]}' of the alphabet is beyond 16 bits; the packages can't index it")
    return Postprocess(kind="text", alphabet=alphabet, blank=blank)


def guess(signature: Signature, labels: Sequence[str], task: str | None, outputs: Sequence[NDArray[Any]]) -> Postprocess:
    """The usual specification for a signature: scores (batch, classes), images, else raw."""
    import numpy as np

    first = signature.outputs[0]
    if len(first.shape) == 2 and (labels or task == "classification"):
        rows = np.asarray(outputs[0], np.float64)
        sums = bool(rows.size) and rows.min() >= 0 and np.allclose(rows.sum(-1), 1, atol=1e-3)
        return Postprocess(kind="labels", scores="probabilities" if sums else "logits")
    if first.layout in ("NCHW", "NHWC") and len(first.shape) == 4:
        return Postprocess(kind="image", range=first.range or (0.0, 1.0))
    return Postprocess(kind="raw")


def answer(output: NDArray[Any], spec: Postprocess, labels: Sequence[str], tolerance: float = 0.0) -> Answer:
    """The answer from one row of the logical output (batch of one)."""
    import numpy as np

    if spec.kind == "labels":
        scores = np.asarray(output, np.float64).reshape(-1)
        best = int(scores.argmax())
        rest = np.delete(scores, best)
        probability = scores
        if spec.scores == "logits":
            raised = np.exp(scores - scores.max())
            probability = raised / raised.sum()
        decided = not rest.size or float(scores[best] - rest.max()) > 2 * tolerance
        return Answer(label=_label(labels, best), index=best, score=float(probability[best]), decided=decided)
    if spec.kind == "text":
        steps = np.asarray(output, np.float64).reshape(-1, output.shape[-1])
        ranked = np.sort(steps, axis=1)
        decided = bool((ranked[:, -1] - ranked[:, -2] > 2 * tolerance).all())
        return Answer(text=ctc(steps.argmax(1).tolist(), spec), decided=decided)
    return Answer()


def ctc(path: Sequence[int], spec: Postprocess) -> str:
    """Repeats dropped, then blanks."""
    kept = [k for i, k in enumerate(path) if k != spec.blank and (i == 0 or path[i - 1] != k)]
    return "".join(spec.alphabet[k - (k > spec.blank)] for k in kept)


def _label(labels: Sequence[str], index: int) -> str:
    return labels[index] if index < len(labels) else str(index)
