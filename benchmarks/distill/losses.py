"""What each distillation loss is worth: ResNet-56 teaches a ResNet-8 from scratch and a pruned ResNet-20, CIFAR-10, equal steps.

    python benchmarks/distill/losses.py --student resnet8 --loss kd --seed 0     # one run, one JSON line; a killed run goes on
    python benchmarks/distill/losses.py --all                                    # every run that has no line yet
    python benchmarks/distill/losses.py --table                                  # writes losses.md from all lines

Data and weights come from ``../shared``. The epoch is chosen on 5,000 held-out training images; the test images are looked at once, for the
line. The teacher's outputs are kept for two augmentations of each image; runs that compare layers ask it anew each time.
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

from trained import Told, cifar, cifar_resnet, runs

from packlight.compress.passes import Context, run_passes
from packlight.compress.recipe import make_pass
from packlight.core.cost import macs
from packlight.targets.load import load_target
from packlight.tasks.evaluate import outputs_of
from packlight.tasks.load import load_task

HERE = Path(__file__).parent
LINES = HERE / "losses.jsonl"
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


def run(student: str, loss: str, seed: int, work: Path) -> dict[str, Any]:
    """One run; the splits and the student's first weights follow the seed."""
    splits = cifar(seed)
    task, teacher = load_task("classification"), cifar_resnet(56, splits)
    data = {"train": splits.train, "val": splits.val, "calib": splits.calib}
    target = load_target("x86-64-avx2")
    context = Context(target=target, task=task, teacher=teacher, seed=seed, work=work, progress=Told(), **data)
    if student == "resnet8":
        start = cifar_resnet(8, splits, seed=seed)
    else:
        start = run_passes(cifar_resnet(20, splits), [make_pass("prune", {"macs": 0.5})], context)
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
    wanted = [(options.student, options.loss, options.seed)] if options.student and options.loss else []
    if options.all:
        wanted = [(s, loss, seed) for seed in range(options.seeds) for s in STUDENTS for loss in LOSSES]
    asked = [{"student": student, "loss": loss, "seed": seed} for student, loss, seed in wanted]
    lines = runs(LINES, asked, functools.partial(run, work=options.work))
    if options.table:
        (HERE / "losses.md").write_text(table(lines) + "\n")


if __name__ == "__main__":
    main()
