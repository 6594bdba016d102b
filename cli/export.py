"""``packlight export``: files a device can run, with parity."""

from __future__ import annotations

from typing import Any

import click

from . import options as o


@click.command()
@o.model
@o.data
@o.preprocessing
@click.option("--target", required=True, metavar="TARGET", help="A known target or a profile.toml.")
@click.option("--format", "formats", metavar="onnx,openvino,tflite", help="Only these formats [all that the target runs].")
@click.option(
    "--precision",
    "precisions",
    default=None,
    metavar="fp32,fp16,int8",
    help="Also int16, weight-int8, dynamic-int8 (TFLite). [int8 for a quantized bundle, else fp32]",
)
@click.option("--batch", type=click.IntRange(1), help="Fix the batch [free where the format can].")
@click.option("--layout", type=click.Choice(["NCHW", "NHWC"]), help="Layout of image inputs [the format's own].")
@click.option("--doors", type=click.Choice(["float32", "integer"]), default="float32", show_default=True, help="Of int8 files.")
@click.option("--recurrent", type=click.Choice(["unrolled", "fused"]), default="unrolled", show_default=True, help="LSTM in TFLite files.")
@click.option("--opset", type=int, help="ONNX operator set.")
@o.pictures
@click.option("--converter", default="", metavar="litert-torch", help="Let this package write the file instead (TFLite only).")
@click.option("--strict-target", is_flag=True, help="Fail where a runtime of the target would leave operators to the CPU.")
@o.seed
@o.output
@o.common
def export(**options: Any) -> None:
    """Write MODEL in every format that the target runs; each file is checked against torch and refused when it fails.

    int8 from a float MODEL needs --calib or --data: it is quantized by the target's scheme first.
    """
    from ..core.files import refuse_existing, staged_folder
    from ..export.exporter import Options
    from ..export.formats import exporter
    from ..search.formats import export_precisions
    from ..targets.load import load_target
    from .console import Console
    from .inputs import asked_free, read_inputs

    refuse_existing(options["out"], options["force"])
    target = load_target(options["target"])
    formats = tuple(f.strip() for f in options["formats"].split(",")) if options["formats"] else target.formats
    for name in formats:
        target.require_format(name)
        exporter(name, options["converter"])
    bundle, splits = read_inputs(options, need_data=False)
    asked = options["precisions"] or ("int8" if bundle.quantized else "fp32")
    dynamic = asked_free(bundle, options)
    choices = [
        Options(
            precision=p.strip(),
            dynamic=dynamic,
            pictures="" if options["pictures"] == "tensor" else options["pictures"],
            **{key: options[key] for key in ("batch", "layout", "doors", "opset", "converter", "recurrent")},
        )
        for p in asked.split(",")
    ]
    strict = options["strict_target"]
    with Console(options["verbose"]) as console, staged_folder(options["out"], force=options["force"]) as folder:
        artifacts = export_precisions(bundle, splits, folder, formats, choices, target, options["seed"], console, strict_target=strict)
    if options["as_json"]:
        click.echo((options["out"] / "manifest.json").read_text(), nl=False)
        return
    for artifact in artifacts:
        against = ", ".join(
            f"{p.against}{' in ' + p.runtime if p.runtime else ''}{' at ' + p.at if p.at else ''}: max {p.max_abs:.2g}, {_db(p.sqnr_db)}"
            for p in artifact.parity
        )
        click.echo(f"{options['out'] / artifact.file}  {artifact.bytes:,} bytes  parity {against}")
        for note in artifact.notes:
            click.echo(f"  {note}")


def _db(value: float | None) -> str:
    return "equal" if value is None else f"{value:.1f} dB"
