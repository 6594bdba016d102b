"""``packlight trust``: what compression broke."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import options as o

if TYPE_CHECKING:
    from ..bench.trust.result import Trust


@click.command()
@click.argument("before", type=click.Path(path_type=Path))
@click.argument("after", type=click.Path(path_type=Path))
@click.option("--data", metavar="DATA", help="Labelled data that nothing was tuned on; its test split is used.")
@o.test_data
@o.degrade
@o.alphabet
@click.option("--task", metavar="TASK", help="What the models are for [as they say].")
@click.option("--group", metavar="COLUMN", help="A column of the data whose values are groups: an array of the .npz, or of groups.csv.")
@click.option("--recipe", metavar="NAME|FILE", help="Take the limits of this recipe's [trust] table.")
@click.option("--set", "overrides", multiple=True, metavar="LIMIT=VALUE", help="Change one limit, as class-drop=2; may be repeated.")
@click.option("--runtime", metavar="RUNTIME", help="Run files in this runtime [the first that is installed].")
@o.preprocessing
@o.seed
@click.option("--out", type=click.Path(path_type=Path), help="Write all figures there as JSON too.")
@click.option("--force", is_flag=True, help="Replace an existing output.")
@o.common
def trust(**options: Any) -> None:
    """Judge what AFTER lost against BEFORE on the same samples, in the whole and in every class and group.

    BEFORE and AFTER are files beside the manifest.json that packlight wrote, or bundle folders. Exit 1 where a loss beyond its limit is
    proven, with the figure, and where there are too few samples to certify, with how many are needed.
    """
    import msgspec

    from ..core.errors import InputError
    from ..core.files import refuse_existing, staged_file
    from ..search.trust_gate import trust_files
    from ..search.trust_limits import read_limits
    from .console import Console, gate_failed
    from .inputs import PREPROCESS_OPTIONS
    from .options import read_alphabet, read_preprocess

    if options["data"] is None and options["test"] is None:
        raise InputError("no data to judge on; give --data, whose test split is used, or --test, which is used whole")
    out = options["out"]
    if out is not None:
        refuse_existing(out, options["force"])
    limits = read_limits(options["recipe"], options["overrides"])
    spec = read_preprocess(**{key: options.pop(key) for key in PREPROCESS_OPTIONS})
    with Console(options["verbose"]) as console:
        result = trust_files(
            options["before"],
            options["after"],
            data=options["data"],
            test=options["test"],
            degrade=options["degrade"],
            alphabet=read_alphabet(options["alphabet"]),
            task=options["task"],
            preprocess=spec,
            group=options["group"],
            limits=limits,
            runtime=options["runtime"],
            seed=options["seed"],
            progress=console,
        )
    text = msgspec.json.format(msgspec.json.encode(result), indent=2) + b"\n"
    if out is not None:
        with staged_file(out, force=options["force"]) as stage:
            stage.write_bytes(text)
    if options["as_json"]:
        click.echo(text.decode(), nl=False)
    else:
        _show(result)
    if not result.certified:
        gate_failed(result.why, options["as_json"])


def _show(result: Trust) -> None:
    from ..search.trust_words import lines

    for line in lines(result):
        click.echo(line)
