"""``packlight report``: one self-contained HTML page from a report.json."""

from __future__ import annotations

from pathlib import Path

import click

from . import options as o


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="Where the page goes [DIR/report.html].")
@click.option("--force", is_flag=True, help="Replace an existing page.")
@o.common
def report(folder: Path, out: Path | None, force: bool, as_json: bool, verbose: bool) -> None:
    """Write the HTML page of DIR (or of a report.json); it opens offline."""
    import json

    from ..bench.render.html import html
    from ..core.artifact import read_json
    from ..core.errors import InputError
    from ..core.files import staged_file
    from ..core.report import Report

    source = folder if folder.is_file() else folder / "report.json"
    if not source.is_file():
        raise InputError(f"'{folder}' holds no report.json; give a folder that compress or bench wrote")
    page = html(read_json(source, Report))
    out = out or source.with_name("report.html")
    with staged_file(out, force=force) as stage:
        stage.write_text(page, encoding="utf-8")
    click.echo(json.dumps({"page": str(out)}) if as_json else f"report: {out}")
