"""What saturating integer kernels cost, and what the scheme does about it: ResNet-20 by two schemes on this CPU.

    python benchmarks/quantize/saturation.py [--shared DIR] [--images 2000] [--out benchmarks/quantize/saturation.md]

The same 320 training images calibrate the model for x86-64-vnni (weights within +-127) and for x86-64-avx2 (within +-63). Each file is run
by integer kernels and as written, in float, in ONNX Runtime and OpenVINO (the doctor's check), and layer by layer (``packlight doctor
--layers``).
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "benchmarks")]

from graphs_work import Rows
from trained import module_of

from packlight.compress.passes import Context, run_passes
from packlight.compress.recipe import make_pass
from packlight.core.bundle import Bundle
from packlight.export.exporter import Options
from packlight.export.formats import exporter
from packlight.export.prove import run_file
from packlight.search.formats import folded
from packlight.search.kernels import SAMPLES, compare
from packlight.search.saturation import layer_gaps
from packlight.targets.load import load_target
from packlight.targets.machine import look
from packlight.tasks.load import load_task

RUNTIMES = {"onnx": "onnxruntime", "openvino": "openvino"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"))
    options = parser.parse_args()
    bundle, calib, x, y = _model(options.shared, options.images)
    whole = ["| scheme | runtime | top-1 % by integer kernels | as written | gap dB | answers that differ % |", "|---|---|---|---|---|---|"]
    layers: dict[str, list[Any]] = {}
    for name in ("x86-64-vnni", "x86-64-avx2"):
        target = load_target(name)
        context = Context(target=target, calib=Rows(calib), seed=0)
        floating, integer = folded(bundle, context), run_passes(bundle, [make_pass("quantize", {})], context)
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            for format, runtime in RUNTIMES.items():
                base = exporter(format).write(floating, folder, Options(), target)
                made = exporter(format).write(integer, folder, Options(precision="int8"), target)
                plain, kernels = (run_file(folder / made.file, runtime, made.signature, (x,), optimise=o) for o in (False, True))
                reference = run_file(folder / base.file, runtime, base.signature, (x,))
                told = compare(plain, kernels, reference, load_task("classification"), len(x))
                right = [100 * float(np.mean(v[0].argmax(1) == y)) for v in (kernels, plain)]
                assert told.gap_db is not None
                assert told.changed is not None
                whole.append(f"| {name} | {runtime} | {right[0]:.2f} | {right[1]:.2f} | {told.gap_db:.1f} | {100 * told.changed:.2f} |")
                if format == "onnx":
                    layers[name] = list(layer_gaps(folder / made.file, [x[:SAMPLES]], tuple(RUNTIMES.values())))
    options.out.write_text(_table(whole, layers, options.images))


def _table(whole: list[str], layers: dict[str, list[Any]], images: int) -> str:
    keys = [(g.layer, g.runtime) for g in layers["x86-64-vnni"]]
    found = {name: {(g.layer, g.runtime): g for g in each} for name, each in layers.items()}
    rows = []
    for layer in dict.fromkeys(k[0] for k in keys):
        cells = [f"{found[name][layer, runtime].gap_db:.1f}" for name in found for runtime in RUNTIMES.values()]
        rows.append(f"| {layer} | {' | '.join(cells)} |")
    counts = [f"{sum(not g.ok for g in each)} of {len(each)} for {name}" for name, each in layers.items()]
    versions = ", ".join(f"{p} {importlib.metadata.version(p)}" for p in ("torch", "onnxruntime", "openvino"))
    here = look()
    return "\n".join(
        [
            "# Saturating integer kernels\n",
            f"Made by `python benchmarks/quantize/saturation.py --images {images}` on {datetime.date.today()}: {here.cpu} "
            f"({'VNNI' if any('vnni' in i for i in here.isa) else 'AVX2, no VNNI'}), {versions}. ResNet-20 (CIFAR-10), the first "
            f"{images:,} test images, calibrated on the same 320 training images by the schemes of two targets.\n",
            "gap: how much nearer to the float file the int8 file is as written, in float, than by integer kernels. A gap above 3 dB fails "
            "the gate `saturation` of `compress` and `bench`.\n",
            *whole,
            "",
            "Each layer alone, on the integers that reach it in the file as written: dB that its kernel adds to the rounding of its output "
            f"(`packlight doctor --layers`, {SAMPLES} images). Above 3 dB: {', '.join(counts)}.\n",
            "| layer | vnni scheme, onnxruntime | vnni scheme, openvino | avx2 scheme, onnxruntime | avx2 scheme, openvino |",
            "|---|---|---|---|---|",
            *rows,
            "",
        ]
    )


def _model(shared: Path, images: int) -> tuple[Bundle, Any, Any, Any]:
    import torch
    from safetensors.torch import load_file

    torch.set_num_threads(1)
    nets, data = module_of(shared / "models/cifar_resnet.py"), module_of(shared / "data/cifar10/load.py")
    net = nets.resnet20()
    net.load_state_dict(load_file(shared / "models/cifar10-resnet20.safetensors"))
    mean, std = (np.asarray(v, np.float32).reshape(1, 3, 1, 1) for v in (nets.MEAN, nets.STD))

    def ready(x: Any) -> Any:
        return ((np.asarray(x, np.float32).transpose(0, 3, 1, 2) / 255 - mean) / std).astype(np.float32)

    train, (test, labels) = data.split("train")[0], data.split("test")
    chosen = np.random.default_rng(0).permutation(len(train))[:320]
    bundle = Bundle.capture(net, (torch.randn(2, 3, 32, 32),), name="resnet20", task="classification")
    return bundle, ready(train[chosen]), ready(test[:images]), labels[:images]


if __name__ == "__main__":
    main()
