"""``packlight prune``, ``quantize``, ``distill`` and ``apply``: one pass or a few, alone; each writes a bundle folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from . import options as o

SET = click.option("--set", "extra", multiple=True, metavar="SETTING=VALUE", help="Any other setting of the pass; may be repeated.")
TARGET = click.option("--target", default="x86-64-avx2", show_default=True, metavar="TARGET", help="A known target or a profile.toml.")

WORK = click.option("--work", type=click.Path(path_type=Path), help="Keep checkpoints here; a run that was killed goes on from them.")
CLOCK = o.together(
    click.option("--runtime", metavar="NAME", help="For what is measured (--latency): the runtime to do it in [the target's first]."),
    click.option("--precision", default="fp32", show_default=True, metavar="NAME", help="The precision to measure in."),
    click.option(
        "--device", default="local", show_default=True, metavar="DEVICE", help="Where to measure: local, ssh:HOST, adb:SERIAL or a name."
    ),
    click.option("--threads", type=click.IntRange(1), default=1, show_default=True, help="Threads of the runtime that is measured."),
)


def _clock(options: dict[str, Any]) -> dict[str, Any]:
    return {key: options[key] for key in ("runtime", "precision", "device", "threads")}


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
@CLOCK
@click.option("--criterion", metavar="NAME", help="How channels are ranked.")
@click.option("--round-to", type=int, metavar="N", help="Keep a multiple of N channels.")
@click.option("--protect", multiple=True, metavar="LAYER", help="Leave this layer whole; may be repeated.")
@click.option("--sensitivity", type=float, metavar="POINTS", help="Scan first: no layer may cost more points alone, on validation data.")
@click.option("--scan", type=click.Path(path_type=Path), metavar="DIR", help="With --sensitivity: the scan as a table and a plot go here.")
@click.option("--steps", type=click.IntRange(2), metavar="N", help="Go there in N steps, training on --data between them.")
@click.option("--schedule", type=click.Choice(["linear", "polynomial"]), help="With --steps: what goes when [polynomial].")
@click.option("--epochs", type=float, metavar="N", help="With --steps: epochs after each step but the last [1].")
@click.option("--recover", is_flag=True, help="Then estimate BatchNorm's statistics anew on --data or --calib; labels are not needed.")
@WORK
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
    if (tolerance := options.pop("sensitivity")) is not None:
        settings["sensitivity"] = tolerance
    elif options["scan"] is not None:
        raise click.UsageError("--scan belongs to --sensitivity")
    steps, between = options.pop("steps"), {key: options.pop(key) for key in ("schedule", "epochs")}
    if steps is not None:
        settings |= {"steps": steps} | ({"schedule": between["schedule"]} if between["schedule"] else {})
        settings |= {"finetune": {"epochs": between["epochs"], "lr": 0.01}} if between["epochs"] is not None else {}
    elif any(value is not None for value in between.values()):
        raise click.UsageError("--schedule and --epochs belong to --steps")
    passes = [("prune" if steps is None else "prune-iterative", settings)]
    passes += [("reestimate-batchnorm", {})] * bool(options.pop("recover"))
    _run(passes, options, main=0, clock=_clock(options) if "latency" in settings else None)


@click.command()
@o.model
@click.option(
    "--pass", "names", multiple=True, metavar="NAME", help="A pass, in order; may be repeated. An unknown name lists those there are."
)
@click.option("--recipe", metavar="NAME|FILE", help="The passes of a recipe instead.")
@o.data
@o.preprocessing
@TARGET
@click.option("--set", "extra", multiple=True, metavar="PASS.SETTING=VALUE", help="A setting of a pass; may be repeated.")
@CLOCK
@WORK
@o.seed
@o.output
@o.common
def apply(**options: Any) -> None:
    """Run passes on MODEL by name, or those of a recipe, and write a bundle. Passes that measure do so with --runtime on --device."""
    names, recipe, overrides = options.pop("names"), options.pop("recipe"), o.read_overrides(options.pop("extra"))
    if bool(names) == (recipe is not None):
        raise click.UsageError("give --pass (once or more) or --recipe")
    if recipe is not None:
        from ..compress.recipe import load_recipe

        steps = [(use.use, use.settings) for use in load_recipe(recipe).override(overrides).passes]
    else:
        if unknown := [name for name in overrides if name not in names]:
            raise click.UsageError(f"--set names pass '{unknown[0]}', which is not among --pass")
        steps = [(name, overrides.get(name, {})) for name in names]
    _run(steps, {**options, "extra": ()}, clock=_clock(options))


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
@click.option(
    "--discriminator", metavar="MODEL", help="For images: a model that scores them, trained along to tell MODEL's from real ones."
)
@click.option("--discriminator-weights", type=click.Path(path_type=Path), help="Its weights.")
@o.data
@o.preprocessing
@TARGET
@SET
@click.option("--epochs", type=int, metavar="N")
@click.option("--max-minutes", type=float, metavar="M", help="Stop in time; the schedule adapts.")
@click.option("--lr", type=float, metavar="RATE", help="Peak learning rate.")
@click.option("--batch-size", type=int, metavar="N")
@click.option("--loss", metavar="NAME", help="How outputs are compared: kd, dkd, dist, sequence, boxes.")
@click.option("--temperature", type=float, metavar="T", help="Of the softened teacher.")
@click.option("--alpha", type=float, metavar="A", help="Weight of the teacher against the labels, 0 to 1.")
@click.option("--imagine", type=click.IntRange(1), metavar="N", help="Learn from N images made from the teacher's BatchNorm.")
@o.judge
@WORK
@o.seed
@o.output
@o.common
def distill(**options: Any) -> None:
    """Train the student MODEL from --teacher on --data, or on images made from the teacher."""
    keys = {"epochs": "epochs", "max_minutes": "max-minutes", "lr": "lr", "batch_size": "batch-size"}
    keys |= {"temperature": "temperature", "alpha": "alpha", "loss": "loss"}
    settings = {word: options.pop(key) for key, word in keys.items()}
    settings = {key: value for key, value in settings.items() if value is not None}
    options["task"] = options["task"] or "classification"
    imagine = options.pop("imagine")
    if imagine is not None:
        settings["imagine"] = {"images": imagine}
    _run([("distill", settings)], options, need_data=imagine is None)


def _run(
    steps: list[tuple[str, dict[str, Any]]],
    options: dict[str, Any],
    *,
    need_data: bool = False,
    clock: dict[str, Any] | None = None,
    main: int = -1,
) -> None:
    """Runs ``steps``; ``--set`` without a pass's name belongs to the one at ``main``. ``clock``: what passes may measure with."""
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
    if options.get("scan"):
        refuse_existing(options["scan"], options["force"])
    target = load_target(options["target"])
    if options.get("task"):
        load_task(options["task"])
    name, settings = steps[main]
    steps[main] = (name, {**settings, **o.read_settings(options.pop("extra"))})
    made = [make_pass(name, settings) for name, settings in steps]
    bundle, splits = read_inputs(options, need_data=need_data)
    task = load_task(options["task"], bundle.labels) if options.get("task") else None
    judging = load_task(options["task"], bundle.labels, options["judge"]) if options.get("judge") else None
    teacher = bundle
    if options.get("teacher"):
        weights = options.get("teacher_weights")
        teacher = load_model(options["teacher"], weights=weights, inputs=list(bundle.samples))
        teacher = teacher.replace(preprocess=teacher.preprocess or bundle.preprocess)
    discriminator = None
    if options.get("discriminator"):
        shown = bundle.run(*bundle.samples)[:1]
        discriminator = load_model(options["discriminator"], weights=options["discriminator_weights"], inputs=list(shown))
    context = Context(
        target=target,
        task=task,
        train=splits.train if splits else None,
        val=splits.val if splits else None,
        calib=splits.calib if splits else None,
        teacher=teacher,
        discriminator=discriminator,
        seed=options["seed"],
        work=options.get("work"),
    )
    layers: tuple[Any, ...] = ()
    metric: Any = None
    seen = [bundle]
    with Console(options["verbose"]) as console, contextlib.ExitStack() as stack:
        context = dataclasses.replace(context, progress=console)
        if clock is not None:
            from ..search.clock import open_clock

            context = dataclasses.replace(context, clock=stack.enter_context(open_clock(context, **clock)))
        after = run_passes(bundle, made, context, seen=seen.append)
        after.save(options["out"], force=options["force"])
        if options.get("scan"):
            from ..search.sensitivity import write_scan

            write_scan(after, options["scan"], force=options["force"])
        if judging is not None and splits is not None and (test := splits.test or splits.val) is not None:
            from ..tasks.evaluate import score_of

            metric = score_of(after, test, judging, teacher)
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
    if metric is not None:
        figures["metric"] = msgspec.to_builtins(metric)
    if options.get("blame"):
        figures["blame"] = [msgspec.to_builtins(b) for b in layers]
    if options["as_json"]:
        click.echo(json.dumps(figures, default=str))
        return
    for step in after.history[len(bundle.history) :]:
        click.echo(f"{step}: {_told(step.changes)}")
    for what in ("macs", "parameters"):
        click.echo(f"{what} {figures[what][0]:,} -> {figures[what][1]:,}")
    if any(step.changes.get("sensitivity") for step in after.history[len(bundle.history) :]):
        from ..search.sensitivity import scan_of
        from ..search.sensitivity import table as scanned

        click.echo(scanned(scan_of(after)), nl=False)
    if metric is not None:
        click.echo(f"{metric.name} {metric.value:.4g}{metric.unit and ' ' + metric.unit} of {metric.n:,}: {_told(metric.more)}")
    if layers:
        from ..compress.quantize.blame import table

        click.echo(table(layers), nl=False)
    click.echo(f"bundle: {options['out']}")


def _told(changes: dict[str, Any]) -> str:
    """The short figures of what a pass changed; long lists and tables stay in the bundle's history."""
    short = {k: v for k, v in changes.items() if not isinstance(v, dict | list) or len(v) <= 3}
    return ", ".join(f"{key} {value}" for key, value in short.items()) or "done"
