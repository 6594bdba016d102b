"""``packlight doctor``: what works here, what is missing and how to get it."""

from __future__ import annotations

import click

from . import options as o


@click.command()
@click.option("--target", metavar="TARGET", help="Say which of this target's runtimes can be exercised here.")
@o.common
def doctor(target: str | None, as_json: bool, verbose: bool) -> None:
    """Look at this machine: packages, CPU, and each runtime with a tiny model, measured and not guessed."""
    import msgspec

    from ..targets.doctor import examine, lines
    from ..targets.load import load_target

    report = examine(load_target(target) if target else None)
    if as_json:
        click.echo(msgspec.json.encode(report).decode())
        return
    for line in lines(report):
        click.echo(line)
