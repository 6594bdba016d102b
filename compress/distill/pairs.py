"""Which layer of the student goes with which of the teacher.

A stage is a stretch of the network at one resolution; its end is the last activation, sum or normalised convolution there.
Stages of equal resolution make a pair; where none are equal, stages are paired from the last one backwards. Networks that keep one
resolution are cut into four parts of equal depth instead. A user may name layers by their module path.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ...core.bundle import Bundle
from ...core.errors import RecipeError
from ...core.registry import unknown

if TYPE_CHECKING:
    from torch.fx import Node

PARTS = 4
_ENDS = frozenset(
    (
        *("relu", "relu_", "add", "add_", "hardtanh", "hardtanh_", "silu", "silu_", "hardswish", "hardswish_", "gelu", "leaky_relu"),
        *("leaky_relu_", "prelu", "elu", "mish", "tanh", "sigmoid", "mul", "conv2d", "conv_transpose2d", "batch_norm", "instance_norm"),
        *("group_norm", "layer_norm", "linear"),
    )
)


@dataclasses.dataclass(frozen=True)
class Stage:
    """The end of a stage: the graph's node, and the shape it has without the batch."""

    node: str
    shape: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Pair:
    """What is compared with what."""

    student: Stage
    teacher: Stage

    def __str__(self) -> str:
        return f"{self.student.node}->{self.teacher.node}"


def stages(bundle: Bundle) -> list[Stage]:
    """The stage ends of a network of feature maps, from the input to the output."""
    maps = [n for n in bundle.graph.graph.nodes if _is_end(n) and len(_shape(n)) == 3]
    if not maps:
        return []
    last_of: dict[tuple[int, ...], Node] = {}
    for node in maps:
        size = _shape(node)[1:]
        last_of.pop(size, None)
        last_of[size] = node
    if len(last_of) == 1:
        places = [round((k + 1) * len(maps) / PARTS) - 1 for k in range(PARTS)]
        return [_stage(maps[p]) for p in dict.fromkeys(p for p in places if p >= 0)]
    return [_stage(n) for n in last_of.values()]


def pair(student: Bundle, teacher: Bundle) -> list[Pair]:
    """The pairs found, in order of depth; empty where a network has no feature maps."""
    mine, theirs = stages(student), stages(teacher)
    by_size = {s.shape[1:]: s for s in theirs}
    sizes = {s.shape[1:] for s in mine}
    if len(sizes) == len(mine) and len(by_size) == len(theirs) and sizes & by_size.keys():
        return [Pair(s, by_size[s.shape[1:]]) for s in mine if s.shape[1:] in by_size]
    count = min(len(mine), len(theirs))
    return [Pair(s, t) for s, t in zip(mine[len(mine) - count :], theirs[len(theirs) - count :], strict=True)]


def choose(pairs: Sequence[Pair], where: str) -> list[Pair]:
    """Those of the pairs that a loss takes: "all", "middle" or "last"."""
    if where == "all" or not pairs:
        return list(pairs)
    return [pairs[-1] if where == "last" else pairs[len(pairs) // 2]]


def named(bundle: Bundle, layer: str, who: str) -> Stage:
    """The end of the user's layer ``layer`` (its module path, or one above it)."""
    found: list[Node] = []
    paths: set[str] = set()
    for node in bundle.graph.graph.nodes:
        stack = [str(path) for path, _ in (node.meta.get("nn_module_stack") or {}).values()]
        paths.update(p for p in stack if p)
        if layer in stack and len(_shape(node)) in (1, 2, 3) and node.op == "call_function":
            found.append(node)
    if not found:
        raise RecipeError(unknown(f"{who} layer", layer, paths))
    return _stage(found[-1])


def _is_end(node: Node) -> bool:
    return node.op == "call_function" and str(node.target).removeprefix("aten.").partition(".")[0] in _ENDS


def _shape(node: Node) -> tuple[int, ...]:
    """The shape of a node's value without the batch; () where it isn't a float tensor of fixed size."""
    import torch

    value = node.meta.get("val")
    if not isinstance(value, torch.Tensor) or not value.is_floating_point() or value.ndim < 2:
        return ()
    rest = value.shape[1:]
    return tuple(int(s) for s in rest) if all(isinstance(s, int) for s in rest) else ()


def _stage(node: Node) -> Stage:
    return Stage(str(node.name), _shape(node))
