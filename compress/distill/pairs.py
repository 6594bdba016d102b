"""Which layer of the student goes with which of the teacher.

Stages of equal resolution make a pair; where none are equal, stages are paired from the last one backwards. A user may name layers by their
module path. What a stage is, ``core/stages.py`` says.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from ...core.bundle import Bundle
from ...core.errors import RecipeError
from ...core.stages import Stage, layer_end, stages


@dataclasses.dataclass(frozen=True)
class Pair:
    """What is compared with what."""

    student: Stage
    teacher: Stage

    def __str__(self) -> str:
        return f"{self.student.node}->{self.teacher.node}"


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
    return layer_end(bundle, layer, f"{who} layer", RecipeError)
