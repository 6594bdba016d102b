"""``packlight compress``: the main job."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import options as o

if TYPE_CHECKING:
    from ..search.job import Job


@click.command()
@o.model
@o.data
@o.test_data
@o.judge
@o.preprocessing
@click.option("--target", required=True, metavar="TARGET", help="A known target (see 'packlight targets') or a profile.toml.")
@click.option(
    "--recipe",
    default="int8",
    show_default=True,
    metavar="NAME|FILE",
    help="int8, prune50-int8, prune50-iterative, prune50-sparse, qat-int8, prune50-qat, fp16, or a recipe.toml.",
)
@click.option("--set", "overrides", multiple=True, metavar="PASS.SETTING=VALUE", help="Change one setting of the recipe; may be repeated.")
@click.option("--format", "formats", metavar="onnx,openvino,tflite", help="Only these formats [all that the target runs].")
@o.pictures
@click.option("--max-drop", type=float, metavar="POINTS", help="Mend, then fail (exit 1) where a file loses more of the metric.")
@click.option(
    "--repair-minutes",
    type=click.FloatRange(0),
    default=10,
    show_default=True,
    metavar="M",
    help="How long a quantized model may be mended for --max-drop; 0: not at all.",
)
@click.option("--blame", is_flag=True, help="Say in the report what each integer layer does alone.")
@click.option("--max-latency", type=float, metavar="MS", help="Fail (exit 1) where the recommended file's p90 is longer.")
@click.option("--min-speedup", type=float, metavar="X", help="Fail (exit 1) where an integer file is not X times as fast as float.")
@click.option("--percentile", type=click.FloatRange(50, 99.9), default=90, show_default=True, help="Tail percentile; sets how many runs.")
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True, help="Threads of the runtimes.")
@click.option("--work", type=click.Path(path_type=Path), help="Keep training checkpoints here; a run that was killed goes on from them.")
@o.seed
@o.output
@o.common
def compress(**options: Any) -> None:
    """Compress MODEL by a recipe, export it to every format that the target runs, prove each file, measure latency and
    accuracy of each here, and write a report.

    MODEL is a bundle folder, file.py:factory, package.module:factory or model.pt2.
    """
    from ..bench.plan import BenchOptions
    from ..compress.recipe import load_recipe
    from ..core.errors import InputError
    from ..core.files import refuse_existing
    from ..search.job import Job
    from ..search.judge import Limits
    from ..targets.load import load_target
    from ..tasks.load import load_task
    from .inputs import asked_free, read_inputs

    refuse_existing(options["out"], options["force"])
    target = load_target(options["target"])
    recipe = load_recipe(options["recipe"]).override(o.read_overrides(options["overrides"]))
    options["task"] = options["task"] or "classification"
    load_task(options["task"])
    formats = tuple(f.strip() for f in options["formats"].split(",")) if options["formats"] else recipe.export.formats
    for name in formats:
        target.require_format(name)
    source = options["model"]
    bundle, splits = read_inputs(options, need_data=True)
    if splits is None:
        raise InputError("no data given; add --data")
    task = load_task(options["task"], bundle.labels, options["judge"])
    job = Job(
        bundle=bundle,
        data=splits,
        task=task,
        target=target,
        recipe=recipe,
        out=options["out"],
        bench=BenchOptions(percentile=options["percentile"] / 100, threads=options["threads"], seed=options["seed"]),
        formats=formats,
        limits=Limits(
            recipe.gates.max_drop if options["max_drop"] is None else options["max_drop"],
            recipe.gates.max_latency if options["max_latency"] is None else options["max_latency"],
            recipe.gates.min_speedup if options["min_speedup"] is None else options["min_speedup"],
        ),
        seed=options["seed"],
        force=options["force"],
        work=options["work"],
        source=source,
        blame=options["blame"],
        repair_minutes=options["repair_minutes"],
        dynamic=asked_free(bundle, options),
        pictures="" if options["pictures"] == "tensor" else options["pictures"],
    )
    finish(job, options["verbose"], options["as_json"])


def finish(job: Job, verbose: bool, as_json: bool) -> None:
    """Runs the job, shows what came out and fails where a gate was not met."""
    from ..bench.render.table import table
    from ..search.job import run_job
    from .console import Console, gate_failed, show

    with Console(verbose) as console:
        result = run_job(job, console)
    if as_json:
        click.echo((result.folder / "report.json").read_text(), nl=False)
    else:
        show(table(result.report))
        click.echo(f"report: {result.folder / 'report.html'}")
    if not result.ok:
        failed = next(g for g in result.report.gates if not g.ok)
        where = f" ({failed.file})" if failed.file else ""
        why = f"gate '{failed.name}' was not met{where}: {failed.why}; the files and the report are in '{result.folder}'"
        gate_failed(why, as_json)
