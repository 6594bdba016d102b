"""Does the harness cry wolf, and does it find a wolf? The same file against itself, and against itself with 1x1 convolutions added.

    python benchmarks/bench/aa.py --comparisons 200 --runtime onnxruntime     # resumable: one JSON line each, about 10 s of one core
    python benchmarks/bench/aa.py --table                                     # writes aa.md from all lines

Every comparison is a run of ``bench_artifacts`` with its defaults (six launches), as a user would do it. Two things are judged: the
speed-up that the run itself gives (its files interleaved), and ``packlight compare`` of its report with the report of the run before.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import tempfile
import time
from pathlib import Path
from typing import Any

import models
import msgspec
import numpy as np
from scipy import stats as sps

from packlight.bench.compare import compare_reports
from packlight.bench.plan import BenchOptions
from packlight.bench.runner import Subject, bench_artifacts
from packlight.bench.stats import median_interval
from packlight.core.report import Model, Report
from packlight.targets.link.local import Local

HERE = Path(__file__).parent
LINES = HERE / "aa.jsonl"
EXTRA = 3
CASES = (("a", 0), ("same", 0), ("slower", EXTRA))


def compare(runtime: str, seed: int, before: Report | None) -> tuple[dict[str, Any], Report]:
    """One run of three files (a, the same again, and a slower one), judged by itself and against the report of the run before."""
    x = np.random.default_rng(0).normal(0, 1, (8, 3, models.SIDE, models.SIDE)).astype(np.float32)
    with tempfile.TemporaryDirectory() as name, Local() as link:
        folder = Path(name)
        start, load = time.time(), os.getloadavg()[0]
        subjects = [Subject(models.artifact(folder, f"{n}.onnx", extra=e), folder, runtime, baseline=n == "a") for n, e in CASES]
        bench = bench_artifacts(subjects, link, options=BenchOptions(seed=seed), inputs=x)
    first, *others = bench.measurements
    assert first.latency is not None
    out: dict[str, Any] = {"runtime": runtime, "seed": seed, "load": load, "seconds": time.time() - start}
    out |= {"extra": EXTRA, "median_s": first.latency.median_s, "verdict": first.latency.verdict, "why": first.latency.why}
    for m in others:
        assert m.speedup is not None
        out[m.file.removesuffix(".onnx")] = [m.speedup.value, *m.speedup.ci95]
    if before is not None:
        for label, m in (("same", first), ("slower", others[1])):
            (change,) = compare_reports(before, report(bench.environment, m)).changes
            out[f"report_{label}"] = [change.speed, *(change.ratio or ())]
    return out, report(bench.environment, first)


def report(environment: Any, measurement: Any) -> Report:
    """A report of one file, named ``a.onnx`` whatever it was."""
    named = msgspec.structs.replace(measurement, file="a.onnx")
    model = Model(name="net", parameters=0, macs=0)
    return Report(packlight="", created="", model=model, task=None, target="x86-64-avx2", environment=environment, artifacts=(named,))


def share(count: int, of: int) -> str:
    """The share with its exact interval."""
    if not of:
        return "none yet"
    low, high = sps.binomtest(count, of).proportion_ci(0.95)
    return f"{count} of {of}: {count / of:.1%} ({low:.1%} to {high:.1%})"


def table(lines: list[dict[str, Any]]) -> str:
    out = [
        "# The same file against itself, and against a slower one\n",
        f"{datetime.date.today()}, {platform.machine()}, {os.cpu_count()} cores, others working on the machine (load: median of 1-minute",
        "averages); real-time priority (`chrt -r 1`), one thread; defaults of `packlight bench` (six launches);",
        f"a plain CNN of 11 layers, about 0.5 ms; the slower one has {EXTRA} more 1x1 convolutions. Seeds 0 and up.",
        "`chrt -r 1 python benchmarks/bench/aa.py --comparisons 200`\n",
        "## Files of one run, interleaved: the speed-up that `packlight bench` gives\n",
        "False: the 95 % interval of the file over itself leaves out 1, which it does in 5 % where it is right.",
        "Found: the interval of the slower file lies below 1. In brackets: 95 % intervals (Clopper and Pearson).\n",
        "| runtime | comparisons | load | false faster | false slower | false, all | slowdown, pooled (95 %) | found | half width |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    runtimes = sorted({line["runtime"] for line in lines})
    for runtime in runtimes:
        mine = [line for line in lines if line["runtime"] == runtime]
        n = len(mine)
        faster = sum(line["same"][1] > 1 for line in mine)
        slower = sum(line["same"][2] < 1 for line in mine)
        found = sum(line["slower"][2] < 1 for line in mine)
        truth = [1 / line["slower"][0] - 1 for line in mine]
        low, high = median_interval(truth) or (float("nan"),) * 2
        width = np.median([(line["same"][2] - line["same"][1]) / 2 for line in mine])
        load = np.median([line["load"] for line in mine])
        out.append(
            f"| {runtime} | {n} | {load:.1f} | {faster} | {slower} | {share(faster + slower, n)} "
            f"| {np.median(truth):.1%} ({low:.1%} to {high:.1%}) | {share(found, n)} | {width:.2%} |"
        )
    out += [
        "\n## Two reports, one after the other: what `packlight compare` says\n",
        "Nothing is interleaved here. Compare asks for 2 % at least; for 10 % where a report calls itself unstable (it waited for a CPU",
        "more than 10 % of the time, say). The last two columns are the same intervals judged with 2 % whatever the verdict.\n",
        "| runtime | comparisons | called unstable | false faster or slower | found | false at 2 % | found at 2 % |",
        "|---|---|---|---|---|---|---|",
    ]
    for runtime in runtimes:
        mine = [line for line in lines if line["runtime"] == runtime and "report_same" in line]
        n = len(mine)
        unstable = sum(line["verdict"] == "unstable" for line in mine)
        wrong = sum(line["report_same"][0] != "not proven" for line in mine)
        found = sum(line["report_slower"][0] == "slower" for line in mine)
        wrong2 = sum(line["report_same"][3] < 0.98 or line["report_same"][2] > 1.02 for line in mine)
        found2 = sum(line["report_slower"][2] > 1.02 for line in mine)
        out.append(
            f"| {runtime} | {n} | {share(unstable, n)} | {share(wrong, n)} | {share(found, n)} | {share(wrong2, n)} | {share(found2, n)} |"
        )
    return "\n".join(out) + "\n"


def read() -> list[dict[str, Any]]:
    return [json.loads(line) for line in LINES.read_text().splitlines()] if LINES.is_file() else []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--comparisons", type=int, default=200)
    parser.add_argument("--runtime", default="onnxruntime", choices=("onnxruntime", "openvino"))
    parser.add_argument("--at-most", type=int, help="stop after so many new ones")
    parser.add_argument("--table", action="store_true")
    args = parser.parse_args()
    if not args.table:
        done = {line["seed"] for line in read() if line["runtime"] == args.runtime}
        todo = [seed for seed in range(args.comparisons) if seed not in done][: args.at_most]
        before: Report | None = None
        for seed in todo:
            line, before = compare(args.runtime, seed, before)
            with LINES.open("a") as file:
                file.write(json.dumps(line) + "\n")
    (HERE / "aa.md").write_text(table(read()))


if __name__ == "__main__":
    main()
