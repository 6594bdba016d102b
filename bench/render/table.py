"""The report as a table for the terminal: what matters at any width, more columns where there is room."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...core.report import Measurement, Report
from . import units, words

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.table import Table
    from rich.text import Text

WIDE, MIDDLE = 150, 110


def table(report: Report) -> ReportTable:
    """A rich renderable: one row per file and runtime, then the recommendation, the gates and the doubts."""
    return ReportTable(report)


class ReportTable:
    """Draws itself to the width that the console offers."""

    def __init__(self, report: Report) -> None:
        self.report = report

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.padding import Padding
        from rich.text import Text

        def indented(line: str | Text) -> Padding:
            return Padding(line if isinstance(line, Text) else Text(line), (0, 0, 0, 2))

        report = self.report
        yield _files(report, options.max_width)
        yield Text(words.headline(report), style="bold")
        if told := words.reason(report):
            yield indented(told)
        for line in (*words.gained(report), *words.lost(report)):
            yield indented(line)
        for gate in report.gates:
            found = "not measured" if gate.value is None else f"{gate.value:.3g}"
            mark = Text("gate met     ", style="green") if gate.ok else Text("gate NOT met ", style="bold red")
            yield indented(mark.append(f"{gate.name} {gate.limit:g}: {found} {gate.file} {gate.why}".rstrip(), style="default"))
        for line in words.doubts(report):
            yield indented(Text(line, style="yellow"))


def _files(report: Report, width: int) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    name = units.metric_name(next((m.metric for m in report.artifacts if m.metric), None))
    head = Table(
        box=box.SIMPLE_HEAD, title=Text(f"{report.model.name} on {report.target}", style="bold"), title_justify="left", pad_edge=False
    )
    head.add_column("file", overflow="fold")
    if width >= MIDDLE:
        head.add_column("runtime")
    head.add_column("size", justify="right")
    head.add_column("median", justify="right")
    if width >= MIDDLE:
        head.add_column("p90", justify="right")
    head.add_column("speed-up", justify="right")
    head.add_column(name, justify="right")
    if width >= WIDE:
        head.add_column("memory", justify="right")
        head.add_column("parity", justify="right")
        head.add_column("Q/DQ", justify="right")
    head.add_column("verdict")
    for m in report.artifacts:
        head.add_row(*_row(m, width), style="bold" if m.recommended else "")
    return head


def _row(m: Measurement, width: int) -> list[Text]:
    from rich.text import Text

    latency = m.latency
    file = f"{m.file} *" if m.recommended else m.file
    cells = [file, m.runtime] if width >= MIDDLE else [f"{file}\n  {m.runtime}"]
    cells += [units.size(m.bytes), units.seconds(latency.median_s if latency else None)]
    if width >= MIDDLE:
        cells.append(units.seconds(latency.p90_s if latency else None))
    cells += [_speedup(m, " " if width >= MIDDLE else "\n"), units.metric(m.metric)]
    if width >= WIDE:
        sqnr = "equal" if m.parity and m.parity.sqnr_db is None else units.NONE
        cells.append(units.size(m.memory.peak_bytes if m.memory else None))
        cells.append(f"{m.parity.sqnr_db:.1f} dB" if m.parity and m.parity.sqnr_db is not None else sqnr)
        left = m.ops.requantizes_left if m.ops else None
        cells.append(units.NONE if left is None else str(left))
    style = {"stable": "green", "unstable": "yellow", "inconclusive": "yellow"}
    verdict = Text(latency.verdict, style=style[latency.verdict]) if latency else Text("not measured", style="yellow")
    return [Text(c) for c in cells] + [verdict]


def _speedup(m: Measurement, between: str) -> str:
    if m.speedup is None:
        return units.NONE
    low, high = m.speedup.ci95
    return f"{m.speedup.value:.2f}{between}[{low:.2f}, {high:.2f}]"
