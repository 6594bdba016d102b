"""Repair of a quantized model, as a plan: which mend is tried next, and when to stop. Nothing is quantized or run here.

Rungs, in the order of what they cost at run time: nothing (another calibrator, equalised ranges, corrected biases, learned rounding), then
speed (16-bit activations where every file of the job can have them; layers kept float, the worst first, as few as will do). A rung is kept
where it makes the worst file lose less; the climb ends as soon as the budget holds in every runtime, or the time is over.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec

NOT_WIDE = "no runtime of this target computes them in files that packlight writes"
CALIBRATORS = ("percentile", "entropy", "minmax", "moving-average", "mse")


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """One way to quantize: settings of the pass "quantize" (kebab-case), and whether "equalize" runs before it."""

    equalize: bool = False
    settings: dict[str, Any] = {}

    def change(self, **settings: Any) -> Candidate:
        return msgspec.structs.replace(self, settings={**self.settings, **{k.replace("_", "-"): v for k, v in settings.items()}})


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What a candidate came to on the validation samples. ``drop``: points lost in the worst runtime (None: no file could be made, and
    ``why``); ``changed``: share of answers there; ``sqnr_db`` against the float model; ``ms``: milliseconds a sample, by runtime."""

    drop: float | None
    runtime: str = ""
    changed: float | None = None
    sqnr_db: float | None = None
    ms: dict[str, float] = {}
    seconds: float = 0.0
    why: str = ""


class Tried(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One rung, for the history: what was tried, what came of it, and what it bought (points of the metric) against the best before."""

    step: str
    drop: float | None = None
    bought: float | None = None
    kept: bool = False
    runtime: str = ""
    changed: float | None = None
    sqnr_db: float | None = None
    ms: dict[str, float] = {}
    seconds: float = 0.0
    why: str = ""


@dataclasses.dataclass(frozen=True)
class Climbed:
    """The end: the candidate to take, what it came to, the log, whether the budget holds, and where not, ``why`` it ended."""

    candidate: Candidate
    outcome: Outcome
    log: tuple[Tried, ...]
    held: bool
    why: str = ""


class OutOfTime(Exception):
    """Raised by ``measure`` where the time is over."""


Measure = Callable[[Candidate], Outcome]
Worst = Callable[[Candidate], Sequence[str]]


def climb(
    start: Candidate, measure: Measure, worst: Worst, limit: float, tell: Callable[[Tried], None] | None = None, not_wide: str = NOT_WIDE
) -> Climbed:
    """Goes up until ``measure`` says that at most ``limit`` points are lost. ``worst`` lists a candidate's integer layers, worst first.
    ``not_wide``: why activations can't have 16 bits, "" where they can."""
    run = _Run(measure, limit, tell)
    why = "every mend was tried"
    try:
        run.try_one("as the recipe has it", start)
        for rung in (_calibrators, _equalized, _biases, _roundings):
            if run.held:
                break
            for step, candidate in rung(run.best, worst):
                if run.held:
                    break
                run.try_one(step, candidate)
        if not run.held:
            _wide(run, not_wide)
        if not run.held:
            _keep_float(run, worst)
    except OutOfTime:
        why = "the time for repair is over; more may be gained with --repair-minutes"
    return Climbed(run.best, run.outcome, tuple(run.log), run.held, "" if run.held else why)


class _Run:
    def __init__(self, measure: Measure, limit: float, tell: Callable[[Tried], None] | None) -> None:
        self.measure, self.limit, self.tell = measure, limit, tell
        self.best, self.outcome = Candidate(), Outcome(drop=None)
        self.log: list[Tried] = []

    @property
    def held(self) -> bool:
        return self.holds(self.outcome)

    def holds(self, outcome: Outcome) -> bool:
        return outcome.drop is not None and outcome.drop <= self.limit

    def try_one(self, step: str, candidate: Candidate) -> Outcome:
        """Measures a candidate and takes it where it is better than the best so far."""
        outcome = self.measure(candidate)
        before = self.outcome.drop
        bought = None if before is None or outcome.drop is None else round(before - outcome.drop, 6)
        # Once the budget holds, only a search for fewer float layers goes on: what holds there is cheaper.
        kept = not self.log or (self.holds(outcome) if self.held else better(outcome, self.outcome))
        self._log(Tried(step=step, bought=bought, kept=kept, **msgspec.structs.asdict(outcome)))
        if kept:
            self.best, self.outcome = candidate, outcome
        return outcome

    def note(self, step: str, why: str) -> None:
        self._log(Tried(step=step, why=why))

    def _log(self, tried: Tried) -> None:
        self.log.append(tried)
        if self.tell is not None:
            self.tell(tried)


def better(a: Outcome, b: Outcome) -> bool:
    """Whether ``a`` loses less than ``b``; where both lose the same, the one nearer to the float model."""
    if a.drop is None or b.drop is None:
        return a.drop is not None
    if abs(a.drop - b.drop) > 1e-9:
        return a.drop < b.drop
    return (a.sqnr_db or 0.0) > (b.sqnr_db or 0.0)


Rung = Iterator[tuple[str, Candidate]]


def _calibrators(best: Candidate, worst: Worst) -> Rung:
    used = best.settings.get("calibrator", "mse")
    for name in CALIBRATORS:
        if name != used:
            yield f"calibrator {name}", best.change(calibrator=name)


def _equalized(best: Candidate, worst: Worst) -> Rung:
    if not best.equalize:
        yield "equalised ranges", msgspec.structs.replace(best, equalize=True)


def _biases(best: Candidate, worst: Worst) -> Rung:
    if best.settings.get("bias-correction", "none") == "none":
        yield "bias correction", best.change(bias_correction="empirical")


def _roundings(best: Candidate, worst: Worst) -> Rung:
    if best.settings.get("rounding", "nearest") == "learned":
        return
    layers = list(worst(best))
    some = layers[: max(1, len(layers) // 4)]
    if len(some) < len(layers):
        yield f"learned rounding of the worst {len(some)}", best.change(rounding="learned", mend=[pattern(n) for n in some])
    yield "learned rounding of all", best.change(rounding="learned", mend=["*"])


def _wide(run: _Run, not_wide: str) -> None:
    """Activations of 16 bits, where every format of the job has kernels for them."""
    if not_wide or run.best.settings.get("activation-bits", 8) == 16:
        run.note("16-bit activations", not_wide or "they have 16 bits already")
        return
    run.try_one("16-bit activations", run.best.change(activation_bits=16))


def _keep_float(run: _Run, worst: Worst) -> None:
    """The worst 1, 2, 4, ... layers in float until the budget holds; then the fewest between the last two counts with which it does."""
    base = run.best
    layers = [n for n in worst(base) if pattern(n) not in base.settings.get("keep-float", ())]

    def keep(count: int) -> bool:
        names = layers[:count]
        candidate = base.change(keep_float=[*base.settings.get("keep-float", ()), *map(pattern, names)])
        return run.holds(run.try_one(f"kept float: {names[0] if count == 1 else f'the worst {count}'}", candidate))

    failed, count = 0, 1
    while count < len(layers) and not keep(count):
        failed, count = count, 2 * count
    if count >= len(layers):
        return
    held = count
    while held - failed > 1:
        middle = (held + failed) // 2
        if keep(middle):
            held = middle
        else:
            failed = middle


def pattern(layer: str) -> str:
    """``layer`` as a pattern that matches it alone."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in layer)
