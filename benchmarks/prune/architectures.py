"""The same 64 architectures of pytorchcv pruned to half their MACs without hints, beside torch-pruning 1.6.1.

    pip install --no-deps --target PEERS pytorchcv==0.0.67 torch-pruning==1.6.1
    PYTHONPATH=src:PEERS OMP_NUM_THREADS=1 python benchmarks/prune/architectures.py [--seconds 540] [--only NAME ...]   # goes on
    python benchmarks/prune/architectures.py --table > benchmarks/prune/architectures.md

Ours passes where the pass ``prune`` gets to 50 % of the MACs within 2 %, the outputs keep their shapes, the smaller graph equals the dense
one with the same slices set to zero (relative error of at most 1e-3 in float), and the ONNX file runs in ONNX Runtime (proven by export).
torch-pruning is asked for a ratio of 1 - sqrt(0.5) of every layer (BasePruner, group magnitude, nothing ignored); it passes where that
runs, 60 % of the MACs or less are left, and the module exports to ONNX and runs; outputs that changed their shape are told. Seconds are
CPU seconds of pruning alone. Speed-up: median of the ratio dense / pruned over 15 pairs of runs taken in turn, one thread, one image.
"""

from __future__ import annotations

import argparse
import datetime
import fcntl
import json
import multiprocessing
import os
import platform
import resource
import statistics
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parents[1] / "tests" / "compress" / "prune")]

import torch
from conftest import MaskedNorms, masked
from cv import inputs, listed, make

from packlight.compress.passes import Context, run_passes
from packlight.compress.prune.plan import PruneSettings, plan
from packlight.compress.prune.surgery import operate
from packlight.compress.recipe import make_pass
from packlight.core.bundle import Bundle, flatten_outputs
from packlight.core.cost import macs
from packlight.export.exporter import Options
from packlight.export.run import export_bundle
from packlight.targets.load import load_target
from packlight.targets.runtime import open_session

LINES = HERE / "architectures.jsonl"
SECONDS, PAIRS = 300, 15
WHO = ("packlight", "torch-pruning")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--seconds", type=float, default=1e9, help="begin no architecture after this many seconds")
    parser.add_argument("--table", action="store_true")
    chosen = parser.parse_args()
    if chosen.table:
        print(table())
        return
    entries = [e for e in listed()["list"] if not chosen.only or e["name"] in chosen.only]
    entries.sort(key=lambda e: e["layers"] + e["macs"] / 1e7)
    started = time.monotonic()
    for entry in entries:
        if time.monotonic() - started > chosen.seconds:
            break
        with open(Path(tempfile.gettempdir()) / f"prune-architectures.{entry['name']}.lock", "w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            for who in WHO:
                if (entry["name"], who) in {(d["name"], d["who"]) for d in lines()}:
                    continue
                process = multiprocessing.get_context("fork").Process(target=run, args=(entry, who))
                process.start()
                process.join()
                if process.exitcode:
                    note(entry, who, "stopped", f"the process ended with {process.exitcode} (-24: {SECONDS} s of CPU)", 0.0)


def lines() -> list[dict[str, Any]]:
    return [json.loads(line) for line in LINES.read_text().splitlines()] if LINES.exists() else []


def note(entry: dict[str, Any], who: str, status: str, why: str, seconds: float, **figures: Any) -> None:
    line = {
        "name": entry["name"],
        "who": who,
        "status": status,
        "why": " ".join(why.split())[:400],
        "seconds": round(seconds, 2),
        **figures,
    }
    with LINES.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(json.dumps(line) + "\n")
    print(line, flush=True)


def run(entry: dict[str, Any], who: str) -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 10))
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    warnings.simplefilter("ignore")
    try:
        (ours if who == "packlight" else theirs)(entry)
    except Exception as error:
        note(entry, who, "fails", f"{type(error).__name__}: {error}", 0.0)


def ours(entry: dict[str, Any]) -> None:
    examples = inputs(entry, 2, 1)
    dense = Bundle.capture(make(entry), examples, name=entry["name"])
    target = load_target("x86-64-avx2")
    began = time.process_time()
    pruned = run_passes(dense, [make_pass("prune", {"macs": 0.5})], Context(target=target, seed=0))
    seconds = time.process_time() - began
    left = macs(pruned) / macs(dense)
    error = apart(dense, examples)
    with tempfile.TemporaryDirectory() as folder:
        files = [
            Path(folder) / export_bundle(b, Path(folder), ["onnx"], Options(precision="fp32"), target)[0].file for b in (dense, pruned)
        ]
        ratio = speedup(*files, entry)
    problem = "" if error <= 1e-3 else f"differs from the masked model by {error:.2g} of its outputs"
    note(entry, "packlight", "fails" if problem else "pass", problem, seconds, macs=round(left, 3), speedup=ratio, error=error)


def apart(dense: Bundle, examples: Any) -> float:
    """The relative error of the pruned graph against the masked dense one, the worst output (root mean squares)."""
    made = plan(dense, PruneSettings(macs=0.5), None)
    small = operate(made.coupling, made.removed, dense.samples)
    large = MaskedNorms(masked(dense, made.coupling, made.removed), dense, made.coupling, made.removed)
    with torch.no_grad():
        got, wanted = flatten_outputs(small(*examples)), flatten_outputs(large.run(*examples))
    worst = 0.0
    for a, b in zip(got, wanted, strict=True):
        size = float(b.double().square().mean().sqrt())
        worst = max(worst, float((a.double() - b.double()).square().mean().sqrt()) / size if size else 0.0)
    return worst


def theirs(entry: dict[str, Any]) -> None:
    import torch_pruning as tp

    examples = inputs(entry, 2, 1)
    module = make(entry)
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"{k}.onnx" for k in ("dense", "pruned")]
        write(module, examples, files[0])
        shapes = [tuple(t.shape) for t in flatten_outputs(module(*examples))]
        was = macs(Bundle.capture(module, examples))
        began = time.process_time()
        importance = tp.importance.GroupMagnitudeImportance(p=2)
        tp.pruner.BasePruner(module, examples, importance=importance, pruning_ratio=1 - 0.5**0.5).step()
        seconds = time.process_time() - began
        left = macs(Bundle.capture(module, examples)) / was
        changed = [tuple(t.shape) for t in flatten_outputs(module(*examples))] != shapes
        write(module, examples, files[1])
        ratio = speedup(*files, entry)
    problem = "" if left <= 0.6 else f"{left:.2f} of the MACs are left"
    status = "fails" if problem else "pass"
    note(entry, "torch-pruning", status, problem, seconds, macs=round(left, 3), speedup=ratio, outputs_changed=changed)


def write(module: torch.nn.Module, examples: Any, file: Path) -> None:
    torch.onnx.export(module, tuple(x[:1] for x in examples), str(file), dynamo=True, external_data=False, verbose=False)


def speedup(dense: Path, pruned: Path, entry: dict[str, Any]) -> float:
    sessions = [open_session(f, "onnxruntime") for f in (dense, pruned)]
    doors = [x.numpy() for x in inputs(entry, 1, 5)]
    times: list[list[float]] = [[], []]
    for _ in range(PAIRS + 2):
        for kept, session in zip(times, sessions, strict=True):
            began = time.perf_counter()
            session.run(*doors)
            kept.append(time.perf_counter() - began)
    return round(statistics.median(a / b for a, b in zip(times[0][2:], times[1][2:], strict=True)), 2)


def table() -> str:
    from packlight.targets.runtime import versions

    found = {(d["name"], d["who"]): d for d in lines()}
    done = [e for e in listed()["list"] if all((e["name"], who) in found for who in WHO)]
    told = ", ".join(f"{k} {v}" for k, v in versions().items())
    out = [
        "# Half the MACs of pytorchcv, without hints\n",
        f"Made by `python benchmarks/prune/architectures.py`, table of {datetime.date.today()}; {platform.machine()}, Python "
        f"{platform.python_version()}, {told}, pytorchcv 0.0.67, torch-pruning 1.6.1; list seed {listed()['seed']}; {len(done)} of "
        f"{len(listed()['list'])} architectures run so far, the cheapest first.\n",
    ]
    for who in WHO:
        n = Counter(found[e["name"], who]["status"] for e in done)
        times = [found[e["name"], who]["seconds"] for e in done if found[e["name"], who]["status"] == "pass"]
        middle = f", median {statistics.median(times):.1f} CPU s" if times else ""
        out.append(f"- {who}: {n['pass']} of {len(done)} pass{middle}; {n['fails']} fail, {n['stopped']} ran out of time.")
    changed = sum(bool(found[e["name"], "torch-pruning"].get("outputs_changed")) for e in done)
    out.append(f"- torch-pruning changed the shape of the outputs in {changed} of them without saying so.\n")
    out.append("| architecture | kind | ours | MACs left | speed-up | s | torch-pruning | MACs left | speed-up | s |\n|" + "---|" * 10)
    for e in done:
        cells = [e["name"], e["kind"]]
        for who in WHO:
            d = found[e["name"], who]
            changed_too = " (outputs changed)" if d.get("outputs_changed") else ""
            cells += [d["status"] + changed_too, str(d.get("macs", "")), str(d.get("speedup", "")), f"{d['seconds']:.1f}"]
        out.append("| " + " | ".join(cells) + " |")
    out.append("\n## What failed\n")
    out += [f"- {d['who']}, {d['name']}: {d['why']}" for d in found.values() if d["status"] != "pass"] or ["Nothing."]
    return "\n".join(out)


if __name__ == "__main__":
    main()
