"""Does the harness cry wolf, and does it find a wolf? The same file against itself, and against itself with 1x1 convolutions added.

    python benchmarks/bench/aa.py --comparisons 200 --runtime onnxruntime     # resumable: one JSON line each, about 20 s on an idle machine
    python benchmarks/bench/aa.py --table                                     # writes aa.md from all lines

Every comparison is a run of ``bench_artifacts`` with its defaults (six launches), as a user would do it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from pathlib import Path

import models
import numpy as np

from packlight.bench.plan import BenchOptions
from packlight.bench.runner import Subject, bench_artifacts
from packlight.bench.stats import median_interval
from packlight.targets.link.local import Local

HERE = Path(__file__).parent
LINES = HERE / "aa.jsonl"
EXTRA = 4


def compare(runtime: str, seed: int) -> dict[str, object]:
    """One comparison of three files: a, the same again, and a slower one."""
    x = np.random.default_rng(0).normal(0, 1, (8, 3, models.SIDE, models.SIDE)).astype(np.float32)
    with tempfile.TemporaryDirectory() as name, Local() as link:
        folder = Path(name)
        start, load = time.time(), os.getloadavg()[0]
        subjects = [Subject(models.artifact(folder, f"{n}.onnx", extra=e), folder, runtime, baseline=n == "a") for n, e in CASES]
        bench = bench_artifacts(subjects, link, options=BenchOptions(seed=seed), inputs=x)
    first, *others = bench.measurements
    out: dict[str, object] = {"runtime": runtime, "seed": seed, "load": load, "seconds": time.time() - start}
    out |= {"median_s": first.latency.median_s, "verdict": first.latency.verdict, "why": first.latency.why}
    for measurement in others:
        speedup = measurement.speedup
        out[measurement.file.removesuffix(".onnx")] = [speedup.value, *speedup.ci95]
    return out


CASES = (("a", 0), ("same", 0), ("slower", EXTRA))


def table(lines: list[dict]) -> str:
    out = [
        "# The same file against itself, and against a slower one\n",
        f"{platform.machine()}, {os.cpu_count()} cores, with other work on the machine (load is the median of 1-minute averages);",
        "defaults of `packlight bench`;",
        f"a plain CNN of 11 layers, about 0.5 ms; the slower one has {EXTRA} more 1x1 convolutions.",
        "False: the 95 % interval of the speed-up of a file over itself leaves out 1.",
        "Found: the interval of the slower file lies below 1.\n",
        "| runtime | comparisons | load | called unstable | false faster | false slower | false, all "
        "| slowdown, pooled (95 %) | found | half width, median |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for runtime in sorted({line["runtime"] for line in lines}):
        mine = [line for line in lines if line["runtime"] == runtime]
        n = len(mine)
        faster = sum(line["same"][1] > 1 for line in mine)
        slower = sum(line["same"][2] < 1 for line in mine)
        found = sum(line["slower"][2] < 1 for line in mine)
        truth = [1 / line["slower"][0] - 1 for line in mine]
        low, high = median_interval(truth) or (float("nan"),) * 2
        width = np.median([(line["same"][2] - line["same"][1]) / 2 for line in mine])
        unstable = sum(line["verdict"] == "unstable" for line in mine)
        load = np.median([line["load"] for line in mine])
        out.append(
            f"| {runtime} | {n} | {load:.1f} | {unstable / n:.0%} | {faster} | {slower} | {(faster + slower) / n:.1%} "
            f"| {np.median(truth):.1%} ({low:.1%} to {high:.1%}) | {found / n:.1%} | {width:.2%} |"
        )
    return "\n".join(out) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--comparisons", type=int, default=200)
    parser.add_argument("--runtime", default="onnxruntime", choices=("onnxruntime", "openvino"))
    parser.add_argument("--table", action="store_true")
    args = parser.parse_args()
    lines = [json.loads(line) for line in LINES.read_text().splitlines()] if LINES.is_file() else []
    if not args.table:
        done = {line["seed"] for line in lines if line["runtime"] == args.runtime}
        for seed in range(args.comparisons):
            if seed not in done:
                with LINES.open("a") as file:
                    file.write(json.dumps(compare(args.runtime, seed)) + "\n")
        lines = [json.loads(line) for line in LINES.read_text().splitlines()]
    (HERE / "aa.md").write_text(table(lines))


if __name__ == "__main__":
    main()
