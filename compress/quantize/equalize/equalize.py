"""The pass "equalize": make the channels between two layers alike in range, so that one scale fits them all.

Between two layers with a positively homogeneous activation f (f(s x) = s f(x) for s > 0: ReLU, PReLU, leaky ReLU, none) each channel i
may be shrunk by s_i in the first and grown back in the second (Nagel et al., 2019, arXiv:1906.04721, section 4.1)::

    W2 f(W1 x + b1) = W2' f(W1' x + b1'),      W1' = S^-1 W1,   b1' = S^-1 b1,   W2' = W2 S

    s_i = sqrt(r1_i / r2_i)    makes both ranges sqrt(r1_i r2_i)

Which ranges count depends on the scheme. Where a weight has one scale for all, r1 is max |row i of W1| and r2 is max |column i of W2|, over
and over until it settles. A scale per output channel absorbs rows for free; then it is the *activation* that has one scale for all its
channels: r1 is max |value of channel i| over calibration data, and r2 the column's largest weight relative to its row's (as SmoothQuant
does between activations and weights: Xiao et al., 2022, arXiv:2211.10438, with alpha = 1/2). A depthwise second layer has a scale for
each channel, so there the channels are made equal altogether.

An activation that clips at c (ReLU6) is homogeneous only below c. Channels that reach c keep s_i = 1; the others keep below it by a margin,
and the model computes the same on what the data show.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

from ....core.bundle import Bundle, layer_of
from ....core.verdict import YES, Verdict, no
from ...fold import fold_graph
from ...graph import drop_identities, functionalize
from ...passes import Context, PassResult, Settings, passes
from ..ops.role import name_of
from ..samples import batches_of, calibration_data, draw
from .pairs import Pair, groups_of, maker, outputs, pairs
from .ranges import below_bound, column_ranges, rescale, row_ranges, scales_of

if TYPE_CHECKING:
    from torch import Tensor
    from torch.fx import GraphModule, Node


class EqualizeSettings(Settings, frozen=True, kw_only=True):
    """``by``: whose ranges count, "weights" or "activations" ("auto": as the target's scheme has it). ``samples``: how many calibration
    inputs to look at. ``limit``: the largest factor either way. ``rounds``: how often to go through all pairs by weights."""

    by: Literal["auto", "weights", "activations"] = "auto"
    samples: int = 128
    limit: float = 100.0
    rounds: int = 20

    def __post_init__(self) -> None:
        if self.samples < 1 or self.rounds < 1:
            raise ValueError("samples and rounds are at least 1")
        if not self.limit > 1:
            raise ValueError(f"limit is {self.limit}; give a factor above 1")


_DEFAULT = EqualizeSettings()


@passes.register("equalize")
class Equalize:
    """Cross-layer equalisation. Folds BatchNorm first; the model computes the same."""

    Settings = EqualizeSettings
    name = "equalize"

    def __init__(self, settings: EqualizeSettings = _DEFAULT) -> None:
        self.settings = settings

    def requires(self, bundle: Bundle, context: Context) -> Verdict:
        if bundle.quantized is not None:
            return no("the model is quantized already; equalize before 'quantize'")
        if self._by(context) == "activations" and calibration_data(context) is None:
            return no('activations\' ranges need inputs; give some with --calib or --data, or set by = "weights"')
        return YES

    def __call__(self, bundle: Bundle, context: Context) -> PassResult:
        graph = bundle.copy_graph()
        functionalize(graph)
        drop_identities(graph)
        fold_graph(graph)
        found = pairs(graph)
        by = self._by(context)
        need = [p for p in found if by == "activations" or not math.isinf(p.bound)]
        peaks = channel_peaks(graph, bundle, context, [p.value for p in need], self.settings.samples) if need else {}
        done: dict[str, float] = {}
        for _ in range(self.settings.rounds if by == "weights" else 1):
            moved = 0.0
            for pair in found:
                if not math.isinf(pair.bound) and pair.value not in peaks:
                    continue
                scale = self._scale(graph, pair, by, peaks)
                rescale(graph, pair, scale)
                if pair.value in peaks:
                    peaks[pair.value] = peaks[pair.value] / scale
                change = float(scale.log2().abs().max())
                moved = max(moved, change)
                name = f"{layer_of(pair.first) or pair.first.name} -> {layer_of(pair.second) or pair.second.name}"
                done[name] = round(done.get(name, 0.0) + change, 2)
            if moved < 0.01:
                break
        if not any(done.values()):
            return PassResult(bundle, False, {"pairs": len(found)})
        return PassResult(bundle.replace(graph=graph), True, {"by": by, "pairs": done})

    def ensures(self, before: Bundle, after: Bundle, context: Context) -> Verdict:
        """The outputs for the example inputs are equal up to float rounding (and to what a clipping activation lets through)."""
        for old, new in zip(before.run(*before.samples), after.run(*after.samples), strict=True):
            error, size = float((old - new).norm()), float(old.norm())
            if not error <= 1e-2 * max(size, 1e-6):
                return no(f"the equalized model's output differs by {error / max(size, 1e-6):.2%}")
        return YES

    def _by(self, context: Context) -> str:
        if self.settings.by != "auto":
            return self.settings.by
        return "activations" if context.target.quantization.per_channel else "weights"

    def _scale(self, graph: GraphModule, pair: Pair, by: str, peaks: dict[Node, Tensor]) -> Tensor:
        channels = outputs(graph, pair.first)
        depthwise = groups_of(pair.second) == channels and channels > 1
        if by == "weights":
            r1, r2 = row_ranges(graph, pair.first), column_ranges(graph, pair.second, channels, relative=False)
            scale = scales_of(r1, r2, self.settings.limit)
        else:
            r1, r2 = peaks[pair.value], column_ranges(graph, pair.second, channels, relative=True)
            widest = int(r1.argmax())  # keeps its range: only ratios count
            scale = scales_of(r1 / r1[widest].clamp_min(1e-30), r2 / r2[widest].clamp_min(1e-30), self.settings.limit, depthwise)
        return below_bound(scale, peaks[pair.value], pair.bound) if pair.value in peaks else scale


def channel_peaks(graph: GraphModule, bundle: Bundle, context: Context, values: list[Node], samples: int) -> dict[Node, Tensor]:
    """max |x| of each channel of some values over calibration inputs, float64; empty where there are none."""
    import torch

    data = calibration_data(context)
    if data is None:
        return {}
    peaks: dict[Node, Tensor] = {}
    wanted = set(values)

    class Watch(torch.fx.Interpreter):
        def run_node(self, n: Node) -> Any:
            result = super().run_node(n)
            if n in wanted:
                axis = result.ndim - 1 if name_of(maker(n)) == "aten.linear.default" else 1
                rest = [i for i in range(result.ndim) if i != axis]
                peak = result.detach().abs().amax(rest).double()
                peaks[n] = torch.maximum(peaks[n], peak) if n in peaks else peak
            return result

    chosen = draw(samples, len(data), context.seed)
    with torch.no_grad():
        for inputs in batches_of(data, chosen, bundle):
            Watch(graph).run(*inputs)
    return peaks
