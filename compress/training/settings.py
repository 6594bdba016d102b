"""How a network is trained: the settings that fine-tuning, distillation and training with fake quantization share."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from ..passes import Settings
from .schedule import Shape

Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Positive = Annotated[float, msgspec.Meta(gt=0)]
NotNegative = Annotated[float, msgspec.Meta(ge=0)]
Count = Annotated[int, msgspec.Meta(ge=1)]


class TrainSettings(Settings, frozen=True, kw_only=True):
    """How a network is trained.

    ``epochs``, but at least ``min-steps`` steps (small data sets), and at most ``max-minutes``: the schedule then ends
    early, in time. ``lr`` is the peak rate, reached after the ``warmup`` share of the run, then following ``schedule``. Scales
    and biases have no ``weight-decay``. ``ema`` is the decay of a moving average of the weights, which is then what is validated
    and kept (0: none). ``augment``: "shift", "flip", "zoom", "colour", "erase" joined ("shift-flip"), "strong", "none", or "auto" (see
    ``compress.finetune``). ``patience``: stop after so many epochs without a better validation score (0: never).
    ``accumulate``: batches per step. ``device``: "auto" takes a GPU where there is one.
    """

    epochs: NotNegative = 10
    min_steps: Annotated[int, msgspec.Meta(ge=0)] = 0
    max_minutes: Positive | None = None
    batch_size: Count = 128
    accumulate: Count = 1
    optimizer: Literal["sgd", "adamw"] = "sgd"
    lr: Positive = 0.03
    momentum: Share = 0.9
    weight_decay: NotNegative = 1e-4
    schedule: Shape = "cosine"
    warmup: Share = 0.05
    clip: NotNegative = 0.0
    label_smoothing: Share = 0.0
    ema: Share = 0.0
    augment: str = "auto"
    mixup: NotNegative = 0.0
    cutmix: NotNegative = 0.0
    patience: Annotated[int, msgspec.Meta(ge=0)] = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
