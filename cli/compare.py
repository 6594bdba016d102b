"""``packlight compare``: two reports: faster, slower, or not proven."""

from __future__ import annotations

from pathlib import Path

import click

from . import options as o


@click.command()
@click.argument("before", type=click.Path(path_type=Path))
@click.argument("after", type=click.Path(path_type=Path))
@click.option("--anyway", is_flag=True, help="Compare although device, threads or versions differ.")
@o.common
def compare(before: Path, after: Path, anyway: bool, as_json: bool, verbose: bool) -> None:
    """Compare two report.json files. Exit 1 where something is proven slower or worse."""
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
