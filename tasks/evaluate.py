"""The metric of a graph in torch: the reference that files are held against."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..core.progress import Progress, Silent
from ..core.tensor import rows_first
from .samples import Samples, batches, joined

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..core.bundle import Bundle
    from ..core.report import Metric
    from .task import Task


def score_of(bundle: Bundle, samples: Samples, task: Task, teacher: Bundle | None = None) -> Metric | None:
    """The metric of the graph on all samples; None where they are unlabelled. Where a task's truth is the model, that is ``teacher``."""
    outputs, target = outputs_of(bundle, samples)
    if task.truth == "model" and teacher is not None:
        target = outputs_of(teacher, samples)[0][0]
    return None if target is None else task.score(outputs, target)


def outputs_of(
    bundle: Bundle, samples: Samples, *, batch: int = 128, limit: int | None = None, label: str = "torch", progress: Progress | None = None
) -> tuple[tuple[NDArray[Any], ...], NDArray[Any] | None]:
    """The outputs of the graph for all samples, rows first, one array per model output (an object array where samples differ in size),
    and the targets (None where unlabelled).

    Runs in batches of ``batch`` (of one where the graph's batch is fixed to one).
    """
    import numpy as np
    import torch

    progress = progress or Silent()
    first = bundle.signature.inputs[0].shape[0]
    size = batch if first == "batch" else int(first)
    count = len(samples) if limit is None else min(limit, len(samples))
    outputs: list[list[NDArray[Any]]] = []
    targets: list[NDArray[Any]] = []
    done = 0
    for inputs, target in batches(samples, size, count):
        rows = len(inputs[0])
        if first != "batch" and rows < size:  # a fixed batch: fill up by repeating the last row, and drop those outputs
            inputs = tuple(np.concatenate([x, np.repeat(x[-1:], size - rows, axis=0)]) for x in inputs)
        result = bundle.run(*(torch.from_numpy(x) for x in inputs))
        outputs.append([rows_first(o, spec).numpy()[:rows] for o, spec in zip(result, bundle.signature.outputs, strict=True)])
        if target is not None:
            targets.append(target)
        done += rows
        progress.step(label, done, count)
    return tuple(joined(column) for column in zip(*outputs, strict=True)), joined(targets) if targets else None
