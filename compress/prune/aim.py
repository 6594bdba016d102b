"""Pruning to a measured latency: plan by the table, measure the whole, correct the aim.

    aim <- aim + (target - measured)      until measured <= target, at most ``ROUNDS`` times

The table adds up layers that ran alone; what it leaves out (fusion, caches, what lies between layers) is what the measured whole corrects.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ...core.bundle import Bundle
from ...core.errors import RecipeError
from ..passes import Context
from .plan import Plan, PruneSettings, rank
from .shape import shape_to
from .surgery import operate
from .timed import Seconds, timed_layers

if TYPE_CHECKING:
    from torch.fx import GraphModule

ROUNDS = 8
CLOSE = 0.02


@dataclasses.dataclass(frozen=True)
class Aimed:
    """The plan, the graph it gave, and what the history is told."""

    plan: Plan
    graph: GraphModule
    told: dict[str, Any]


def aim(bundle: Bundle, settings: PruneSettings, context: Context, *, whole: Mapping[str, int] | None = None) -> Aimed:
    """Prunes to ``settings.latency``. Raises RecipeError where the layers can't shrink enough, or the whole stays slower than asked."""
    assert context.clock is not None
    assert settings.latency is not None
    target_s = settings.latency / 1e3
    ranked = rank(bundle, settings, context)
    layers = timed_layers(ranked.coupling)
    table = context.clock.table([timed.layer for timed in layers], bundle)
    if table.whole_s <= target_s:
        raise RecipeError(f"prune: the model takes {table.whole_s * 1e3:.4g} ms already; {settings.latency:.4g} ms asks for nothing")
    seconds = Seconds(layers, table, ranked.coupling.unit)
    limits = ranked.limits(settings, table.step, whole)
    wanted, tries = target_s, []
    known: dict[bytes, float] = {}  # seconds of the choices measured already
    best: Aimed | None = None
    for number in range(ROUNDS):
        context.progress.step("prune to a latency", number, ROUNDS)
        removed = shape_to(ranked.free, ranked.scores, ranked.coupling.units, limits, ranked.floors, seconds, wanted)
        made = ranked.plan(removed)
        graph = operate(made.coupling, made.removed, bundle.samples)
        measured = known.get(removed.tobytes()) or context.clock.seconds(bundle.replace(graph=graph))
        known[removed.tobytes()] = measured
        tries.append(
            {"aimed-ms": round(wanted * 1e3, 4), "table-ms": round(seconds(removed) * 1e3, 4), "measured-ms": round(measured * 1e3, 4)}
        )
        if measured <= target_s:
            told = {"runtime": table.runtime, "precision": table.precision, "threads": table.threads, "device": table.device}
            figures = {"asked": settings.latency, "before": round(table.whole_s * 1e3, 4), "after": tries[-1]["measured-ms"]}
            best = Aimed(made, graph, {"latency-ms": {**figures, **told, "step": limits.round_to, "tries": list(tries)}})
            if measured >= target_s * (1 - 2 * CLOSE):
                break
        wanted = min(wanted + target_s * (1 - CLOSE) - measured, table.whole_s * (1 - 1e-6))
        if wanted <= max(seconds.rest, 0.0):
            break
    context.progress.step("prune to a latency", ROUNDS, ROUNDS)
    if best is None:
        raise RecipeError(
            f"prune: {settings.latency:.4g} ms was not reached in {len(tries)} tries ({tries[-1]['measured-ms']:.4g} ms, "
            f"{table.whole_s * 1e3:.4g} before); ask for more, protect less or raise most"
        )
    return best
