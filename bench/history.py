"""Reports over time: a folder of report.json files, oldest first, each file of a model followed through them on each device.

What changed from one report to the next is judged as ``compare`` judges it; what may not be compared (other versions, other threads) is
told and not judged, and two devices never share a line.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from ..core.artifact import read_json
from ..core.errors import InputError, require
from ..core.files import staged_file
from ..core.report import Report
from .compare import Change, compare_reports


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """One file in one report. ``change`` is against the report before it on the same device, None for the first and where the two can't
    be compared (``why``)."""

    created: str
    source: str
    median_s: float | None
    ci95_s: tuple[float, float] | None
    verdict: str | None
    metric: float | None
    bytes: int
    change: Change | None = None
    why: str = ""


class Series(msgspec.Struct, frozen=True, kw_only=True):
    """One file (by runtime and precision) of one model on one device, through all reports that have it."""

    model: str
    device: str
    runtime: str
    precision: str
    points: tuple[Point, ...]

    @property
    def name(self) -> str:
        return f"{self.model} {self.precision} ({self.runtime}) on {self.device}"

    @property
    def regressed(self) -> str | None:
        """What got worse from the last report but one to the last, proven; or None."""
        change = self.points[-1].change
        bad = [word for word in (change.speed, change.quality) if word in ("slower", "worse")] if change else []
        return f"{self.name} is {' and '.join(bad)} than in the report before" if bad else None

    def lines(self) -> list[str]:
        """What a person reads, one line a report."""
        out = [self.name]
        for point in self.points:
            time = (
                f"{point.median_s * 1e3:.3f} ms{'' if point.verdict == 'stable' else f' ({point.verdict})'}"
                if point.median_s
                else "no latency"
            )
            metric = f", {point.metric:.4f}" if point.metric is not None else ""
            change = f", {point.change.speed}, {point.change.quality}" if point.change else f", {point.why}" if point.why else ""
            out.append(f"  {point.created}  {time}{metric}, {point.bytes:,} bytes{change}  ({point.source})")
        return out


def history(folder: Path, *, anyway: bool = False) -> tuple[Series, ...]:
    """Every ``*.json`` under ``folder`` that is a report, oldest first; ``anyway`` judges changes between other versions or threads too."""
    if not folder.is_dir():
        raise InputError(f"'{folder}' is not a folder of reports")
    found = []
    for file in sorted(folder.rglob("*.json")):
        try:
            report: Report = read_json(file, Report)
        except InputError:
            continue  # another kind of JSON, such as a manifest
        found.append((report, str(file.relative_to(folder))))
    if not found:
        raise InputError(f"folder '{folder}' holds no report.json")
    found.sort(key=lambda pair: (pair[0].created, pair[1]))
    points: dict[tuple[str, str, str, str], list[Point]] = {}
    last: dict[tuple[str, str], Report] = {}
    for report, source in found:
        where = (report.model.name, _device(report))
        changes, why = _changes(last.get(where), report, anyway)
        last[where] = report
        for m in report.artifacts:
            series = points.setdefault((*where, m.runtime, m.precision), [])
            change = changes.get((m.runtime, m.precision, m.file))
            point = Point(
                created=report.created,
                source=source,
                median_s=m.latency.median_s if m.latency else None,
                ci95_s=m.latency.ci95_s if m.latency else None,
                verdict=m.latency.verdict if m.latency else None,
                metric=m.metric.value if m.metric else None,
                bytes=m.bytes,
                change=change,
                why=why if series and not change else "",
            )
            series.append(point)
    named = ("model", "device", "runtime", "precision")
    return tuple(Series(**dict(zip(named, key, strict=True)), points=tuple(found_)) for key, found_ in sorted(points.items()))


def _device(report: Report) -> str:
    """What tells devices apart: the user's word, the board or CPU, and whether it is an emulator."""
    where = report.environment
    kind = f", {where.kind}" if where.kind != "real" else ""
    return f"{where.device} ({where.board or where.cpu or where.machine or 'unknown'}{kind})"


def _changes(before: Report | None, after: Report, anyway: bool) -> tuple[dict[tuple[str, str, str], Change], str]:
    if before is None:
        return {}, ""
    try:
        result = compare_reports(before, after, anyway=anyway)
    except InputError as error:
        return {}, str(error)
    return {(c.runtime, c.precision, c.file): c for c in result.changes}, "not in the report before"


def plot(series: tuple[Series, ...], out: Path, *, force: bool = False) -> Path:
    """Median latency with its 95 % interval over time, one line a file and device, as SVG, PNG or PDF by the suffix of ``out``."""
    if out.suffix not in (".svg", ".png", ".pdf"):
        raise InputError(f"plot '{out}' must end in .svg, .png or .pdf")
    figure_module = require("matplotlib.figure", "report")
    figure = figure_module.Figure(figsize=(9, 5), layout="constrained")
    axes = figure.add_subplot()
    dates = sorted({p.created for s in series for p in s.points})
    for one in series:
        measured = [(dates.index(p.created), p.median_s * 1e3, p.ci95_s) for p in one.points if p.median_s]
        if not measured:
            continue
        below = [max(0.0, m - ci[0] * 1e3) if ci else 0.0 for _, m, ci in measured]
        above = [max(0.0, ci[1] * 1e3 - m) if ci else 0.0 for _, m, ci in measured]
        x, y = [x for x, _, _ in measured], [m for _, m, _ in measured]
        axes.errorbar(x, y, yerr=[below, above], marker="o", capsize=3, label=one.name)
    if not axes.has_data():
        raise InputError("no report in the folder has a latency; there is nothing to draw (emulated devices have none)")
    axes.set_xticks(range(len(dates)), [d[:16].replace("T", " ") for d in dates], rotation=30, ha="right")
    axes.set_ylabel("median latency, ms (95 % interval)")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    with staged_file(out, force=force) as stage:
        figure.savefig(stage)
    return out
