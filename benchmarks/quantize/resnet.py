"""Calibrators and mending on ResNet-20 and ResNet-56: top-1 of the quantized graph in torch on the 10,000 CIFAR-10 test images.

    python benchmarks/quantize/resnet.py [--models 20,56] [--draws 3] [--shared DIR] [--out benchmarks/quantize]

Each row is calibrated on 320 training images, drawn anew per draw; the same images for all rows of a draw. Weights keep to 7 bits (the
scheme of x86-64-avx2). Rows already in results.jsonl are not run again. What each runtime's file scores is another table's.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "benchmarks")]

from trained import module_of

from packlight.compress.passes import Context, run_passes
from packlight.compress.quantize.affine import sqnr_db
from packlight.compress.recipe import make_pass
from packlight.core.bundle import Bundle
from packlight.core.preprocess import Preprocess
from packlight.targets.load import load_target
from packlight.tasks.data.load import splits_of

ROWS: dict[str, list[tuple[str, dict[str, Any]]]] = {
    **{f"calibrator {c}": [("quantize", {"calibrator": c})] for c in ("minmax", "moving-average", "percentile", "mse", "entropy")},
    "mse, bias correction (analytic)": [("quantize", {"bias-correction": "analytic"})],
    "mse, bias correction (empirical)": [("quantize", {"bias-correction": "empirical"})],
    "mse, learned rounding": [("quantize", {"rounding": "learned"})],
    "mse, learned rounding, bias correction": [("quantize", {"rounding": "learned", "bias-correction": "empirical"})],
    "equalize, mse": [("equalize", {}), ("quantize", {})],
    "mse, 32 images": [("quantize", {"samples": 32})],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", default="20,56")
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    options = parser.parse_args()
    nets, data = module_of(options.shared / "models/cifar_resnet.py"), module_of(options.shared / "data/cifar10/load.py")
    arrays = {"train": data.split("train"), "test": data.split("test")}
    splits = splits_of(arrays, preprocess=Preprocess(mean=nets.MEAN, std=nets.STD))
    (x,), labels = splits.test.batch(range(10_000))
    log = options.out / "results.jsonl"
    done = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    for depth in options.models.split(","):
        bundle = _bundle(nets, options.shared, f"resnet{depth}")
        reference = None
        for draw in range(options.draws):
            for row, steps in ROWS.items():
                if any((d["model"], d["row"], d["draw"]) == (bundle.name, row, draw) for d in done):
                    continue
                if reference is None:
                    reference = _outputs(bundle, x)
                result = {"model": bundle.name, "row": row, "draw": draw, "float": _top1(reference, labels)}
                result |= _run(
                    bundle, steps, Context(target=load_target("x86-64-avx2"), calib=splits.train, seed=draw), x, labels, reference
                )
                done.append(result)
                with log.open("a") as file:
                    file.write(json.dumps(result) + "\n")
                print(json.dumps(result), flush=True)
    (options.out / "resnet.md").write_text(_table(done))


def _run(bundle: Bundle, steps: Any, context: Context, x: np.ndarray, labels: np.ndarray, reference: np.ndarray) -> dict[str, Any]:
    began, cpu = time.perf_counter(), time.process_time()
    after = run_passes(bundle, [make_pass(name, settings) for name, settings in steps], context)
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    outputs = _outputs(after, x)
    changed = float(np.mean(outputs.argmax(1) != reference.argmax(1)))
    return {
        "top1": _top1(outputs, labels),
        "changed": changed,
        "sqnr_db": round(sqnr_db(reference, outputs), 2),
        "seconds": round(seconds, 1),
        "cpu_seconds": round(cpu, 1),
    }


def _bundle(nets: ModuleType, shared: Path, name: str) -> Bundle:
    from safetensors.torch import load_file

    net = getattr(nets, name)()
    net.load_state_dict(load_file(shared / "models" / f"cifar10-{name}.safetensors"))
    return Bundle.capture(net, (torch.randn(2, 3, 32, 32),), name=name, task="classification")


def _outputs(bundle: Bundle, x: np.ndarray, size: int = 200) -> np.ndarray:
    return torch.cat([bundle.run(torch.from_numpy(x[i : i + size]))[0] for i in range(0, len(x), size)]).numpy()


def _top1(outputs: np.ndarray, labels: np.ndarray) -> float:
    return round(float(np.mean(outputs.argmax(1) == labels)), 4)


def _table(done: list[dict[str, Any]]) -> str:
    text = [
        "# Quantizing ResNet-20 and ResNet-56 (CIFAR-10)\n",
        "Top-1 of the quantized graph in torch, 10,000 test images, weights within +-63; mean and range over the draws of 320 training",
        "images. Made by resnet.py; seconds are CPU seconds of the passes on 2 cores of AMD Zen 3, one thread.\n",
    ]
    for model in dict.fromkeys(d["model"] for d in done):
        mine = [d for d in done if d["model"] == model]
        text.append(f"\n## {model}: float {mine[0]['float']:.2%}\n")
        text.append("| | draws | top-1 % | range | answers changed % | SQNR dB | CPU s |\n|---|---|---|---|---|---|---|")
        for row in ROWS:
            runs = [d for d in mine if d["row"] == row]
            if runs:
                top = [100 * d["top1"] for d in runs]
                rest = [statistics.mean(d[k] for d in runs) for k in ("changed", "sqnr_db", "cpu_seconds")]
                figures = (
                    f"{statistics.mean(top):.2f} | {min(top):.2f} to {max(top):.2f} | {100 * rest[0]:.2f} | {rest[1]:.1f} | {rest[2]:.0f}"
                )
                text.append(f"| {row} | {len(runs)} | {figures} |")
    return "\n".join(text) + "\n"


if __name__ == "__main__":
    main()
