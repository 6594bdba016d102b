"""``packlight targets``: the known targets; one in full."""

from __future__ import annotations

import click

from . import options as o


@click.command()
@click.argument("name", required=False)
@o.common
def targets(name: str | None, as_json: bool, verbose: bool) -> None:
    """List the known targets, or show NAME (or a profile.toml) in full."""
    import msgspec

    from ..targets.load import load_target, target_names

    if name is None:
        known = [load_target(n) for n in target_names()]
        if as_json:
            click.echo(msgspec.json.encode({"targets": known}).decode())
            return
        width = max(len(t.name) for t in known)
        for target in known:
            runs = ", ".join(f"{r.name}{' ' + r.provider if r.provider else ''} ({'/'.join(r.precisions)})" for r in target.runtimes)
            click.echo(f"{target.name:<{width}}  {target.title}\n{'':<{width}}  {runs}")
        return
    target = load_target(name)
    if as_json:
        click.echo(msgspec.json.encode(target).decode())
        return
    d, q = target.device, target.quantization
    click.echo(f"{target.name}: {target.title}")
    click.echo(f"device        {d.cpu}, {d.cores} cores, {d.ram_bytes / 2**30:.0f} GiB, {d.machine}, {d.os}; {', '.join(d.isa)}")
    if d.gpu:
        click.echo(f"gpu           {d.gpu}")
    click.echo(f"quantization  weights +-{q.weight_max} {'per channel' if q.per_channel else 'per tensor'}, activations {q.activation}")
    if q.reason:
        click.echo(f"              {q.reason}")
    for r in target.runtimes:
        click.echo(f"runtime       {r.name} reads {r.format}: {', '.join(r.precisions)}{' on ' + r.provider if r.provider else ''}")
        for caveat in r.caveats:
            click.echo(f"              {caveat}")
    click.echo(f"links         {', '.join(target.links)}")
    for note in target.notes:
        click.echo(f"note          {note}")
