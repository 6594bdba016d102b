"""The gate's findings as lines for a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..bench.trust.result import ClassChange, Slice, Trust

SHOWN = 8


def lines(result: Trust) -> list[str]:
    """The verdict first, then what it rests on; of many classes the worst."""
    verdict = "FAILED" if not result.ok else ("certified" if result.certified else "NOT CERTIFIED")
    out = [f"{verdict}: {result.n:,} samples, against {result.against}"]
    out += [f"  {check}" for check in result.failed]
    if not result.enough.ok:
        out.append(f"  too few to certify: {result.enough.why}")
    if result.enough.detectable_points is not None:
        out.append(f"  a class that truly lost {result.enough.detectable_points:.1f} points or more would be found 9 times in 10")
    if result.whole is not None and result.mcnemar is not None:
        w = result.whole
        out.append(
            f"whole: {100 * w.before:.2f} % -> {100 * w.after:.2f} %, lost {100 * w.loss:.2f} points {_ci(w)}, {_p(result.mcnemar.mid_p)}"
        )
    if result.flips is not None:
        f = result.flips
        out.append(
            f"flips: {f.changed:,} of {f.n:,} answers changed ({100 * f.changed / f.n:.2f} %); "
            f"right to wrong {f.good_to_bad:,}, wrong to right {f.bad_to_good:,}"
        )
    if result.values is not None:
        v = result.values
        out.append(
            f"{v.metric}: {v.before:.4g} -> {v.after:.4g} {v.unit}, lost {v.loss:.4g} (95 % interval {v.ci95[0]:.4g} to {v.ci95[1]:.4g})"
        )
        out.append("  quantiles of the loss: " + ", ".join(f"{100 * float(q):g} % {x:.3g}" for q, x in v.quantiles.items()))
    for v in result.others:
        out.append(f"{v.metric}: {v.before:.4f} -> {v.after:.4f}, lost {v.loss:.4f} ({v.ci95[0]:.4f} to {v.ci95[1]:.4f})")
    if result.group_values:
        out.append("groups:")
        out += [
            f"  {v.name:<16} {v.n:>6,}  {v.before:.4g} -> {v.after:.4g} {v.unit}, lost {v.loss:.4g} ({v.ci95[0]:.4g} to {v.ci95[1]:.4g})"
            for v in result.group_values
        ]
    if result.worst_group is not None:
        out.append(f"worst group: '{result.worst_group.name}'")
    if result.text is not None:
        t = result.text
        out.append(
            f"edits a hundred characters: {t.before:.2f} -> {t.after:.2f}, more by {t.rise:.2f} ({t.ci95[0]:.2f} to {t.ci95[1]:.2f})"
        )
        out += [f"  {r.length} characters ({r.n:,}): {r.before:.2f} -> {r.after:.2f}" for r in t.by_length]
    if result.calibration is not None:
        c = result.calibration
        rise = f"{100 * c.rise:+.2f} points ({100 * c.rise_ci95[0]:.2f} to {100 * c.rise_ci95[1]:.2f})"
        out.append(f"calibration error: {100 * c.before:.2f} % -> {100 * c.after:.2f} %, {rise}")
    if result.confidence is not None:
        s = result.confidence
        out.append(
            f"confidence in the answer: {s.answer_before:.3f} -> {s.answer_after:.3f}; in the truth {s.truth_change:+.4f}, "
            f"worst class '{s.worst_class}' {s.worst_class_change:+.4f}; {100 * s.collapsed:.2f} % of the samples lost more than 0.5"
        )
    out += _parts(result.classes, result.groups)
    if result.worst_slice is not None:
        w = result.worst_slice
        out.append(f"worst slice: {w.kind} '{w.name}' ({w.n:,}): {100 * w.before:.1f} % -> {100 * w.after:.1f} % {_ci(w)}, {_p(w.p_holm)}")
    return out


def _parts(classes: tuple[ClassChange, ...], groups: tuple[Slice, ...]) -> list[str]:
    out = []
    if classes:
        worst = sorted(classes, key=lambda c: -c.recall.loss)[:SHOWN]
        out.append(
            "classes, recall:" if len(worst) == len(classes) else f"the {len(worst)} of {len(classes)} classes that lost most recall:"
        )
        for c in worst:
            r, errors = c.recall, c.new_errors - c.mended_errors
            change = f"{100 * r.before:5.1f} % -> {100 * r.after:5.1f} %  -{r.lost} +{r.gained}"
            out.append(f"  {r.name:<16} {r.n:>6,}  {change}  {_ci(r)}  errors that involve it {errors:+d}")
    if groups:
        out.append("groups:")
        out += [
            f"  {g.name:<16} {g.n:>6,}  {100 * g.before:5.1f} % -> {100 * g.after:5.1f} %  -{g.lost} +{g.gained}  {_ci(g)}" for g in groups
        ]
    return out


def _ci(s: Slice) -> str:
    return f"(95 % interval {100 * s.ci95[0]:.2f} to {100 * s.ci95[1]:.2f})"


def _p(p: float) -> str:
    return f"p = {p:.2g}"
