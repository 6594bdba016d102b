"""The gate: the checks of one kind of task, all at one error rate.

A check's null hypothesis is "the loss is within the limit". The p-values of all checks of a run are corrected together (Holm), so
that a file whose true losses are all within their limits is refused in at most ``alpha`` of the draws of a test set, however many
classes there are. The tests are paired: two models that answer alike have few discordant samples, and few are enough to find one class
that died.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from ...core.errors import DataError
from ...core.trust import TrustLimits
from . import slices
from .calibration import calibration, confidence, probabilities
from .certify import certify
from .flips import flips
from .paired import holm, loss_p, mcnemar
from .result import Check, Slice, Trust, Worst
from .text import all_edits, text
from .values import losses, mean_loss_p, values

SHOWN = 12
"""How many of the samples that lost most are listed."""


def trust_labels(
    before: NDArray[Any],
    after: NDArray[Any],
    target: NDArray[Any],
    *,
    limits: TrustLimits | None = None,
    names: Sequence[str] = (),
    group: NDArray[Any] | None = None,
    scores: tuple[NDArray[Any], NDArray[Any]] | None = None,
    against: str = "",
    seed: int = 0,
) -> Trust:
    """One label a sample: answers before and after and the truth, integers (N,).

    ``scores`` are both models' scores (N, classes), for calibration and confidence. ``group`` holds any value a sample (N,).
    """
    limits = limits or TrustLimits()
    before, after, target = (_labels(a, n) for a, n in ((before, "answers before"), (after, "answers after"), (target, "labels")))
    _same_length(before, after, target, group, *(scores or ()))
    all_of_it = slices.whole(before, after, target)
    labels = np.unique(target)
    by_group = slices.groups(before, after, target, group) if group is not None else ()
    crossed = slices.crossings(before, after, target, names, group) if group is not None else ()
    count = 2 * len(labels) + len(by_group) + 2
    by_class = slices.classes(before, after, target, names, margin=_share(limits.class_drop), alpha=limits.alpha, checks=count)
    changed = flips(before, after, target)
    checks = [_loss_check("drop", "the whole", all_of_it, limits.drop)]
    for c in by_class:
        where = f"class '{c.recall.name}'"
        checks.append(_loss_check("class-drop", where, c.recall, limits.class_drop))
        checks.append(_errors_check(where, c.new_errors, c.mended_errors, c.recall.n, len(target), limits.class_errors))
    checks += [_loss_check("group-drop", f"group '{s.name}'", s, limits.group_drop) for s in by_group]
    p_before = p_after = calibrated = sure = None
    if scores is not None:
        p_before, p_after = probabilities(scores[0]), probabilities(scores[1])
        calibrated, sure = calibration(p_before, p_after, target, seed=seed), confidence(p_before, p_after, target, names)
        checks.append(_ece_check(calibrated.rise, calibrated.rise_se, calibrated.rise_ci95, limits.ece_rise))
    checks.append(_flips_check(changed.changed, changed.n, limits.flips))
    parts = {f"class {c.recall.name}": c.recall.n for c in by_class} | {f"group {s.name}": s.n for s in by_group}
    enough = certify(len(target), parts, limits, max((c.detectable_points for c in by_class), default=None))
    return _verdict(
        checks,
        enough,
        limits,
        against=against,
        n=len(target),
        flips=changed,
        mcnemar=mcnemar(all_of_it.lost, all_of_it.gained),
        whole=all_of_it,
        classes=by_class,
        groups=by_group,
        worst_slice=slices.worst([*(c.recall for c in by_class), *by_group], crossed),
        calibration=calibrated,
        confidence=sure,
        worst=_worst_flips(before, after, target, names, p_before, p_after),
    )


def trust_values(
    before: NDArray[Any],
    after: NDArray[Any],
    *,
    metric: str,
    unit: str = "",
    others: Mapping[str, tuple[NDArray[Any], NDArray[Any]]] | None = None,
    limits: TrustLimits | None = None,
    group: NDArray[Any] | None = None,
    against: str = "",
    seed: int = 0,
) -> Trust:
    """One figure a sample, higher better (N,). Where ``unit`` is "%", figures are shares and the limit is ``drop``, in points.

    ``others`` are further figures of the same samples by name, before and after; of those "ssim" has a limit of its own.
    """
    limits = limits or TrustLimits()
    _same_length(before, after, group)
    scale, limit, told = (100.0, limits.drop, "points") if unit == "%" else (1.0, limits.value_drop, unit or metric)
    seen = values(before, after, metric, unit, seed=seed)
    lost = losses(np.asarray(before, np.float64), np.asarray(after, np.float64)) * scale
    checks = [_mean_check("value-drop", f"mean {metric}", lost, limit, told)]
    if unit != "%":
        checks.append(_ruined_check(lost, limits.bad_drop, limits.bad_share, told))
    beside = []
    for name, (was, now) in (others or {}).items():
        beside.append(values(was, now, name, "", seed=seed))
        if name == "ssim":
            checks.append(_mean_check("ssim-drop", "mean ssim", losses(was, now), limits.ssim_drop, "ssim"))
    by_group = []
    for g in np.unique(group) if group is not None else ():
        mine = group == g
        by_group.append(msgspec.structs.replace(values(before[mine], after[mine], metric, unit, seed=seed), name=str(g)))
        checks.append(_mean_check("group-drop", f"group '{g}', mean {metric}", lost[mine], limit, told))
    return _verdict(
        checks,
        certify(len(lost), {f"group {v.name}": v.n for v in by_group}, limits, least=limits.min_values),
        limits,
        against=against,
        n=len(lost),
        values=seen,
        others=tuple(beside),
        group_values=tuple(by_group),
        worst_group=max(by_group, key=lambda v: (v.ci95[0], v.loss), default=None),
        worst=_worst_values(before, after, lost, metric),
    )


def trust_fidelity(
    after: NDArray[Any],
    *,
    metric: str,
    unit: str,
    others: Mapping[str, NDArray[Any]] | None = None,
    limits: TrustLimits | None = None,
    group: NDArray[Any] | None = None,
    against: str = "",
    seed: int = 0,
) -> Trust:
    """How near each sample is to what the uncompressed model gives for it (N,), higher better: there is no other truth.

    Checked is the mean against ``limits.fidelity``, in the whole and in each group; in ``values``, "before" is that floor.
    """
    limits = limits or TrustLimits()
    _same_length(after, group)
    floor = limits.fidelity or 0.0
    missing = floor - np.asarray(after, np.float64)
    checks: list[Check | None] = []
    by_group = []
    if limits.fidelity:
        checks.append(_mean_check("fidelity", f"mean {metric} against a floor of {floor:g}", missing, 0.0, unit))
    for g in np.unique(group) if group is not None else ():
        mine = group == g
        by_group.append(msgspec.structs.replace(values(np.full(mine.sum(), floor), after[mine], metric, unit, seed=seed), name=str(g)))
        if limits.fidelity:
            checks.append(_mean_check("group-fidelity", f"group '{g}', mean {metric}", missing[mine], 0.0, unit))
    order = np.argsort(after, kind="stable")[:SHOWN]
    return _verdict(
        checks,
        certify(len(after), {f"group {v.name}": v.n for v in by_group}, limits, least=limits.min_values),
        limits,
        against=against,
        n=len(after),
        values=values(np.full(len(after), floor), after, metric, unit, seed=seed),
        others=tuple(values(np.ones(len(after)), now, name, "", seed=seed) for name, now in (others or {}).items()),
        group_values=tuple(by_group),
        worst_group=max(by_group, key=lambda v: (v.ci95[0], v.loss), default=None),
        worst=tuple(Worst(index=int(i), truth="", before="", after=f"{metric} {after[i]:.4g}", loss=float(missing[i])) for i in order),
    )


def _worst_values(before: NDArray[Any], after: NDArray[Any], lost: NDArray[Any], metric: str) -> tuple[Worst, ...]:
    order = np.argsort(-lost, kind="stable")[:SHOWN]
    return tuple(
        Worst(index=int(i), truth="", before=f"{metric} {before[i]:.4g}", after=f"{after[i]:.4g}", loss=float(lost[i]))
        for i in order
        if lost[i] > 0
    )


def _ruined_check(lost: NDArray[Any], drop: float | None, share: float, unit: str) -> Check | None:
    """Exact binomial: "the share of samples that lost more than ``drop`` is at most ``share``", which a mean does not show."""
    if drop is None:
        return None
    from scipy import stats as sps

    ruined, n = int((lost > drop).sum()), len(lost)
    p = float(sps.binom.sf(ruined - 1, n, share / 100))
    where = f"samples that lost more than {drop:g} {unit}"
    return Check(name="bad-share", where=where, value=100 * ruined / n, limit=share, unit="% of them", p=p)


def trust_text(
    before: Sequence[str],
    after: Sequence[str],
    target: Sequence[str],
    *,
    limits: TrustLimits | None = None,
    group: NDArray[Any] | None = None,
    against: str = "",
    seed: int = 0,
) -> Trust:
    """One text a sample (N). Whole answers are judged as right or wrong too (``drop``), and edits by length (``edit_rise``)."""
    limits = limits or TrustLimits()
    was, now, truth = np.asarray(before, str), np.asarray(after, str), np.asarray(target, str)
    _same_length(was, now, truth, group)
    edits_before, edits_after = all_edits(was.tolist(), truth.tolist()), all_edits(now.tolist(), truth.tolist())
    seen = text(edits_before, edits_after, truth.tolist(), seed=seed)
    all_of_it, changed = slices.whole(was, now, truth), flips(was, now, truth)
    by_group = slices.groups(was, now, truth, group) if group is not None else ()
    rise = (edits_after - edits_before) * 100.0 / max(1e-12, float(np.mean([len(t) for t in truth.tolist()])))
    checks = [
        _loss_check("drop", "the whole", all_of_it, limits.drop),
        _mean_check("edit-rise", "the texts", rise, limits.edit_rise, "edits a hundred characters"),
        *(_loss_check("group-drop", f"group '{s.name}'", s, limits.group_drop) for s in by_group),
        _flips_check(changed.changed, changed.n, limits.flips),
    ]
    order = np.argsort(-rise, kind="stable")[:SHOWN]
    worst = tuple(
        Worst(index=int(i), truth=str(truth[i]), before=str(was[i]), after=str(now[i]), loss=float(edits_after[i] - edits_before[i]))
        for i in order
        if rise[i] > 0
    )
    return _verdict(
        checks,
        certify(len(truth), {f"group {s.name}": s.n for s in by_group}, limits),
        limits,
        against=against,
        n=len(truth),
        flips=changed,
        mcnemar=mcnemar(all_of_it.lost, all_of_it.gained),
        whole=all_of_it,
        groups=by_group,
        worst_slice=slices.worst([*by_group, *slices.lengths(was, now, truth)]),
        text=seen,
        worst=worst,
    )


def _verdict(checks: Sequence[Check | None], enough: Any, limits: TrustLimits, **fields: Any) -> Trust:
    judged = _adjust([c for c in checks if c is not None], limits.alpha)
    ok = all(c.ok for c in judged)
    result = Trust(ok=ok, certified=ok and enough.ok, why="", enough=enough, checks=judged, alpha=limits.alpha, **fields)
    failed = result.failed
    more = f" (and {len(failed) - 1} more checks)" if len(failed) > 1 else ""
    return msgspec.structs.replace(result, why=f"{failed[0]}{more}" if failed else ("" if enough.ok else f"not certified: {enough.why}"))


def _adjust(checks: list[Check], alpha: float) -> tuple[Check, ...]:
    tested = [c for c in checks if c.p is not None]
    adjusted = dict(zip(map(id, tested), holm([c.p or 0.0 for c in tested]), strict=True))
    out = []
    for c in checks:
        if id(c) in adjusted:
            c = msgspec.structs.replace(c, p_adjusted=adjusted[id(c)], ok=adjusted[id(c)] > alpha)
        out.append(c)
    return tuple(out)


def _loss_check(name: str, where: str, s: Slice, limit: float | None) -> Check | None:
    if limit is None:
        return None
    interval = (100 * s.ci95[0], 100 * s.ci95[1])
    return Check(name=name, where=where, value=100 * s.loss, limit=limit, ci95=interval, p=loss_p(s.lost, s.gained, s.n, limit / 100))


def _errors_check(where: str, new: int, mended: int, size: int, n: int, limit: float | None) -> Check | None:
    """The rate of errors among all n samples, told in points of the class's size."""
    if limit is None:
        return None
    p = loss_p(new, mended, n, limit / 100 * size / n)
    return Check(name="class-errors", where=where, value=100 * (new - mended) / size, limit=limit, p=p)


def _mean_check(name: str, where: str, loss: NDArray[Any], limit: float | None, unit: str) -> Check | None:
    if limit is None:
        return None
    return Check(name=name, where=where, value=float(loss.mean()), limit=limit, unit=unit, p=mean_loss_p(loss, limit))


def _ece_check(rise: float, error: float, interval: tuple[float, float], limit: float | None) -> Check | None:
    """Normal, with the bootstrap's standard error."""
    if limit is None:
        return None
    from scipy import stats as sps

    p = float(sps.norm.sf((rise - limit / 100) / error)) if error > 0 else float(rise <= limit / 100)
    ci95 = (100 * interval[0], 100 * interval[1])
    return Check(name="ece-rise", where="the calibration", value=100 * rise, limit=limit, unit="points of ECE", ci95=ci95, p=p)


def _flips_check(changed: int, n: int, limit: float | None) -> Check | None:
    """Exact binomial: "the share of changed answers is at most the limit"."""
    if limit is None:
        return None
    from scipy import stats as sps

    p = float(sps.binom.sf(changed - 1, n, limit / 100))
    return Check(name="flips", where="the agreement of the answers", value=100 * changed / n, limit=limit, p=p)


def _worst_flips(
    before: NDArray[Any],
    after: NDArray[Any],
    target: NDArray[Any],
    names: Sequence[str],
    p_before: NDArray[Any] | None,
    p_after: NDArray[Any] | None,
) -> tuple[Worst, ...]:
    """Right before and wrong after, those first whose truth lost most probability."""
    bad = np.flatnonzero((before == target) & (after != target))
    loss = np.ones(len(bad))
    if p_before is not None and p_after is not None:
        loss = p_before[bad, target[bad]] - p_after[bad, target[bad]]
    order = np.argsort(-loss, kind="stable")[:SHOWN]

    def name(label: Any) -> str:
        return names[int(label)] if 0 <= int(label) < len(names) else str(label)

    return tuple(
        Worst(index=int(bad[i]), truth=name(target[bad[i]]), before=name(before[bad[i]]), after=name(after[bad[i]]), loss=float(loss[i]))
        for i in order
    )


def _share(points: float | None) -> float:
    return (points or 0.0) / 100


def _labels(a: NDArray[Any], name: str) -> NDArray[np.int64]:
    x = np.asarray(a)
    if x.ndim != 1 or x.dtype.kind not in "iu":
        raise DataError(f"{name} must be one whole number a sample, got {x.dtype} {list(x.shape)}")
    return x.astype(np.int64)


def _same_length(first: NDArray[Any], *others: NDArray[Any] | None) -> None:
    if not len(first):
        raise DataError("there are no samples to judge by; give --data with labels")
    for other in others:
        if other is not None and len(other) != len(first):
            raise DataError(f"two answers to the same question are needed: {len(first)} samples on one side, {len(other)} on the other")
