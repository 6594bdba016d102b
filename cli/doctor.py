"""``packlight doctor``: what works here, what is missing and how to get it."""

from __future__ import annotations

from pathlib import Path

import click

from . import options as o


@click.command()
@click.option("--target", metavar="TARGET", help="Say which of this target's runtimes can be exercised here.")
@click.option(
    "--layers",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Hold each layer of this int8 ONNX file against what the file says: which integer kernels saturate here.",
)
@click.option("--data", metavar="DATA", help="With --layers: samples to run [noise].")
@o.common
def doctor(target: str | None, layers: Path | None, data: str | None, as_json: bool, verbose: bool) -> None:
    """Look at this machine: packages, CPU, and each runtime with a tiny model, measured and not guessed."""
    import msgspec

    if layers is not None:
        _layers(layers, data, as_json)
        return
    if data is not None:
        raise click.UsageError("--data is for --layers")

    from ..targets.doctor import examine, lines
    from ..targets.load import load_target

    report = examine(load_target(target) if target else None)
    if as_json:
        click.echo(msgspec.json.encode(report).decode())
        return
    for line in lines(report):
        click.echo(line)


def _layers(file: Path, data: str | None, as_json: bool) -> None:
    import msgspec

    from ..core.errors import GateError
    from ..search.saturation import examine_file, lines, verdict

    found = examine_file(file, data)
    if as_json:
        click.echo(msgspec.json.encode(found).decode())
    else:
        click.echo("\n".join(lines(found)))
    if told := verdict(found):
        raise GateError(f"'{file.name}': {told}")
