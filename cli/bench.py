"""``packlight bench``: latency, memory and accuracy of files on a device."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from . import options as o


@click.command()
@click.argument("artifacts", nargs=-1, required=True, metavar="ARTIFACT...", type=click.Path(path_type=Path))
@click.option("--device", default="local", show_default=True, metavar="DEVICE", help="local, ssh:HOST, adb:SERIAL or a name.")
@o.data
@o.test_data
@o.judge
@o.preprocessing
@click.option("--percentile", type=click.FloatRange(50, 99.9), default=90, show_default=True, help="Tail percentile; sets how many runs.")
@click.option("--runs", type=click.IntRange(1), help="Runs of each file [what the percentile needs, or more].")
@click.option("--launches", type=click.IntRange(1), default=6, show_default=True, help="Fresh processes of each file.")
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True)
@click.option("--batch", type=click.IntRange(1), default=1, show_default=True, help="Rows of one inference (free batch only).")
@click.option("--offline", is_flag=True, help="Throughput too: all cores, growing batches.")
@click.option(
    "--benchmark-model",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="TFLite's own program, built for a device without Python (Android).",
)
@o.seed
@click.option("--out", type=click.Path(path_type=Path), default=Path("report.json"), show_default=True, help="Where the report goes.")
@click.option("--force", is_flag=True, help="Replace an existing report.")
@o.common
def bench(**options: Any) -> None:
    """Measure ARTIFACTs (files beside the manifest.json that packlight wrote), interleaved. With --data their accuracy too."""
    import msgspec

    from ..bench.plan import BenchOptions
    from ..bench.render.table import table
    from ..core.files import refuse_existing, staged_file
    from ..search.bench import bench_files
    from .console import Console, gate_failed, show
    from .inputs import PREPROCESS_OPTIONS
    from .options import read_alphabet, read_preprocess

    refuse_existing(options["out"], options["force"])
    spec = read_preprocess(**{key: options.pop(key) for key in PREPROCESS_OPTIONS})
    plan = BenchOptions(
        percentile=options["percentile"] / 100,
        runs=options["runs"],
        launches=options["launches"],
        threads=options["threads"],
        batch=options["batch"],
        seed=options["seed"],
    )
    with Console(options["verbose"]) as console:
        report = bench_files(
            options["artifacts"],
            device=options["device"],
            options=plan,
            data=options["data"],
            task=options["task"],
            preprocess=spec,
            seed=options["seed"],
            test=options["test"],
            degrade=options["degrade"],
            alphabet=read_alphabet(options["alphabet"]),
            judge=options["judge"],
            offline=options["offline"],
            native=options["benchmark_model"],
            progress=console,
        )
    text = msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n"
    with staged_file(options["out"], force=options["force"]) as stage:
        stage.write_bytes(text)
    if options["as_json"]:
        click.echo(text.decode(), nl=False)
    else:
        show(table(report))
        click.echo(f"report: {options['out']}")
    failed = next((g for g in report.gates if not g.ok), None)
    if failed is not None:
        gate_failed(f"gate '{failed.name}' was not met ({failed.file}): {failed.why}; the report is '{options['out']}'", options["as_json"])
