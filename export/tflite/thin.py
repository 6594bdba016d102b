"""Weights in int8 in a float file: two ways, both plan to plan.

weight-int8   w = scale[c] * stored, behind a DEQUANTIZE: a quarter of the bytes, the arithmetic stays float32
dynamic-int8  the kernel reads the integers itself and quantizes each input when it runs (one scale an inference)

Symmetric, one scale an output channel, within +-127. Dynamic only where ai-edge-litert 2.3 and tflite-runtime 2.14 both compute it right
(tests/export/tflite/test_weights.py): FULLY_CONNECTED takes one scale a tensor (2.14 reads the first of several and answers nonsense),
grouped and transposed convolutions stay weight-only (2.14 refuses the one; the other runs 34 times slower).
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from .passes import prune
from .plan import Instruction, Plan, Quant, Tensor

if TYPE_CHECKING:
    from numpy.typing import NDArray

SMALL = 128
"""Constants of fewer numbers stay float32: their scales and operators would cost what they save."""

_CHANNELS = {"CONV_2D": 0, "DEPTHWISE_CONV_2D": 3, "FULLY_CONNECTED": 0, "TRANSPOSE_CONV": 0, "CONV_3D": 4}
"""Operators with weights as their second input, and the axis of the output channels."""


def thin(plan: Plan, dynamic: bool) -> Plan:
    """The plan with int8 weights; ``dynamic``: read by the kernels as integers where they do it right."""
    tensors, steps = list(plan.tensors), list[Instruction]()
    done: dict[tuple[int, bool], int] = {}
    for step in plan.instructions:
        axis, index = _CHANNELS.get(step.op), step.inputs[1] if len(step.inputs) > 1 else -1
        tensor = plan.tensors[index] if index >= 0 else None
        if axis is None or tensor is None or tensor.data is None or tensor.dtype != "float32" or tensor.data.size < SMALL:
            steps.append(step)
            continue
        direct = dynamic and _dynamic(plan, step)
        if (index, direct) not in done:
            stored, quant = rounded(tensor.data, None if direct and step.op == "FULLY_CONNECTED" else axis)
            tensors.append(Tensor(f"{tensor.name}.int8", tensor.shape, "int8", quant, stored))
            if not direct:
                tensors.append(Tensor(f"{tensor.name}.float32", tensor.shape, "float32"))
                steps.append(Instruction("DEQUANTIZE", (len(tensors) - 2,), (len(tensors) - 1,), (), step.layer))
            done[index, direct] = len(tensors) - 1
        inputs = (step.inputs[0], done[index, direct], *step.inputs[2:])
        options = (
            tuple(sorted({**dict(step.options), "asymmetricQuantizeInputs": True}.items())) if direct and _asks(step) else step.options
        )
        steps.append(dataclasses.replace(step, inputs=inputs, options=options))
    return prune(dataclasses.replace(plan, tensors=tuple(tensors), instructions=tuple(steps)))


def rounded(data: NDArray[Any], axis: int | None) -> tuple[NDArray[Any], Quant]:
    """clip(round(w / scale)), scale = max |w| / 127 over a channel (or all)."""
    import numpy as np

    others = tuple(a for a in range(data.ndim) if a != axis)
    largest = np.maximum(np.abs(data).max(axis=others, keepdims=True), 1e-12).astype(np.float32)
    scale = (largest / np.float32(127)).astype(np.float32)
    stored = np.clip(np.rint(data / scale), -127, 127).astype(np.int8)
    scales = tuple(float(v) for v in scale.ravel())
    return stored, Quant(scales, (0,) * len(scales), axis, "int8")


def _dynamic(plan: Plan, step: Instruction) -> bool:
    """Whether the kernel that reads int8 weights and float inputs is right in both interpreters."""
    if step.op == "CONV_2D":
        return plan.tensors[step.inputs[0]].shape[3] == plan.tensors[step.inputs[1]].shape[3]
    return step.op in ("FULLY_CONNECTED", "DEPTHWISE_CONV_2D")


def _asks(step: Instruction) -> bool:
    return step.op == "FULLY_CONNECTED"
