"""Our quantizer for torchao's PT2E flow: it writes the plan of a target's scheme into the graph as annotations."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .affine import INT8, INT16, Affine
from .observer import observers
from .ops.role import Weight
from .plan import Key, Plan
from .torchao import pt2e

if TYPE_CHECKING:
    from torch.fx import GraphModule, Node

    from ...targets.scheme import Scheme


WIDE_UNIT = Affine(1 / 32768, 0, *INT16)
"""The output of sigmoid, tanh and softmax in 16 bits, by TFLite's specification."""


@dataclass(frozen=True)
class Calibration:
    """How activations' ranges are chosen, and how wide they are stored: 8 bits, affine, or 16, symmetric."""

    calibrator: str = "minmax"
    percentile: float = 99.99
    bits: int = 8


def quantizer(plan: Plan, scheme: Scheme, calibration: Calibration) -> Any:
    """A torchao ``Quantizer`` that annotates the graph the plan was made for."""
    return _quantizer_class()(plan, scheme, calibration)


@functools.cache
def _quantizer_class() -> Any:
    base: Any = pt2e("quantizer").Quantizer

    class TargetQuantizer(base):
        """Annotates by plan; decides nothing."""

        def __init__(self, plan: Plan, scheme: Scheme, calibration: Calibration) -> None:
            super().__init__()
            self.plan, self.scheme, self.calibration = plan, scheme, calibration

        def annotate(self, model: GraphModule) -> GraphModule:
            annotate(model, self.plan, self.scheme, self.calibration)
            return model

        def validate(self, model: GraphModule) -> None:
            return

    return TargetQuantizer


def annotate(model: GraphModule, plan: Plan, scheme: Scheme, calibration: Calibration) -> None:
    """Writes ``quantization_annotation`` into the nodes' meta.

    The first value of a group, in the order in which torchao meets them, carries the group's spec; the others refer to it.
    """
    q = pt2e("quantizer")
    place = {n: i for i, n in enumerate(model.graph.nodes)}
    notes: dict[Node, Any] = {}

    def note(node: Node) -> Any:
        if node not in notes:
            notes[node] = q.QuantizationAnnotation(input_qspec_map={}, output_qspec=None, allow_implicit_sharing=False, _annotated=True)
        return notes[node]

    def order(key: Key) -> tuple[int, int]:
        value, reader = key
        return (place[value], 1) if reader is None else (place[reader], 0)

    first: dict[int, Key] = {}
    for key in sorted(plan.scales, key=order):
        value, reader = key
        group = plan.scales[key]
        if group not in first:
            first[group] = key
            spec = _activation(scheme, calibration, plan.fixed.get(group))
        else:
            spec = q.SharedQuantizationSpec(_edge(first[group]))
        if reader is None:
            note(value).output_qspec = spec
        else:
            note(reader).input_qspec_map[value] = spec
    for node, role in plan.roles.items():
        for weight in role.weights:
            note(node).input_qspec_map[weight.node] = _weight(scheme, weight, calibration.bits)
        note(node)
    for node, annotation in notes.items():
        node.meta["quantization_annotation"] = annotation


def _edge(key: Key) -> Any:
    value, reader = key
    return value if reader is None else (value, reader)


def _activation(scheme: Scheme, calibration: Calibration, fixed: Any) -> Any:
    import torch

    q = pt2e("quantizer")
    wide = calibration.bits == 16
    dtype, (low, high) = (torch.int16, INT16) if wide else (torch.int8, INT8)
    if fixed is not None:
        fixed = WIDE_UNIT if wide else fixed
        return q.FixedQParamsQuantizationSpec(
            dtype=dtype,
            scale=fixed.scale,
            zero_point=fixed.zero_point,
            quant_min=low,
            quant_max=high,
            qscheme=torch.per_tensor_affine,
        )
    observer = observers().Activation.with_args(calibrator=calibration.calibrator, percentile=calibration.percentile)
    return q.QuantizationSpec(
        dtype=dtype,
        quant_min=low,
        quant_max=high,
        qscheme=torch.per_tensor_symmetric if wide or scheme.activation_symmetric else torch.per_tensor_affine,
        observer_or_fake_quant_ctr=observer,
    )


def _weight(scheme: Scheme, weight: Weight, bits: int) -> Any:
    import torch

    q = pt2e("quantizer")
    if not weight.signed:
        return _activation(scheme, Calibration("minmax", bits=bits), None)
    channels = weight.axis is not None and scheme.per_channel
    return q.QuantizationSpec(
        dtype=torch.int8,
        quant_min=-scheme.weight_max,
        quant_max=scheme.weight_max,
        qscheme=torch.per_channel_symmetric if channels else torch.per_tensor_symmetric,
        ch_axis=weight.axis if channels else None,
        observer_or_fake_quant_ctr=observers().WeightPerChannel if channels else observers().WeightPerTensor,
    )
