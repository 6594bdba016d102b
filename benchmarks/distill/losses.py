"""What each distillation loss is worth: ResNet-56 teaches a ResNet-8 from scratch and a pruned ResNet-20, CIFAR-10, equal steps.

    python benchmarks/distill/losses.py --student resnet8 --loss kd --seed 0     # one run, one JSON line; a killed run goes on
    python benchmarks/distill/losses.py --all                                    # every run that has no line yet
    python benchmarks/distill/losses.py --table                                  # writes losses.md from all lines

Data and weights come from ``../shared``. The epoch is chosen on 5,000 held-out training images; the test images are looked at once, for the
line. The teacher's outputs are kept for two augmentations of each image; runs that compare layers ask it anew each time.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from pathlib import Path
from typing import Any

from packlight.compress.passes import Context, run_passes
from packlight.compress.recipe import make_pass
from packlight.core.bundle import Bundle
from packlight.core.cost import macs
from packlight.core.load import load_model
from packlight.core.preprocess import Preprocess
from packlight.targets.load import load_target
from packlight.tasks.data.load import load_data
from packlight.tasks.evaluate import outputs_of
from packlight.tasks.load import load_task
from packlight.tasks.samples import Splits

HERE = Path(__file__).parent
SHARED = HERE.parents[2] / "shared"
LINES = HERE / "losses.jsonl"
SPEC = Preprocess(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
VIEWS = 2
# What is compared: settings of the pass; "none" trains on labels alone, the hints stand beside "kd" as in their papers' best rows.
LOSSES: dict[str, dict[str, Any]] = {
    "none": {"alpha": 0.0},
    "kd": {"loss": "kd", "views": VIEWS},
    "dkd": {"loss": "dkd", "alpha": 0.5, "views": VIEWS},
    "dist": {"loss": "dist", "alpha": 0.5, "temperature": 2.0, "views": VIEWS},
    **{f"kd + {use}": {"loss": "kd", "hints": [{"use": use}]} for use in ("fitnet", "attention", "similarity", "relational")},
}
# Student -> settings that all its runs share. An epoch is 351 steps of 128 images.
STUDENTS: dict[str, dict[str, Any]] = {
    "resnet8": {"epochs": 12, "lr": 0.1, "augment": "shift-flip"},
    "pruned-resnet20": {"epochs": 6, "lr": 0.03, "augment": "shift-flip", "weight-decay": 1e-4, "alpha": 0.7},
}


def model(depth: int, weights: bool, seed: int, splits: Splits) -> Bundle:
    import torch

    assert splits.calib is not None
    example = torch.from_numpy(splits.calib.batch([0, 1])[0][0])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        file = SHARED / "models" / f"cifar10-resnet{depth}.safetensors"
        source = f"{SHARED / 'models' / 'cifar_resnet.py'}:CifarResNet"
        return load_model(source, weights=file if weights else None, model_args={"depth": depth}, inputs=[example], name=f"resnet{depth}")


def run(student: str, loss: str, seed: int, work: Path, progress: Any) -> dict[str, Any]:
    """One run; the splits and the student's first weights follow the seed."""
    splits = load_data(f"{SHARED / 'data' / 'cifar10' / 'load.py'}:split", preprocess=SPEC, seed=seed)
    task, teacher = load_task("classification"), model(56, True, 0, splits)
    data = {"train": splits.train, "val": splits.val, "calib": splits.calib}
    target = load_target("x86-64-avx2")
    context = Context(target=target, task=task, teacher=teacher, seed=seed, work=work, progress=progress, **data)
    if student == "resnet8":
        start = model(8, False, seed, splits)
    else:
        start = run_passes(model(20, True, 0, splits), [make_pass("prune", {"macs": 0.5})], context)
    began = time.time()
    after = run_passes(start, [make_pass("distill", {**STUDENTS[student], **LOSSES[loss]})], context)
    assert splits.test is not None
    outputs, targets = outputs_of(after, splits.test)
    assert targets is not None
    metric = task.score(outputs, targets)
    changes = after.history[-1].changes
    return {
        "student": student, "loss": loss, "seed": seed, "top1": metric.value, "n": metric.n, "macs": macs(after), "steps": changes["steps"],
        "best-epoch": changes["best-epoch"], "validation": changes["validation"], "images-per-second": changes["images-per-second"],
        "seconds": round(time.time() - began, 1), "load": os.getloadavg()[0],
    }  # fmt: skip


def table(lines: list[dict[str, Any]]) -> str:
    out = [
        "# What each distillation loss is worth\n",
        f"ResNet-56 (93.39) teaches on CIFAR-10; {platform.machine()}, {os.cpu_count()} cores. Top-1 of the 10,000 test images in %,",
        "mean over seeds and, where there are at least two, their standard deviation; the epoch chosen on 5,000 held-out training images.",
        "Published on CIFAR-100 for the order of the effect (Tian et al., 2019, arXiv:1910.10699): 69.06 without, 70.66 KD, 71.16 CRD.\n",
    ]
    for student in STUDENTS:
        rows = [line for line in lines if line["student"] == student]
        if not rows:
            continue
        base = [r["top1"] for r in rows if r["loss"] == "none"]
        out += [f"## {student}, {rows[0]['macs'] / 1e6:.1f} M multiply-accumulates, {rows[0]['steps']} steps\n"]
        out += ["| loss | seeds | top-1 | gain | images/s |", "|---|---|---|---|---|"]
        for loss in LOSSES:
            mine = [r for r in rows if r["loss"] == loss]
            if not mine:
                continue
            values = [100 * r["top1"] for r in mine]
            spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
            gain = f"{statistics.mean(values) - 100 * statistics.mean(base):+.2f}" if base and loss != "none" else ""
            speed = statistics.mean(r["images-per-second"] for r in mine)
            out.append(f"| {loss} | {len(mine)} | {statistics.mean(values):.2f}{spread} | {gain} | {speed:.0f} |")
        out.append("")
    return "\n".join(out)


class Told:
    """Progress on lines."""

    def step(self, label: str, done: float, total: float | None, note: str = "") -> None:
        if done % 100 == 0:
            print(f"  {label} {done:.0f} of {total:.0f}  {note}", flush=True)

    def say(self, line: str) -> None:
        print(line, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--student", choices=STUDENTS)
    parser.add_argument("--loss", choices=LOSSES)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=3, help="for --all")
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--work", type=Path, default=HERE.parents[1] / "runs" / "distill")
    options = parser.parse_args()
    lines = [json.loads(line) for line in LINES.read_text().splitlines()] if LINES.is_file() else []
    wanted = [(options.student, options.loss, options.seed)] if options.student and options.loss else []
    if options.all:
        wanted = [(s, loss, seed) for seed in range(options.seeds) for s in STUDENTS for loss in LOSSES]
    have = {(line["student"], line["loss"], line["seed"]) for line in lines}
    for student, loss, seed in wanted:
        if (student, loss, seed) in have:
            continue
        print(f"{student}, {loss}, seed {seed}", flush=True)
        line = run(student, loss, seed, options.work, Told())
        with open(LINES, "a") as file:
            file.write(json.dumps(line) + "\n")
        lines.append(line)
    if options.table:
        (HERE / "losses.md").write_text(table(lines) + "\n")


if __name__ == "__main__":
    main()
