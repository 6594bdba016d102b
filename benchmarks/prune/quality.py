"""What a pruned ResNet is worth after the same training: packlight, random, L1 and torch-pruning, CIFAR-10, equal steps.

    pip install --no-deps --target PEERS torch-pruning==1.6.1
    export PYTHONPATH=src:PEERS
    python benchmarks/prune/quality.py --model resnet20 --method packlight --seed 0  # one run, one JSON line; a killed run goes on
    python benchmarks/prune/quality.py --all resnet20 [--seeds 3]                    # every run that has no line yet
    python benchmarks/prune/quality.py --table                                       # writes quality.md from all lines

Data and weights come from ``../shared``. Every method loses the same share of the multiply-accumulates and is then trained by the same pass
with the same settings, the uncompressed model being its teacher. The epoch is chosen on 5,000 held-out training images (the published
weights were trained on these too, so validation reads high, for all alike); the test images are looked at once, for the line.

torch-pruning cuts the padded shortcuts of this network wrongly (its result no longer runs) unless the layers on them are named by hand as
ignored; that is what it is given here. packlight gets no hint.
"""

from __future__ import annotations

import argparse
import functools
import os
import platform
import statistics
import sys
import time
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parents[1])]

from trained import SHARED, Told, cifar, cifar_resnet, runs

from packlight.compress.passes import Context, run_passes
from packlight.compress.recipe import make_pass
from packlight.core.bundle import Bundle
from packlight.core.cost import macs
from packlight.targets.load import load_target
from packlight.tasks.evaluate import outputs_of
from packlight.tasks.load import load_task
from packlight.tasks.samples import Samples

HERE = Path(__file__).parent
LINES = HERE / "quality.jsonl"
# Depth, how many times fewer multiply-accumulates, training.
MODELS: dict[str, tuple[int, float, dict[str, Any]]] = {
    "resnet20": (20, 2.1, {"epochs": 5, "lr": 0.03}),
    "resnet56": (56, 2.1, {"epochs": 16, "lr": 0.03}),
    "resnet56-2.55": (56, 2.55, {"epochs": 16, "lr": 0.03}),
}
RECOVERY = {"augment": "shift-flip", "views": 2, "alpha": 0.7, "temperature": 4.0, "batch-size": 128, "weight-decay": 1e-4}
METHODS: dict[str, dict[str, Any] | None] = {
    "packlight": {"criterion": "l1", "scope": "isomorphic"},
    "random": {"criterion": "random", "scope": "layer", "reconstruct": False},
    "L1": {"criterion": "l1", "scope": "layer", "reconstruct": False},
    "torch-pruning": None,
}


def theirs(depth: int, times: float, dense: Bundle) -> Bundle:
    """torch-pruning: its group magnitude, ranked over all layers, in small steps until the multiply-accumulates have fallen."""
    import torch
    import torch_pruning as tp
    from safetensors.torch import load_file

    sys.path.insert(0, str(SHARED / "models"))
    from cifar_resnet import CifarResNet

    net = CifarResNet(depth).eval()
    net.load_state_dict(load_file(SHARED / "models" / f"cifar10-resnet{depth}.safetensors"))
    example = torch.zeros(1, 3, 32, 32)
    ignored = [net.linear, net.conv1, *(m.conv2 for m in net.modules() if hasattr(m, "conv2"))]
    importance = tp.importance.GroupMagnitudeImportance(p=2)
    steps = {"pruning_ratio": 1.0, "max_pruning_ratio": 0.9, "iterative_steps": 400}
    pruner = tp.pruner.BasePruner(net, example, importance=importance, global_pruning=True, ignored_layers=ignored, **steps)
    whole, _ = tp.utils.count_ops_and_params(net, example)
    for _ in range(400):
        pruner.step()
        if whole / tp.utils.count_ops_and_params(net, example)[0] >= times:
            break
    return Bundle.capture(net, dense.samples, name=f"{dense.name}-pruned")


def top1(bundle: Bundle, samples: Samples | None) -> tuple[float, int]:
    assert samples is not None
    outputs, targets = outputs_of(bundle, samples)
    assert targets is not None
    metric = load_task("classification").score(outputs, targets)
    return metric.value, metric.n


def run(model: str, method: str, seed: int, work: Path) -> dict[str, Any]:
    depth, times, training = MODELS[model]
    splits = cifar(seed)
    dense = cifar_resnet(depth, splits)
    data = {"train": splits.train, "val": splits.val, "calib": splits.calib}
    task, target = load_task("classification"), load_target("x86-64-avx2")
    context = Context(target=target, task=task, teacher=dense, seed=seed, work=work / f"{model}-{method}-{seed}", progress=Told(), **data)
    settings, began, cpu = METHODS[method], time.time(), time.process_time()
    if settings is None:
        pruned = theirs(depth, times, dense)
    else:
        pruned = run_passes(dense, [make_pass("prune", {"macs": 1 / times, **settings})], context)
    pruning = time.process_time() - cpu
    untrained, _ = top1(pruned, splits.val)
    after = run_passes(pruned, [make_pass("finetune", {**RECOVERY, **training})], context)
    changes = after.history[-1].changes
    value, count = top1(after, splits.test)
    return {
        "model": model, "method": method, "seed": seed, "top1": value, "n": count, "macs": macs(after), "whole": macs(dense),
        "parameters": after.parameters(), "untrained": untrained, "epochs": changes["epochs"], "steps": changes["steps"],
        "best-epoch": changes["best-epoch"], "validation": changes["validation"], "pruning-cpu-s": round(pruning, 1),
        "cpu-s": round(time.process_time() - cpu, 1), "seconds": round(time.time() - began, 1), "load": os.getloadavg()[0],
    }  # fmt: skip


def table(lines: list[dict[str, Any]]) -> str:
    import torch

    out = [
        "# What a pruned ResNet is worth after the same training\n",
        f"CIFAR-10; {platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}, torch-pruning 1.6.1. Top-1 of the 10,000",
        "test images in %, mean over seeds and, where there are several, their standard deviation; the epoch chosen on 5,000 held-out",
        "training images (known to the published weights). 'Untrained' is on these. Every method was trained by the same pass for the",
        "same steps, with the uncompressed model as its teacher. torch-pruning was told by hand which layers lie on the padded shortcuts",
        "(without that its result does not run); packlight was told nothing. Made by `python benchmarks/prune/quality.py --all ...`, then",
        "`--table`.\n",
        "Published beside it (Fang et al., 2023, arXiv:2301.12900, ResNet-56): 93.53 -> 93.77 at 2.13x, 93.64 at 2.55x, chosen on the test",
        "set over hundreds of epochs.\n",
    ]
    for name, (depth, times, _) in MODELS.items():
        rows = [line for line in lines if line["model"] == name]
        if not rows:
            continue
        whole = {20: 91.73, 56: 93.39}[depth]
        out += [f"## ResNet-{depth} (uncompressed {whole}), {times}x fewer multiply-accumulates, {rows[0]['epochs']} epochs\n"]
        out += ["| method | seeds | top-1 | untrained | MACs, M | parameters | minutes of CPU |", "|---|---|---|---|---|---|---|"]
        for method in METHODS:
            mine = [r for r in rows if r["method"] == method]
            if not mine:
                continue
            values = [100 * r["top1"] for r in mine]
            spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
            before = statistics.mean(100 * r["untrained"] for r in mine)
            minutes = statistics.mean(r["cpu-s"] for r in mine) / 60
            figures = f"{mine[0]['macs'] / 1e6:.1f} | {mine[0]['parameters']} | {minutes:.0f}"
            out.append(f"| {method} | {len(mine)} | {statistics.mean(values):.2f}{spread} | {before:.1f} | {figures} |")
        out.append("")
    return "\n".join(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=MODELS)
    parser.add_argument("--method", choices=METHODS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=3, help="for --all")
    parser.add_argument("--all", choices=MODELS)
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--work", type=Path, default=HERE.parents[1] / "runs" / "quality")
    options = parser.parse_args()
    wanted = [(options.model, options.method, options.seed)] if options.model and options.method else []
    if options.all:
        wanted = [(options.all, method, seed) for seed in range(options.seeds) for method in METHODS]
    asked = [{"model": model, "method": method, "seed": seed} for model, method, seed in wanted]
    lines = runs(LINES, asked, functools.partial(run, work=options.work))
    if options.table:
        (HERE / "quality.md").write_text(table(lines))


if __name__ == "__main__":
    main()
