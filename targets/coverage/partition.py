"""Into how many pieces a graph falls when some of its operators run elsewhere.

As TFLite and ONNX Runtime do it: run every operator of one place that is ready, until none is; then change the place. A piece is one such
stretch. The count is the number of times that the accelerator is entered.
"""

from __future__ import annotations

from collections.abc import Sequence

from .graph import Node


def partitions(nodes: Sequence[Node], taken: Sequence[bool]) -> list[list[int]]:
    """The pieces of the accelerator, each a list of indices into ``nodes``; ``taken`` says which operators it takes."""
    makers = {value.name: i for i, node in enumerate(nodes) for value in node.outputs}
    needs = [{makers[v.name] for v in node.inputs if v is not None and v.name in makers} for node in nodes]
    left, done = list(range(len(nodes))), set[int]()
    pieces: list[list[int]] = []
    place = bool(nodes) and not any(taken)
    while left:
        place = not place
        piece: list[int] = []
        waiting = []
        for i in left:  # nodes stand in execution order, so one look over them is enough
            if taken[i] == place and needs[i] <= done:
                piece.append(i)
                done.add(i)
            else:
                waiting.append(i)
        left = waiting
        if place and piece:
            pieces.append(piece)
    return pieces
