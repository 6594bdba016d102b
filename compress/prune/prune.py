"""The pass "prune": couple, score, allocate, operate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ...core.bundle import Bundle
from ...core.cost import macs
from ...core.verdict import YES, Verdict, no
from ..computed import plain
from ..passes import Context, PassResult, passes
from .aim import aim
from .importance import criteria
from .plan import Plan, PruneSettings, draw, images_of, images_that_fit, plan
from .price import Price
from .reconstruct import reconstruct
from .surgery import operate

if TYPE_CHECKING:
    from torch.fx import GraphModule

TOLERANCE = 0.02


@passes.register("prune")
class Prune:
    """Takes whole channels, hidden units or heads out of a float graph."""

    name = "prune"
    Settings = PruneSettings

    def __init__(self, settings: PruneSettings, whole: Mapping[str, int] | None = None) -> None:
        """``whole``: how many units groups had before earlier steps (``plan.Ranked.limits``)."""
        self.settings = settings
        self.whole = whole

    @property
    def measures(self) -> bool:
        """Whether the context's clock is asked."""
        return self.settings.latency is not None

    def requires(self, bundle: Bundle, context: Context) -> Verdict:
        if bundle.quantized is not None:
            return no("the model is quantized already; prune before quantizing")
        criterion = criteria.get(self.settings.criterion)
        if criterion.needs in ("labels", "curvature") and (context.train is None or context.task is None):
            return no(f"criterion '{self.settings.criterion}' needs training data and a task; give --data and --task, or take l2")
        if self.settings.reconstruct and images_of(context) is None:
            return no("reconstruct needs images; give --data or --calib")
        if self.settings.latency is not None and context.clock is None:
            return no("latency needs a device to measure on; run 'packlight prune' or 'packlight compress'")
        if self.settings.sensitivity is not None and (context.task is None or context.val is None or not len(context.val)):
            return no("sensitivity needs validation data and a task; give --data and --task")
        if criterion.needs == "images" and context.train is None and context.calib is None:
            return no(f"criterion '{self.settings.criterion}' needs images; give --data or --calib, or take l2")
        return YES

    def __call__(self, bundle: Bundle, context: Context) -> PassResult:
        bundle, folded = plain(bundle)
        told: dict[str, Any] = {"folded": folded} if folded else {}
        if self.settings.latency is None:
            made = plan(bundle, self.settings, context, whole=self.whole)
            graph = operate(made.coupling, made.removed, bundle.samples)
        else:
            aimed = aim(bundle, self.settings, context, whole=self.whole)
            made, graph = aimed.plan, aimed.graph
            told |= aimed.told
        told |= self._reconstruct(bundle, graph, made, context)
        name = bundle.name if bundle.name.endswith("-pruned") else f"{bundle.name}-pruned"
        after = bundle.replace(graph=graph, name=name)
        return PassResult(after, True, {**changes(bundle, after, made), **told})

    def _reconstruct(self, bundle: Bundle, graph: GraphModule, made: Plan, context: Context) -> dict[str, Any]:
        import torch

        samples = images_of(context)
        free = bool(bundle.signature.inputs[0].shape) and isinstance(bundle.signature.inputs[0].shape[0], str)
        if self.settings.reconstruct is False or samples is None or not free:
            return {}
        order = draw(context, len(samples), min(self.settings.images, images_that_fit(made.coupling)))
        inputs = [torch.from_numpy(i) for i in samples.batch(order)[0]]
        left = reconstruct(bundle.graph, graph, made.outputs_left, inputs, seed=context.seed)
        share = round(float(np.mean(list(left.values()))), 4) if left else None
        return {"reconstructed": {"layers": len(left), "images": len(order), "error-left": share}}

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
        "macs-by-layer": Price(made.coupling).by_layer(made.removed),
        "protected": kept,
        **made.told,
    }
    return {**told, "notes": list(made.notes)} if made.notes else told
