"""The pass "prune": couple, score, allocate, operate."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, Literal, cast

import numpy as np

from ...core.bundle import Bundle
from ...core.cost import macs
from ...core.verdict import YES, Verdict, no
from ..passes import Context, PassResult, Settings, passes
from .allocate import Allocator, Floors, Limits, Mask, Scope
from .coupling import Coupling
from .group import Group, groups_of
from .importance import criteria, normalised, view_of
from .importance.criterion import Normalisation, Reduction, Scores
from .importance.evidence import Evidence, gather
from .price import Price
from .surgery import operate, tensor_of
from .trace import couple

TOLERANCE = 0.02


class PruneSettings(Settings, frozen=True, kw_only=True):
    """Exactly one of ``macs``, ``params`` (the share that is to be left) and ``ratio`` (the share of channels that goes).

    ``criterion``: what is unimportant (``importance/``). ``scope``: rank the units of all layers together ("global", the default) or
    take the same share of each ("layer", the default for ``ratio``).
    ``round_to``: layers keep a multiple of it. ``most``: the largest share that one layer may lose. ``protect``: layers (paths in the
    model, ``*`` matches) that stay as they are. ``reduction`` and ``normalise``: how the figures of coupled layers become one, and how
    those of different groups are compared. ``attention``: whether heads go, or channels inside every head. ``images``, ``batch``:
    how many samples the criteria that need data look at, and how many at once.
    """

    macs: float | None = None
    params: float | None = None
    ratio: float | None = None
    criterion: str = "l2"
    scope: Scope | None = None
    round_to: int = 1
    most: float = 0.9
    protect: tuple[str, ...] = ()
    reduction: Reduction = "mean"
    normalise: Normalisation = "mean"
    attention: Literal["heads", "width"] = "heads"
    images: int = 256
    batch: int = 32

    def __post_init__(self) -> None:
        given = [name for name in ("macs", "params", "ratio") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of macs, params and ratio (got {', '.join(given) or 'none'})")
        value = getattr(self, given[0])
        if not 0 < value < 1:
            raise ValueError(f"{given[0]} is {value}; give a share between 0 and 1")
        if self.round_to < 1:
            raise ValueError(f"round-to is {self.round_to}; give 1 or more")
        if not 0 < self.most < 1:
            raise ValueError(f"most is {self.most}; give a share between 0 and 1")


@dataclasses.dataclass(frozen=True)
class Plan:
    """Which units go (one bool a unit), and what that leaves on paper."""

    coupling: Coupling
    groups: tuple[Group, ...]
    scores: tuple[Scores, ...]
    removed: Mask
    notes: tuple[str, ...] = ()


@passes.register("prune")
class Prune:
    """Takes whole channels, hidden units or heads out of a float graph."""

    name = "prune"
    Settings = PruneSettings

    def __init__(self, settings: PruneSettings) -> None:
        self.settings = settings

    def requires(self, bundle: Bundle, context: Context) -> Verdict:
        if bundle.quantized is not None:
            return no("the model is quantized already; prune before quantizing")
        criterion = criteria.get(self.settings.criterion)
        if criterion.needs == "labels" and (context.train is None or context.task is None):
            return no(f"criterion '{self.settings.criterion}' needs training data and a task; give --data and --task, or take l2")
        if criterion.needs == "images" and context.train is None and context.calib is None:
            return no(f"criterion '{self.settings.criterion}' needs images; give --data or --calib, or take l2")
        return YES

    def __call__(self, bundle: Bundle, context: Context) -> PassResult:
        made = plan(bundle, self.settings, context)
        graph = operate(made.coupling, made.removed, bundle.samples)
        name = bundle.name if bundle.name.endswith("-pruned") else f"{bundle.name}-pruned"
        after = bundle.replace(graph=graph, name=name)
        return PassResult(after, True, changes(bundle, after, made))

    def ensures(self, before: Bundle, after: Bundle, context: Context) -> Verdict:
        if before.signature != after.signature:
            return no("the inputs or outputs changed")
        told = [tuple(t.shape) for t in before.run(*before.samples)]
        found = [tuple(t.shape) for t in after.run(*after.samples)]
        if told != found:
            return no(f"the output shapes changed from {told} to {found}")
        was, now = macs(before), macs(after)
        if not now < was:
            return no(f"the multiply-accumulates didn't fall ({was} before, {now} after)")
        if self.settings.macs is not None and now > was * self.settings.macs * (1 + TOLERANCE):
            return no(f"{now / was:.3f} of the multiply-accumulates are left, asked was {self.settings.macs}")
        return YES


def plan(bundle: Bundle, settings: PruneSettings, context: Context | None = None) -> Plan:
    """Decides which units go; changes nothing."""
    coupling = couple(bundle, settings.protect, settings.attention)
    groups = groups_of(coupling)
    free = tuple(g for g in groups if not g.protected and len(g) > 1)
    scores, notes = _scores(free, settings, coupling, context)
    scope = settings.scope or ("global" if settings.ratio is None else "layer")
    limits = Limits(settings.round_to, settings.most)
    allocator = Allocator(free, scores, coupling.units, limits, scope, Floors(coupling, free))
    if settings.ratio is not None:
        removed = allocator.by_ratio(settings.ratio)
    else:
        price = Price(coupling)
        share = cast(float, settings.macs if settings.macs is not None else settings.params)
        left = price.macs if settings.macs is not None else price.params
        removed = allocator.to_target(left, share * left(np.zeros(coupling.units, bool)))
    return Plan(coupling, groups, tuple(scores), removed, tuple(notes))


def _scores(
    groups: tuple[Group, ...], settings: PruneSettings, coupling: Coupling, context: Context | None
) -> tuple[list[Scores], list[str]]:
    draw = np.random.default_rng(0 if context is None else context.seed)
    criterion, fallback = criteria.get(settings.criterion), criteria.get("l2")
    evidence = (
        None if criterion.needs == "weights" or context is None else _evidence(coupling, context, settings, criterion.needs == "labels")
    )
    found: list[Scores] = []
    lacking: list[str] = []
    for group in groups:
        view = view_of(group, lambda name: tensor_of(coupling.graph, name), draw, settings.reduction, evidence)
        mine = criterion(view)
        if mine is None:
            lacking.append(group.name)
            mine = fallback(view)
        found.append(np.ones(len(group)) if mine is None else normalised(mine, settings.normalise))
    notes = [f"criterion '{settings.criterion}' says nothing about {', '.join(lacking[:5])}; l2 was taken there"] if lacking else []
    return found, notes


def _evidence(coupling: Coupling, context: Context, settings: PruneSettings, labels: bool) -> Evidence:
    import torch

    samples = context.train if context.train is not None else context.calib
    task = context.task
    assert samples is not None
    order = np.random.default_rng(context.seed).permutation(len(samples))[: settings.images]

    def batched() -> Iterator[tuple[tuple[torch.Tensor, ...], torch.Tensor | None]]:
        for start in range(0, len(order), settings.batch):
            inputs, target = samples.batch([int(i) for i in order[start : start + settings.batch]])
            yield tuple(torch.from_numpy(i) for i in inputs), None if target is None else torch.from_numpy(target)

    return gather(coupling, batched(), task.loss if labels and task is not None else None)


def changes(before: Bundle, after: Bundle, made: Plan) -> dict[str, Any]:
    """What the history records."""
    old, new = dict(before.graph.named_parameters()), dict(after.graph.named_parameters())
    layers = {
        name.removesuffix(".weight"): [list(tensor.shape[:2]), list(new[name].shape[:2])]
        for name, tensor in old.items()
        if tensor.ndim > 1 and tensor.shape != new[name].shape
    }
    kept = {g.name: g.protected for g in made.groups if g.protected and any(m.role == "out" for m in g.members)}
    told: dict[str, Any] = {
        "macs": [macs(before), macs(after)],
        "parameters": [before.parameters(), after.parameters()],
        "layers": layers,
        "protected": kept,
    }
    return {**told, "notes": list(made.notes)} if made.notes else told
