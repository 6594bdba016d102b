"""The report's plots as inline SVG. Colours are CSS variables of the page, so that they follow its light and dark theme.

matplotlib draws with stand-in colours (one hex value each) that are replaced in its output; text stays text. Nothing global is touched:
figures are made without pyplot and every setting holds inside one context.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ...core.errors import require
from ...core.history import Step
from ...core.report import Measurement, Metric, Report
from . import units, words

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, FAINT, PAPER = "#010101", "#020202", "#030303"
GOOD, BAD = "#040404", "#050505"
SERIES = ("#060606", "#070707", "#080808", "#090909", "#0a0a0a", "#0b0b0b")
VARIABLES = {INK: "--ink", FAINT: "--faint", PAPER: "--paper", GOOD: "--good", BAD: "--bad"} | {
    colour: f"--series-{i}" for i, colour in enumerate(SERIES)
}
MARKERS = {"fp32": "o", "fp16": "^", "int8": "s"}
CLASSES_SHOWN = 30
LAYERS_SHOWN = 60
DOTS = 150


def accuracy_against_latency(report: Report) -> str:
    """Each file's metric over its median latency, with the 95 % interval of both; "" where neither was measured."""
    found = [m for m in report.artifacts if m.metric and m.latency and m.latency.median_s]
    return _scatter(report, found, lambda m: 1e3 * m.latency.median_s, "median latency, ms", "Accuracy against latency")


def accuracy_against_size(report: Report) -> str:
    """Each file's metric over its size."""
    return _scatter(report, [m for m in report.artifacts if m.metric], lambda m: m.bytes / 1024, "size, KiB", "Accuracy against size")


def latency_distributions(report: Report) -> str:
    """One row per file: single runs as dots, the middle half as a bar, the median and the p90 as marks."""
    found = [m for m in report.artifacts if m.latency and len(m.latency.values_s) > 1]
    if not found:
        return ""
    import numpy as np

    with _figure(8.6, 0.8 + 0.48 * len(found), "latency") as (figure, save):
        axes = figure.add_subplot()
        colours = _colours(report)
        for row, m in enumerate(found):
            assert m.latency is not None
            values = 1e3 * np.asarray(m.latency.values_s)
            colour = colours[m.runtime]
            shown = values[np.linspace(0, len(values) - 1, min(len(values), DOTS)).astype(int)]
            offset = 0.3 * np.sin(np.arange(len(shown)) * 2.399963)  # golden angle: spread evenly, the same every time
            axes.plot(shown, row + offset, ".", color=colour, markersize=3, alpha=0.45, markeredgewidth=0)
            low, high = np.quantile(values, [0.25, 0.75])
            axes.barh(row, high - low, 0.34, left=low, color=colour, alpha=0.35, linewidth=0)
            axes.plot([np.median(values)] * 2, [row - 0.3, row + 0.3], color=INK, linewidth=2, solid_capstyle="butt")
            if m.latency.p90_s:
                axes.plot([1e3 * m.latency.p90_s], [row], marker="|", color=INK, markersize=9, markeredgewidth=1.2)
        axes.set_yticks(range(len(found)), [f"{m.file}\n{m.runtime}" for m in found])
        axes.set_ylim(len(found) - 0.4, -0.6)
        _log_where_wide(axes, [1e3 * v for m in found if m.latency for v in m.latency.values_s])
        axes.set_xlabel("latency of single runs, ms")
        axes.grid(visible=True, axis="x")
        return save("Latency of single runs, one row per file")


def per_class(report: Report) -> str:
    """How each class's accuracy changed, in points, from the model as it came to the file that the summary tells of.

    "" where it isn't known, or nothing changed.
    """
    subject = words.subject(report)
    before = class_accuracies(report.model.metric, report.model.labels)
    after = class_accuracies(subject.metric, report.model.labels) if subject else {}
    changes = sorted(((100 * (after[c] - before[c]), c) for c in before if c in after), key=lambda pair: (pair[0], pair[1]))
    if not any(change for change, _ in changes):
        return ""
    shown = changes if len(changes) <= CLASSES_SHOWN else changes[:CLASSES_SHOWN]
    with _figure(8.6, 0.9 + 0.27 * len(shown), "classes") as (figure, save):
        axes = figure.add_subplot()
        axes.barh(range(len(shown)), [d for d, _ in shown], 0.64, color=[BAD if d < 0 else GOOD for d, _ in shown], linewidth=0)
        axes.axvline(0, color=INK, linewidth=0.8)
        for row, (change, _) in enumerate(shown):
            side, shift = ("right", -4) if change < 0 else ("left", 4)
            axes.annotate(f"{change:+.2f}", (change, row), (shift, 0), textcoords="offset points", va="center", ha=side, fontsize=8.5)
        axes.set_yticks(range(len(shown)), [c for _, c in shown])
        axes.set_ylim(len(shown) - 0.4, -0.6)
        axes.margins(x=0.16)
        left = f", the {len(shown)} worst of {len(changes)} classes" if len(shown) < len(changes) else ""
        axes.set_xlabel(f"change of the class's accuracy, points{left}")
        axes.grid(visible=True, axis="x")
        return save("Change of accuracy per class")


def layers(report: Report) -> str:
    """SQNR of the model's output with one layer alone in integers, the worst first; "" where no layer was asked."""
    found = [b for b in report.blame if b.get("alone_db") is not None]
    shown = sorted(found, key=lambda b: b["alone_db"])[:CLASSES_SHOWN]
    if not shown:
        return ""
    with _figure(8.6, 0.9 + 0.27 * len(shown), "layers") as (figure, save):
        axes = figure.add_subplot()
        changes = [bool(b.get("changed")) for b in shown]
        axes.barh(range(len(shown)), [b["alone_db"] for b in shown], 0.64, color=[BAD if c else GOOD for c in changes], linewidth=0)
        for row, b in enumerate(shown):
            text = "" if not b.get("changed") else f"{100 * b['changed']:.1f} % of answers change"
            axes.annotate(text, (b["alone_db"], row), (4, 0), textcoords="offset points", va="center", ha="left", fontsize=8.5)
        axes.set_yticks(range(len(shown)), [b["layer"] for b in shown])
        axes.set_ylim(len(shown) - 0.4, -0.6)
        axes.margins(x=0.3)
        left = f", the {len(shown)} worst of {len(found)} layers" if len(shown) < len(found) else ""
        axes.set_xlabel(f"SQNR of the output with this layer alone in integers, dB{left}")
        axes.grid(visible=True, axis="x")
        return save("Integer layers, each alone")


def pruned_layers(report: Report) -> str:
    """The multiply-accumulates of each layer before and after pruning, a bar per layer; "" where nothing was pruned."""
    steps = [s.changes["macs-by-layer"] for s in report.history if s.changes.get("macs-by-layer")]
    if not steps:
        return ""
    first, last = steps[0], steps[-1]
    layers = [(name, before, last.get(name, (0, 0))[1]) for name, (before, _) in first.items() if before]
    shown = sorted(sorted(range(len(layers)), key=lambda i: -layers[i][1])[:LAYERS_SHOWN])
    was, now = sum(b for _, b, _ in layers), sum(a for _, _, a in layers)
    told = next((s.changes["latency-ms"] for s in report.history[::-1] if s.changes.get("latency-ms")), None)
    timed = f"; {told['before']:.3g} → {told['after']:.3g} ms in {told['runtime']}, {told['precision']}" if told else ""
    with _figure(8.6, 0.9 + 0.24 * len(shown), "pruned") as (figure, save):
        axes = figure.add_subplot()
        for row, (_, before, after) in enumerate(layers[i] for i in shown):
            axes.barh(row, before / 1e6, 0.7, color=FAINT, alpha=0.3, linewidth=0)
            axes.barh(row, after / 1e6, 0.7, color=SERIES[0], linewidth=0)
            axes.annotate(f"{after / before:.0%}", (before / 1e6, row), (4, 0), textcoords="offset points", va="center", fontsize=8.5)
        axes.set_yticks(range(len(shown)), [layers[i][0] for i in shown])
        axes.set_ylim(len(shown) - 0.4, -0.6)
        axes.margins(x=0.1)
        left = f", the {len(shown)} largest of {len(layers)} layers" if len(shown) < len(layers) else ""
        axes.set_xlabel(f"million multiply-accumulates: {was / 1e6:.4g} before (grey), {now / 1e6:.4g} left{timed}{left}")
        axes.grid(visible=True, axis="x")
        return save("Multiply-accumulates of each layer before and after pruning")


def sensitivity(history: Sequence[Step]) -> str:
    """What each layer alone cost at several shares of its units, from the last scan of the history; "" where none was made."""
    told = next((s.changes["sensitivity"] for s in history[::-1] if s.changes.get("sensitivity")), None)
    layers = [(name, points) for name, points in told["layers"].items() if points][:LAYERS_SHOWN] if told else []
    if told is None or not layers:
        return ""
    with _figure(8.6, 0.9 + 0.3 * len(layers), "sensitivity") as (figure, save):
        axes = figure.add_subplot()
        for row, (name, points) in enumerate(layers):
            limit = told["limits"].get(name, 0.0)
            axes.plot([0, limit], [row, row], color=GOOD, linewidth=5, alpha=0.25, solid_capstyle="butt")
            for point in points:
                share = point["gone"] / point["size"]
                axes.plot([share], [row], "o", markersize=5.5, color=GOOD if share <= limit else BAD, markeredgewidth=0)
                axes.annotate(f"{point['drop']:.3g}", (share, row), (5, 0), textcoords="offset points", va="center", fontsize=8.5)
        axes.set_yticks(range(len(layers)), [name for name, _ in layers])
        axes.set_ylim(len(layers) - 0.4, -0.6)
        axes.set_xlim(0, 1)
        unit = "points" if told["unit"] == "%" else told["unit"]
        axes.set_xlabel(f"share of the layer's units taken away, alone; beside it what it cost ({told['metric']}, {unit})")
        axes.grid(visible=True, axis="x")
        return save("What each layer alone costs")


def standalone(svg: str) -> str:
    """A plot of this module as a file of its own: the page's variables become colours that are read on white."""
    colours = {"--ink": "#1a1a1a", "--faint": "#8a8a8a", "--paper": "#ffffff", "--good": "#1a7f37", "--bad": "#b42318"}
    colours |= {f"--series-{i}": c for i, c in enumerate(("#2563eb", "#d97706", "#0d9488", "#9333ea", "#db2777", "#64748b"))}
    for name, colour in colours.items():
        svg = svg.replace(f"var({name})", colour)
    return svg.replace("<svg ", '<svg font-family="sans-serif" ', 1)


def class_accuracies(metric: Metric | None, labels: Sequence[str] = ()) -> dict[str, float]:
    """A metric's recall of each class, fractions by the class's name (its number where it has none); empty where there are none."""
    found = metric.more.get("per_class") if metric is not None else None
    if not isinstance(found, list | tuple):
        return {}
    recalls = [c.get("recall") if isinstance(c, dict) else None for c in found]
    names = labels if len(labels) == len(recalls) and len(set(labels)) == len(labels) else [str(i) for i in range(len(recalls))]
    return {name: float(r) for name, r in zip(names, recalls, strict=True) if isinstance(r, int | float) and math.isfinite(r)}


def _scatter(report: Report, found: Sequence[Measurement], across: Callable[[Any], float], label: str, title: str) -> str:
    if not found:
        return ""
    with _figure(5.4, 3.9, title) as (figure, save):
        axes = figure.add_subplot()
        colours = _colours(report)
        scale = 100.0 if found[0].metric and found[0].metric.unit == "%" else 1.0
        for m in found:
            assert m.metric is not None
            x, y = across(m), scale * m.metric.value
            colour = colours[m.runtime]
            if m.metric.ci95:
                axes.plot([x, x], [scale * v for v in m.metric.ci95], color=colour, linewidth=1, alpha=0.55)
            if m.latency and m.latency.ci95_s and "latency" in label:
                axes.plot([1e3 * v for v in m.latency.ci95_s], [y, y], color=colour, linewidth=1, alpha=0.55)
            if m.recommended:
                axes.plot([x], [y], "o", markersize=15, markerfacecolor="none", markeredgecolor=INK, markeredgewidth=1.2)
            axes.plot([x], [y], MARKERS.get(m.precision, "D"), color=colour, markersize=7.5, markeredgecolor=PAPER, markeredgewidth=0.8)
        reference = report.model.metric
        if reference is not None:
            axes.axhline(scale * reference.value, color=FAINT, linewidth=1, linestyle=(0, (4, 3)), zorder=0)
        if not _log_where_wide(axes, [across(m) for m in found]):
            axes.set_xlim(left=0, right=1.12 * max(across(m) for m in found))
        axes.set_xlabel(label)
        unit = found[0].metric.unit if found[0].metric else ""
        axes.set_ylabel(f"{units.metric_name(found[0].metric)}{', ' + unit if unit else ''}")
        axes.grid(visible=True)
        return save(title)


def _colours(report: Report) -> dict[str, str]:
    """A colour per runtime, by the order in which they appear."""
    runtimes = list(dict.fromkeys(m.runtime for m in report.artifacts))
    return {r: SERIES[i % len(SERIES)] for i, r in enumerate(runtimes)}


def legend(report: Report) -> tuple[list[tuple[str, str]], list[tuple[str, str]], bool]:
    """What the plots' colours and marks mean: (runtime, CSS variable), (precision, mark), whether a file is ringed."""
    marks = {"o": "●", "^": "▲", "s": "■", "D": "◆"}
    runtimes = [(r, VARIABLES[c]) for r, c in _colours(report).items()]
    precisions = dict.fromkeys(m.precision for m in report.artifacts)
    return runtimes, [(p, marks[MARKERS.get(p, "D")]) for p in precisions], words.recommended(report) is not None


def _log_where_wide(axes: Axes, values: Sequence[float]) -> bool:
    """A logarithmic axis where the values span more than a factor of twenty, with plain numbers on it."""
    if max(values) <= 20 * min(values) or min(values) <= 0:
        return False
    from matplotlib.ticker import FuncFormatter, NullFormatter

    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    return True


@contextmanager
def _figure(width: float, height: float, salt: str) -> Iterator[tuple[Figure, Callable[[str], str]]]:
    """A figure of so many inches and a function that gives its SVG under a title for screen readers."""
    matplotlib = require("matplotlib", "report")
    require("matplotlib.figure", "report")
    settings = {
        **{k: v for k, v in matplotlib.rcParamsDefault.items() if k not in ("backend", "backend_fallback")},
        "text.color": INK,
        "axes.labelcolor": INK,
        "axes.edgecolor": FAINT,
        "xtick.color": FAINT,
        "ytick.color": FAINT,
        "xtick.labelcolor": INK,
        "ytick.labelcolor": INK,
        "grid.color": FAINT,
        "grid.alpha": 0.25,
        "grid.linewidth": 0.7,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
        "font.size": 10,
        "svg.fonttype": "none",
        "svg.hashsalt": salt,
        "text.parse_math": False,
    }
    with matplotlib.rc_context(settings):
        figure = matplotlib.figure.Figure(figsize=(width, height), layout="constrained")

        def save(title: str) -> str:
            out = io.StringIO()
            figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
            return _inline(out.getvalue(), title, salt)

        yield figure, save


def _inline(svg: str, title: str, salt: str) -> str:
    """matplotlib's SVG as an element of the page: no prologue, fluid, its own ids, the page's font and colours."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    for colour, variable in VARIABLES.items():
        svg = svg.replace(colour, f"var({variable})")
    svg = re.sub(r"<style type=\"text/css\">.*?</style>", "", svg, flags=re.DOTALL)  # it would hold for the whole page
    svg = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", svg)
    svg = re.sub(r"font-family: [^;\"]*;? ?", "", svg)
    prefix = re.sub(r"[^a-z]", "", salt.lower())
    svg = re.sub(r'\bid="([^"]+)"', rf'id="{prefix}-\1"', svg)
    svg = re.sub(r'(xlink:href|href)="#([^"]+)"', rf'\1="#{prefix}-\2"', svg)
    svg = re.sub(r"url\(#([^)]+)\)", rf"url(#{prefix}-\1)", svg)
    head = re.match(r"<svg[^>]*>", svg)
    assert head is not None
    box = re.search(r'viewBox="[^"]+"', head[0])
    assert box is not None
    names = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    return f'<svg {names} {box[0]} role="img" aria-label="{title}"><title>{title}</title>{svg[head.end() :]}'.strip()
