"""The plan of a pruning: which units go. Nothing is changed here."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, cast

import msgspec
import numpy as np

from ...core.bundle import Bundle
from ...core.errors import RecipeError
from ..passes import Context, Settings
from .allocate import Allocator, Floors, Limits, Mask, Scope
from .coupling import Coupling, Forward
from .group import Group, groups_of, kind_of, steps_of
from .importance import criteria, normalised, view_of
from .importance.criterion import Normalisation, Reduction, Scores
from .importance.curvature import curvature
from .importance.evidence import gather
from .index import covering
from .price import Price
from .surgery import tensor_of
from .trace import couple, named_by

if TYPE_CHECKING:
    from torch import Tensor

    from ...tasks.samples import Samples


class PruneSettings(Settings, frozen=True, kw_only=True):
    """Exactly one of ``macs``, ``params`` (the share that is to be left), ``ratio`` (the share of channels that goes) and ``latency``
    (milliseconds of one inference of the whole model, as the context's clock measures it).

    ``criterion``: what is unimportant (``importance/``). ``scope``: rank the units of all layers together ("global", the default), take
    the same share of each ("layer", the default for ``ratio``), or rank only groups of one kind together, each kind losing the same
    share ("isomorphic": Fang et al., 2024, "Isomorphic Pruning for Vision Models", arXiv:2407.04616).
    ``round_to``: layers keep a multiple of it (by default of 8 where a convolution is depthwise, as runtimes are slow at other counts
    there, else of 1; for ``latency`` the step that the clock found).
    ``most``: the largest share that one layer may lose. ``protect``: layers (paths in the
    model, ``*`` matches) that stay as they are. ``limits``: the same with the largest share that each may lose ({"conv1" = 0.25}).
    ``sensitivity``: points of the task's metric that no layer alone may cost on the validation data: limits come from a scan
    (``sensitivity.py``). ``reduction`` and ``normalise``: how the figures of coupled layers become one, and how
    those of different groups are compared. ``attention``: whether heads go, or channels inside every head. ``images``, ``batch``:
    how many samples the criteria that need data look at, and how many at once. ``reconstruct``: whether the layers that are left are
    fitted to what the whole model computed on these samples (``reconstruct.py``); by default they are, where there are samples.
    """

    macs: float | None = None
    params: float | None = None
    ratio: float | None = None
    latency: float | None = None
    criterion: str = "l2"
    scope: Scope | None = None
    round_to: int | None = None
    most: float = 0.9
    protect: tuple[str, ...] = ()
    limits: dict[str, float] = msgspec.field(default_factory=dict)
    sensitivity: float | None = None
    reduction: Reduction = "mean"
    normalise: Normalisation = "mean"
    attention: Literal["heads", "width"] = "heads"
    images: int = 512
    batch: int = 32
    reconstruct: bool | None = None

    def __post_init__(self) -> None:
        given = [name for name in ("macs", "params", "ratio", "latency") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of macs, params, ratio and latency (got {', '.join(given) or 'none'})")
        value = getattr(self, given[0])
        if given[0] == "latency" and value <= 0:
            raise ValueError(f"latency is {value}; give milliseconds")
        if given[0] != "latency" and not 0 < value < 1:
            raise ValueError(f"{given[0]} is {value}; give a share between 0 and 1")
        if self.round_to is not None and self.round_to < 1:
            raise ValueError(f"round-to is {self.round_to}; give 1 or more")
        if not 0 < self.most < 1:
            raise ValueError(f"most is {self.most}; give a share between 0 and 1")
        for layer, share in self.limits.items():
            if not 0 <= share <= 1:
                raise ValueError(f"limits of '{layer}' is {share}; give a share from 0 (stays whole) to 1")
        if self.sensitivity is not None and self.sensitivity < 0:
            raise ValueError(f"sensitivity is {self.sensitivity}; give points of the metric, 0 or more")


@dataclasses.dataclass(frozen=True)
class Plan:
    """Which units go (one bool a unit), and what that leaves on paper."""

    coupling: Coupling
    groups: tuple[Group, ...]
    scores: tuple[Scores, ...]
    removed: Mask
    notes: tuple[str, ...] = ()
    told: dict[str, Any] = dataclasses.field(default_factory=dict)

    def outputs_left(self, name: str) -> Tensor:
        """Indices of the first dimension of a weight that are left."""
        import torch

        field = covering(self.coupling.weights[self.coupling.same[name]], 0)
        if field is None:
            return torch.zeros(1, dtype=torch.int64)
        return torch.from_numpy(np.flatnonzero(~self.removed[self.coupling.unit[field.ids]]))


@dataclasses.dataclass(frozen=True)
class Ranked:
    """What is coupled and how important it is, before anything was decided. ``free``: the groups that may lose units, with ``scores`` and
    the largest share of each that may go (``shares``). ``told`` goes into the history.
    """

    coupling: Coupling
    groups: tuple[Group, ...]
    free: tuple[Group, ...]
    scores: tuple[Scores, ...]
    notes: tuple[str, ...]
    shares: tuple[float, ...] = ()
    told: dict[str, Any] = dataclasses.field(default_factory=dict)

    def plan(self, removed: Mask) -> Plan:
        """These units go."""
        return Plan(self.coupling, self.groups, self.scores, removed, self.notes, self.told)

    def limits(self, settings: PruneSettings, step: int = 1, whole: Mapping[str, int] | None = None) -> Limits:
        """What a group keeps. ``step``: what a runtime works in; a group that is no wider may still lose half, which its table has
        measured. ``whole``: how many units each had before earlier steps (``sizes_of``), of which the shares are taken."""
        sizes = [(whole or {}).get(key, len(group)) for key, group in zip(keys_of(self.free), self.free, strict=True)]
        least = [int(np.ceil(size * (1 - share) - 1e-9)) for size, share in zip(sizes, self.shares, strict=True)]
        steps: tuple[int, ...] = ()
        if settings.round_to is None:
            narrow = tuple(step if len(group) > step else max(1, len(group) // 2) for group in self.free)
            steps = steps_of(self.coupling, self.free) if step == 1 else narrow
        return Limits(settings.round_to or step, settings.most, tuple(least), steps)

    @property
    def floors(self) -> Floors:
        return Floors(self.coupling, self.free)


def rank(bundle: Bundle, settings: PruneSettings, context: Context | None = None, *, module: Forward = False) -> Ranked:
    """Couples and scores. ``module``: only what the user's own module can do without (``trace.couple``)."""
    coupling = couple(bundle, settings.protect, settings.attention, module=module)
    groups = groups_of(coupling)
    free = tuple(g for g in groups if not g.protected and len(g) > 1)
    scores, notes = _scores(free, settings, coupling, context)
    ranked = Ranked(coupling, groups, free, tuple(scores), tuple(notes), shares_of(free, coupling, settings.limits, settings.most))
    if settings.sensitivity is None or context is None:
        return ranked
    from .sensitivity import scan

    found = scan(bundle, ranked, settings, context)
    limits = found.limits(settings.sensitivity)
    shares = [min(mine, limits.get(key, 0.0)) for key, mine in zip(keys_of(free), ranked.shares, strict=True)]
    return dataclasses.replace(ranked, shares=tuple(shares), told={"sensitivity": {**found.told(), "limits": limits}})


def shares_of(groups: Sequence[Group], coupling: Coupling, limits: Mapping[str, float], most: float) -> tuple[float, ...]:
    """The largest share that each group may lose by ``limits`` (layers, ``*`` matches). Raises RecipeError where one fits no layer."""
    shares = [most] * len(groups)
    hit = set()
    for number, group in enumerate(groups):
        for name in {m.name for m in group.members if m.role in ("out", "other")} or {m.name for m in group.members}:
            for layer, share in limits.items():
                if named_by(name, [layer]):
                    hit.add(layer)
                    shares[number] = min(shares[number], share)
    for layer in limits:
        if layer not in hit and not any(named_by(name, [layer]) for name in coupling.same):
            known = ", ".join(dict.fromkeys(group.name for group in groups))
            raise RecipeError(f"prune: limits names '{layer}', which is no layer with weights; layers that can be pruned: {known}")
    return tuple(shares)


def keys_of(groups: Sequence[Group]) -> list[str]:
    """A name for each group: its layer, and "#2" behind it for the layer's second group."""
    seen: dict[str, int] = {}
    found = []
    for group in groups:
        seen[group.name] = seen.get(group.name, 0) + 1
        found.append(group.name if seen[group.name] == 1 else f"{group.name}#{seen[group.name]}")
    return found


def sizes_of(groups: Sequence[Group]) -> dict[str, int]:
    """How many units each group has."""
    return dict(zip(keys_of(groups), map(len, groups), strict=True))


def plan(
    bundle: Bundle,
    settings: PruneSettings,
    context: Context | None = None,
    *,
    module: Forward = False,
    whole: Mapping[str, int] | None = None,
) -> Plan:
    """Decides which units go; changes nothing. Where a latency is asked for, ``aim.py`` decides. ``whole``: see ``Ranked.limits``."""
    ranked = rank(bundle, settings, context, module=module)
    scope = settings.scope or ("global" if settings.ratio is None else "layer")
    limits = ranked.limits(settings, whole=whole)
    coupling = ranked.coupling
    allocator = Allocator(
        ranked.free, ranked.scores, coupling.units, limits, scope, ranked.floors, [kind_of(coupling, g) for g in ranked.free]
    )
    if settings.ratio is not None:
        return ranked.plan(allocator.by_ratio(settings.ratio))
    price = Price(coupling)
    share = cast(float, settings.macs if settings.macs is not None else settings.params)
    left = price.macs if settings.macs is not None else price.params
    return ranked.plan(allocator.to_target(left, share * left(np.zeros(coupling.units, bool))))


def _scores(
    groups: tuple[Group, ...], settings: PruneSettings, coupling: Coupling, context: Context | None
) -> tuple[list[Scores], list[str]]:
    chance = np.random.default_rng(0 if context is None else context.seed)
    criterion, fallback = criteria.get(settings.criterion), criteria.get("l2")
    evidence, curved = None, None
    if context is not None and criterion.needs == "curvature":
        assert context.task is not None
        curved = curvature(coupling, _batched(context, settings), context.task.loss, np.random.default_rng(context.seed))
    elif context is not None and criterion.needs != "weights":
        loss = context.task.loss if criterion.needs == "labels" and context.task is not None else None
        evidence = gather(coupling, _batched(context, settings), loss)
    found: list[Scores] = []
    lacking: list[str] = []
    for group in groups:
        view = view_of(group, lambda name: tensor_of(coupling.graph, name), chance, settings.reduction, evidence, curved)
        mine = criterion(view)
        if mine is None:
            lacking.append(group.name)
            mine = fallback(view)
        found.append(np.ones(len(group)) if mine is None else normalised(mine, settings.normalise))
    notes = [f"criterion '{settings.criterion}' says nothing about {', '.join(lacking[:5])}; l2 was taken there"] if lacking else []
    return found, notes


def _batched(context: Context, settings: PruneSettings) -> Iterator[tuple[tuple[Tensor, ...], Tensor | None]]:
    import torch

    samples = images_of(context)
    assert samples is not None
    order = draw(context, len(samples), settings.images)
    for start in range(0, len(order), settings.batch):
        inputs, target = samples.batch(order[start : start + settings.batch])
        yield tuple(torch.from_numpy(i) for i in inputs), None if target is None else torch.from_numpy(target)


def images_of(context: Context) -> Samples | None:
    """Training, else calibration images."""
    return context.train if context.train is not None else context.calib


def draw(context: Context, size: int, count: int) -> list[int]:
    """``count`` of ``size`` samples, by the context's seed."""
    return [int(i) for i in np.random.default_rng(context.seed).permutation(size)[:count]]


def images_that_fit(coupling: Coupling) -> int:
    """How many samples' largest activation stays within 128 MiB."""
    sizes = [float(np.prod(s)) for s in coupling.shapes.values() if isinstance(s, tuple) and s and isinstance(s[0], int)]
    placeholder = next(n for n in coupling.graph.graph.nodes if n.op == "placeholder")
    each = 4 * max(sizes) / coupling.shapes[placeholder][0]
    return max(8, int((128 << 20) / each))
