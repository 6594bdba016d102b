"""The ten graphs in every TFLite interpreter: ai-edge-litert and tflite-runtime 2.14, each with and without XNNPACK, to the same answer?

    python benchmarks/tflite/interpreters.py [--graph NAME ...] [--out benchmarks/tflite/interpreters.md]

The small graphs of tests/zoo.py (random weights, fixed seeds), batch 1. SQNR in dB: fp32, fp16, weight-int8 and dynamic-int8 against float
torch, int8 (x86-64-avx2's scheme, calibrated on 16 inputs) against the quantized graph. tflite-runtime runs in a process of its
own, from the folder that PACKLIGHT_TFLITE_RUNTIME names.
"""

from __future__ import annotations

import argparse
import datetime
import platform
import sys
import tempfile
from pathlib import Path

import torch

sys.path[:0] = [str(Path(__file__).resolve().parents[2] / "tests"), str(Path(__file__).resolve().parents[2] / "src")]

from conftest import quantize
from tflite_cases import run_ways
from tflite_cases.aside import Aside, missing
from tflite_cases.judge import WAYS
from zoo import ZOO

from packlight.compress.passes import Context, run_passes
from packlight.compress.recipe import make_pass
from packlight.core.bundle import Bundle
from packlight.core.errors import PacklightError
from packlight.core.tensor import from_door, to_door
from packlight.export.exporter import Options
from packlight.export.parity import sqnr_db
from packlight.export.tflite.exporter import TfliteExporter
from packlight.targets.load import load_target
from packlight.targets.runtime import versions

PRECISIONS = ("fp32", "fp16", "int8", "weight-int8", "dynamic-int8")
HEAD = f"| graph | precision | {' | '.join(WAYS)} | TRANSPOSE | float left | KiB |"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--graph", nargs="*", default=list(ZOO))
    parser.add_argument("--out", type=Path)
    chosen = parser.parse_args()
    why = missing()
    old = None if why else Aside()
    lines = [HEAD, "|" + "---|" * (5 + len(WAYS))]
    for name in chosen.graph:
        for line in rows(name, old):
            lines.append(line)
            print(line, flush=True)
    known = ", ".join(f"{k} {v}" for k, v in versions().items() if k == "litert")
    text = (
        "# The ten graphs in every TFLite interpreter\n\n"
        f"Made by `python benchmarks/tflite/interpreters.py` on {datetime.date.today()}, {platform.machine()} {platform.system()}, Python "
        f"{platform.python_version()}, torch {torch.__version__}, {known}, {why or 'tflite-runtime 2.14.0'}. Small graphs of tests/zoo.py, "
        "seeds fixed there.\nSQNR in dB against float torch, int8 against the quantized graph.\n\n"
    )
    if chosen.out:
        chosen.out.write_text(text + "\n".join(lines) + "\n")


def rows(name: str, old: Aside | None) -> list[str]:
    entry = ZOO[name]
    captured = Bundle.capture(entry.make(), (entry.input(2),), name=name)
    floating = run_passes(captured, [make_pass("fold-batchnorm", {})], Context(target=load_target("x86-64-avx2")))
    out = []
    for precision in PRECISIONS:
        try:
            bundle = quantize(floating, entry.input(16, seed=5).numpy()) if precision == "int8" else floating
            out.append(row(name, precision, bundle, old))
        except PacklightError as error:
            out.append(f"| {name} | {precision} | {error} |" + " |" * (2 + len(WAYS)))
    return out


def row(name: str, precision: str, bundle: Bundle, old: Aside | None) -> str:
    x = bundle.sized(1)
    want = [t.numpy() for t in bundle.run(*x)]
    with tempfile.TemporaryDirectory() as folder:
        written = TfliteExporter().write(bundle, Path(folder), Options(precision=precision), None)
        data = (Path(folder) / written.file).read_bytes()
    given = {s.name: to_door(v.numpy(), s) for s, v in zip(written.signature.inputs, x, strict=True)}
    got = run_ways(data, given, old)
    cells = []
    for way in WAYS:
        if way not in got:
            cells.append("")
            continue
        figures = [sqnr_db(w, from_door(got[way][s.name], s)) for s, w in zip(written.signature.outputs, want, strict=True)]
        worst = min((f for f in figures if f is not None), default=None)
        cells.append("equal" if worst is None else f"{worst:.1f}")
    left = str(len(written.ops.float_left)) if precision == "int8" else ""
    return f"| {name} | {precision} | {' | '.join(cells)} | {written.ops.transposes} | {left} | {len(data) / 1024:.0f} |"


if __name__ == "__main__":
    main()
