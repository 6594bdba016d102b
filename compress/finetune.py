"""Train what compression left, on the user's data and on the outputs of the uncompressed model.

    loss = (1 - alpha) task loss + alpha soft loss against the teacher

Without a teacher (or with alpha 0) only the task's loss counts. ``augment = "auto"`` tries each augmentation on the teacher
with validation images and keeps those under which its score falls by at most 0.02: mirrored digits are no longer digits, mirrored
dogs are dogs. Without a teacher or validation labels there is nothing to judge by, and nothing is augmented.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from typing import TYPE_CHECKING, Any

import msgspec

from ..core.bundle import Bundle, flatten_outputs
from ..core.errors import RecipeError
from ..core.tensor import rows_first
from ..core.verdict import YES, Verdict, no
from ..tasks.samples import gather_targets
from .distill.adversarial import AdversarialSettings, check_discriminator, make_against
from .distill.build import HintSettings, check, make_teacher
from .passes import Context, PassResult, passes
from .train import Trained, fit
from .training.augment import Augment
from .training.rider import KeepZeros, zeros_to_keep
from .training.rows import numeric, rows_in_front
from .training.settings import Count, Positive, Share, TrainSettings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..tasks.samples import Samples
    from ..tasks.task import Task
    from .training.rider import Rider

TOLERATED = 0.02
JUDGED_BY = 1000
_WORDS = ("shift", "flip", "zoom", "colour", "erase")


class FinetuneSettings(TrainSettings, frozen=True, kw_only=True):
    """``alpha``: weight of the teacher against the labels. ``loss``: how outputs are compared, "task" for the task's own way or one of
    ``compress.distill`` ("kd", "dkd", "dist"; "sequence" for text, "boxes" and "boxes-softmax" for detectors); ``temperature`` softens
    them. ``hints``: losses between layers. ``views``: how many augmentations of each image are used in turn, for which the teacher is
    asked only once (None: new ones every epoch). ``own_past``: without a teacher (or with ``alpha`` 0), what the network said an epoch
    ago teaches it, with this weight at the end of the run (self-distillation, ``training/past.py``; 0.8 in the paper). ``adversarial``:
    how the context's discriminator, where there is one, is used (``distill/adversarial.py``)."""

    alpha: Share = 0.7
    loss: str = "task"
    temperature: Positive = 4.0
    hints: tuple[HintSettings, ...] = ()
    views: Count | None = None
    own_past: Share = 0.0
    adversarial: AdversarialSettings | None = None


_DEFAULT = FinetuneSettings()


@passes.register("finetune")
class Finetune:
    """Trains every weight of the model; the graph stays as it is."""

    Settings = FinetuneSettings
    name = "finetune"

    def __init__(self, settings: FinetuneSettings = _DEFAULT) -> None:
        self.settings = settings

    def requires(self, bundle: Bundle, context: Context) -> Verdict:
        settings = self.settings
        verdict = trainable(bundle, context, settings)
        if not verdict or (settings.alpha == 0 and not settings.hints):
            return verdict
        return check(settings.loss, settings.hints, bundle, context.teacher, context.task)

    def __call__(self, bundle: Bundle, context: Context) -> PassResult:
        began = time.monotonic()
        graph = bundle.copy_graph()
        trained, changes = train(bundle.replace(graph=graph), self.settings, context, self.name, began)
        if trained.best_epoch == 0 and context.val is not None:
            return PassResult(bundle, False, {**changes, "why": "no epoch scored better on the validation data than what came in"})
        return PassResult(bundle.replace(graph=graph), True, changes)

    def ensures(self, before: Bundle, after: Bundle, context: Context) -> Verdict:
        return same_shape(before, after)


def train(
    bundle: Bundle,
    settings: FinetuneSettings,
    context: Context,
    label: str,
    began: float,
    *,
    riders: Sequence[Rider] = (),
    keep_last: bool = False,
) -> tuple[Trained, dict[str, Any]]:
    """Trains the graph of ``bundle`` in place, a free copy; how it went, and what the history says of it."""
    task = context.task
    assert task is not None
    context = dataclasses.replace(context, train=numeric(context.train, task), val=numeric(context.val, task))
    data = context.train
    assert data is not None
    teacher: Any = None
    told: dict[str, Any] = {"teacher": None}
    if zeros := zeros_to_keep(bundle):
        riders = [*riders, KeepZeros(zeros)]
        told["zeros-kept"] = len(zeros)
    if context.teacher is not None and (settings.alpha > 0 or settings.hints):
        teacher, taught = make_teacher(
            settings.loss,
            settings.hints,
            bundle,
            context.teacher,
            task,
            alpha=settings.alpha,
            temperature=settings.temperature,
            views=settings.views,
            seed=context.seed,
        )
        told |= taught
    against: Any = None
    if context.discriminator is not None:
        against = make_against(settings.adversarial, context.discriminator, task)
        told["discriminator"] = context.discriminator.name
    plan = augmentation(settings.augment, bundle, context)
    if teacher is None and settings.own_past:
        told["teacher"] = "its own past"
    context.progress.say(f"  augmentation: {plan}; teacher: {told['teacher'] or 'none'}")
    with contextlib.ExitStack() as stack:
        stack.enter_context(rows_in_front(bundle.graph, bundle.signature.outputs))
        if teacher is not None and context.teacher is not None:
            stack.enter_context(rows_in_front(teacher.graph, context.teacher.signature.outputs))
        trained = fit(
            bundle.graph,
            len(bundle.signature.outputs),
            settings,
            task,
            data,
            context.val,
            plan=plan,
            teacher=teacher,
            own_past=settings.own_past,
            seed=context.seed,
            work=context.work,
            label=label,
            progress=context.progress,
            began=began,
            riders=riders,
            keep_last=keep_last,
            against=against,
        )
    return trained, {**trained.changes(), "augment": str(plan), **told}


def trainable(bundle: Bundle, context: Context, settings: TrainSettings) -> Verdict:
    """Whether ``bundle`` can be trained with what the context holds."""
    import inspect

    if bundle.quantized is not None:
        return no("the model is quantized; train before 'quantize'")
    if context.task is None:
        return no("training needs a task; give --task")
    if context.train is None or not len(context.train):
        return no("training needs training data; give --data with more than test samples")
    if not isinstance(bundle.signature.inputs[0].shape[0], str):
        return no(
            "the model was traced with a fixed batch, so it can't be trained in batches; make its forward independent of the batch size"
        )
    if not any(p.requires_grad for p in bundle.graph.parameters()):
        return no("the model has no parameters to train")
    fits = context.task.fits(bundle.signature, context.train)
    if not fits:
        return fits
    if context.teacher is None and gather_targets(context.train) is None:
        return no("the training data has no labels and there is no teacher; give one of them")
    if settings.label_smoothing and "smoothing" not in inspect.signature(context.task.loss).parameters:
        return no(f"label-smoothing has no meaning for task '{context.task.name}'; leave it at 0")
    teacher = context.teacher
    if teacher is not None and [t.shape[1:] for t in teacher.signature.inputs] != [t.shape[1:] for t in bundle.signature.inputs]:
        return no(
            f"the teacher reads {teacher.signature.inputs[0]}, the student {bundle.signature.inputs[0]}; they must read the same data"
        )
    judged = check_discriminator(getattr(settings, "adversarial", None), context.discriminator, bundle, teacher, context.task)
    if not judged:
        return judged
    try:
        read_augment(settings.augment, 32)
    except RecipeError as error:
        return no(str(error))
    return YES


def same_shape(before: Bundle, after: Bundle) -> Verdict:
    """Training changes the values of weights, and leaves the graph, their names and their shapes as they were; all are finite."""
    import torch

    old, new = before.graph.state_dict(), after.graph.state_dict()
    for name, value in new.items():
        if name not in old or old[name].shape != value.shape:
            return no(f"weight '{name}' appeared or changed its shape")
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            return no(f"weight '{name}' is not finite")
    if len(old) != len(new) or before.signature != after.signature:
        return no("weights are missing or the signature changed")
    return YES


def read_augment(text: str, side: int) -> Augment:
    """ "none", or words of "shift", "flip", "zoom", "colour", "erase" joined by "-", "strong" for all; a shift is an eighth of the image's
    side, a zoom keeps a third, colours move by two fifths, a square of half the side is erased."""
    if text in ("none", "auto"):
        return Augment()
    words = list(_WORDS) if text == "strong" else text.split("-")
    unknown = [w for w in words if w not in _WORDS]
    if unknown:
        raise RecipeError(
            f"augment '{text}' is unknown; known: auto, none, strong, or any of {', '.join(_WORDS)} joined by '-' (shift-flip)"
        )
    return Augment(
        shift=max(1, side // 8) if "shift" in words else 0,
        flip="flip" in words,
        zoom=0.35 if "zoom" in words else 1.0,
        colour=0.4 if "colour" in words else 0.0,
        erase=0.5 if "erase" in words else 0.0,
    )


def augmentation(text: str, bundle: Bundle, context: Context) -> Augment:
    """The plan that ``text`` means for this model and data."""
    shape = bundle.signature.inputs[0].shape
    if len(bundle.signature.inputs) != 1 or len(shape) != 4:
        return Augment()
    side = int(bundle.samples[0].shape[-1])
    if text != "auto":
        return read_augment(text, side)
    teacher, val, task = context.teacher, context.val, context.task
    if teacher is None or val is None or task is None:
        return Augment()
    plan = Augment()
    base = _score(teacher, task, val, plan)
    if base is None:
        return plan
    sign = 1 if task.higher_is_better else -1
    for word in ("shift", "flip"):
        field = msgspec.structs.asdict(read_augment(word, side))[word]
        tried = msgspec.structs.replace(Augment(), **{word: field})
        score = _score(teacher, task, val, tried, always=word == "flip")
        if score is not None and sign * (base - score) <= TOLERATED:
            plan = msgspec.structs.replace(plan, **{word: field})
    return plan


def _score(teacher: Bundle, task: Task, val: Samples, plan: Augment, *, always: bool = False) -> float | None:
    """The teacher's score on validation images under ``plan``; ``always`` mirrors every image, not every second."""
    import numpy as np
    import torch

    from .training.feed import Feed

    feed = Feed(val, plan, 0, torch.device("cpu"), channels_last=False)
    count = min(JUDGED_BY, len(val))
    if always:
        draws = feed._drawn(0)
        feed._draws = {0: dataclasses.replace(draws, flip=torch.ones_like(draws.flip))}
    rows = np.linspace(0, len(val) - 1, count).astype(np.intp)
    outputs: list[Any] = []
    targets: list[Any] = []
    for start in range(0, count, 128):
        batch = feed.batch(rows[start : start + 128], 0)
        if batch.target is None:
            return None
        with torch.no_grad():
            made = flatten_outputs(teacher.graph(*batch.inputs))
            outputs.append([rows_first(o, spec).numpy() for o, spec in zip(made, teacher.signature.outputs, strict=True)])
        targets.append(batch.target.numpy())
    return task.score([np.concatenate(c) for c in zip(*outputs, strict=True)], np.concatenate(targets)).value
