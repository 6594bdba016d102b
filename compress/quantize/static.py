"""The pass "quantize": static int8, by the target's scheme, calibrated on real inputs.

One quantized graph serves every runtime: its scales go to ONNX, OpenVINO and TFLite as they are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from ...core.bundle import Bundle
from ...core.verdict import YES, Verdict, no
from ..passes import Context, PassResult, Settings, passes
from .calibrate import calibrators, register
from .prepared import Prepared, batches_of, convert, draw, prepare
from .quantizer import Calibration
from .torchao import installed

if TYPE_CHECKING:
    from ...tasks.samples import Samples

_BATCH = 32
_LAYERS = ("aten.conv1d", "aten.conv2d", "aten.conv_transpose", "aten.linear", "aten.matmul", "aten.bmm")


class QuantizeSettings(Settings, frozen=True, kw_only=True):
    """How to quantize.

    ``calibrator``: minmax, moving-average, percentile, mse or entropy. ``samples``: how many inputs to calibrate on; fewer are fine
    (32 unlabelled images do), all are taken where there are fewer. ``percentile`` is for that calibrator. ``keep_float``: patterns of
    layers ("layer1.*", "*.head") that stay in float.
    """

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


_DEFAULT = QuantizeSettings()


@passes.register("quantize")
class Quantize:
    """Static int8 quantization. The result's ``quantized`` says scheme, calibration, and which layers are integer and which not."""

    Settings = QuantizeSettings
    name = "quantize"

    def __init__(self, settings: QuantizeSettings = _DEFAULT) -> None:
        self.settings = settings

    def requires(self, bundle: Bundle, context: Context) -> Verdict:
        if bundle.quantized is not None:
            return no("the model is quantized already; start from its float form")
        if _calibration_data(context) is None:
            return no("there are no inputs to calibrate on; give some with --calib or --data (32 unlabelled images are enough)")
        if not any(str(n.target).startswith(_LAYERS) for n in bundle.graph.graph.nodes):
            return no("the model has no convolution or linear layer to quantize")
        if not installed():
            return no("torchao is not installed; install it with: pip install 'packlight[quantize]'")
        return YES

    def __call__(self, bundle: Bundle, context: Context) -> PassResult:
        scheme = context.target.quantization
        prepared = prepare(bundle, scheme, Calibration(self.settings.calibrator, self.settings.percentile), self.settings.keep_float)
        seen = feed(prepared, bundle, context, self.settings.samples)
        plan = prepared.plan
        graph = convert(prepared)
        quantized = {
            "scheme": msgspec.to_builtins(scheme),
            "calibrator": self.settings.calibrator,
            "samples": seen,
            "layers": list(plan.layers()),
            "float": plan.kept_float(),
        }
        changes = {"int8_layers": len(plan.layers()), "calibrated_on": seen, "float": plan.kept_float()}
        return PassResult(bundle.replace(graph=graph, quantized=quantized), True, changes)

    def ensures(self, before: Bundle, after: Bundle, context: Context) -> Verdict:
        """Every layer that is called int8 reads int8 weights within the scheme, and some layer does."""
        if after.quantized is None:
            return no("the result does not say how it is quantized")
        named = set(after.quantized["layers"])
        if not named:
            return no("no layer became integer: " + "; ".join(f"{k}: {v}" for k, v in after.quantized["float"].items()))
        missing = named - integer_layers(after, context.target.quantization.weight_max)
        if missing:
            return no(f"these layers were to be int8 but are not: {', '.join(sorted(missing))}")
        if after.signature != before.signature:
            return no("the signature changed")
        return YES


def feed(prepared: Prepared, bundle: Bundle, context: Context, samples: int) -> int:
    """Calibrates on ``samples`` of the context's inputs, drawn with its seed; how many there were."""
    data = _calibration_data(context)
    assert data is not None
    chosen = draw(samples, len(data), context.seed)
    batch = bundle.signature.inputs[0].shape[0] if bundle.signature.inputs[0].shape else 1
    fixed = batch if isinstance(batch, int) else None
    total, done = len(chosen), 0
    for inputs in batches_of(data, chosen, _BATCH, fixed):
        done += prepared.feed([inputs])
        context.progress.step("calibrate", done, total)
    return done


def integer_layers(bundle: Bundle, weight_max: int) -> set[str]:
    """The layers of a quantized graph that read an int8 weight, every value of it within +-``weight_max``."""
    import torch

    from ..graph import weight_of
    from .plan import layer_name

    found = set()
    for node in bundle.graph.graph.nodes:
        for argument in node.all_input_nodes if node.op == "call_function" else ():
            if not str(argument.target).startswith("quantized_decomposed.dequantize"):
                continue
            stored = weight_of(bundle.graph, argument.args[0])
            if stored is not None and stored.dtype == torch.int8 and int(stored.to(torch.int16).abs().max()) <= weight_max:
                found.add(layer_name(node))
    return found


def _calibration_data(context: Context) -> Samples | None:
    for data in (context.calib, context.train):
        if data is not None and len(data):
            return data
    return None
