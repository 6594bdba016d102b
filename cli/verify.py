"""``packlight verify``: a shipped bundle, checked and replayed."""

from __future__ import annotations

from pathlib import Path

import click

from . import options as o


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--device", default="local", show_default=True, metavar="local|ssh:HOST|adb:SERIAL", help="Where the models run.")
@o.common
def verify(bundle: Path, device: str, as_json: bool, verbose: bool) -> None:
    """Check every hash of BUNDLE (a folder or .zip from 'packlight ship') and replay its golden inputs through preprocessing and models.

    Exit 1 where anything is not as it was shipped; each fault is named.
    """
    import msgspec

    from ..search.verify import verify_bundle
    from .console import Console, gate_failed

    with Console(verbose) as console:
        result = verify_bundle(bundle, device=device, progress=console)
    if as_json:
        click.echo(msgspec.json.encode(result).decode())
    else:
        for finding in result.findings:
            click.echo(f"{finding.place}: {finding.what}")
        for line in result.skipped:
            click.echo(f"not run: {line}")
        if result.ok:
            click.echo(f"'{result.name}': {result.goldens} golden inputs, {result.stages} stages, all as shipped")
    if not result.ok:
        more = f" (and {len(result.findings) - 1} more)" if len(result.findings) > 1 else ""
        gate_failed(f"'{bundle}' is not as it was shipped: {result.findings[0].what}{more}", as_json)
