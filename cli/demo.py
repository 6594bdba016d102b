"""``packlight demo``: the whole way on a small real data set that a dependency ships."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from . import options as o


@click.command()
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs/demo"), show_default=True, help="Where the result goes.")
@click.option("--force", is_flag=True, help="Replace an existing output.")
@click.option("--recipe", default="prune50-int8", show_default=True, metavar="NAME|FILE", help="The recipe to show.")
@click.option("--target", default="x86-64-avx2", show_default=True, metavar="TARGET")
@o.seed
@o.common
def demo(**options: Any) -> None:
    """Train a small CNN on scikit-learn's digits, then prune, fine-tune, quantize, export, prove, measure and report."""
    from ..search.demo import prepare
    from .compress import finish
    from .console import Console

    with Console(options["verbose"]) as console:
        job = prepare(options["out"], options["recipe"], options["target"], options["seed"], options["force"], console)
    finish(job, options["verbose"], options["as_json"])
