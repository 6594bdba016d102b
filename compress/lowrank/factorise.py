"""The pass "factorise": large layers as products of smaller ones (``decompose.py``), kept only where they measure faster.

For each layer every form is made at the ranks that keep the energy asked for; those with fewer multiply-accumulates are run beside the
whole layer in the target's runtime, interleaved, and the fastest replaces it where it takes at most ``FASTER`` of its time. Fewer
multiply-accumulates alone often are not faster: three small layers read and write memory three times.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...core.bundle import Bundle
from ...core.cost import macs
from ...core.errors import RecipeError
from ...core.verdict import YES, Verdict, no
from ..computed import refuse_computed
from ..passes import Context, PassResult, Settings, passes
from ..prune.trace import named_by
from .layers import KINDS, Candidate, Factorised, alone, candidates, put

if TYPE_CHECKING:
    from ...core.latency import Clock

FASTER = 0.95
FINEST = 12  # halvings of the energy


class FactoriseSettings(Settings, frozen=True, kw_only=True):
    """``energy``: the share of a layer's squared singular values that is kept (0.9); or ``macs``: the share of the model's
    multiply-accumulates to be left, which sets one energy for all layers (layers that don't get faster stay whole, so that more may be
    left). ``measure`` False goes by multiply-accumulates alone. ``round_to``: ranks are multiples of it. ``protect``: layers (paths,
    ``*`` matches) that stay."""

    energy: float | None = None
    macs: float | None = None
    measure: bool = True
    round_to: int = 8
    protect: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.energy is not None and self.macs is not None:
            raise ValueError("give energy or macs, not both")
        for name, value in (("energy", self.energy), ("macs", self.macs)):
            if value is not None and not 0 < value < 1:
                raise ValueError(f"{name} is {value}; give a share between 0 and 1")
        if self.round_to < 1:
            raise ValueError(f"round-to is {self.round_to}; give 1 or more")


@passes.register("factorise")
class Factorise:
    """Replaces convolutions and linear layers by low-rank ones."""

    name = "factorise"
    Settings = FactoriseSettings

    def __init__(self, settings: FactoriseSettings) -> None:
        self.settings = settings

    @property
    def measures(self) -> bool:
        """Whether the context's clock is asked."""
        return self.settings.measure

    def requires(self, bundle: Bundle, context: Context) -> Verdict:
        if bundle.quantized is not None:
            return no("the model is quantized already; factorise before quantizing")
        if not (known := refuse_computed(bundle, "factorise")):
            return known
        if self.settings.measure and context.clock is None:
            return no("it needs a device to measure on: run 'packlight apply', or set measure = false to go by multiply-accumulates alone")
        return YES

    def __call__(self, bundle: Bundle, context: Context) -> PassResult:
        settings = self.settings
        layers = _chosen(bundle, settings.protect)
        whole = macs(bundle)
        energy = settings.energy if settings.energy is not None else 0.9
        if settings.macs is not None:
            energy = _energy_for(layers, whole, settings.macs, settings.round_to)
        graph = bundle.copy_graph()
        nodes = dict(zip(bundle.graph.graph.nodes, graph.graph.nodes, strict=True))
        done: dict[str, Any] = {}
        kept: dict[str, str] = {}
        for number, layer in enumerate(layers):
            context.progress.step("factorise", number, len(layers), layer.name)
            forms = _forms(layer, energy, settings.round_to)
            if not forms:
                kept[layer.name] = f"no form that keeps {energy:.3g} of the energy has fewer multiply-accumulates"
                continue
            best, told = _race(layer, forms, context.clock if settings.measure else None)
            if best is None:
                kept[layer.name] = told["why"]
                continue
            put(graph, nodes[layer.node], best)
            about = {"kind": best.kind, "ranks": best.ranks, "macs": [round(layer.macs), round(best.macs)], "error": round(best.error, 4)}
            done[layer.name] = {**about, **told}
        context.progress.step("factorise", len(layers), len(layers))
        changes: dict[str, Any] = {"energy": round(energy, 4), "layers": done, "whole": kept}
        if not done:
            return PassResult(bundle, False, {**changes, "why": "no layer gets faster" if layers else "no layer is large enough"})
        graph.graph.lint()
        graph.recompile()
        after = bundle.replace(graph=graph)
        changes |= {"macs": [whole, macs(after)], "parameters": [bundle.parameters(), after.parameters()]}
        if settings.measure and context.clock is not None:
            times = [round(1e3 * context.clock.seconds(b), 4) for b in (bundle, after)]
            changes["whole-model-ms"] = times
            if times[1] >= times[0]:
                return PassResult(bundle, False, {**changes, "why": "its layers got faster alone, but not the model as a whole"})
        return PassResult(after, True, changes)

    def ensures(self, before: Bundle, after: Bundle, context: Context) -> Verdict:
        if before.signature != after.signature:
            return no("the inputs or outputs changed")
        return Verdict(macs(after) < macs(before), "the multiply-accumulates didn't fall")


def _chosen(bundle: Bundle, protect: tuple[str, ...]) -> list[Candidate]:
    found = candidates(bundle)
    names = {name for name, _ in bundle.graph.named_parameters()}
    for pattern in protect:
        if not any(named_by(name, [pattern]) for name in names):
            raise RecipeError(
                f"factorise: protect names '{pattern}', which is no layer with weights; candidates: {[c.name for c in found]}"
            )
    return [c for c in found if not named_by(c.name, protect)]


def _forms(layer: Candidate, energy: float, step: int) -> list[Factorised]:
    """The forms with fewer multiply-accumulates than the whole layer, the fewest first."""
    from ..prune.ops import op_name

    kinds = KINDS[op_name(layer.node)]
    if layer.whole.weight.ndim == 4 and layer.whole.weight.shape[2:].numel() == 1:
        kinds = ("channel",)
    made = [layer.factorised(kind, energy, step) for kind in kinds]
    return sorted((form for form in made if form.macs < layer.macs), key=lambda form: form.macs)


def _race(layer: Candidate, forms: list[Factorised], clock: Clock | None) -> tuple[Factorised | None, dict[str, Any]]:
    """The form to take and what the history says of it; None with the reason where the whole layer stays."""
    if clock is None:
        return forms[0], {"measured": False}
    bundles = [alone(layer, (layer.whole,), "whole"), *(alone(layer, form.steps, form.kind) for form in forms)]
    whole, *each = clock.race(bundles)
    best = min(range(len(forms)), key=each.__getitem__)
    if each[best] > FASTER * whole:
        return None, {
            "why": f"measured {each[best] / whole:.2f} of the whole layer's time at best ({forms[best].kind}, {forms[best].ranks})"
        }
    return forms[best], {"us": [round(1e6 * whole, 2), round(1e6 * each[best], 2)]}


def _energy_for(layers: list[Candidate], whole: float, share: float, step: int) -> float:
    """The largest energy at which, on paper, ``share`` of the whole model's multiply-accumulates are left.

    Raises RecipeError where no energy reaches it.
    """

    def left(energy: float) -> float:
        saved = sum(layer.macs - min([layer.macs, *(f.macs for f in _forms(layer, energy, step))]) for layer in layers)
        return whole - saved

    low, high = 0.02, 1.0
    if left(low) > share * whole:
        raise RecipeError(
            f"factorise: {share:g} of the multiply-accumulates can't be reached; the least possible is {left(low) / whole:.3f}"
        )
    for _ in range(FINEST):
        middle = (low + high) / 2
        low, high = (middle, high) if left(middle) <= share * whole else (low, middle)
    return low
