"""The ten graphs of the test zoo in three formats and three precisions: parity, operators, size; or the refusal.

    python benchmarks/graphs.py [--graph NAME ...] [--out benchmarks/graphs.md]

Random weights under fixed seeds, so SQNR is the figure: against torch for floats, against the quantized graph (and torch) for int8.
Every file is run in every runtime installed here; the worst is shown. int8 is quantized by the scheme of x86-64-avx2, calibrated on 32
smooth random inputs; parity is taken on 8 others. No latency: that is `packlight bench`'s.
"""

from __future__ import annotations

import argparse
import datetime
import platform
import sys
import tempfile
import time
from pathlib import Path

import torch

sys.path[:0] = [str(Path(__file__).resolve().parents[1] / "tests"), str(Path(__file__).resolve().parents[1] / "src")]

from zoo import ZOO

from packlight.compress.passes import Context, run_passes
from packlight.compress.recipe import make_pass
from packlight.core.artifact import Artifact
from packlight.core.bundle import Bundle
from packlight.core.errors import PacklightError
from packlight.export.exporter import Options
from packlight.export.run import export_bundle
from packlight.targets.load import load_target
from packlight.targets.runtime import versions

FORMATS = ("onnx", "openvino", "tflite")
PRECISIONS = ("fp32", "fp16", "int8")
HEAD = "| graph | precision | format | SQNR dB to its graph | to float torch | KiB | operators | transposes | float left | export s |"


class Rows:
    """Unlabelled arrays as Samples: whatever shape the graph reads."""

    classes: tuple[str, ...] = ()
    source = "random"

    def __init__(self, x) -> None:
        self.x = x

    def __len__(self) -> int:
        return len(self.x)

    def batch(self, indices):
        return (self.x[list(indices)],), None

    def raw(self, index: int) -> None:
        return None


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--graph", nargs="*", default=list(ZOO))
    parser.add_argument("--out", type=Path)
    chosen = parser.parse_args()
    lines = [HEAD, "|" + "---|" * 10]
    for name in chosen.graph:
        for line in rows(name):
            lines.append(line)
            print(line, flush=True)
    told = ", ".join(f"{k} {v}" for k, v in versions().items())
    text = (
        f"# The ten graphs\n\nMade by `python benchmarks/graphs.py` on {datetime.date.today()}, {platform.machine()} {platform.system()}, "
        f"Python {platform.python_version()}, torch {torch.__version__}, {told}. Seeds fixed in tests/zoo.py; calibration seed 0.\n"
        "fp32 and fp16 are held against torch, int8 against the quantized graph; a row without figures is a refusal, with its reason.\n\n"
    )
    if chosen.out:
        chosen.out.write_text(text + "\n".join(lines) + "\n")


def rows(name: str) -> list[str]:
    """The table's rows of one graph."""
    entry = ZOO[name]
    bundle = Bundle.capture(entry.make(full=True), [entry.input(2, full=True)], name=name)
    target = load_target("x86-64-avx2")
    calib, test = (Rows(entry.input(n, full=True, seed=seed).numpy()) for n, seed in ((32, 2), (8, 3)))
    context = Context(target=target, calib=calib, seed=0)
    floating = run_passes(bundle, [make_pass("fold-batchnorm", {})], context)
    out = []
    for precision in PRECISIONS:
        try:
            ready = run_passes(floating, [make_pass("quantize", {})], context) if precision == "int8" else floating
        except PacklightError as error:
            out.append(refusal(name, precision, "all", error))
            continue
        for format in FORMATS:
            out.append(row(name, precision, format, ready, floating, target, test))
    return out


def row(name, precision, format, ready, floating, target, samples) -> str:
    with tempfile.TemporaryDirectory() as folder:
        started = time.process_time()
        try:
            made = export_bundle(ready, Path(folder), [format], Options(precision=precision), target, samples, float_bundle=floating)
        except PacklightError as error:
            return refusal(name, precision, format, error)
        return shown(name, made[0], time.process_time() - started)


def shown(name: str, artifact: Artifact, seconds: float) -> str:
    own = "quantized graph" if artifact.precision == "int8" else "torch"
    figures = {key: [p.sqnr_db for p in artifact.parity if p.against == key and p.sqnr_db is not None] for key in (own, "torch")}
    ops = artifact.ops
    cells = [
        name,
        artifact.precision,
        artifact.format,
        *(f"{min(figures[key]):.1f}" if figures[key] else "equal" for key in (own, "torch")),
        f"{artifact.bytes / 1024:.0f}",
        str(sum(ops.file.values())) if ops else "",
        str(ops.transposes) if ops else "",
        str(len(ops.float_left)) if ops and artifact.precision == "int8" else "",
        f"{seconds:.1f}",
    ]
    return "| " + " | ".join(cells) + " |"


def refusal(name: str, precision: str, format: str, error: Exception) -> str:
    return f"| {name} | {precision} | {format} | {' '.join(str(error).split())} | | | | | | |"


if __name__ == "__main__":
    main()
