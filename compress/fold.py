"""Fold BatchNorm into the layer before it.

In inference mode BatchNorm is affine in each channel c, so it can be made part of the linear layer that feeds it
(Jacob et al., 2017, arXiv:1712.05877, section 3.2)::

    y = g (z - m) / sqrt(v + e) + beta,     z = w * x + b
      = w' * x + b',      w' = w g / sqrt(v + e),      b' = (b - m) g / sqrt(v + e) + beta

::

    conv2d(x, w, None) -> batch_norm(g, beta, m, v, e) -> relu      becomes      conv2d(x, w', b') -> relu
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..core.bundle import Bundle, layer_of
from ..core.verdict import YES, Verdict, no
from .constants import fold_constants
from .graph import drop_dead, read_weight, set_weight, unique_name, weight_of
from .passes import Context, PassResult, Settings, passes

if TYPE_CHECKING:
    from torch import Tensor
    from torch.fx import GraphModule, Node


def fold_affine(weight: Tensor, bias: Tensor | None, scale: Tensor, shift: Tensor, axis: int, groups: int = 1) -> tuple[Tensor, Tensor]:
    """``scale * (weight * x + bias) + shift`` as one layer: (w scale, b scale + shift).

    ``scale`` and ``shift`` have one value per output channel. ``axis`` is the axis of ``weight`` that holds the output
    channels: 0 for convolution and linear; 1 for transposed convolution, whose weight is (in, out / groups, ...).
    """
    if axis == 0:
        shape = (-1, *[1] * (weight.ndim - 1))
        folded = weight * scale.reshape(shape)
    else:
        inputs, outputs = weight.shape[0], weight.shape[1]
        parts = weight.reshape(groups, inputs // groups, outputs, *weight.shape[2:])
        folded = (parts * scale.reshape(groups, 1, outputs, *[1] * (weight.ndim - 2))).reshape(weight.shape)
    return folded, shift if bias is None else bias * scale + shift


def normalization(graph: GraphModule, node: Node) -> tuple[Tensor, Tensor] | None:
    """(scale, shift) per channel of an ``aten.batch_norm`` in inference mode, in float64; None where it normalises by the batch."""
    import torch

    _, gamma, beta, mean, variance, training, _, epsilon, *_ = node.args
    m, v = weight_of(graph, mean), weight_of(graph, variance)
    if training or m is None or v is None:
        return None
    scale = (v.detach().double() + float(epsilon)).rsqrt()  # type: ignore[arg-type]
    g, b = weight_of(graph, gamma), weight_of(graph, beta)
    if g is not None:
        scale = scale * g.detach().double()
    shift = -m.detach().double() * scale
    return scale, shift if b is None else shift + b.detach().to(torch.float64)


Stored = tuple[str, "Tensor"]
"""A tensor with its name in the graph."""


@dataclass(frozen=True)
class Apart:
    """A layer and its BatchNorm as they were before folding; ``axis`` of the weight holds the output channels."""

    weight: Stored
    bias: Stored | None
    gamma: Stored | None
    beta: Stored | None
    mean: Stored
    variance: Stored
    momentum: float
    epsilon: float
    axis: int
    groups: int


@dataclass(frozen=True)
class Folded:
    """``folded`` maps a BatchNorm's layer to the layer it went into; ``kept`` maps one that stays to the reason.

    ``statistics`` maps the node of a layer with a folded BatchNorm to the mean and deviation (beta, |gamma|) of its output per channel;
    ``apart`` maps it to what the two were. ``constants`` are the tensors that were computed once (constants.py).
    """

    folded: dict[str, str] = field(default_factory=dict)
    kept: dict[str, str] = field(default_factory=dict)
    statistics: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    apart: dict[str, Apart] = field(default_factory=dict)
    constants: tuple[str, ...] = ()


def fold_graph(graph: GraphModule) -> Folded:
    """Folds every BatchNorm of ``graph`` that follows a layer of its own, in place, after what is computed from weights alone."""
    import torch

    done = Folded(constants=tuple(fold_constants(graph)))
    for node in list(graph.graph.nodes):
        if node.op != "call_function" or node.target is not torch.ops.aten.batch_norm.default:
            continue
        name = layer_of(node) or str(node.name)
        layer = node.args[0]
        why = _obstacle(graph, node, layer)
        if why:
            done.kept[name] = why
            continue
        done.statistics[str(layer.name)] = _statistics(graph, node)
        done.apart[str(layer.name)] = _apart(graph, layer, node)
        _fold(graph, layer, node)
        done.folded[name] = layer_of(layer) or str(layer.name)
    drop_dead(graph)
    return done


def _statistics(graph: GraphModule, norm: Node) -> tuple[Tensor, Tensor]:
    import torch

    mean = weight_of(graph, norm.args[3])
    assert mean is not None
    gamma, beta = weight_of(graph, norm.args[1]), weight_of(graph, norm.args[2])
    shift = torch.zeros_like(mean) if beta is None else beta.detach()
    return shift.double(), (torch.ones_like(mean) if gamma is None else gamma.detach().abs()).double()


def _apart(graph: GraphModule, layer: Node, norm: Node) -> Apart:
    def stored(node: Any) -> Stored | None:
        value = weight_of(graph, node)
        return None if value is None else (str(node.target), value)

    weight, mean, variance = stored(layer.args[1]), stored(norm.args[3]), stored(norm.args[4])
    assert weight is not None
    assert mean is not None
    assert variance is not None
    return Apart(
        weight=weight,
        bias=stored(layer.args[2]) if len(layer.args) > 2 else None,
        gamma=stored(norm.args[1]),
        beta=stored(norm.args[2]),
        mean=mean,
        variance=variance,
        momentum=float(norm.args[6]),  # type: ignore[arg-type]
        epsilon=float(norm.args[7]),  # type: ignore[arg-type]
        axis=_channel_axes()[layer.target],
        groups=_groups(layer),
    )


def _groups(layer: Node) -> int:
    """Of a transposed convolution, whose weight is (in, out / groups, ...); 1 for the others, whose first axis is the outputs."""
    transposed = "conv_transpose" in str(layer.target)
    return int(layer.args[6]) if transposed and len(layer.args) > 6 else 1  # type: ignore[arg-type]


def _channel_axes() -> dict[Any, int]:
    """Operators that BatchNorm folds into, with the axis of their weight that holds the output channels."""
    import torch

    aten = torch.ops.aten
    convolutions = (aten.conv1d, aten.conv2d, aten.conv3d)
    axes: dict[Any, int] = {overload: 0 for c in convolutions for overload in (c.default, c.padding)}
    axes[aten.linear.default] = 0
    axes |= dict.fromkeys((aten.conv_transpose1d.default, aten.conv_transpose2d.input, aten.conv_transpose3d.input), 1)
    return axes


def _obstacle(graph: GraphModule, norm: Node, layer: Node) -> str:
    axes = _channel_axes()
    if layer.op != "call_function" or layer.target not in axes:
        return f"it follows {layer.target}, not a convolution or linear layer"
    if normalization(graph, norm) is None:
        return "it normalises by the statistics of the batch"
    if len(layer.users) > 1:
        return "the layer's output is also read elsewhere"
    weight = layer.args[1]
    if weight_of(graph, weight) is None or len(weight.users) > 1:  # type: ignore[union-attr]
        return "the layer's weight is computed or shared"
    if str(layer.target).startswith("aten.linear") and layer.meta["val"].ndim != 2:
        return "the linear layer's channels are not on the axis that is normalised"
    return ""


def _fold(graph: GraphModule, layer: Node, norm: Node) -> None:
    import torch

    terms = normalization(graph, norm)
    weight = weight_of(graph, layer.args[1])
    assert terms is not None
    assert weight is not None
    bias_node = layer.args[2] if len(layer.args) > 2 else None
    bias = weight_of(graph, bias_node)
    old = None if bias is None else bias.detach().double()
    folded, shift = fold_affine(weight.detach().double(), old, *terms, _channel_axes()[layer.target], _groups(layer))
    name = str(layer.args[1].target)  # type: ignore[union-attr]
    set_weight(graph, name, torch.nn.Parameter(folded.to(weight.dtype), requires_grad=weight.requires_grad))
    value = torch.nn.Parameter(shift.to(weight.dtype), requires_grad=weight.requires_grad)
    if bias is not None and len(bias_node.users) == 1:  # type: ignore[union-attr]
        set_weight(graph, str(bias_node.target), value)  # type: ignore[union-attr]
    else:
        # A layer without a bias gets one, named beside its weight.
        place = unique_name(graph, f"{name.removesuffix('weight')}bias" if name.endswith("weight") else f"{name}_bias")
        set_weight(graph, place, value)
        fresh = read_weight(graph, place, layer)
        layer.args = (*layer.args[:2], fresh, *layer.args[3:])
    norm.replace_all_uses_with(layer)
    graph.graph.erase_node(norm)


class FoldSettings(Settings, frozen=True, kw_only=True):
    """Nothing to set."""


_DEFAULT = FoldSettings()


@passes.register("fold-batchnorm")
class FoldBatchNorm:
    """Folds BatchNorm into convolutions and linear layers; the model computes the same, up to rounding of the weights."""

    Settings = FoldSettings
    name = "fold-batchnorm"

    def __init__(self, settings: FoldSettings = _DEFAULT) -> None:
        self.settings = settings

    def requires(self, bundle: Bundle, context: Context) -> Verdict:
        if bundle.quantized is not None:
            return no("the model is quantized already; fold BatchNorm before 'quantize'")
        return YES

    def __call__(self, bundle: Bundle, context: Context) -> PassResult:
        graph = bundle.copy_graph()
        done = fold_graph(graph)
        changes = {"folded": len(done.folded), "kept": done.kept, **({"constants": list(done.constants)} if done.constants else {})}
        if not done.folded and not done.constants:
            return PassResult(bundle, False, changes)
        return PassResult(bundle.replace(graph=graph), True, changes)

    def ensures(self, before: Bundle, after: Bundle, context: Context) -> Verdict:
        """The outputs for the example inputs are equal up to float rounding: a root mean square error of at most 1e-3 of theirs.

        Rounding alone reaches 5e-5 on a deep net whose outputs saturate, since each layer passes it on; one wrong channel of a thousand
        gives 3e-2.
        """
        for old, new in zip(before.run(*before.samples), after.run(*after.samples), strict=True):
            error, size = (float(x.double().square().mean().sqrt()) for x in (old - new, old))
            if not error <= 1e-3 * size:
                return no(f"the folded model's output differs by {error:.3g} (root mean square) where outputs have {size:.3g}")
        return YES
