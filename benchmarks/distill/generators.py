"""Generators with at least four times fewer multiply-accumulates: pruned, then taught by the whole one.

    python benchmarks/distill/generators.py --case digits --seed 0     # one run, one JSON line
    python benchmarks/distill/generators.py --all [--seeds 3]          # every run that has no line yet
    python benchmarks/distill/generators.py --table                    # writes generators.md from all lines, and the pictures

Models and data come from ``../shared``. The pruning engine finds the widths; the teacher's images are all that the student learns from.
Super-resolution trains on 128x128 crops of Set14 (two images are kept for choosing the epoch) and is reported on Set5, against the true
images. The digit generator trains on latents, is chosen on others and reported on 5,000 more, against its teacher's images.
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

import numpy as np
import torch
from PIL import Image

sys.path[:0] = [str(Path(__file__).resolve().parents[1])]

from trained import SHARED, Told, runs

from packlight.compress.passes import Context, run_passes
from packlight.compress.recipe import make_pass
from packlight.core.bundle import Bundle
from packlight.core.cost import macs
from packlight.core.load import load_model
from packlight.targets.load import load_target
from packlight.tasks.data.load import load_data
from packlight.tasks.evaluate import outputs_of
from packlight.tasks.load import load_task
from packlight.tasks.samples import Samples, with_targets

HERE = Path(__file__).parent
MODELS, DATA = SHARED / "models", SHARED / "data"
LINES = HERE / "generators.jsonl"
SIDE, STRIDE = 128, 64
KEPT = ("face", "pepper")  # images of Set14 that only choose the epoch
SHARE = 0.24
ADAM = {"optimizer": "adamw", "weight-decay": 0.0, "augment": "none", "alpha": 1.0}
CASES: dict[str, dict[str, Any]] = {
    "digits": {"lr": 2e-3, "epochs": 12, "batch-size": 128, **ADAM},
    "super-resolution": {"lr": 1e-3, "epochs": 8, "batch-size": 8, **ADAM},
}
JUDGE = f"""model = "{MODELS}/digit_gan.py:judge"
weights = "{MODELS}/digit-judge.safetensors"
features = "features"
size = [32, 32]
data = "{DATA}/mnist"
"""


def crops(names: Any) -> np.ndarray:
    """Overlapping squares of the images of Set14 with these names: uint8 (N, 128, 128, 3)."""
    found = []
    for path in sorted((DATA / "set14").iterdir()):
        if not names(path.stem):
            continue
        image = np.asarray(Image.open(path).convert("RGB"))
        for top in range(0, image.shape[0] - SIDE + 1, STRIDE):
            for left in range(0, image.shape[1] - SIDE + 1, STRIDE):
                found.append(image[top : top + SIDE, left : left + SIDE])
    return np.stack(found)


def super_resolution(work: Path) -> tuple[Bundle, Any, Any, Samples]:
    """(teacher, task, splits, test)."""
    files = {"train": crops(lambda n: n not in KEPT), "val": crops(lambda n: n in KEPT)}
    for name, x in files.items():
        np.savez(work / f"{name}.npz", x=x)
    splits = load_data(None, val=str(work / "val.npz"), calib=str(work / "train.npz"), test=f"{DATA}/set5", degrade="bicubic:4")
    assert splits.calib is not None
    example = torch.from_numpy(splits.calib.batch([0, 1])[0][0])
    weights = MODELS / "super-resolution-x4.safetensors"
    axes = [{2: "height", 3: "width"}]
    teacher = load_model(f"{MODELS / 'super_resolution.py'}:compact_sr_x4", weights=weights, inputs=[example], name="sr", free_axes=axes)
    assert splits.test is not None
    return teacher, load_task("restoration:channel=y,shave=4"), splits, splits.test


def digits(work: Path) -> tuple[Bundle, Any, Any, Samples]:
    (work / "judge.toml").write_text(JUDGE)
    splits = load_data("latents:64x1x1,n=5000")
    assert splits.test is not None
    assert splits.val is not None
    example = torch.from_numpy(splits.test.batch([0, 1])[0][0])
    weights = MODELS / "digit-gan.safetensors"
    teacher = load_model(f"{MODELS / 'digit_gan.py'}:generator", weights=weights, inputs=[example], name="digits")
    test = with_targets(splits.test, outputs_of(teacher, splits.test)[0][0])
    val = with_targets(splits.val, outputs_of(teacher, splits.val)[0][0])
    return (
        teacher,
        load_task("generation", (), work / "judge.toml"),
        type(splits)(train=splits.train, val=val, calib=splits.calib, test=test),
        test,
    )


def run(case: str, seed: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as place:
        teacher, task, splits, test = (digits if case == "digits" else super_resolution)(Path(place))
        train = splits.train if case == "digits" else splits.calib
        fields = {"train": train, "val": splits.val, "calib": splits.calib, "teacher": teacher, "task": task, "seed": seed}
        context = Context(target=load_target("x86-64-avx2"), progress=Told(500), **fields)  # type: ignore[arg-type]
        cpu = time.process_time()
        pruned = run_passes(teacher, [make_pass("prune", {"macs": SHARE})], context)
        student = run_passes(pruned, [make_pass("finetune", CASES[case])], context)
        cpu = time.process_time() - cpu
        line: dict[str, Any] = {"case": case, "seed": seed, "macs": [macs(teacher), macs(student)]}
        line |= {"parameters": [teacher.parameters(), student.parameters()], "cpu-s": round(cpu, 1), "load": os.getloadavg()[0]}
        changes = student.history[-1].changes
        line |= {key: changes[key] for key in ("epochs", "steps", "best-epoch", "validation")}
        kept = {}
        for name, bundle in (("teacher", teacher), ("pruned", pruned), ("student", student)):
            outputs, target = outputs_of(bundle, test)
            assert target is not None
            metric = task.score(outputs, target)
            line[name] = {
                "value": metric.value,
                "n": metric.n,
                **{k: v for k, v in metric.more.items() if k in ("ssim", "frechet", "least")},
            }
            kept[name] = outputs[0]
        if seed == 0:
            picture(case, task, [kept[name] for name in ("teacher", "student")])
        return line


def picture(case: str, task: Any, sides: list[Any]) -> None:
    """The teacher's images above the student's: sixteen digits, or the middle of the first three images."""
    rows = []
    for side in sides:
        images = [np.asarray(task.picture(side[i])) for i in range(16 if case == "digits" else 3)]
        if case != "digits":
            images = [x[x.shape[0] // 2 - 96 : x.shape[0] // 2 + 96, x.shape[1] // 2 - 96 : x.shape[1] // 2 + 96] for x in images]
        rows.append(np.concatenate([np.broadcast_to(x, (*x.shape[:2], 3)) for x in images], 1))
    Image.fromarray(np.concatenate(rows)).save(HERE / f"generators-{case}.png", optimize=True)


def table(lines: list[dict[str, Any]]) -> str:
    out = [
        "# Generators with at least four times fewer multiply-accumulates\n",
        f"Pruned by `prune` (macs {SHARE}) and then taught by the whole model's images alone (`finetune`, alpha 1, AdamW);",
        f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}. Mean over seeds and, where there are several, their",
        "standard deviation. Made by `python benchmarks/distill/generators.py --all`, then `--table`.\n",
        "| model | seeds | MACs, M | parameters | PSNR, whole | pruned | taught | SSIM | Frechet, whole | taught | epochs | CPU, min |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for case in CASES:
        mine = [line for line in lines if line["case"] == case]
        if not mine:
            continue

        def told(side: str, key: str, digits: int = 2, mine: list[dict[str, Any]] = mine) -> str:
            values = [line[side][key] for line in mine if key in line[side]]
            spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 and side != "teacher" else ""
            return f"{statistics.mean(values):.{digits}f}{spread}" if values else "-"

        first = mine[0]
        whole = "the measure" if case == "digits" else told("teacher", "value")
        cells = [case, str(len(mine)), " -> ".join(f"{m / 1e6:.2f}" for m in first["macs"]), " -> ".join(map(str, first["parameters"]))]
        cells += [whole, told("pruned", "value"), told("student", "value"), told("student", "ssim", 4)]
        cells += [told("teacher", "frechet", 1), told("student", "frechet", 1), str(first["epochs"])]
        cells += [f"{statistics.mean(line['cpu-s'] for line in mine) / 60:.1f}"]
        out.append(f"| {' | '.join(cells)} |")
    out += [
        "",
        "super-resolution: PSNR in dB of Set5 on luma against the true images (MACs for one 32x32 input; the whole model was trained for",
        "looks, with a GAN loss). digits: PSNR in dB against the whole generator's image of the same latent; the Frechet distance is",
        "taken on the features of the digit judge to the MNIST test images and is an indication.\n",
        "The whole model's images above, the small one's below. The small super-resolution network still shows a grid of 4x4 pixels that",
        "the whole one does not: PSNR against the true images is higher than the teacher's, but the two are not equal to the eye.\n",
        *(f"![{case}](generators-{case}.png)\n" for case in CASES if any(line["case"] == case for line in lines)),
    ]
    return "\n".join(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", choices=CASES)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=3, help="for --all")
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    wanted = [(options.case, options.seed)] if options.case else []
    if options.all:
        wanted = [(case, seed) for case in CASES for seed in range(options.seeds)]
    lines = runs(LINES, [{"case": case, "seed": seed} for case, seed in wanted], run)
    if options.table:
        (HERE / "generators.md").write_text(table(lines))


if __name__ == "__main__":
    main()
