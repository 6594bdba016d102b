"""``packlight compare``: two reports, or a folder of them: faster, slower, or not proven."""

from __future__ import annotations

from pathlib import Path

import click

from . import options as o


@click.command()
@click.argument("before", required=False, type=click.Path(path_type=Path))
@click.argument("after", required=False, type=click.Path(path_type=Path))
@click.option("--history", type=click.Path(path_type=Path), metavar="DIR", help="Follow all reports in DIR instead of comparing two.")
@click.option("--plot", type=click.Path(path_type=Path), metavar="FILE", help="With --history: draw it (.svg, .png or .pdf).")
@click.option("--anyway", is_flag=True, help="Compare although device, threads or versions differ.")
@click.option("--force", is_flag=True, help="Replace an existing plot.")
@o.common
def compare(
    before: Path | None,
    after: Path | None,
    history: Path | None,
    plot: Path | None,
    anyway: bool,
    force: bool,
    as_json: bool,
    verbose: bool,
) -> None:
    """Compare the report.json files BEFORE and AFTER, or with --history each report in a folder with the one before it.

    Exit 1 where something is proven slower or worse; with --history, in the newest report.
    """
    if history is not None and before is None:
        _history(history, plot, anyway, force, as_json)
    elif before is not None and after is not None and history is None and plot is None:
        _two(before, after, anyway, as_json)
    else:
        raise click.UsageError("give BEFORE and AFTER, or --history DIR")


def _two(before: Path, after: Path, anyway: bool, as_json: bool) -> None:
    import msgspec

    from ..bench.compare import compare_reports
    from ..core.artifact import read_json
    from ..core.report import Report
    from .console import gate_failed

    result = compare_reports(read_json(before, Report), read_json(after, Report), anyway=anyway)
    if as_json:
        click.echo(msgspec.json.encode(result).decode())
    else:
        for line in result.lines():
            click.echo(line)
    if result.regressed:
        gate_failed(f"'{after}' is worse than '{before}': {result.regressed[0]}", as_json)


def _history(folder: Path, plot: Path | None, anyway: bool, force: bool, as_json: bool) -> None:
    import msgspec

    from ..bench.history import history
    from ..bench.history import plot as draw
    from .console import gate_failed

    found = history(folder, anyway=anyway)
    if plot is not None:
        draw(found, plot, force=force)
    if as_json:
        click.echo(msgspec.json.encode({"series": found}).decode())
    else:
        for line in [line for series in found for line in series.lines()]:
            click.echo(line)
    worse = [series.regressed for series in found if series.regressed]
    if worse:
        gate_failed(worse[0], as_json)
