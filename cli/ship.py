"""``packlight ship``: a bundle that apps use as it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from . import options as o


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--to", "platforms", required=True, metavar="linux,web,android,ios", help="Packages for these.")
@click.option("--file", "files", multiple=True, metavar="NAME", help="Ship this file of DIR; may be repeated [the recommended].")
@click.option("--precision", metavar="fp32|fp16|int8", help="Ship files of this precision.")
@click.option("--target", metavar="TARGET", help="Ship what this profile wants [the one that DIR was made for].")
@click.option("--allow", multiple=True, metavar="GATE", help="Override a gate that failed, by its name; the bundle says so.")
@click.option("--data", metavar="DATA", help="Golden images come from here [made up].")
@click.option("--degrade", metavar="HOW", help="Makes the golden images of DATA worse first, as 'packlight compress' does.")
@click.option("--alphabet", metavar="CHARS", help="For text models (CTC): the characters, or @FILE [the model's labels].")
@click.option("--labels", metavar="FILE", type=click.Path(path_type=Path), help="Names for the classes, one a line [the model's own].")
@click.option("--licence", "spdx", default="not stated", metavar="SPDX", help="The model's licence.")
@click.option("--attribution", default="", metavar="TEXT", help="Whom to name.")
@click.option("--source", default="", metavar="TEXT", help="Where the weights come from.")
@o.preprocessing
@o.seed
@o.output
@o.common
def ship(**options: Any) -> None:
    """Bundle the files of DIR (from 'packlight compress') with their preprocessing, golden inputs and packages for apps.

    Exit 1 where a file failed its parity, a budget or the trust gate, or was not certified. Writes the folder and beside it OUT.zip.
    """
    from ..export.ship.spec import Licence
    from ..search.ship import Order
    from ..search.ship import ship as run
    from .console import Console
    from .inputs import PREPROCESS_OPTIONS
    from .options import read_alphabet, read_lines, read_preprocess

    spec = read_preprocess(**{key: options.pop(key) for key in PREPROCESS_OPTIONS})
    order = Order(
        folder=options["folder"],
        platforms=tuple(dict.fromkeys(p.strip() for p in options["platforms"].split(","))),
        out=options["out"],
        files=options["files"],
        precision=options["precision"],
        target=options["target"],
        allow=options["allow"],
        data=options["data"],
        degrade=options["degrade"],
        preprocess=spec,
        alphabet="".join(read_alphabet(options["alphabet"])),
        labels=read_lines(options["labels"]) if options["labels"] else (),
        licence=Licence(spdx=options["spdx"], attribution=options["attribution"], source=options["source"]),
        seed=options["seed"],
        force=options["force"],
    )
    with Console(options["verbose"]) as console:
        made, archive = run(order, console)
    if options["as_json"]:
        import msgspec

        click.echo(msgspec.json.format(msgspec.json.encode(made), indent=2).decode())
        return
    click.echo(f"bundle: {options['out']} ({len(made.files) + 1} files) and {archive}")
    for package in made.packages:
        click.echo(f"  {package.folder}/  {', '.join(package.artifacts)}; proven: {package.proof}")
    for override in made.overrides:
        click.echo(f"  gate '{override.gate}' was overridden: {override.why}")
    click.echo(f"check it with: packlight verify {options['out']}")
