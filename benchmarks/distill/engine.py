"""What the training engine promises: a run that is killed ends with the same weights, and two processes do what one does.

    python benchmarks/distill/engine.py --all      # every run that has no line yet; the runs are pinned with taskset by whoever calls
    python benchmarks/distill/engine.py --table    # writes engine.md from all lines

A ResNet-20 pruned to half of its MACs is trained on 1,920 images of CIFAR-10 by its whole self, with shifts, mirrors and averaged weights,
64 images a step, on one thread a process. *killed*, and *straight* beside it, with mixup as well: ``kill -9`` from outside at an arbitrary
moment after a new checkpoint, three times, then to the end. *two*: two processes under ``torchrun`` (gloo), 32 images each. *folded*:
BatchNorm folded away first, so that nothing depends on which images lie in one process.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import random
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path[:0] = [str(Path(__file__).resolve().parents[1])]

from trained import SPEC, cifar, cifar_resnet, runs

from packlight.compress import train as engine
from packlight.compress.passes import Context, run_passes
from packlight.compress.recipe import make_pass
from packlight.targets.load import load_target
from packlight.tasks.data.arrays import ArraySamples
from packlight.tasks.evaluate import outputs_of
from packlight.tasks.load import load_task
from packlight.tasks.samples import Splits

HERE = Path(__file__).parent
LINES = HERE / "engine.jsonl"
IMAGES, REPORTED, KILLS, SEEDS = 1920, 2000, 3, 2
SETTINGS = {"epochs": 1, "batch-size": 64, "lr": 0.02, "augment": "shift-flip", "ema": 0.9, "alpha": 0.7}
OTHER = {"two": "one", "killed": "straight"}  # what a run is held against
MIXED = {"mixup": 0.1}  # each process draws its own mixtures, so only runs of one process have them
GENTLE = {"lr": 1e-3, "clip": 1.0}  # without BatchNorm the other rate diverges
RUNS = [
    *({"kind": "batchnorm", "how": how, "seed": seed} for seed in range(SEEDS) for how in ("one", "two")),
    *({"kind": "batchnorm", "how": how, "seed": 0} for how in ("straight", "killed")),
    *({"kind": "folded", "how": how, "seed": 0} for how in ("one", "two")),
]


class Heard:
    """Keeps what is said, on stderr."""

    def __init__(self) -> None:
        self.resumed = 0

    def step(self, label: str, done: float, total: float | None, note: str = "") -> None: ...

    def say(self, line: str) -> None:
        if "goes on from step" in line:
            self.resumed = int(line.split("from step ")[1].split()[0])


def child(kind: str, seed: int, work: Path, out: Path, mixed: bool) -> None:
    """One process of one run: trains, and writes what came out."""
    torch.set_num_threads(1)
    engine.CHECKPOINT_SECONDS = 1.0
    stored = np.load(out.parent / f"images-{seed}.npz")
    train, test = (ArraySamples(stored[f"x_{n}"], stored[f"y_{n}"], np.arange(len(stored[f"y_{n}"])), SPEC) for n in ("train", "test"))
    splits, task = Splits(train=train, val=None, calib=test, test=test), load_task("classification")
    teacher = cifar_resnet(20, splits)
    fields: dict[str, Any] = {"train": train, "teacher": teacher, "task": task, "seed": seed}
    heard = Heard()
    context = Context(target=load_target("x86-64-avx2"), work=work, progress=heard, **fields)
    start = run_passes(teacher, [make_pass("prune", {"macs": 0.5})], context)
    if kind == "folded":
        start = run_passes(start, [make_pass("fold-batchnorm", {})], context)
    cpu = time.process_time()
    after = run_passes(
        start, [make_pass("finetune", {**SETTINGS, **(MIXED if mixed else {}), **(GENTLE if kind == "folded" else {})})], context
    )
    cpu = time.process_time() - cpu
    weights = {name: value.numpy() for name, value in after.graph.state_dict().items()}
    told: dict[str, Any] = {"cpu-s": cpu, "resumed-at": heard.resumed, "steps": after.history[-1].changes["steps"]}
    told |= {"images-per-second": after.history[-1].changes["images-per-second"]}
    told |= {"peak-mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}
    told["sha256"] = hashlib.sha256(b"".join(w.tobytes() for w in weights.values())).hexdigest()
    rank = os.environ.get("RANK", "0")
    if rank == "0":
        outputs, truth = outputs_of(after, test)
        assert truth is not None
        told["right"] = int(task.per_sample(outputs, truth).sum())
        np.savez(out / "weights.npz", labels=outputs[0].argmax(1), **weights)
    (out / f"told-{rank}.json").write_text(json.dumps(told))


def images(kept: Path, seed: int) -> None:
    """The images of all runs with this seed, so that their processes need not decode the others."""
    file = kept / f"images-{seed}.npz"
    if file.is_file():
        return
    splits = cifar(0)
    rows = np.random.default_rng((3, seed)).permutation(45_000)[:IMAGES].tolist()
    parts: dict[str, Any] = {}
    for name, samples, wanted in (("train", splits.train, rows), ("test", splits.test, list(range(REPORTED)))):
        assert samples is not None
        parts |= {f"x_{name}": samples.pixels(wanted), f"y_{name}": samples.batch(wanted)[1]}  # type: ignore[attr-defined]
    np.savez(file, **parts)


def command(kind: str, seed: int, work: Path, out: Path, how: str) -> list[str]:
    """The command of one run."""
    own = [str(Path(__file__).resolve()), "--child", kind, str(seed), str(work), str(out), how]
    many = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"] if how == "two" else []
    return [sys.executable, *many, *own]


def killed(one: list[str], work: Path, environment: dict[str, str]) -> list[int]:
    """Starts ``one`` and kills it, as often as ``KILLS``, at an arbitrary moment after a checkpoint is new; the moments, in ms after it."""
    moments = []
    for number in range(KILLS):
        began, seen = time.time(), False
        process = subprocess.Popen(one, env=environment)
        while not seen and process.poll() is None:
            time.sleep(0.02)
            seen = any(f.stat().st_mtime > began for f in work.glob("finetune-*.pt"))
        wait = random.Random(number).uniform(0.1, 1.5)
        time.sleep(wait)
        if process.poll() is not None:
            raise SystemExit("the run ended before it could be killed; take more images")
        process.send_signal(signal.SIGKILL)
        process.wait()
        moments.append(round(1000 * wait))
    return moments


def run(kind: str, how: str, seed: int, kept: Path) -> dict[str, Any]:
    """One run, its weights kept in ``kept``."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    out = kept / f"{kind}-{how}-{seed}"
    out.mkdir(parents=True, exist_ok=True)
    images(kept, seed)
    with tempfile.TemporaryDirectory() as place:
        work = Path(place)
        one = command(kind, seed, work, out, how)
        moments = killed(one, work, environment) if how == "killed" else []
        subprocess.run(one, env=environment, check=True)
    told = [json.loads(f.read_text()) for f in sorted(out.glob("told-*.json"))]
    line: dict[str, Any] = {"kind": kind, "how": how, "seed": seed, **told[0], "cpu-s": sum(t["cpu-s"] for t in told)}
    line |= {"alike": len({t["sha256"] for t in told}) == 1, "killed-after-ms": moments, "cores": len(os.sched_getaffinity(0))}
    line |= {"load": os.getloadavg()[0], "torch": torch.__version__}
    if how in OTHER:
        mine, theirs = (np.load(kept / f"{kind}-{h}-{seed}" / "weights.npz") for h in (how, OTHER[how]))
        line["apart"] = max(float(np.abs(mine[k].astype(np.float64) - theirs[k]).max()) for k in mine.files if mine[k].dtype.kind == "f")
        line["labels-equal"] = float((mine["labels"] == theirs["labels"]).mean())
    return line


def table(lines: list[dict[str, Any]]) -> str:
    first = lines[0]
    cores = sorted({line["cores"] for line in lines})
    out = [
        "# What the training engine promises\n",
        f"A ResNet-20 pruned to half its MACs, {first['steps']} steps of 64 CIFAR-10 images with teacher and averaged weights; "
        f"{platform.machine()},",
        f"torch {first['torch']}, {' or '.join(map(str, cores))} of {os.cpu_count()} cores given to a run, one thread a process. Top-1 of",
        f"the first {REPORTED:,} test images.",
        "Made by `python benchmarks/distill/engine.py --all`, then `--table`.\n",
        "## Killed and gone on (with mixup)\n",
    ]
    by = {(line["kind"], line["how"], line["seed"]): line for line in lines}
    one, dead = by.get(("batchnorm", "straight", 0)), by.get(("batchnorm", "killed", 0))
    if one and dead:
        same = "the same, bit for bit" if one["sha256"] == dead["sha256"] else "DIFFERENT"
        out += [
            "| run | top-1 | sha256 of all weights and statistics |",
            "|---|---|---|",
            f"| straight | {100 * one['right'] / REPORTED:.2f} | {one['sha256'][:16]} |",
            f"| killed {len(dead['killed-after-ms'])} times by `kill -9`, last from step {dead['resumed-at']} | "
            f"{100 * dead['right'] / REPORTED:.2f} | {dead['sha256'][:16]} |",
            f"\nThe weights are {same}. Killed {', '.join(map(str, dead['killed-after-ms']))} ms after a new checkpoint.\n",
        ]
    free = cores != [1]
    speed = " images/s, one | two | ratio |" if free else ""
    out += [
        "## Two processes (DDP, gloo), the same batch in all\n",
        f"| network | seed | top-1, one | two | labels equal | weights and statistics apart, most |{speed} CPU s, one | two | ratio |",
        f"|---|---|---|---|---|---|{'---|---|---|' if free else ''}---|---|---|",
    ]
    gaps = []
    for kind, how, seed in sorted(by):
        if how != "two" or (kind, "one", seed) not in by:
            continue
        a, b = by[kind, "one", seed], by[kind, "two", seed]
        gaps += [100 * (b["right"] - a["right"]) / REPORTED] if kind == "batchnorm" else []
        cells = [kind, str(seed), *(f"{100 * x['right'] / REPORTED:.2f}" for x in (a, b)), f"{100 * b['labels-equal']:.1f} %"]
        cells += [f"{b['apart']:.1e}"]
        for key, digits in (("images-per-second", 0), ("cpu-s", 1)) if free else (("cpu-s", 1),):
            cells += [*(f"{x[key]:.{digits}f}" for x in (a, b)), f"{b[key] / a[key]:.2f}"]
        out.append(f"| {' | '.join(cells)} |")
    singles = [100 * line["right"] / REPORTED for line in lines if line["how"] == "one" and line["kind"] == "batchnorm"]
    if len(singles) > 1 and gaps:
        out += [
            "",
            "With BatchNorm each process normalises by its own 32 images, so weights differ: top-1 of two processes less that of one is",
            f"{', '.join(f'{g:+.2f}' for g in gaps)} points, {statistics.mean(gaps):+.2f} on average, after a run this short (one process: "
            f"{statistics.stdev(singles):.2f} between seeds).",
            "Without it what is left is the order of sums.",
        ]
    if not free:
        out += [
            "",
            "Both processes shared one core with other jobs (the second core was taken), where images/s tell how many jobs there are.",
            "Given instead are CPU seconds of all processes together: what a second process and gloo cost. On an idle machine with",
            "two cores the script tables images/s as well.",
        ]
    return "\n".join([*out, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--child", nargs=5, help=argparse.SUPPRESS)
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--kept", type=Path, default=HERE.parents[1] / "runs" / "engine")
    options = parser.parse_args()
    if options.child:
        kind, seed, work, out, how = options.child
        child(kind, int(seed), Path(work), Path(out), how in ("straight", "killed"))
        return
    lines = runs(LINES, RUNS if options.all else [], lambda **one: run(**one, kept=options.kept))
    if options.table:
        (HERE / "engine.md").write_text(table(lines))


if __name__ == "__main__":
    main()
