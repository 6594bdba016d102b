"""What each file's answers lost against the model as it came, put beside its measurement; and the gate that this makes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from ..core.report import Gate, Measurement
from ..core.trust import TrustLimits
from .trust_gate import Side, judge_sides, side_of_score, with_pictures

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..bench.accuracy import Score
    from ..bench.trust.result import Trust
    from ..tasks.samples import Samples
    from ..tasks.task import Task

MOST_CLASSES = 100
"""A report lists this many classes of each file, those that lost most first."""


def with_trust(
    measurements: Sequence[Measurement],
    scores: Sequence[Score],
    reference: Side,
    targets: NDArray[Any] | None,
    task: Task,
    *,
    limits: TrustLimits,
    samples: Samples | None = None,
    names: tuple[str, ...] = (),
    seed: int = 0,
) -> tuple[Measurement, ...]:
    """Adds ``trust``: flips against the reference's answers, the agreement with every other file of the same precision, and the gate.

    ``ok``, ``certified`` and ``why`` are the gate's word; ``gate`` holds all its findings. Files of tasks that score only the whole keep
    ``trust`` None.
    """
    from ..bench.accuracy import agreement

    found = {(s.file, s.runtime): s for s in scores}
    out = []
    for m in measurements:
        score = found.get((m.file, m.runtime))
        if score is None or targets is None or (score.answers is None and not score.figures):
            out.append(m)
            continue
        side = side_of_score(m.file, task, score)
        result = judge_sides(task, reference, side, targets, limits=limits, names=names, seed=seed)
        if samples is not None:
            result = with_pictures(result, samples, task, reference, side, targets)
        alike = [o for o in measurements if o.precision == m.precision and _stem(o) == _stem(m)]
        twins = [o for o in alike if (o.file, o.runtime) != (m.file, m.runtime)]
        scored = [o for o in twins if (o.file, o.runtime) in found and found[o.file, o.runtime].answers is not None]
        equal = {f"{o.file} ({o.runtime})": agreement(score, found[o.file, o.runtime]) for o in scored} if score.answers is not None else {}
        out.append(msgspec.structs.replace(m, trust=_told(result, equal)))
    return tuple(out)


def trust_gates(measurements: Sequence[Measurement], baselines: frozenset[str]) -> list[Gate]:
    """One gate for each file of the recipe: ``value`` counts the checks that failed, in the runtime where most did."""
    worst: dict[str, Measurement] = {}
    for m in measurements:
        if m.trust is None or m.file in baselines:
            continue
        if m.file not in worst or _failed(m) > _failed(worst[m.file]):
            worst[m.file] = m
    gates = []
    for m in worst.values():
        assert m.trust is not None
        why = "" if m.trust["ok"] else f"in {m.runtime}, {m.trust['why']}"
        gates.append(Gate(name="trust", limit=0, value=float(_failed(m)), ok=bool(m.trust["ok"]), file=m.file, why=why))
    return gates


def _failed(m: Measurement) -> int:
    return sum(not c["ok"] for c in (m.trust or {})["gate"]["checks"])


def _told(result: Trust, equal: dict[str, float]) -> dict[str, Any]:
    classes = sorted(result.classes, key=lambda c: -c.recall.loss)[:MOST_CLASSES]
    kept = {c.recall.name for c in classes}
    ordered = tuple(c for c in result.classes if c.recall.name in kept)
    gate = msgspec.to_builtins(msgspec.structs.replace(result, classes=ordered))
    return {
        "against": result.against,
        "n": result.n,
        **(msgspec.to_builtins(result.flips) if result.flips is not None else {}),
        "agreement": equal,
        "ok": result.ok,
        "certified": result.certified,
        "why": result.why,
        "gate": gate,
    }


def _stem(m: Measurement) -> str:
    return m.file.partition(f".{m.precision}.")[0]
