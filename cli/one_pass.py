"""``packlight prune``, ``quantize`` and ``distill``: one pass alone; each writes a bundle folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from . import options as o

SET = click.option("--set", "extra", multiple=True, metavar="SETTING=VALUE", help="Any other setting of the pass; may be repeated.")
TARGET = click.option("--target", default="x86-64-avx2", show_default=True, metavar="TARGET", help="A known target or a profile.toml.")


@click.command()
@o.model
@o.data
@o.preprocessing
@TARGET
@SET
@click.option("--macs", type=float, metavar="SHARE", help="Share of the multiply-accumulates to keep.")
@click.option("--ratio", type=float, metavar="SHARE", help="Share of every layer's channels to remove.")
@click.option("--params", type=float, metavar="SHARE", help="Share of the parameters to keep.")
@click.option("--latency", type=float, metavar="MS", help="Milliseconds that one inference may take, measured; see --runtime and --device.")
@click.option("--runtime", metavar="NAME", help="For --latency: the runtime to measure in [the target's first].")
@click.option("--precision", default="fp32", show_default=True, metavar="NAME", help="For --latency: the precision to measure in.")
@click.option(
    "--device", default="local", show_default=True, metavar="DEVICE", help="For --latency: local, ssh:HOST, adb:SERIAL or a name."
)
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True, help="For --latency: threads of the runtime.")
@click.option("--criterion", metavar="NAME", help="How channels are ranked.")
@click.option("--round-to", type=int, metavar="N", help="Keep a multiple of N channels.")
@click.option("--protect", multiple=True, metavar="LAYER", help="Leave this layer whole; may be repeated.")
@o.seed
@o.output
@o.common
def prune(**options: Any) -> None:
    """Remove whole channels from MODEL until --macs, --ratio, --params or --latency holds."""
    keys = {"macs": "macs", "ratio": "ratio", "params": "params", "latency": "latency", "criterion": "criterion", "round_to": "round-to"}
    settings = {word: options.pop(key) for key, word in keys.items()}
    settings = {key: value for key, value in settings.items() if value is not None}
    if protect := options.pop("protect"):
        settings["protect"] = list(protect)
    clock = {key: options.pop(key) for key in ("runtime", "precision", "device", "threads")}
    _run([("prune", settings)], options, clock=clock if "latency" in settings else None)


@click.command()
@o.model
@o.data
@o.preprocessing
@TARGET
@SET
@click.option("--calibrator", metavar="NAME", help="How activation ranges are chosen.")
@click.option("--samples", type=int, metavar="N", help="How many calibration samples are used.")
@click.option("--blame", is_flag=True, help="Print what each integer layer does alone, the worst first.")
@o.seed
@o.output
@o.common
def quantize(**options: Any) -> None:
    """Fold BatchNorm and make MODEL int8 by the target's scheme, calibrated on --calib or --data."""
    settings = {key: options.pop(key) for key in ("calibrator", "samples")}
    settings = {key: value for key, value in settings.items() if value is not None}
    _run([("fold-batchnorm", {}), ("quantize", settings)], options)


@click.command()
@o.model
@click.option("--teacher", required=True, metavar="MODEL", help="The model to learn from.")
@click.option("--teacher-weights", type=click.Path(path_type=Path), help="Its weights.")
@o.data
@o.preprocessing
@TARGET
@SET
@click.option("--epochs", type=int, metavar="N")
@click.option("--max-minutes", type=float, metavar="M", help="Stop in time; the schedule adapts.")
@click.option("--lr", type=float, metavar="RATE", help="Peak learning rate.")
@click.option("--batch-size", type=int, metavar="N")
@click.option("--loss", metavar="NAME", help="How the outputs are compared: kd, dkd or dist.")
@click.option("--temperature", type=float, metavar="T", help="Of the softened teacher.")
@click.option("--alpha", type=float, metavar="A", help="Weight of the teacher against the labels, 0 to 1.")
@click.option("--work", type=click.Path(path_type=Path), help="Keep checkpoints here; a run that was killed goes on from them.")
@o.seed
@o.output
@o.common
def distill(**options: Any) -> None:
    """Train the student MODEL from --teacher on --data."""
    keys = {"epochs": "epochs", "max_minutes": "max-minutes", "lr": "lr", "batch_size": "batch-size"}
    keys |= {"temperature": "temperature", "alpha": "alpha", "loss": "loss"}
    settings = {word: options.pop(key) for key, word in keys.items()}
    settings = {key: value for key, value in settings.items() if value is not None}
    options["task"] = options["task"] or "classification"
    _run([("distill", settings)], options, need_data=True)


def _run(
    steps: list[tuple[str, dict[str, Any]]], options: dict[str, Any], *, need_data: bool = False, clock: dict[str, Any] | None = None
) -> None:
    import contextlib
    import dataclasses
    import json

    import msgspec

    from ..compress.passes import Context, run_passes
    from ..compress.recipe import make_pass
    from ..core.cost import macs
    from ..core.files import refuse_existing
    from ..core.load import load_model
    from ..targets.load import load_target
    from ..tasks.load import load_task
    from .console import Console
    from .inputs import read_inputs

    refuse_existing(options["out"], options["force"])
    target = load_target(options["target"])
    if options.get("task"):
        load_task(options["task"])
    last, settings = steps[-1]
    steps = [*steps[:-1], (last, {**settings, **o.read_settings(options.pop("extra"))})]
    made = [make_pass(name, settings) for name, settings in steps]
    bundle, splits = read_inputs(options, need_data=need_data)
    task = load_task(options["task"], bundle.labels) if options.get("task") else None
    teacher = bundle
    if options.get("teacher"):
        weights = options.get("teacher_weights")
        teacher = load_model(options["teacher"], weights=weights, inputs=list(bundle.samples))
    context = Context(
        target=target,
        task=task,
        train=splits.train if splits else None,
        val=splits.val if splits else None,
        calib=splits.calib if splits else None,
        teacher=teacher,
        seed=options["seed"],
        work=options.get("work"),
    )
    layers: tuple[Any, ...] = ()
    seen = [bundle]
    with Console(options["verbose"]) as console, contextlib.ExitStack() as stack:
        context = dataclasses.replace(context, progress=console)
        if clock is not None:
            from ..search.clock import open_clock

            context = dataclasses.replace(context, clock=stack.enter_context(open_clock(context, **clock)))
        after = run_passes(bundle, made, context, seen=seen.append)
        after.save(options["out"], force=options["force"])
        if options.get("blame"):
            from ..search.repair import blamed

            layers = blamed(seen[-2], after, dataclasses.replace(context, task=context.task or load_task("classification")))
    figures: dict[str, Any] = {
        "bundle": str(options["out"]),
        "name": after.name,
        "macs": [macs(bundle), macs(after)],
        "parameters": [bundle.parameters(), after.parameters()],
        "history": [{"name": s.name, "settings": s.settings, "changes": s.changes} for s in after.history],
    }
    if options.get("blame"):
        figures["blame"] = [msgspec.to_builtins(b) for b in layers]
    if options["as_json"]:
        click.echo(json.dumps(figures, default=str))
        return
    for step in after.history[len(bundle.history) :]:
        click.echo(f"{step}: {_told(step.changes)}")
    for what in ("macs", "parameters"):
        click.echo(f"{what} {figures[what][0]:,} -> {figures[what][1]:,}")
    if layers:
        from ..compress.quantize.blame import table

        click.echo(table(layers), nl=False)
    click.echo(f"bundle: {options['out']}")


def _told(changes: dict[str, Any]) -> str:
    """The short figures of what a pass changed; long lists and tables stay in the bundle's history."""
    short = {k: v for k, v in changes.items() if not isinstance(v, dict | list) or len(v) <= 3}
    return ", ".join(f"{key} {value}" for key, value in short.items()) or "done"
