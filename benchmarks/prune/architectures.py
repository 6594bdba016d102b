"""The 64 drawn architectures of pytorchcv, and ten asked for by name, pruned to half their MACs without hints, beside torch-pruning.

    pip install --no-deps --target PEERS pytorchcv==0.0.67 torch-pruning==1.6.1 monai==1.6.1 einops==0.8.2 geffnet==1.0.2 \
        efficientnet-pytorch==0.7.1
    PYTHONPATH=src:PEERS OMP_NUM_THREADS=1 python benchmarks/prune/architectures.py [--seconds 540] [--only NAME ...] [--again]   # goes on
    python benchmarks/prune/architectures.py --table > benchmarks/prune/architectures.md

Ours passes where the pass ``prune`` gets to 50 % of the MACs within 2 %, the outputs keep their shapes, the smaller graph equals the dense
one with the same slices set to zero (relative error of at most 1e-3 in float), and the ONNX file gives the same in ONNX Runtime (export's
own proof, 80 dB; where random weights blow float differences up, 1e-3).
torch-pruning passes where it runs, the outputs keep their shapes, 55 % of the MACs or less are left, and the module exports to ONNX and
runs; ``beside.py`` says how it is run. Both are asked for the same inputs and random weights. Seconds are CPU seconds of pruning alone, one
thread. Speed-up: median of the ratio dense / pruned over 15 pairs of runs in ONNX Runtime, one thread, one sample, each tool's files
written by one exporter.
"""

from __future__ import annotations

import argparse
import copy
import datetime
import fcntl
import functools
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
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parents[1] / "tests")]

import torch
from beside import EXACT, apart, flops, ratio, torch_pruning, worst, write
from cv import inputs, listed, make
from torch import nn
from zoo import settle

from packlight.compress.passes import Context, run_passes
from packlight.compress.prune import prune
from packlight.compress.prune.plan import Plan, plan
from packlight.compress.recipe import make_pass
from packlight.core.bundle import Bundle
from packlight.core.cost import macs
from packlight.core.errors import PacklightError, ParityError
from packlight.export.exporter import Options
from packlight.export.formats import exporter
from packlight.export.onnx.trace import OPSET, trace
from packlight.export.run import export_bundle
from packlight.targets.load import load_target
from packlight.targets.runtime import open_session

LINES = HERE / "architectures.jsonl"
SECONDS = 400
ENOUGH = 0.55
WHO = ("packlight", "torch-pruning")


def named() -> list[dict[str, Any]]:
    """What the draw may leave out and the table must hold."""
    own = {"size": [224, 224], "inputs": [[[3, 224, 224], None]], "family": "", "layers": 100, "macs": 0}
    others = [
        {"name": name, "kind": kind, "inputs": [[list(shape), None]], "layers": 40, "macs": 0} for name, (kind, shape, _) in OTHERS.items()
    ]
    return [own | {"name": name, "kind": kind} for name, kind in NAMED.items()] + others


NAMED = {
    "densenet121": "dense connections",
    "shufflenet_g3_w1": "channel shuffle, grouped",
    "resnext26_32x4d": "grouped",
    "cbam_resnet18": "attention over channels and places",
}


def of_monai(name: str, **how: Any) -> nn.Module:
    from monai.networks import nets

    return cast(nn.Module, getattr(nets, name)(**how))


def of_geffnet() -> nn.Module:
    import geffnet

    return cast(nn.Module, geffnet.create_model("spnasnet_100", pretrained=False))


def of_efficientnet_pytorch() -> nn.Module:
    from efficientnet_pytorch import EfficientNet

    return cast(nn.Module, EfficientNet.from_name("efficientnet-b0", image_size=64))


VIT = {"in_channels": 3, "img_size": (64, 64), "patch_size": (8, 8), "hidden_size": 192, "mlp_dim": 384, "num_layers": 4, "num_heads": 6}
LEVELS = {"channels": (16, 32, 64, 128), "strides": (2, 2, 2)}
OTHERS: dict[str, tuple[str, tuple[int, ...], Callable[[], nn.Module]]] = {
    "monai.ViT": ("transformer", (3, 64, 64), lambda: of_monai("ViT", classification=True, num_classes=10, spatial_dims=2, **VIT)),
    "monai.SegResNet": (
        "3-D segmentation",
        (1, 32, 32, 32),
        lambda: of_monai("SegResNet", spatial_dims=3, init_filters=8, in_channels=1, out_channels=3),
    ),
    "monai.AttentionUnet": (
        "segmentation, attention",
        (3, 64, 64),
        lambda: of_monai("AttentionUnet", spatial_dims=2, in_channels=3, out_channels=2, **LEVELS),
    ),
    "monai.UNet": (
        "3-D segmentation",
        (1, 32, 32, 32),
        lambda: of_monai("UNet", spatial_dims=3, in_channels=1, out_channels=2, num_res_units=2, **LEVELS),
    ),
    "geffnet.spnasnet_100": ("classification", (3, 64, 64), of_geffnet),
    "efficientnet_pytorch.efficientnet-b0": ("classification", (3, 64, 64), of_efficientnet_pytorch),
}


def build(entry: dict[str, Any]) -> nn.Module:
    """The module: weights by seed 0, BatchNorm statistics from smooth random inputs."""
    if entry["name"] not in OTHERS:
        return make(entry)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        seeds = iter(range(100, 200))
        return settle(OTHERS[entry["name"]][2](), lambda: inputs(entry, 8, next(seeds))[0], passes=2)


def entries() -> list[dict[str, Any]]:
    """In the order in which they run, the cheapest first."""
    return sorted([*listed()["list"], *named()], key=lambda e: e["layers"] + e["macs"] / 1e7)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--seconds", type=float, default=1e9, help="begin no architecture after this many seconds")
    parser.add_argument("--again", action="store_true", help="run what failed again")
    parser.add_argument("--table", action="store_true")
    chosen = parser.parse_args()
    if chosen.table:
        print(table())
        return
    started = time.monotonic()
    for entry in entries():
        if chosen.only and entry["name"] not in chosen.only:
            continue
        if time.monotonic() - started > chosen.seconds:
            break
        with open(Path(tempfile.gettempdir()) / f"prune-architectures.{entry['name']}.lock", "w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            done = {(d["name"], d["who"]) for d in latest().values() if d["status"] == "pass" or not chosen.again}
            missing = [who for who in WHO if (entry["name"], who) not in done]
            if missing:
                warm()
                process = multiprocessing.get_context("fork").Process(target=run, args=(entry, missing))
                process.start()
                process.join()
                for who in missing if process.exitcode else ():
                    if (entry["name"], who) not in latest():
                        note(entry, who, "stopped", f"the process ended with {process.exitcode} (-24: {SECONDS} s of CPU)", 0.0)


@functools.cache
def warm() -> None:
    """Loads once what every architecture's process needs."""
    import torch_pruning  # noqa: F401

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tiny = Bundle.capture(
            nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 1)), (torch.randn(2, 3, 8, 8),)
        )
        small = run_passes(tiny, [make_pass("prune", {"ratio": 0.5})], Context(target=load_target("x86-64-avx2"), seed=0))
        trace(small, 1, OPSET)


def latest() -> dict[tuple[str, str], dict[str, Any]]:
    """The last line of each architecture and tool."""
    lines = [json.loads(line) for line in LINES.read_text().splitlines()] if LINES.exists() else []
    return {(d["name"], d["who"]): d for d in lines}


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


def run(entry: dict[str, Any], tools: list[str]) -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 10))
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    module = build(entry)
    for who in tools:
        try:
            (ours if who == "packlight" else theirs)(entry, lambda: copy.deepcopy(module))
        except Exception as error:
            kind = type(error).__name__
            note(entry, who, "fails", str(error) if isinstance(error, PacklightError) or kind == "Beaten" else f"{kind}: {error}", 0.0)


def ours(entry: dict[str, Any], fresh: Callable[[], nn.Module]) -> None:
    dense = Bundle.capture(fresh(), inputs(entry, 2, 1), name=entry["name"])
    target = load_target("x86-64-avx2")
    plans: list[Plan] = []
    prune.plan = lambda *args, **more: plans.append(plan(*args, **more)) or plans[-1]  # the pass keeps its plan to itself
    began = time.process_time()
    pruned = run_passes(dense, [make_pass("prune", {"macs": 0.5})], Context(target=target, seed=0))
    seconds = time.process_time() - began
    left = macs(pruned) / macs(dense)
    error = apart(pruned, dense, plans[0])
    with tempfile.TemporaryDirectory() as folder:
        files = [onnx_file(bundle, Path(folder)) for bundle in (dense, pruned)]
        faster = ratio(*files, "onnxruntime", [x.numpy() for x in inputs(entry, 1, 5)])
    problem = "" if error <= EXACT else f"differs from the masked model by {error:.2g} of its outputs"
    note(entry, "packlight", "fails" if problem else "pass", problem, seconds, macs=round(left, 3), speedup=faster, error=error)


def onnx_file(bundle: Bundle, folder: Path) -> Path:
    """The file of ``packlight export``, proven; where it fails that proof (80 dB), one that is held to ``EXACT``."""
    target, how = load_target("x86-64-avx2"), Options(precision="fp32", batch=1)
    try:
        return folder / export_bundle(bundle, folder, ["onnx"], how, target)[0].file
    except ParityError:
        file = folder / exporter("onnx", "").write(bundle, folder, how, target).file
        one = bundle.sized(1)
        found = [torch.from_numpy(y) for y in open_session(file, "onnxruntime").run(*(x.numpy() for x in one))]
        if worst(found, bundle.run(*one)) > EXACT:
            raise
        return file


def theirs(entry: dict[str, Any], fresh: Callable[[], nn.Module]) -> None:
    examples = inputs(entry, 1, 1)
    dense = fresh()
    was = flops(dense, examples)
    found = torch_pruning(fresh, examples, lambda module: flops(module, examples) / was, ENOUGH)
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"{k}.onnx" for k in ("dense", "pruned")]
        for module, file in zip((dense, found["module"]), files, strict=True):
            write(module, examples, file)
        faster = ratio(*files, "onnxruntime", [x.numpy() for x in inputs(entry, 1, 5)])
    note(entry, "torch-pruning", "pass", "", found["seconds"], macs=round(found["left"], 3), speedup=faster, ratio=round(found["ratio"], 3))


def table() -> str:
    from packlight.targets.runtime import versions

    found, known = latest(), entries()
    done = [e for e in known if all((e["name"], who) in found for who in WHO)]
    told = ", ".join(f"{k} {v}" for k, v in versions().items())
    out = [
        "# Half the MACs, without hints\n",
        f"Made by `python benchmarks/prune/architectures.py`, table of {datetime.date.today()}; {platform.machine()}, Python "
        f"{platform.python_version()}, torch {torch.__version__}, {told}, pytorchcv 0.0.67, monai 1.6.1, geffnet 1.0.2, "
        f"efficientnet-pytorch 0.7.1, torch-pruning 1.6.1; list seed "
        f"{listed()['seed']}, weights seed 0; {len(done)} of {len(known)} architectures run, the cheapest first. The script says what "
        "passes. Speed-ups are medians of 15 paired runs on a shared machine.\n",
    ]
    status = {who: {e["name"]: found[e["name"], who]["status"] for e in done} for who in WHO}
    for who in WHO:
        n = Counter(status[who].values())
        times = [found[e["name"], who]["seconds"] for e in done if status[who][e["name"]] == "pass"]
        middle = f" (median {statistics.median(times):.1f} CPU s, most {max(times):.1f})" if times else ""
        out.append(f"- {who}: {n['pass']} of {len(done)} pass{middle}; {n['fails']} fail, {n['stopped']} ran out of time.")
    beaten = [e["name"] for e in done if status["torch-pruning"][e["name"]] != "pass"]
    ours_too = [name for name in beaten if status["packlight"][name] == "pass"]
    lost = [e["name"] for e in done if status["torch-pruning"][e["name"]] == "pass" != status["packlight"][e["name"]]]
    out.append(f"- Of the {len(beaten)} that torch-pruning fails, packlight passes {len(ours_too)}.")
    out.append(f"- Passed by torch-pruning and failed by packlight: {', '.join(lost) or 'none'}.\n")
    out.append("| architecture | kind | packlight | MACs left | speed-up | s | torch-pruning | MACs left | speed-up | s |\n|" + "---|" * 10)
    for e in done:
        cells = [e["name"], e["kind"]]
        for who in WHO:
            d = found[e["name"], who]
            cells += [
                d["status"],
                str(d.get("macs", "")),
                str(d.get("speedup", "")),
                f"{d['seconds']:.1f}" if d["status"] == "pass" else "",
            ]
        out.append("| " + " | ".join(cells) + " |")
    for who in WHO:
        out.append(f"\n## What {who} failed\n")
        out += [f"- {e['name']}: {found[e['name'], who]['why']}" for e in done if status[who][e["name"]] != "pass"] or ["Nothing."]
    return "\n".join(out)


if __name__ == "__main__":
    main()
