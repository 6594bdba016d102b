"""The pass "prune-iterative": the way to the target in steps, with fine-tuning between them.

What is left after step t of n, from k_0 = 1 (all) to the target k (Zhu and Gupta, 2017, "To prune, or not to prune", arXiv:1710.01878,
equation 1, of the share that is left)::

    k_t = k + (1 - k) (1 - t / n)^p            p = 3: polynomial, most goes early;   p = 1: linear

Units are ranked anew before each step, on what fine-tuning made of them. After the last step nothing is trained: a longer "finetune"
follows in the recipe.
"""

from __future__ import annotations

import time
from typing import Annotated, Any, Literal

import msgspec

from ...core.bundle import Bundle
from ...core.cost import macs
from ...core.verdict import Verdict
from ..computed import plain
from ..finetune import FinetuneSettings, train, trainable
from ..passes import Context, PassResult, passes
from .plan import PruneSettings, keys_of, rank, sizes_of
from .prune import Prune

AMOUNTS = ("macs", "params", "latency", "ratio")
POWER = {"linear": 1, "polynomial": 3}
BETWEEN = FinetuneSettings(epochs=1, lr=0.01)


class IterativeSettings(PruneSettings, frozen=True, kw_only=True):
    """Those of ``prune``, and: ``steps``; ``schedule``; ``finetune``: how it is trained between them (the settings of that pass; one epoch
    at a rate of 0.01 by default). A sensitivity scan is made once, before the first step; ``most`` and ``limits`` are shares of the
    whole."""

    steps: Annotated[int, msgspec.Meta(ge=2)] = 4
    schedule: Literal["linear", "polynomial"] = "polynomial"
    finetune: FinetuneSettings = BETWEEN

    def of_step(self, number: int, now: float, whole: float, limits: dict[str, float]) -> PruneSettings | None:
        """What step ``number`` (from 1) asks of the pass "prune", where ``now`` of ``whole`` is left of what is counted; None where that is
        little enough already (a step before went further, to a multiple of ``round_to``)."""
        word, final = self.amount
        final = final / whole if word == "latency" else 1 - final if word == "ratio" else final
        share = left_after(number, self.steps, final, self.schedule) * whole / now
        if share >= 1:
            return None
        fields = {name: getattr(self, name) for name in PruneSettings.__struct_fields__}
        fields |= dict.fromkeys(AMOUNTS) | {"sensitivity": None, "limits": limits}
        fields[word] = share * now if word == "latency" else 1 - share if word == "ratio" else share
        if word == "ratio" and self.scope in (None, "layer"):  # roundings of several steps don't add up
            fields["most"] = min(self.most, 1 - left_after(number, self.steps, final, self.schedule))
        return PruneSettings(**fields)

    @property
    def amount(self) -> tuple[str, float]:
        """The setting that says how much, and its value."""
        return next((name, float(getattr(self, name))) for name in AMOUNTS if getattr(self, name) is not None)


def left_after(number: int, steps: int, final: float, schedule: str) -> float:
    """k_t."""
    return final + (1 - final) * (1 - number / steps) ** POWER[schedule]


@passes.register("prune-iterative")
class PruneIterative:
    """Prunes and trains in turn."""

    name = "prune-iterative"
    Settings = IterativeSettings

    def __init__(self, settings: IterativeSettings) -> None:
        self.settings = settings

    @property
    def measures(self) -> bool:
        """Whether the context's clock is asked."""
        return self.settings.latency is not None

    def requires(self, bundle: Bundle, context: Context) -> Verdict:
        can = Prune(self.settings).requires(bundle, context)
        return trainable(bundle, context, self.settings.finetune) if can else can

    def __call__(self, bundle: Bundle, context: Context) -> PassResult:
        settings = self.settings
        bundle, _ = plain(bundle)
        word, _ = settings.amount
        ranked = rank(bundle, settings, context)
        sizes = sizes_of(ranked.free)
        limits = {**settings.limits}
        if ranked.told:  # of the scan: from here on limits of layers
            for key, share in zip(keys_of(ranked.free), ranked.shares, strict=True):
                name = key.partition("#")[0]
                limits[name] = min(share, limits.get(name, 1.0))
        whole = now = _counted(bundle, word, context)
        current, log, changes = bundle, [], dict[str, Any]()
        for number in range(1, settings.steps + 1):
            context.progress.say(f"  step {number} of {settings.steps}")
            asked = settings.of_step(number, now, whole, limits)
            if asked is None:
                log.append({"why": "what was asked of this step is reached already"})
                continue
            result = Prune(asked, sizes)(current, context)
            changes = _joined(changes, result.changes)
            current = result.bundle
            line: dict[str, Any] = {"asked": round(getattr(asked, word), 5), "macs": macs(current), "parameters": current.parameters()}
            if number < settings.steps:
                graph = current.copy_graph()
                trained, _ = train(current.replace(graph=graph), settings.finetune, context, f"{self.name}-{number}", time.monotonic())
                current = current.replace(graph=graph)
                line |= {"steps": trained.steps, "validation": [trained.before_score, trained.best_score]}
            log.append(line)
            if word == "ratio":
                now = left_after(number, settings.steps, 1 - float(settings.ratio or 0), settings.schedule)
            elif word == "latency":
                now = float(result.changes["latency-ms"]["after"])
            else:
                now = _counted(current, word, context)
        return PassResult(current, True, {**changes, **ranked.told, "steps": log})

    def ensures(self, before: Bundle, after: Bundle, context: Context) -> Verdict:
        return Prune(self.settings).ensures(before, after, context)


def _counted(bundle: Bundle, word: str, context: Context) -> float:
    """Multiply-accumulates, parameters, milliseconds; 1 for a ratio, which the schedule alone follows."""
    if word == "latency":
        assert context.clock is not None
        return 1e3 * context.clock.seconds(bundle)
    return 1.0 if word == "ratio" else float(macs(bundle) if word == "macs" else bundle.parameters())


def _joined(first: dict[str, Any], then: dict[str, Any]) -> dict[str, Any]:
    """The changes of two steps as those of one: from before the first to after the second."""
    if not first:
        return dict(then)
    both = {**first, **then}
    for key in ("macs", "parameters"):
        both[key] = [first[key][0], then[key][1]]
    for key in ("layers", "macs-by-layer"):
        both[key] = {**first[key], **{k: [first[key].get(k, v)[0], v[1]] for k, v in then[key].items()}}
    if "latency-ms" in first:
        both["latency-ms"] = {**then["latency-ms"], "before": first["latency-ms"]["before"]}
    return both
