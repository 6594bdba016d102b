"""From the words of a recipe to what training compares: a Teacher for ``compress.train.fit``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from ...core.bundle import Bundle
from ...core.errors import RecipeError
from ...core.registry import unknown
from ...core.verdict import YES, Verdict, no
from ..training.objective import Layer, soft_loss
from ..training.settings import Positive, Share
from ..training.taught import Teacher
from . import attention, boxes, dist, dkd, fitnet, kd, relational, sequence, similarity  # noqa: F401  each files itself
from .loss import hints, logit_losses, whole_losses
from .pairs import Pair, choose, named, pair

if TYPE_CHECKING:
    from torch import Tensor

    from ...tasks.task import Task


class HintSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One loss between layers.

    ``weight`` None is the paper's. ``layers`` are [student, teacher] module paths; empty means that pairs are found by depth and
    resolution. ``until``: the share of the run after which it no longer counts.
    """

    use: str
    weight: Positive | None = None
    layers: tuple[tuple[str, str], ...] = ()
    until: Share = 1.0


def check(loss: str, wanted: Sequence[HintSettings], student: Bundle, teacher: Bundle | None, task: Task | None) -> Verdict:
    """Whether these losses can be made for these two networks."""
    try:
        whole = loss in whole_losses.names()
        if loss != "task" and not whole and loss not in logit_losses.names():
            return no(unknown("distillation loss", loss, ("task", *logit_losses.names(), *whole_losses.names())))
        for hint in wanted:
            hints.get(hint.use)
        if teacher is None:
            return no(f"hint '{wanted[0].use}' needs a teacher") if wanted else YES
        mine, theirs = student.signature.outputs, teacher.signature.outputs
        if [o.shape[1:] for o in mine] != [o.shape[1:] for o in theirs]:
            return no(f"the teacher gives {theirs[0]}, the student {mine[0]}; they must give the same outputs")
        if whole:
            verdict = whole_losses.get(loss).fits(student.signature, task)
            if not verdict:
                return verdict
        elif loss != "task" and len(mine[0].shape) != 2:
            return no(
                f"distillation loss '{loss}' compares class scores (batch, classes), but the output is {mine[0]}; use loss = \"task\""
            )
        for hint in wanted:
            _pairs(hint, student, teacher)
    except RecipeError as error:
        return no(str(error))
    return YES


def make_teacher(
    loss: str,
    wanted: Sequence[HintSettings],
    student: Bundle,
    teacher: Bundle,
    task: Task,
    *,
    alpha: float,
    temperature: float,
    views: int | None,
    seed: int,
) -> tuple[Teacher, dict[str, Any]]:
    """The teacher with its losses, and what was chosen, for the history. ``loss`` "task" is the task's own soft loss."""
    import torch

    soft = soft_loss(task, temperature)
    if loss in whole_losses.names():
        compare = whole_losses.get(loss)

        def soft(own: Sequence[Tensor], taught: Sequence[Tensor], labels: Tensor | None) -> Tensor:
            return compare(own, taught, task, temperature)

    elif loss != "task":
        scores = logit_losses.get(loss)

        def soft(own: Sequence[Tensor], taught: Sequence[Tensor], labels: Tensor | None) -> Tensor:
            return scores(own[0], taught[0], labels, temperature)

    layers: list[Layer] = []
    chosen: list[Pair] = []
    told: dict[str, list[str]] = {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for hint in wanted:
            pairs = _pairs(hint, student, teacher)
            kind = hints.get(hint.use)
            weight = kind.weight if hint.weight is None else hint.weight
            for one in pairs:
                layers.append(Layer(weight / len(pairs), hint.until, kind.make(one.student.shape, one.teacher.shape)))
            chosen += pairs
            told[hint.use] = [str(p) for p in pairs]
    made = Teacher(
        teacher.copy_graph(),
        len(teacher.signature.outputs),
        alpha,
        soft,
        taps=tuple(p.teacher.node for p in chosen),
        student_taps=tuple(p.student.node for p in chosen),
        layers=tuple(layers),
        views=views,
    )
    return made, {"teacher": teacher.name, **({"hints": told} if told else {})}


def _pairs(hint: HintSettings, student: Bundle, teacher: Bundle) -> list[Pair]:
    """The layers that a hint compares, as named or as found."""
    kind = hints.get(hint.use)
    if hint.layers:
        return [Pair(named(student, mine, "student"), named(teacher, theirs, "teacher")) for mine, theirs in hint.layers]
    found = choose(pair(student, teacher), kind.where)
    if not found:
        raise RecipeError(f"hint '{hint.use}' finds no feature maps to compare; name them with layers = [[student, teacher]]")
    return found
