"""The pass "sparse-train": training under a penalty on the units that pruning takes away; the graph keeps its shape.

    [[pass]]
    use = "sparse-train"
    penalty = "growing"
    prune = { macs = 0.5 }
    epochs = 4

    [[pass]]
    use = "prune"            # the same settings as above
    macs = 0.5

What comes out is meant to be pruned: the last weights are kept, not those that score best (these would be the ones that came in).
"""

from __future__ import annotations

import time
from typing import Any, Literal

import numpy as np

from ....core.bundle import Bundle
from ....core.verdict import Verdict, no
from ...computed import refuse_computed
from ...finetune import FinetuneSettings, same_shape, train, trainable
from ...passes import Context, PassResult, passes
from ...training.settings import Positive, Share
from ..plan import PruneSettings, plan, rank
from ..prune import Prune
from .penalties import GroupLasso, Growing
from .units import Units

STRENGTH = {"group-lasso": 1e-4, "growing": 1.0}


class SparseTrainSettings(FinetuneSettings, frozen=True, kw_only=True):
    """Those of ``finetune``, and: ``penalty``: "growing" presses on the units that ``prune`` (the settings of the pass that follows) would
    take now, "group-lasso" on all that it may take. ``strength``: 1 for growing, 1e-4 for group-lasso. ``until``: the share of the run over
    which it rises."""

    penalty: Literal["growing", "group-lasso"] = "growing"
    strength: Positive | None = None
    until: Share = 0.75
    prune: PruneSettings | None = None

    def __post_init__(self) -> None:
        if self.penalty == "growing" and self.prune is None:
            raise ValueError("penalty 'growing' needs to know what will go; give prune = { macs = 0.5 } or what the pass 'prune' gets")
        if self.prune is not None and self.prune.latency is not None and self.penalty == "growing":
            raise ValueError("penalty 'growing' takes macs, params or ratio, which are decided before; for a latency take 'group-lasso'")
        if self.precision == "fp16":
            raise ValueError("precision 'fp16' scales gradients, and a penalty with them; take fp32 or bf16")


_DEFAULT = SparseTrainSettings(penalty="group-lasso")


@passes.register("sparse-train")
class SparseTrain:
    """Trains every weight under the penalty."""

    Settings = SparseTrainSettings
    name = "sparse-train"

    def __init__(self, settings: SparseTrainSettings = _DEFAULT) -> None:
        self.settings = settings

    def requires(self, bundle: Bundle, context: Context) -> Verdict:
        verdict = refuse_computed(bundle, "sparse-train")
        verdict = trainable(bundle, context, self.settings) if verdict else verdict
        prune = self.settings.prune
        if not verdict or prune is None:
            return verdict
        can = Prune(prune).requires(bundle, context)
        return can if can or prune.latency is not None else no(f"of prune: {can.why}")

    def __call__(self, bundle: Bundle, context: Context) -> PassResult:
        settings, began = self.settings, time.monotonic()
        prune = settings.prune or PruneSettings(ratio=0.5)
        if settings.penalty == "growing":
            made = plan(bundle, prune, context)
            coupling, chosen = made.coupling, made.removed
        else:
            ranked = rank(bundle, prune, context)
            coupling, chosen = ranked.coupling, np.zeros(ranked.coupling.units, bool)
            for group in ranked.free:
                chosen[group.units] = True
        units = Units(coupling, chosen)
        kind = Growing if settings.penalty == "growing" else GroupLasso
        rider = kind(units, settings.strength or STRENGTH[settings.penalty], settings.until)
        graph = bundle.copy_graph()
        units.board(graph)
        before = units.norms().numpy()
        trained, told = train(bundle.replace(graph=graph), settings, context, self.name, began, riders=[rider], keep_last=True)
        units.board(graph)
        after = units.norms().numpy()
        return PassResult(bundle.replace(graph=graph), trained.steps > 0, {**told, **shrunk(before, after)})

    def ensures(self, before: Bundle, after: Bundle, context: Context) -> Verdict:
        return same_shape(before, after)


def shrunk(before: Any, after: Any) -> dict[str, Any]:
    """How the norms of the units under the penalty fell, for the history."""
    left = after / np.maximum(before, 1e-12)
    return {"units": len(left), "norm-left": {"median": round(float(np.median(left)), 4), "under-1%": int((left < 0.01).sum())}}
