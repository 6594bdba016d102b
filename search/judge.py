"""Which file to ship, and whether the user's limits hold. Pure: measurements in, verdicts out.

- ``max-drop`` is judged for every file of the recipe: metric of the uncompressed model in torch, minus the file's own in its runtime.
- ``min-speedup`` is judged for every integer file: how many times as fast as the float file of its runtime it was. One below it is not
  recommended.
- ``max-latency`` is judged for the file that is recommended: a budget is met when there is a file that meets it.
- A file is recommended when it keeps the drop, is not proven slower than the float file of its own runtime, and has the least median
  latency of those. Where no file of the recipe is proven faster than the float file, the float file is recommended, and the reason says so.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import msgspec

from ..core.report import Gate, Measurement, Metric


@dataclasses.dataclass(frozen=True)
class Limits:
    """What the result must meet. ``max_drop``: points for fractions, else the metric's own unit; ``max_latency_ms``: a p90;
    ``min_speedup``: of integer files against the float file in the same runtime."""

    max_drop: float | None = None
    max_latency_ms: float | None = None
    min_speedup: float | None = None


@dataclasses.dataclass(frozen=True)
class Judgement:
    """The measurements with ``recommended`` and notes set, the gates, and the recommendation in words."""

    artifacts: tuple[Measurement, ...]
    gates: tuple[Gate, ...]
    words: str

    @property
    def ok(self) -> bool:
        return all(gate.ok for gate in self.gates)


def drop(reference: Metric, metric: Metric) -> float:
    """How much worse ``metric`` is: in points where the unit is "%", else in its own unit; negative where it got better."""
    change = reference.value - metric.value if reference.higher_is_better else metric.value - reference.value
    return change * (100.0 if reference.unit == "%" else 1.0)


def slower(measurement: Measurement) -> bool:
    """True where the whole interval of the speed-up lies below one."""
    return measurement.speedup is not None and measurement.speedup.ci95[1] < 1.0


def judge(artifacts: Sequence[Measurement], baselines: frozenset[str], reference: Metric | None, limits: Limits) -> Judgement:
    """Judges all files; ``baselines`` are the ``file`` names of the uncompressed model's."""
    gates: list[Gate] = []
    failed: set[str] = set()
    if limits.max_drop is not None:
        for m in artifacts:
            if m.file in baselines:
                continue
            gate = _drop_gate(m, reference, limits.max_drop)
            gates.append(gate)
            if not gate.ok:
                failed.add(m.file)
    slow: set[tuple[str, str]] = set()
    if limits.min_speedup is not None:
        for m in artifacts:
            if m.file not in baselines and m.precision in ("int8", "int16"):
                gates.append(_speed_gate(m, limits.min_speedup))
                if not gates[-1].ok:
                    slow.add((m.file, m.runtime))
    noted = [_note_slow(m) for m in artifacts]
    best = _best(noted, baselines, failed, slow)
    if limits.max_latency_ms is not None:
        gates.append(_latency_gate(best, limits.max_latency_ms))
    final = tuple(
        msgspec.structs.replace(m, recommended=best is not None and m.file == best.file and m.runtime == best.runtime) for m in noted
    )
    return Judgement(final, tuple(gates), _words(best, baselines, failed))


def _drop_gate(m: Measurement, reference: Metric | None, limit: float) -> Gate:
    if reference is None or m.metric is None:
        return Gate(
            name="max-drop", limit=limit, value=None, ok=False, file=m.file, why="the metric was not measured; give --data with labels"
        )
    value = drop(reference, m.metric)
    why = "" if value <= limit else f"{reference.name} fell by {value:.2f}, the limit is {limit:g}"
    return Gate(name="max-drop", limit=limit, value=round(value, 6), ok=value <= limit, file=m.file, why=why)


def _speed_gate(m: Measurement, limit: float) -> Gate:
    if m.speedup is None:
        why = m.why.get("speedup", "no float file of the same runtime was measured beside it")
        return Gate(name="min-speedup", limit=limit, value=None, ok=False, file=m.file, why=f"in {m.runtime}: {why}")
    value, (low, high) = m.speedup.value, m.speedup.ci95
    told = f"{value:.2f} times the speed of {m.speedup.against} (95 % interval {low:.2f} to {high:.2f}), the limit is {limit:g}"
    return Gate(
        name="min-speedup",
        limit=limit,
        value=value,
        ok=value >= limit,
        file=m.file,
        why="" if value >= limit else f"in {m.runtime}: {told}",
    )


def _latency_gate(best: Measurement | None, limit: float) -> Gate:
    p90 = best.latency.p90_s if best is not None and best.latency is not None else None
    if best is None or p90 is None:
        return Gate(name="max-latency", limit=limit, value=None, ok=False, why="no file that keeps the other limits was measured")
    value = p90 * 1e3
    why = "" if value <= limit else f"p90 is {value:.3f} ms, the limit is {limit:g} ms"
    return Gate(name="max-latency", limit=limit, value=value, ok=value <= limit, file=best.file, why=why)


def _note_slow(m: Measurement) -> Measurement:
    if m.speedup is None or not slower(m):
        return m
    note = f"slower than {m.speedup.against} in {m.runtime} (speed-up {m.speedup.value:.2f}): not recommended; its gain is size"
    return msgspec.structs.replace(m, notes=(*m.notes, note))


def _best(artifacts: Sequence[Measurement], baselines: frozenset[str], failed: set[str], slow: set[tuple[str, str]]) -> Measurement | None:
    def fit(m: Measurement) -> bool:
        known = m.latency is not None and m.latency.median_s is not None
        return known and m.file not in failed and (m.file, m.runtime) not in slow and not slower(m)

    def median(m: Measurement) -> float:
        assert m.latency is not None
        assert m.latency.median_s is not None
        return m.latency.median_s

    proven = [m for m in artifacts if fit(m) and (m.file in baselines or (m.speedup is not None and m.speedup.ci95[0] > 1.0))]
    return min(proven, key=median, default=None)


def _words(best: Measurement | None, baselines: frozenset[str], failed: set[str]) -> str:
    if best is None:
        return "no file is recommended: none was measured that keeps the limits"
    if best.file in baselines:
        why = "every faster file lost more than --max-drop allows" if failed else "no file of the recipe is proven faster on this device"
        return f"keep the uncompressed {best.file} in {best.runtime}: {why}"
    assert best.speedup is not None
    low, high = best.speedup.ci95
    gain = f"{best.speedup.value:.2f}x the speed of {best.speedup.against} (95 % interval {low:.2f} to {high:.2f})"
    return f"{best.file} in {best.runtime}: {gain}"
