"""The report as one self-contained HTML page: it opens offline, asks no network for anything and runs no script.

Every text from the report is escaped by the template; a Content-Security-Policy forbids what the page doesn't need.
"""

from __future__ import annotations

import json
import re
from importlib.resources import files
from typing import Any

from ...core.errors import require
from ...core.report import Environment, Measurement, Metric, Report
from . import plots, units, words

LONG = 120  # characters of a list or table that are shown in a cell


def html(report: Report) -> str:
    """The page. Raises MissingDependencyError where jinja2 or matplotlib is not installed (``packlight[report]``)."""
    jinja2, markupsafe = require("jinja2", "report"), require("markupsafe", "report")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {
        "size": units.size,
        "seconds": units.seconds,
        "span": units.span,
        "count": units.count,
        "metric": units.metric,
        "metric_span": units.metric_span,
        "objid": id,
        "plain": plain,
        "breaks": breaks,
        "told": told,
    }
    folder = files(__package__)
    template = environment.from_string((folder / "page.html.j2").read_text(encoding="utf-8"))
    runtimes, precisions, ringed = plots.legend(report)
    page: str = template.render(
        report=report,
        css=markupsafe.Markup((folder / "page.css").read_text(encoding="utf-8")),
        headline=words.headline(report),
        reason=words.reason(report),
        gained=words.gained(report),
        lost=words.lost(report),
        doubts=words.doubts(report),
        notes=words.notes(report),
        tiles=tiles(report),
        metric_name=units.metric_name(next((m.metric for m in report.artifacts if m.metric), report.model.metric)),
        shared_why=shared.pop() if len(shared := {m.latency.why for m in report.artifacts if m.latency}) == 1 else None,
        state=state(report.environment),
        base_of={id(m): words.baseline_of(report, m) for m in report.artifacts},
        runtimes=runtimes,
        precisions=precisions,
        ringed=ringed,
        plots={
            name: markupsafe.Markup(draw(report))
            for name, draw in {
                "latency": plots.accuracy_against_latency,
                "size": plots.accuracy_against_size,
                "runs": plots.latency_distributions,
                "classes": plots.per_class,
                "blame": plots.layers,
                "pruned": plots.pruned_layers,
                "sensitivity": lambda r: plots.sensitivity(r.history),
            }.items()
        },
    )
    return page


def tiles(report: Report) -> list[dict[str, str]]:
    """Before and after of the file that the summary tells of: size, latency, the metric, memory; those that are known."""
    best = words.subject(report)
    if best is None:
        return []
    base = words.baseline_of(report, best)
    found = [
        _tile(
            "Size", units.size(base.bytes) if base else "", units.size(best.bytes), f"{best.bytes / base.bytes:.2f} of that" if base else ""
        )
    ]
    if best.latency and best.latency.median_s:
        before = units.seconds(base.latency.median_s) if base and base.latency else ""
        found.append(_tile("Median latency", before, units.seconds(best.latency.median_s), _speedup(best)))
    if best.metric:
        reference = report.model.metric
        change = _change(reference, best.metric) if reference else ""
        found.append(_tile(units.metric_name(best.metric), units.metric(reference) if reference else "", units.metric(best.metric), change))
    if best.memory and best.memory.peak_bytes:
        before = units.size(base.memory.peak_bytes) if base and base.memory and base.memory.peak_bytes else ""
        found.append(_tile("Peak memory", before, units.size(best.memory.peak_bytes), "of the process"))
    return found


def told(values: dict[str, Any]) -> list[tuple[str, str]]:
    """Settings or changes in the order of their names, without those that hold nothing."""
    return [(key, plain(value)) for key, value in sorted(values.items()) if value is not None and value not in ([], {}, "")]


def breaks(name: str) -> Any:
    """A file name that a narrow column breaks behind its dots and hyphens."""
    markupsafe = require("markupsafe", "report")
    return markupsafe.Markup("<wbr>").join(re.split(r"(?<=[.-])", name))  # join escapes the pieces


def state(e: Environment) -> list[tuple[str, str]]:
    """How the device was doing: what was read, or why it could not be; what is neither known nor explained is left out."""

    def ranged(value: float | None, ends: tuple[float, float] | None, unit: str) -> str | None:
        if value is None:
            return None
        low, high = ends or (value, value)
        return f"{value:g} {unit}" + (f" ({low:g} to {high:g})" if low != high else "")

    read = {
        "governor": e.governor,
        "power_mode": e.power_mode,
        "frequency_mhz": ranged(e.frequency_mhz, e.frequency_range_mhz, "MHz"),
        "temperature_c": ranged(e.temperature_c, e.temperature_range_c, "°C"),
        "throttled": None if e.throttled is None else ", ".join(e.throttled) or "no",
        "load": None if e.load is None else f"{e.load:.2f}",
        "pressure": None if e.pressure is None else f"{e.pressure:.1f} % of the time some process waited for a CPU",
        "waited": None if e.waited is None else f"{100 * e.waited:.1f} % of the time the measured process waited for a CPU",
        "steal": None if e.steal is None else f"{100 * e.steal:.1f} % of the CPU time went to other guests",
    }
    names = {"frequency_mhz": "frequency", "temperature_c": "temperature", "power_mode": "power mode"}
    return [(names.get(k, k), told if told is not None else e.why[k]) for k, told in read.items() if told is not None or k in e.why]


def plain(value: Any) -> str:
    """A JSON value in one line, strings without quotes; two numbers as "before → after"; a long list or table as its size."""
    if isinstance(value, str):
        return value
    if isinstance(value, list | tuple) and len(value) == 2 and all(isinstance(v, int | float) for v in value):
        return f"{plain(value[0])} → {plain(value[1])}"
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.6g}"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= LONG else f"{len(value)} entries, in report.json"


def _change(reference: Metric, now: Metric) -> str:
    better = -units.worse_by(reference, now)
    return f"{better:+.2f} {units.points(reference)}" if round(better, 2) else "no change"


def _tile(name: str, before: str, after: str, note: str) -> dict[str, str]:
    return {"name": name[:1].upper() + name[1:], "before": before, "after": after, "note": note}


def _speedup(m: Measurement) -> str:
    return f"{m.speedup.value:.2f}x, 95 % {m.speedup.ci95[0]:.2f} to {m.speedup.ci95[1]:.2f}" if m.speedup else ""
