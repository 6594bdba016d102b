"""The pass "quantize": static int8, by the target's scheme, calibrated on real inputs.

One quantized graph serves every runtime: its scales go to ONNX, OpenVINO and TFLite as they are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import msgspec

from ...core.bundle import Bundle, copy_graph
from ...core.verdict import YES, Verdict, no
from ..passes import Context, PassResult, Settings, passes
from .calibrate import calibrators, register
from .calibrate.sufficiency import Sufficiency
from .lower import lower
from .prepared import convert, prepare_lowered
from .quantizer import Calibration
from .recurrent import round_matrices
from .samples import batches_of, calibrate_on, calibration_data, draw
from .torchao import installed

if TYPE_CHECKING:
    from torch.fx import GraphModule

    from ..fold import Folded

_LAYERS = ("aten.conv1d", "aten.conv2d", "aten.conv_transpose", "aten.linear", "aten.matmul", "aten.bmm")


class QuantizeSettings(Settings, frozen=True, kw_only=True):
    """How to quantize.

    ``calibrator``: minmax, moving-average, percentile, mse or entropy. ``samples``: how many inputs to calibrate on; fewer are fine
    (32 unlabelled images do), all are taken where there are fewer. ``percentile`` is for that calibrator. ``keep_float``: patterns of
    layers ("layer1.*", "*.head") that stay in float.

    ``bias_correction`` takes the mean error of each layer off its bias: "empirical" (from calibration data) or "analytic" (from BatchNorm's
    statistics). ``rounding``: "nearest", or "learned" (each weight up or down by its effect on the layer's output). ``mend``: patterns
    of the layers that these two may change; ``mend_samples``: how many inputs they look at.

    ``activation_bits``: 8, or 16 (symmetric, from the same histograms; weights in the full 8 bits), where a runtime of the target has
    such kernels (TFLite's "int16").
    """

    calibrator: str = "mse"
    samples: int = 320
    percentile: float = 99.99
    keep_float: tuple[str, ...] = ()
    bias_correction: Literal["none", "empirical", "analytic"] = "none"
    rounding: Literal["nearest", "learned"] = "nearest"
    mend: tuple[str, ...] = ("*",)
    mend_samples: int = 128
    activation_bits: Literal[8, 16] = 8

    def __post_init__(self) -> None:
        if self.samples < 1 or self.mend_samples < 1:
            raise ValueError(f"samples and mend-samples are {self.samples} and {self.mend_samples}; give 1 or more")
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
        verdict = quantizable(bundle, context)
        if self.settings.activation_bits == 16 and not any("int16" in r.precisions for r in context.target.runtimes):
            return no(f"no runtime of target '{context.target.name}' computes 16-bit activations; leave activation-bits at 8")
        operators = {str(n.target) for n in bundle.graph.graph.nodes}
        if verdict and self.settings.bias_correction == "analytic" and "aten.batch_norm.default" not in operators:
            return no(
                "analytic bias correction reads BatchNorm's statistics, but none is left; leave out 'fold-batchnorm', or say empirical"
            )
        return verdict

    def __call__(self, bundle: Bundle, context: Context) -> PassResult:
        settings, scheme = self.settings, context.target.quantization
        if settings.activation_bits == 16:  # no kernel adds products with 16 bits saturating
            scheme = msgspec.structs.replace(scheme, weight_max=127, activation_symmetric=True)
        graph = bundle.copy_graph()
        folded = lower(graph)
        mends = settings.rounding == "learned" or settings.bias_correction != "none"
        floating = copy_graph(graph) if mends else graph
        prepared = prepare_lowered(
            graph, scheme, Calibration(settings.calibrator, settings.percentile, settings.activation_bits), settings.keep_float
        )
        done = calibrate_on(prepared, bundle, context, settings.samples)
        enough = prepared.sufficiency(done)
        plan = prepared.plan
        graph = convert(prepared)
        recurrent = round_matrices(graph, scheme, settings.keep_float)
        mended = self._mend(bundle.replace(graph=graph), floating, folded, context) if mends else {}
        quantized = {
            "scheme": msgspec.to_builtins(scheme),
            "calibrator": settings.calibrator,
            "samples": done,
            "activation_bits": settings.activation_bits,
            "layers": list(plan.layers()),
            "float": plan.kept_float(),
            "recurrent": recurrent,
            "bias_correction": settings.bias_correction,
            "rounding": settings.rounding,
        }
        changes = {
            "int8_layers": len(plan.layers()),
            "calibrated_on": done,
            "calibration": told_of(enough),
            "float": plan.kept_float(),
            **({"recurrent": recurrent} if recurrent else {}),
            **mended,
        }
        return PassResult(bundle.replace(graph=graph, quantized=quantized), True, changes)

    def ensures(self, before: Bundle, after: Bundle, context: Context) -> Verdict:
        return is_integer(before, after, context)

    def _mend(self, integer: Bundle, floating: GraphModule, folded: Folded, context: Context) -> dict[str, Any]:
        """Corrects biases and roundings of the integer graph in place; what came of it, for the history."""
        from .mend.analytic import correct_analytically
        from .mend.run import mend

        settings, told = self.settings, dict[str, Any]()
        learned, empirical = settings.rounding == "learned", settings.bias_correction == "empirical"
        if learned or empirical:
            data = calibration_data(context)
            assert data is not None
            chosen = draw(settings.mend_samples, len(data), context.seed)
            report = mend(
                floating,
                integer.graph,
                list(batches_of(data, chosen, integer)),
                rounding=learned,
                bias=empirical,
                only=settings.mend,
                seed=context.seed,
                tell=lambda at, of: context.progress.step("mend", at, of),
            )
            told["mended"] = {m.layer: {k: v for k, v in msgspec.to_builtins(m).items() if k != "layer" and v is not None} for m in report}
        if settings.bias_correction == "analytic":
            told["bias"] = correct_analytically(floating, integer.graph, folded.statistics, settings.mend)
        return told


def quantizable(bundle: Bundle, context: Context) -> Verdict:
    """Whether there is something to quantize, and something to calibrate it on."""
    if bundle.quantized is not None:
        return no("the model is quantized already; start from its float form")
    if calibration_data(context) is None:
        return no("there are no inputs to calibrate on; give some with --calib or --data (32 unlabelled images are enough)")
    operators = {str(n.target) for n in bundle.graph.graph.nodes}
    if not any(o.startswith(_LAYERS) for o in operators):
        return no("the model has no convolution or linear layer to quantize")
    if not installed():
        return no("torchao is not installed; install it with: pip install 'packlight[quantize]'")
    return YES


def is_integer(before: Bundle, after: Bundle, context: Context) -> Verdict:
    """Every layer that is called int8 reads int8 weights within the scheme, and some layer does."""
    if after.quantized is None:
        return no("the result does not say how it is quantized")
    named = set(after.quantized["layers"])
    if not named:
        return no("no layer became integer: " + "; ".join(f"{k}: {v}" for k, v in after.quantized["float"].items()))
    missing = named - integer_layers(after, int(after.quantized["scheme"]["weight_max"]))
    if missing:
        return no(f"these layers were to be int8 but are not: {', '.join(sorted(missing))}")
    if after.signature != before.signature:
        return no("the signature changed")
    return YES


def told_of(enough: Sufficiency) -> dict[str, Any]:
    return {"spread": enough.spread, "worst": enough.worst, "enough_samples": enough.enough, "sufficient": enough.ok}


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
