"""Losses and metrics read outputs rows (samples) first and targets as numbers; models and data need not give them so.

A reader of text may give steps first, (steps, rows, classes), and its truth is text. While it trains, its graph ends in

    movedim(output, rows axis, 0)

and its targets are what ``Task.numbers`` makes of them; after, the graph is as it was.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ...core.tensor import rows_axis
from ...tasks.samples import gather_targets, with_targets

if TYPE_CHECKING:
    from torch.fx import GraphModule, Node

    from ...core.tensor import TensorSpec
    from ...tasks.samples import Samples
    from ...tasks.task import Task


@contextmanager
def rows_in_front(graph: GraphModule, outputs: Sequence[TensorSpec]) -> Iterator[None]:
    """A context in which ``graph`` gives its ``outputs`` rows first; it is changed in place and changed back."""
    import torch

    (end,) = (n for n in graph.graph.nodes if n.op == "output")
    moved: list[tuple[Node, Node]] = []
    for node, spec in zip(list(end.all_input_nodes), outputs, strict=False):
        axis = rows_axis(spec)
        if axis:
            with graph.graph.inserting_before(end):
                turned = graph.graph.call_function(torch.ops.aten.movedim.int, (node, axis, 0))
            if "val" in node.meta:
                turned.meta["val"] = node.meta["val"].movedim(axis, 0)
            end.replace_input_with(node, turned)
            moved.append((node, turned))
    if moved:
        graph.recompile()
    try:
        yield
    finally:
        for node, turned in moved:
            end.replace_input_with(turned, node)
            graph.graph.erase_node(turned)
        if moved:
            graph.recompile()


def numeric(samples: Samples | None, task: Task) -> Samples | None:
    """The samples with targets that torch can hold; the same where they are numbers, or there are none."""
    targets = gather_targets(samples) if samples is not None and len(samples) else None
    if samples is None or targets is None or targets.dtype.kind != "U":
        return samples
    return with_targets(samples, task.numbers(targets))
