"""Where low-rank layers measure faster: the pass "factorise" on trained networks (../shared) in three runtimes.

    python benchmarks/prune/lowrank.py --measure [--only NAME RUNTIME]     # appends to lowrank.jsonl
    python benchmarks/prune/lowrank.py --table > benchmarks/prune/lowrank.md

Each layer's forms at ranks that keep 80 % of its squared singular values run beside the whole layer, interleaved, and replace it where
they take at most 95 % of its time. "On paper" is what the same energy would leave if of every layer the form with the fewest
multiply-accumulates were taken. The ratio is of whole files, measured interleaved, one thread, one sample, float. Output change:
|y - y'| / |y| on 64 samples of noise, nothing trained.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import os
import platform
import tempfile
from pathlib import Path
from typing import Any

import torch

from packlight.bench.plan import BenchOptions
from packlight.bench.runner import bench_artifacts
from packlight.bench.session import Subject
from packlight.compress.passes import Context, run_passes
from packlight.compress.recipe import make_pass
from packlight.core.bundle import Bundle
from packlight.core.cost import macs
from packlight.core.load import load_model
from packlight.export.exporter import Options
from packlight.export.run import export_bundle
from packlight.search.clock import open_clock
from packlight.targets.link.known import open_link
from packlight.targets.load import load_target
from packlight.targets.runtime import versions

HERE = Path(__file__).resolve().parent
MODELS = HERE.parents[2] / "shared" / "models"
LINES = HERE / "lowrank.jsonl"
ENERGY = 0.8
NETS = {
    "word-reader": ("word_reader.py:word_reader", "word-reader.safetensors", (2, 1, 32, 128)),
    "resnet20": ("cifar_resnet.py:resnet20", "cifar10-resnet20.safetensors", (2, 3, 32, 32)),
    "denoise": ("denoise.py:dncnn25", "denoise-sigma25.safetensors", (2, 1, 64, 64)),
}
RUNTIMES = ("onnxruntime", "openvino", "litert")


def measure(name: str, runtime: str) -> None:
    source, weights, shape = NETS[name]
    example = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    bundle = load_model(str(MODELS / source), weights=MODELS / weights, inputs=[example], name=name)
    target = load_target("x86-64-avx2")
    context = Context(target=target)
    settings = {"energy": ENERGY}
    paper = run_passes(bundle, [make_pass("factorise", {**settings, "measure": False})], context)
    with open_clock(context, runtime=runtime) as clock:
        after = run_passes(bundle, [make_pass("factorise", settings)], dataclasses.replace(context, clock=clock))
    told = after.history[-1].changes
    line: dict[str, Any] = {"model": name, "runtime": runtime, "layers": len(told["layers"]), "whole": len(told["whole"])}
    line |= {"kinds": sorted(v["kind"] for v in told["layers"].values()), "why": told.get("why", ""), "changed": told.get("changed", True)}
    line |= {"macs": [macs(bundle), macs(paper), macs(after)], "history": told, "versions": versions()}
    if line["changed"]:
        line |= against(bundle, after, runtime, context, shape)
    with open(LINES, "a") as file:
        file.write(json.dumps(line) + "\n")


def against(bundle: Bundle, after: Bundle, runtime: str, context: Context, shape: tuple[int, ...]) -> dict[str, Any]:
    """The ratio of whole files, and the change of the outputs."""
    x = torch.rand((64, *shape[1:]), generator=torch.Generator().manual_seed(1))
    a, b = bundle.run(x)[0], after.run(x)[0]
    format_ = next(r.format for r in context.target.runtimes if r.name == runtime)
    with tempfile.TemporaryDirectory() as folder, open_link("local") as link:
        subjects = []
        for stem, one in (("whole", bundle), ("lowrank", after)):
            ready = run_passes(one.replace(name=stem), [make_pass("fold-batchnorm", {})], context)
            (made,) = export_bundle(ready, Path(folder), (format_,), Options(precision="fp32"), context.target)
            subjects.append(Subject(made, Path(folder), runtime, baseline=stem == "whole"))
        options = BenchOptions(launches=4, rounds=4, budget_s=10.0, warm_s=1.5)
        found = bench_artifacts(subjects, link, options=options, inputs=[s.numpy() for s in bundle.sized(1)])
    ms = [1e3 * (m.latency.median_s or 0) for m in found.measurements if m.latency]
    ratio = found.measurements[1].speedup
    told = None if ratio is None else [ratio.value, *ratio.ci95]
    return {"ms": ms, "speedup": told, "change": float((a - b).norm() / a.norm()), "cpu": found.environment.cpu}


def lines() -> list[dict[str, Any]]:
    return [json.loads(line) for line in LINES.read_text().splitlines()] if LINES.is_file() else []


def table() -> str:
    some = lines()[0]
    told = ", ".join(f"{k} {v}" for k, v in some["versions"].items() if k in ("onnxruntime", "openvino", "litert"))
    out = ["# Where low-rank layers measure faster\n", *(__doc__ or "").split("\n\n")[0].splitlines(), ""]
    cpu = next((r["cpu"] for r in lines() if "cpu" in r), platform.processor())
    out += [
        f"{datetime.date.today()}; {cpu}, {os.cpu_count()} cores, Python {platform.python_version()}, torch {torch.__version__}, {told}.",
        "",
    ]
    out += ["Made by the commands that stand in [lowrank.py](lowrank.py), which says what the columns are.\n"]
    out += ["| model | runtime | layers replaced | forms | MACs left | on paper | ms | speed-up [95 %] | output change |", "|" + "---|" * 9]
    for r in lines():
        kinds = ", ".join(f"{k} {r['kinds'].count(k)}" for k in dict.fromkeys(r["kinds"])) or "–"
        share = [f"{m / r['macs'][0]:.0%}" for m in r["macs"][1:]]
        fast = "whole model not faster, left as it was" if not r["changed"] else "{:.3f} [{:.3f}, {:.3f}]".format(*r["speedup"])
        ms, change = (f"{r['ms'][0]:.3f} -> {r['ms'][1]:.3f}", f"{r['change']:.3f}") if r["changed"] else ("", "")
        count = f"{r['layers']} of {r['layers'] + r['whole']}"
        out.append(f"| {r['model']} | {r['runtime']} | {count} | {kinds} | {share[1]} | {share[0]} | {ms} | {fast} | {change} |")
    missing = [f"{n} in {r}" for n in NETS for r in RUNTIMES if (n, r) not in {(x["model"], x["runtime"]) for x in lines()}]
    out += [f"\nNot run yet: {', '.join(missing)}."] * bool(missing)
    return "\n".join(out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", action="store_true")
    parser.add_argument("--only", nargs=2, metavar=("NAME", "RUNTIME"))
    parser.add_argument("--table", action="store_true")
    chosen = parser.parse_args()
    if chosen.measure:
        done = {(r["model"], r["runtime"]) for r in lines()}
        for name in NETS:
            for runtime in RUNTIMES:
                if (name, runtime) not in done and chosen.only in (None, [name, runtime]):
                    measure(name, runtime)
    if chosen.table:
        print(table())
