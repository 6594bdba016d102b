"""The sensitivity scan: what each layer alone costs at several ratios, and how much of it may go therefore.

    drop(g, r) = score(whole) - score(the model without the r least important units of group g)         on validation samples
    limit(g)   = the largest scanned r with drop(g, r') <= tolerance for all scanned r' <= r            (0: the layer is protected)

(Li et al., 2017, "Pruning Filters for Efficient ConvNets", arXiv:1608.08710, section 3.2). Nothing is trained in between. Points are taken
ratio by ratio, so that a scan which is stopped by the clock has looked at every layer; with a work folder they are kept and a scan goes on.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import numpy as np

from ...core.artifact import read_json, write_json
from ...core.bundle import Bundle
from ...core.errors import DataError
from ..passes import Context
from ..training.checkpoint import fingerprint
from .surgery import operate

if TYPE_CHECKING:
    from ...tasks.samples import Samples
    from ...tasks.task import Task
    from .plan import PruneSettings, Ranked

RATIOS = (0.25, 0.5, 0.75)
IMAGES = 1000
SECONDS = 600.0


class Point(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``layer`` without ``gone`` of its ``size`` units (``ratio`` was asked): the score and the task's loss on the samples (None where the
    loss can't take them)."""

    layer: str
    ratio: float
    gone: int
    size: int
    score: float
    loss: float | None = None


class Sensitivity(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A scan. ``score`` and ``loss`` are the whole model's on ``samples`` validation samples; ``complete`` False where the time ended."""

    schema: Literal[1] = 1
    metric: str
    unit: str
    higher_is_better: bool
    criterion: str
    samples: int
    score: float
    loss: float | None = None
    points: tuple[Point, ...] = ()
    complete: bool = True

    def drop(self, point: Point) -> float:
        """In points where the unit is "%", else in the metric's own unit."""
        change = self.score - point.score if self.higher_is_better else point.score - self.score
        return change * (100.0 if self.unit == "%" else 1.0)

    def limits(self, tolerance: float) -> dict[str, float]:
        """The largest share that each layer may lose; 0 where not even the first may go, or the scan didn't come to it."""
        found: dict[str, float] = {}
        stopped: set[str] = set()
        for point in sorted(self.points, key=lambda p: p.ratio):
            found.setdefault(point.layer, 0.0)
            if self.drop(point) > tolerance:
                stopped.add(point.layer)
            elif point.layer not in stopped:
                found[point.layer] = point.gone / point.size
        return found

    def told(self) -> dict[str, Any]:
        """For the history: JSON types only."""
        layers: dict[str, list[dict[str, Any]]] = {}
        for p in self.points:
            row = {"gone": p.gone, "size": p.size, "score": round(p.score, 6), "drop": round(self.drop(p), 4)}
            layers.setdefault(p.layer, []).append(row if p.loss is None else {**row, "loss": round(p.loss, 5)})
        base = {"metric": self.metric, "unit": self.unit, "samples": self.samples, "score": round(self.score, 6), "loss": self.loss}
        more = {} if self.complete else {"why": "the scan ended by the clock; layers it didn't reach stay whole"}
        return {**base, "layers": layers, **more}


def scan(
    bundle: Bundle,
    ranked: Ranked,
    settings: PruneSettings,
    context: Context,
    *,
    ratios: tuple[float, ...] = RATIOS,
    images: int = IMAGES,
    seconds: float = SECONDS,
) -> Sensitivity:
    """Scans every group that may be pruned. Raises DataError where the validation data has no labels."""
    from ...tasks.samples import View
    from .plan import draw, keys_of

    task, val = context.task, context.val
    assert task is not None
    assert val is not None
    samples = View(val, tuple(draw(context, len(val), images)))
    keys = keys_of(ranked.free)
    began = time.monotonic()
    file = _file(bundle, settings, context, samples, ratios)
    score, loss = _judge(bundle, samples, task)
    wanted = [(ratio, number) for ratio in ratios for number in range(len(keys))]
    known = {(p.layer, p.ratio): p for p in _read(file)}
    points: list[Point] = []
    for done, (ratio, number) in enumerate(wanted):
        group, mine = ranked.free[number], ranked.scores[number]
        point = known.get((keys[number], ratio))
        if point is None:
            if time.monotonic() - began > seconds:
                break
            gone = min(max(1, round(ratio * len(group))), len(group) - 1)
            removed = np.zeros(ranked.coupling.units, bool)
            removed[group.units[np.argsort(mine, kind="stable")[:gone]]] = True
            importance = np.zeros(ranked.coupling.units)
            importance[group.units] = mine
            removed = ranked.floors.mend(removed, importance)
            gone = int(removed[group.units].sum())
            smaller = bundle.replace(graph=operate(ranked.coupling, removed, bundle.samples))
            found, cost = _judge(smaller, samples, task)
            point = Point(layer=keys[number], ratio=ratio, gone=gone, size=len(group), score=found, loss=cost)
            known[point.layer, point.ratio] = point
            _write(file, tuple(known.values()))
        points.append(point)
        context.progress.step(
            "sensitivity", done + 1, len(wanted), f"{point.layer} without {point.gone} of {point.size}: {point.score:.4f}"
        )
    context.progress.step("sensitivity", len(wanted), len(wanted))
    return Sensitivity(
        metric=task.metric,
        unit=task.unit,
        higher_is_better=task.higher_is_better,
        criterion=settings.criterion,
        samples=len(samples),
        score=score,
        loss=loss,
        points=tuple(points),
        complete=len(points) == len(wanted),
    )


def _judge(bundle: Bundle, samples: Samples, task: Task) -> tuple[float, float | None]:
    """Score and loss."""
    import torch

    from ...tasks.evaluate import outputs_of

    outputs, targets = outputs_of(bundle, samples)
    if targets is None:
        raise DataError("sensitivity needs labelled validation data; give --data with labels")
    value = task.score(outputs, targets).value
    if targets.dtype == object or any(o.dtype == object for o in outputs):
        return value, None
    with torch.no_grad():
        cost = task.loss([torch.from_numpy(np.ascontiguousarray(o)) for o in outputs], torch.from_numpy(task.numbers(targets)))
    return value, float(cost)


class _Points(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    schema: Literal[1] = 1
    points: tuple[Point, ...] = ()


def _file(bundle: Bundle, settings: PruneSettings, context: Context, samples: Samples, ratios: tuple[float, ...]) -> Path | None:
    """Where the points of this model, these settings and this data are kept; None without a work folder."""
    if context.work is None:
        return None
    amount = dict.fromkeys(("macs", "params", "ratio", "latency", "sensitivity", "limits", "round-to", "most", "scope"))
    told = {k: v for k, v in msgspec.to_builtins(settings).items() if k not in amount}
    assert context.task is not None
    about = [told, context.task.name, samples.source, len(samples), context.seed, str(bundle.graph.graph), list(ratios)]
    return context.work / f"sensitivity-{fingerprint(about, bundle.graph.state_dict())}.json"


def _read(file: Path | None) -> tuple[Point, ...]:
    if file is None or not file.is_file():
        return ()
    found: _Points = read_json(file, _Points)
    return found.points


def _write(file: Path | None, points: tuple[Point, ...]) -> None:
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, _Points(points=points))
