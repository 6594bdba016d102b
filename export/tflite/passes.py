"""Plan to plan: what is decided when the whole file is known."""

from __future__ import annotations

import dataclasses
import math

from .plan import Instruction, Plan, Tensor


def prune(plan: Plan) -> Plan:
    """Drops instructions whose results nobody takes, and tensors that are then unused; numbers the rest anew, in order."""
    wanted = {*plan.outputs}
    kept: list[Instruction] = []
    for step in reversed(plan.instructions):
        if any(o in wanted for o in step.outputs):
            kept.append(step)
            wanted.update(i for i in step.inputs if i >= 0)
            wanted.update(step.outputs)
    kept.reverse()
    wanted.update(plan.inputs)
    return _renumber(plan, kept, [i for i in range(len(plan.tensors)) if i in wanted])


def halve(plan: Plan) -> Plan:
    """Float32 constants of more than ``SMALL`` numbers become float16 behind a DEQUANTIZE; activations stay float32.

    A constant with a number beyond float16's range stays float32.
    """
    import numpy as np

    tensors, steps = list(plan.tensors), []
    wide: dict[int, int] = {}
    for step in plan.instructions:
        inputs = []
        for index in step.inputs:
            tensor = tensors[index] if index >= 0 else None
            if tensor is not None and tensor.data is not None and tensor.dtype == "float32" and tensor.data.size > SMALL:
                if index not in wide:
                    half = tensor.data.astype(np.float16)
                    if not bool(np.isfinite(half).all()):
                        wide[index] = index
                    else:
                        tensors[index] = Tensor(tensor.name, tensor.shape, "float16", None, half)
                        tensors.append(Tensor(f"{tensor.name}.float32", tensor.shape, "float32"))
                        wide[index] = len(tensors) - 1
                        steps.append(Instruction("DEQUANTIZE", (index,), (wide[index],), (), step.layer))
            elif index in wide:
                pass
            inputs.append(wide.get(index, index))
        steps.append(dataclasses.replace(step, inputs=tuple(inputs)))
    return dataclasses.replace(plan, tensors=tuple(tensors), instructions=tuple(steps))


SMALL = 16


def free_batch(plan: Plan) -> Plan:
    """Leaves the first axis of every RESHAPE and SLICE to the interpreter: the same file at the batch written, and one that an interpreter
    can resize to another where nothing else in it holds the batch.

    RESHAPE takes -1 for it. SLICE becomes STRIDED_SLICE that takes the axis whole (end mask): with -1 as a size XNNPACK leaves SLICE to the
    CPU, and every such operator cuts the graph in two.
    """
    import numpy as np

    tensors, steps, made = list(plan.tensors), [], dict[tuple[int, ...], int]()

    def ints(values: tuple[int, ...]) -> int:
        if values not in made:
            tensors.append(Tensor(f"shape.free.{len(made)}", (len(values),), "int32", None, np.asarray(values, np.int32)))
            made[values] = len(tensors) - 1
        return made[values]

    for step in plan.instructions:
        source, result = plan.tensors[step.inputs[0]], plan.tensors[step.outputs[0]]
        if source.data is not None or not result.shape or 0 in result.shape:
            steps.append(step)
        elif step.op == "RESHAPE":
            shape = (-1, *result.shape[1:])
            options = tuple((k, list(shape) if k == "newShape" else v) for k, v in step.options)
            steps.append(dataclasses.replace(step, inputs=(step.inputs[0], ints(shape)), options=options))
        elif step.op == "SLICE" and result.shape[0] == source.shape[0]:
            begin = tuple(int(v) for v in plan.tensors[step.inputs[1]].data)  # type: ignore[union-attr]
            ends = tuple(b + n for b, n in zip(begin, result.shape, strict=True))
            masks = (("beginMask", 0), ("ellipsisMask", 0), ("endMask", 1), ("newAxisMask", 0), ("shrinkAxisMask", 0))
            inputs = (step.inputs[0], step.inputs[1], ints(ends), ints((1,) * len(ends)))
            steps.append(dataclasses.replace(step, op="STRIDED_SLICE", inputs=inputs, options=masks))
        else:
            steps.append(step)
    return prune(dataclasses.replace(plan, tensors=tuple(tensors), instructions=tuple(steps)))


WIDEST = 4


def narrow(plan: Plan) -> Plan:
    """No CONCATENATION of more than ``WIDEST`` tensors, the most that XNNPACK takes: neighbours that are smallest together go first.

    Before: (a, b, c, X, d, e, f); after: ((a, b, c), X, (d, e, f)). A copy of the small ones more, and the graph isn't cut in two.
    """
    tensors, steps = list(plan.tensors), list[Instruction]()
    for step in plan.instructions:
        parts = list(step.inputs)
        if step.op == "CONCATENATION" and len(parts) > WIDEST:
            axis = int(dict(step.options)["axis"])
            while len(parts) > WIDEST:
                count = min(WIDEST, len(parts) - WIDEST + 1)
                weights = [math.prod(tensors[i].shape) for i in parts]
                starts = range(len(parts) - count + 1)
                at = min(starts, key=lambda i, w=weights, n=count: (sum(w[i : i + n]), i))  # type: ignore[misc]
                group = tuple(parts[at : at + count])
                whole = tensors[step.outputs[0]]
                shape = list(tensors[group[0]].shape)
                shape[axis] = sum(tensors[i].shape[axis] for i in group)
                tensors.append(dataclasses.replace(whole, name=f"{whole.name}.part.{len(tensors)}", shape=tuple(shape)))
                steps.append(dataclasses.replace(step, inputs=group, outputs=(len(tensors) - 1,)))
                parts[at : at + count] = [len(tensors) - 1]
            step = dataclasses.replace(step, inputs=tuple(parts))
        steps.append(step)
    return dataclasses.replace(plan, tensors=tuple(tensors), instructions=tuple(steps))


def _renumber(plan: Plan, steps: list[Instruction], kept: list[int]) -> Plan:
    place = {old: new for new, old in enumerate(kept)} | {-1: -1}
    return dataclasses.replace(
        plan,
        tensors=tuple(plan.tensors[i] for i in kept),
        instructions=tuple(
            dataclasses.replace(s, inputs=tuple(place[i] for i in s.inputs), outputs=tuple(place[i] for i in s.outputs)) for s in steps
        ),
        inputs=tuple(place[i] for i in plan.inputs),
        outputs=tuple(place[i] for i in plan.outputs),
    )
