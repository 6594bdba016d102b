"""Train a student network from a teacher: the same engine as fine-tuning, with settings for a network that starts from nothing."""

from __future__ import annotations

import dataclasses

from ...core.bundle import Bundle
from ...core.verdict import Verdict, no
from ..finetune import Finetune, FinetuneSettings
from ..passes import Context, PassResult, passes
from .imagine import ImagineSettings, blank, check_imagine, imagine


class DistillSettings(FinetuneSettings, frozen=True, kw_only=True):
    """As ``finetune``; the defaults are for random weights: a higher peak rate, a longer run, more weight on the teacher.

    ``imagine``: train on images made from the teacher's BatchNorm statistics, in place of the training data (``distill/imagine.py``)."""

    epochs: float = 30
    lr: float = 0.1
    weight_decay: float = 5e-4
    alpha: float = 0.9
    imagine: ImagineSettings | None = None


_DEFAULT = DistillSettings()


@passes.register("distill")
class Distill(Finetune):
    """The bundle is the student; the context's teacher is what it learns from. Labels are used where there are some."""

    Settings = DistillSettings
    name = "distill"

    def __init__(self, settings: DistillSettings = _DEFAULT) -> None:
        super().__init__(settings)
        self.imagine = settings.imagine

    def requires(self, bundle: Bundle, context: Context) -> Verdict:
        if context.teacher is None:
            return no("distillation needs a teacher; give --teacher")
        if self.imagine is not None:
            verdict = check_imagine(context.teacher)
            if not verdict:
                return verdict
            context = dataclasses.replace(context, train=blank(context.teacher))
        return super().requires(bundle, context)

    def __call__(self, bundle: Bundle, context: Context) -> PassResult:
        if self.imagine is None or context.teacher is None:
            return super().__call__(bundle, context)
        made = imagine(context.teacher, self.imagine, seed=context.seed, work=context.work, progress=context.progress)
        result = super().__call__(bundle, dataclasses.replace(context, train=made))
        return dataclasses.replace(result, changes={**result.changes, "imagined": len(made)})
