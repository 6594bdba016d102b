"""What a discriminator adds to the distillation of the digit generator: each form of the loss beside none, equal steps.

    python benchmarks/distill/adversarial.py --form none --seed 0     # one run, one JSON line
    python benchmarks/distill/adversarial.py --all [--seeds 3]        # every run that has no line yet
    python benchmarks/distill/adversarial.py --table                  # writes adversarial.md from all lines

The generator of generators.py, pruned as there and taught by the whole one for fewer steps, which leaves something to gain. The
discriminator starts from random weights; real to it are the whole generator's images, since latents have none of their own.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parents[1])]

from generators import CASES, MODELS, SHARE, digits
from trained import Told, runs

from packlight.compress.passes import Context, run_passes
from packlight.compress.recipe import make_pass
from packlight.core.bundle import Bundle
from packlight.core.cost import macs
from packlight.targets.load import load_target
from packlight.tasks.evaluate import outputs_of
from packlight.tasks.load import load_task

HERE = Path(__file__).parent
LINES = HERE / "adversarial.jsonl"
EPOCHS = 2
FORMS = ("none", "least-squares", "hinge", "non-saturating")
WEIGHT = 0.01
JUDGE = f"""
layers = ["convnet.relu1", "convnet.relu3"]
channels = 1
model = "{MODELS}/digit_gan.py:judge"
weights = "{MODELS}/digit-judge.safetensors"
size = [32, 32]
"""


def discriminator(seed: int) -> Bundle:
    """DCGAN's, small and without BatchNorm: (N, 1, 28, 28) -> a score for each of 4x4 places."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = [nn.Conv2d(1, 32, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(32, 64, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(64, 1, 4)]
        return Bundle.capture(nn.Sequential(*layers).eval(), [torch.zeros(2, 1, 28, 28)], name="discriminator")


def run(form: str, seed: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as place:
        teacher, task, splits, test = digits(Path(place))
        (Path(place) / "pairs.toml").write_text(JUDGE)
        looks = load_task("generation", (), Path(place) / "pairs.toml")
        against = discriminator(seed) if form != "none" else None
        fields: dict[str, Any] = {"train": splits.train, "val": splits.val, "calib": splits.calib, "teacher": teacher, "seed": seed}
        fields |= {"task": load_task("generation"), "discriminator": against}
        context = Context(target=load_target("x86-64-avx2"), progress=Told(100), **fields)
        start = run_passes(teacher, [make_pass("prune", {"macs": SHARE})], context)
        settings = {**CASES["digits"], "epochs": EPOCHS}
        if against is not None:
            settings["adversarial"] = {"form": form, "weight": WEIGHT}
        cpu = time.process_time()
        student = run_passes(start, [make_pass("finetune", settings)], context)
        cpu = time.process_time() - cpu
        outputs, target = outputs_of(student, test)
        assert target is not None
        metric, look = task.score(outputs, target), looks.score(outputs, target)
        changes = student.history[-1].changes
        line: dict[str, Any] = {"form": form, "seed": seed, "epochs": EPOCHS, "steps": changes["steps"], "weight": WEIGHT}
        line |= {"macs": [macs(teacher), macs(student)], "psnr": metric.value, "n": metric.n, "ssim": metric.more["ssim"]}
        line |= {"frechet": metric.more["frechet"], "perceptual": look.more["perceptual"], "best-epoch": changes["best-epoch"]}
        return line | {"cpu-s": round(cpu, 1), "load": os.getloadavg()[0], "torch": torch.__version__}


def table(lines: list[dict[str, Any]]) -> str:
    first = lines[0]
    out = [
        "# What a discriminator adds to the distillation of a generator\n",
        f"The digit generator, {' -> '.join(f'{m / 1e6:.2f}' for m in first['macs'])} M multiply-accumulates, taught by the whole one",
        f"for {first['steps']} steps of 128 latents; {platform.machine()}, {os.cpu_count()} cores, torch {first['torch']}.",
        f"The adversarial loss has weight {first['weight']}. PSNR, SSIM and the perceptual distance (on the digit judge's convolutions)",
        f"are taken against the whole generator's image of the same {first['n']:,} latents, the Frechet distance on the judge's features",
        "against the MNIST test images (45.6 for the whole generator): an indication.",
        "Made by `python benchmarks/distill/adversarial.py --all`, then `--table`.\n",
        "| form | seeds | PSNR, dB | SSIM | perceptual | Frechet | CPU, s |",
        "|---|---|---|---|---|---|---|",
    ]
    for form in FORMS:
        mine = [line for line in lines if line["form"] == form]
        if not mine:
            continue
        cells = [form, str(len(mine))]
        for key, digits_ in (("psnr", 2), ("ssim", 4), ("perceptual", 4), ("frechet", 2), ("cpu-s", 0)):
            values = [line[key] for line in mine]
            spread = f" ± {statistics.stdev(values):.{digits_}f}" if len(values) > 1 else ""
            cells.append(f"{statistics.mean(values):.{digits_}f}{spread}")
        out.append(f"| {' | '.join(cells)} |")
    if max(line["seed"] for line in lines) == 0:
        out += [
            "",
            "One seed: between seeds the Frechet distance of such students varied by 0.2 (generators.md); no order of the forms is proven.",
        ]
    return "\n".join([*out, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--form", choices=FORMS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=3, help="for --all")
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    asked = [{"form": options.form, "seed": options.seed}] if options.form else []
    if options.all:
        asked = [{"form": form, "seed": seed} for seed in range(options.seeds) for form in FORMS]
    lines = runs(LINES, asked, run)
    if options.table:
        (HERE / "adversarial.md").write_text(table(lines))


if __name__ == "__main__":
    main()
