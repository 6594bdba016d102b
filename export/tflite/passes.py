"""Plan to plan: what is decided when the whole file is known."""

from __future__ import annotations

import dataclasses

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
    """Leaves the first axis of every RESHAPE and SLICE to the interpreter (-1): the same file at the batch written, and one that an
    interpreter can resize to another where nothing else in it holds the batch."""
    import numpy as np

    tensors, steps, made = list(plan.tensors), [], dict[tuple[int, ...], int]()
    for step in plan.instructions:
        shape = _open_shape(plan, step)
        if shape is None:
            steps.append(step)
            continue
        if shape not in made:
            tensors.append(Tensor(f"shape.free.{len(made)}", (len(shape),), "int32", None, np.asarray(shape, np.int32)))
            made[shape] = len(tensors) - 1
        inputs = (*step.inputs[:-1], made[shape])
        options = tuple((k, list(shape) if k == "newShape" else v) for k, v in step.options)
        steps.append(dataclasses.replace(step, inputs=inputs, options=options))
    return prune(dataclasses.replace(plan, tensors=tuple(tensors), instructions=tuple(steps)))


def _open_shape(plan: Plan, step: Instruction) -> tuple[int, ...] | None:
    """The constant of a RESHAPE or SLICE with -1 first; None where that would mean something else."""
    source, result = plan.tensors[step.inputs[0]], plan.tensors[step.outputs[0]]
    if source.data is not None or not result.shape or 0 in result.shape:
        return None
    if step.op == "RESHAPE":
        return (-1, *result.shape[1:])
    if step.op == "SLICE" and result.shape[0] == source.shape[0]:
        return (-1, *result.shape[1:])
    return None


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
