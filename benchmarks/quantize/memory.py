"""Peak memory of calibration: a MobileNetV2 at 224x224 and 1,000 images, against the float model's own inference.

    python benchmarks/quantize/memory.py [--images 1000] [--batch 32] [--out benchmarks/quantize/memory.md]

Two processes, random weights, generated images (made batch by batch from a seed, never kept): one runs the float graph on the images,
the other calibrates on them (mse, the default) and converts. Each tells its largest resident memory (VmHWM, reset once the model is
captured and prepared); what that is over the resident memory at that moment is compared.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests")]

SIZE = 224


class Generated:
    """Images from a seed, made when they are asked for."""

    source, classes = "generated", ()

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def batch(self, indices: Any) -> Any:
        return (np.stack([np.random.default_rng(int(i)).standard_normal((3, SIZE, SIZE)).astype(np.float32) for i in indices]),), None


def work(what: str, images: int, batch: int) -> dict[str, Any]:
    """One process: its resident memory before (MiB), its peak after, and its CPU seconds."""
    import torch
    from zoo import ZOO

    from packlight.compress.passes import Context
    from packlight.compress.quantize.lower import lower
    from packlight.compress.quantize.prepared import convert, prepare
    from packlight.compress.quantize.quantizer import Calibration
    from packlight.compress.quantize.samples import batches_of, calibrate_on
    from packlight.compress.quantize.torchao import quiet
    from packlight.core.bundle import Bundle
    from packlight.targets.load import load_target

    torch.set_num_threads(1)
    bundle = Bundle.capture(ZOO["mobilenetv2"].make(full=True), (torch.zeros(2, 3, SIZE, SIZE),), name="mobilenetv2")
    target, data = load_target("x86-64-avx2"), Generated(images)
    with quiet():
        prepared = prepare(bundle, target.quantization, Calibration("mse"))  # in both, so that imports weigh alike
    graph = bundle.copy_graph()
    lower(graph)
    before, _ = _memory(reset=True)
    began = time.process_time()
    if what == "inference":
        with torch.no_grad():
            for inputs in batches_of(data, range(images), bundle, batch):
                graph(*inputs)
    else:
        del graph
        calibrate_on(prepared, bundle, Context(target=target, calib=data, seed=0), images)
        _, fed = _memory()
        convert(prepared)
    _, peak = _memory()
    found = {"before": before, "peak": peak, "seconds": time.process_time() - began}
    return found if what == "inference" else {**found, "fed": fed}


def _memory(reset: bool = False) -> tuple[float, float]:
    """Resident memory now and its peak, MiB; with ``reset`` the peak starts anew from here (Linux)."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    text = Path("/proc/self/status").read_text()
    now, peak = (int(re.search(rf"{key}:\s+(\d+) kB", text)[1]) / 1024 for key in ("VmRSS", "VmHWM"))  # type: ignore[index]
    return now, peak


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--work", choices=["inference", "calibration"])
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"))
    options = parser.parse_args()
    if options.work:
        print(json.dumps(work(options.work, options.images, options.batch)))
        return
    found = {}
    for what in ("inference", "calibration"):
        command = [sys.executable, __file__, "--work", what, "--images", str(options.images), "--batch", str(options.batch)]
        ran = subprocess.run(command, capture_output=True, text=True, check=True)
        found[what] = json.loads(ran.stdout.splitlines()[-1])
        print(what, found[what], flush=True)
    options.out.write_text(_table(found, options))


def _table(found: dict[str, dict[str, Any]], options: argparse.Namespace) -> str:
    grown = {k: v["peak"] - v["before"] for k, v in found.items()}
    ratio = grown["calibration"] / grown["inference"]
    versions = ", ".join(f"{p} {importlib.metadata.version(p)}" for p in ("torch", "torchao"))
    return "\n".join(
        [
            "# Memory of calibration\n",
            f"Made by `python benchmarks/quantize/memory.py --images {options.images}` on {datetime.date.today()}: AMD EPYC (AVX2, no "
            f"VNNI), one thread, {versions}. MobileNetV2 with random weights, {options.images:,} generated images at {SIZE}x{SIZE}, "
            f"{options.batch} at a time, calibrator mse.\n",
            "Each in a process of its own; peak: the largest resident memory from the first image on, over what the process held before it "
            "(model captured, packages imported).\n",
            "| process | held before, MiB | peak, MiB | grown, MiB | CPU s |",
            "|---|---|---|---|---|",
            *(f"| {k} | {v['before']:.0f} | {v['peak']:.0f} | {grown[k]:.0f} | {v['seconds']:.0f} |" for k, v in found.items()),
            "",
            f"Calibration needs {ratio:.2f} times what inference does (bar: at most 1.5). Its peak at the end of the images, before the "
            f"conversion: {found['calibration']['fed'] - found['calibration']['before']:.0f} MiB.",
            "",
        ]
    )


if __name__ == "__main__":
    main()
