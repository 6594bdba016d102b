"""Train a student network from a teacher: the same engine as fine-tuning, with settings for a network that starts from nothing."""

from __future__ import annotations

from ...core.bundle import Bundle
from ...core.verdict import Verdict, no
from ..finetune import Finetune, FinetuneSettings
from ..passes import Context, passes


class DistillSettings(FinetuneSettings, frozen=True, kw_only=True):
    """As ``finetune``; the defaults are for random weights: a higher peak rate, a longer run, more weight on the teacher."""

    epochs: float = 30
    lr: float = 0.1
    weight_decay: float = 5e-4
    alpha: float = 0.9


_DEFAULT = DistillSettings()


@passes.register("distill")
class Distill(Finetune):
    """The bundle is the student; the context's teacher is what it learns from. Labels are used where there are some."""

    Settings = DistillSettings
    name = "distill"

    def __init__(self, settings: DistillSettings = _DEFAULT) -> None:
        super().__init__(settings)

    def requires(self, bundle: Bundle, context: Context) -> Verdict:
        if context.teacher is None:
            return no("distillation needs a teacher; give --teacher")
        return super().requires(bundle, context)
