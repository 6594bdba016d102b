"""The pass "qat": quantization-aware training, from the float model to the integer graph that "quantize" would give.

Calibrated as "quantize" does, then trained with the rounding of weights and activations in place, on the user's data and on the float
model's outputs. What was calibrated counts as epoch 0: on the validation data the result is never worse than static quantization.
"""

from __future__ import annotations

import time
from typing import Any, Literal

import msgspec

from ....core.bundle import Bundle
from ....core.errors import RecipeError
from ....core.verdict import Verdict
from ...distill.build import check
from ...finetune import FinetuneSettings, train, trainable
from ...passes import Context, PassResult, passes
from ..calibrate import calibrators, register
from ..lower import lower
from ..prepared import convert, prepare_lowered
from ..quantizer import Calibration
from ..recurrent import round_matrices
from ..samples import calibrate_on
from ..static import is_integer, quantizable, told_of
from .build import take_back, training_graph


class QatSettings(FinetuneSettings, frozen=True, kw_only=True):
    """As ``finetune``, with the rate and the length that a trained network wants; and as ``quantize`` for the calibration it starts from.

    ``scales``: "learned" with the weights (LSQ), or "calibrated": activations keep theirs, weights' follow their ranges. ``batchnorm``:
    "trained" (by the batch's statistics) or "frozen" (by the running ones). ``keep_zeros``: weights that are zero stay zero.
    """

    epochs: float = 4
    min_steps: int = 200
    lr: float = 0.005
    weight_decay: float = 5e-5
    alpha: float = 0.9
    scales: Literal["learned", "calibrated"] = "learned"
    batchnorm: Literal["trained", "frozen"] = "trained"
    keep_zeros: bool = True
    calibrator: str = "mse"
    samples: int = 320
    percentile: float = 99.99
    keep_float: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise ValueError(f"samples is {self.samples}; give 1 or more")
        if not 50 < self.percentile <= 100:
            raise ValueError(f"percentile is {self.percentile}; give a number above 50, at most 100")
        register()
        if self.calibrator not in calibrators:
            raise ValueError(f"calibrator is '{self.calibrator}'; known: {', '.join(calibrators.names())}")


_DEFAULT = QatSettings()


@passes.register("qat")
class Qat:
    """Quantization-aware training. The result is an integer graph, like that of "quantize"."""

    Settings = QatSettings
    name = "qat"

    def __init__(self, settings: QatSettings = _DEFAULT) -> None:
        self.settings = settings

    def requires(self, bundle: Bundle, context: Context) -> Verdict:
        settings = self.settings
        for verdict in (quantizable(bundle, context), trainable(bundle, context, settings)):
            if not verdict:
                return verdict
        if settings.alpha == 0 and not settings.hints:
            return verdict
        return check(settings.loss, settings.hints, bundle, context.teacher, context.task)

    def __call__(self, bundle: Bundle, context: Context) -> PassResult:
        began = time.monotonic()
        settings, scheme = self.settings, context.target.quantization
        graph = bundle.copy_graph()
        folded = lower(graph)
        prepared = prepare_lowered(graph, scheme, Calibration(settings.calibrator, settings.percentile), settings.keep_float)
        done = calibrate_on(prepared, bundle, context, settings.samples)
        enough, plan = prepared.sufficiency(done), prepared.plan
        if not plan.layers():
            raise RecipeError("no layer can become integer: " + "; ".join(f"{k}: {v}" for k, v in plan.kept_float().items()))
        learned, frozen = settings.scales == "learned", settings.batchnorm == "frozen"
        network = training_graph(prepared, folded, learned=learned, frozen_norms=frozen, keep_zeros=settings.keep_zeros)
        _, told = train(bundle.replace(graph=network), settings, context, self.name, began)
        take_back(network, prepared, folded)
        graph = convert(prepared)
        recurrent = round_matrices(graph, scheme, settings.keep_float)
        quantized: dict[str, Any] = {
            "scheme": msgspec.to_builtins(scheme),
            "calibrator": settings.calibrator,
            "samples": done,
            "layers": list(plan.layers()),
            "float": plan.kept_float(),
            "recurrent": recurrent,
            "trained": True,
        }
        changes = {
            "int8_layers": len(plan.layers()),
            "calibrated_on": done,
            "calibration": told_of(enough),
            "float": plan.kept_float(),
            **({"recurrent": recurrent} if recurrent else {}),
            **told,
        }
        return PassResult(bundle.replace(graph=graph, quantized=quantized), True, changes)

    def ensures(self, before: Bundle, after: Bundle, context: Context) -> Verdict:
        return is_integer(before, after, context)
