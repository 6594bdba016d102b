"""A word reader (CNN, bidirectional LSTM, CTC) with at least three times fewer multiply-accumulates, taught without a label.

    python benchmarks/distill/recurrent.py --student pruned --fold 0     # one run, one JSON line; a run that stopped goes on
    python benchmarks/distill/recurrent.py --all [--minutes 7]           # runs that have no line yet; stops after that
    python benchmarks/distill/recurrent.py --table                       # writes recurrent.md from all lines

Model and words come from ``../shared``: 3,000 words of IIIT5K are all the real ones there, so each fold reports on its own third, which
its student never saw. Of the other 2,000, 300 choose the epoch by their texts and 1,700 are used as images alone, each as it is and
some times turned, slanted, blurred or lit otherwise. Others are words drawn with the fonts of matplotlib. The teacher's scores of every
frame are all that a student learns from.
"""

from __future__ import annotations

import argparse
import itertools
import os
import platform
import re
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFilter, ImageFont
from torch import nn

sys.path[:0] = [str(Path(__file__).resolve().parents[1])]

from trained import SHARED, Told, runs

from packlight.compress import train as engine
from packlight.compress.passes import Context, run_passes
from packlight.compress.recipe import make_pass
from packlight.core.bundle import Bundle
from packlight.core.cost import macs
from packlight.core.load import load_model
from packlight.core.preprocess import Preprocess
from packlight.core.source import user_object
from packlight.targets.load import load_target
from packlight.tasks.data.arrays import ArraySamples
from packlight.tasks.evaluate import outputs_of
from packlight.tasks.load import load_task

HERE = Path(__file__).parent
LINES = HERE / "recurrent.jsonl"
MODEL, WORDS = SHARED / "models" / "word_reader.py", SHARED / "data" / "words" / "iiit5k-test.npz"
SPEC = Preprocess(mean=(0.5,), std=(0.5,), colour="GREY")
FOLDS, CHOOSING = 3, 300
# Changed copies of each real image, words drawn, epochs.
BUDGETS = {"short": (1, 1000, 5), "long": (3, 3000, 4)}
FONTS = ("DejaVuSans", "DejaVuSerif", "STIXGeneral", "cmr10", "cmss10", "cmtt10", "DejaVuSansMono")
TRAINING = {"batch-size": 64, "optimizer": "adamw", "lr": 2e-3, "weight-decay": 0.01, "clip": 5.0}
TAUGHT = {"alpha": 1.0, "temperature": 2.0, "augment": "none", "views": 1}
STUDENTS = ("pruned", "gru")


def moved(image: Image.Image, random: np.random.Generator) -> Image.Image:
    """The word turned, slanted and stretched a little, blurred or not, its light and noise changed; the same size."""
    width, height = image.size
    corners = np.array([[0, 0], [0, height], [width, height], [width, 0]]) + random.uniform(-1, 1, (4, 2)) * (width * 0.03, height * 0.12)
    image = image.transform(image.size, Image.Transform.QUAD, corners.flatten().tolist(), Image.Resampling.BILINEAR)
    if random.random() < 0.4:
        image = image.filter(ImageFilter.GaussianBlur(random.uniform(0.3, 1.0)))
    pixels = np.asarray(image, np.float32)
    pixels = (pixels - pixels.mean()) * random.uniform(0.6, 1.3) + pixels.mean() + random.uniform(-25, 25)
    pixels += random.normal(0, random.uniform(0, 8), pixels.shape)
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def drawn(count: int, random: np.random.Generator) -> np.ndarray:
    """Words of Python's own help, a fifth of them numbers, drawn in one of matplotlib's fonts: uint8 (count, 32, 128)."""
    import pydoc_data.topics

    from matplotlib import get_data_path

    files = [f for f in sorted(Path(get_data_path(), "fonts", "ttf").glob("*.ttf")) if f.stem.startswith(FONTS) and "Display" not in f.stem]
    known = sorted({w for text in pydoc_data.topics.topics.values() for w in re.findall(r"[A-Za-z]{2,11}", text)})
    images = []
    while len(images) < count:
        word = str(random.integers(10 ** random.integers(1, 5))) if random.random() < 0.2 else str(random.choice(known))
        word = (word.upper(), word.lower(), word.title())[random.integers(3)]
        font = ImageFont.truetype(str(files[random.integers(len(files))]), 40)
        left, top, right, bottom = font.getbbox(word)
        edge = random.integers(1, 9, 4)
        dark, light = random.uniform(0, 110), random.uniform(140, 255)
        ink, paper = (dark, light) if random.random() < 0.6 else (light, dark)
        sheet = Image.new("L", (int(right - left + edge[0] + edge[1]), int(bottom - top + edge[2] + edge[3])), int(paper))
        ImageDraw.Draw(sheet).text((edge[0] - left, edge[2] - top), word, fill=int(ink), font=font)
        images.append(np.asarray(moved(sheet.resize((128, 32), Image.Resampling.BILINEAR), random)))
    return np.stack(images)


def split(fold: int, copies: int, words: int, work: Path) -> tuple[ArraySamples, ArraySamples, ArraySamples]:
    """(unlabelled training images, labelled ones for choosing, those to report on)."""
    data = np.load(WORDS, allow_pickle=False)
    x, y = data["x"], data["y"]
    order = np.random.default_rng(0).permutation(len(x))
    test, rest = order[fold::FOLDS], np.concatenate([order[k::FOLDS] for k in range(FOLDS) if k != fold])
    val, train = rest[:CHOOSING], rest[CHOOSING:]
    kept = work / f"images-{fold}-{copies}-{words}.npy"  # a run that goes on needs not make them again
    if not kept.is_file():
        random = np.random.default_rng((1, fold))
        real = [x[train]] + [np.stack([np.asarray(moved(Image.fromarray(w), random)) for w in x[train]]) for _ in range(copies)]
        work.mkdir(parents=True, exist_ok=True)
        np.save(kept, np.concatenate([*real, drawn(words, np.random.default_rng(2))]))
    images = np.load(kept)
    parts = ((images, None, "words without labels"), (x[val], y[val], "words to choose by"), (x[test], y[test], "words to report on"))
    unlabelled, choosing, reported = (ArraySamples(a, b, np.arange(len(a)), SPEC, (), told) for a, b, told in parts)
    return unlabelled, choosing, reported


def reader() -> Bundle:
    weights = MODEL.with_name("word-reader.safetensors")
    return load_model(f"{MODEL}:word_reader", weights=weights, inputs=[torch.zeros(2, 1, 32, 128)], name="reader")


class Light(nn.Module):
    """The pruned reader with a GRU of as many units in place of its LSTM; the convolutions keep their weights."""

    def __init__(self, pruned: Bundle) -> None:
        super().__init__()
        from torch.nn.utils import parametrize  # noqa: F401  torch wants it loaded before modules are copied

        state = pruned.graph.state_dict()
        with user_object(f"{MODEL}:word_reader", "model", ValueError) as factory:  # type: ignore[arg-type]
            whole = factory()
        for place, layer in enumerate(whole.cnn):
            if isinstance(layer, nn.Conv2d):
                outputs, inputs = state[f"cnn.{place}.weight"].shape[:2]
                whole.cnn[place] = nn.Conv2d(inputs, outputs, layer.kernel_size, layer.stride, layer.padding)  # type: ignore[arg-type]
            elif isinstance(layer, nn.BatchNorm2d):
                whole.cnn[place] = nn.BatchNorm2d(len(state[f"cnn.{place}.weight"]))
        self.cnn = whole.cnn
        self.cnn.load_state_dict({k.removeprefix("cnn."): v for k, v in state.items() if k.startswith("cnn.")}, strict=False)
        units = state["rnn.weight_hh_l0"].shape[1]
        self.rnn = nn.GRU(int(state["rnn.weight_ih_l0"].shape[1]), units, bidirectional=True, batch_first=True)
        self.fc = nn.Linear(2 * units, state["fc.weight"].shape[0])

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        steps = self.cnn(image).squeeze(2).permute(0, 2, 1)
        return self.fc(self.rnn(steps)[0]).permute(1, 0, 2)


class Enough(Exception):
    """The time of one call is over; the checkpoint holds where the run stands."""


class Piece(Told):
    """Progress that ends the call after ``seconds`` of it."""

    def __init__(self, seconds: float) -> None:
        super().__init__(20)
        self.end = time.monotonic() + seconds

    def step(self, label: str, done: float, total: float | None, note: str = "") -> None:
        super().step(label, done, total, note)
        if label == "distill" and time.monotonic() > self.end:
            raise Enough


def run(student: str, budget: str, fold: int, work: Path, seconds: float) -> dict[str, Any]:
    """One run; ``Enough`` where the time was over first."""
    with user_object(f"{MODEL}:CHARACTERS", "alphabet", ValueError) as characters:  # type: ignore[arg-type]
        task = load_task("recognition", tuple(characters))
    engine.CHECKPOINT_SECONDS = 30.0
    copies, words, epochs = BUDGETS[budget]
    train, val, test = split(fold, copies, words, work)
    teacher = reader()
    fields: dict[str, Any] = {"train": train, "val": val, "teacher": teacher, "task": task, "seed": fold}
    context = Context(target=load_target("x86-64-avx2"), work=work / f"{student}-{budget}-{fold}", progress=Piece(seconds), **fields)
    start = run_passes(teacher, [make_pass("prune", {"macs": 0.33, "round-to": 8})], context)
    if student == "gru":
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(fold)
            start = Bundle.capture(Light(start).eval(), [torch.zeros(2, 1, 32, 128)], name="gru")
    after = run_passes(start, [make_pass("distill", {"epochs": epochs, **TRAINING, **TAUGHT})], context)
    right = {}
    for name, bundle in (("teacher", teacher), ("before", start), ("after", after)):
        outputs, truth = outputs_of(bundle, test)
        assert truth is not None
        right[name] = task.per_sample(outputs, truth) > 0.5
    changes = after.history[-1].changes
    line: dict[str, Any] = {"student": student, "budget": budget, "fold": fold, "n": len(test), "macs": [macs(teacher), macs(after)]}
    line |= {"parameters": [teacher.parameters(), after.parameters()], "right": {name: int(r.sum()) for name, r in right.items()}}
    line |= {"lost": int((right["teacher"] & ~right["after"]).sum()), "won": int((~right["teacher"] & right["after"]).sum())}
    line |= {key: changes[key] for key in ("epochs", "steps", "best-epoch", "validation", "images-per-second")}
    return line | {"images": len(train), "load": os.getloadavg()[0], "torch": torch.__version__}


def table(lines: list[dict[str, Any]]) -> str:
    out = [
        "# A word reader with three times fewer multiply-accumulates\n",
        "CNN, bidirectional LSTM and CTC (`../shared/models/word_reader.py`), pruned by `prune` (macs 0.33, round-to 8) and taught by",
        f"`distill` on images without labels; {platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}. Share of IIIT5K's",
        "words read without a fault, in %. Each fold's student is reported on a third of them that it never saw, the epoch chosen on 300",
        "others; the sum covers all 3,000 once. *lost* and *won*: words that only the teacher, and only the student, reads. Made by",
        "`python benchmarks/distill/recurrent.py --all`, then `--table`.\n",
        *(f"Budget *{name}*: each image, {c} changed from it, {w:,} words drawn, {e} epochs." for name, (c, w, e) in BUDGETS.items()),
        "",
        "| student | budget | fold | MACs, M | parameters, M | whole | before training | taught | difference | lost | won | best epoch |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for student, budget in itertools.product(STUDENTS, BUDGETS):
        mine = sorted((x for x in lines if (x["student"], x["budget"]) == (student, budget)), key=lambda x: x["fold"])
        for line in mine:
            share = {k: 100 * v / line["n"] for k, v in line["right"].items()}
            cells = [student, budget, str(line["fold"]), " -> ".join(f"{m / 1e6:.0f}" for m in line["macs"])]
            cells += [" -> ".join(f"{p / 1e6:.2f}" for p in line["parameters"])]
            cells += [f"{share[k]:.1f}" for k in ("teacher", "before", "after")]
            cells += [f"{share['after'] - share['teacher']:+.1f}", str(line["lost"]), str(line["won"])]
            out.append(f"| {' | '.join(cells)} | {line['best-epoch']} of {line['epochs']} |")
        if len(mine) > 1:
            n = sum(line["n"] for line in mine)
            share = {k: 100 * sum(line["right"][k] for line in mine) / n for k in ("teacher", "before", "after")}
            apart = [100 * (line["right"]["after"] - line["right"]["teacher"]) / line["n"] for line in mine]
            cells = [f"**{student}**", budget, f"{n:,} words", "", "", *(f"{share[k]:.2f}" for k in ("teacher", "before", "after"))]
            cells += [f"**{share['after'] - share['teacher']:+.2f}** ± {statistics.stdev(apart):.2f}"]
            cells += [str(sum(line["lost"] for line in mine)), str(sum(line["won"] for line in mine)), ""]
            out.append(f"| {' | '.join(cells)} |")
    met = [line for line in lines if 100 * (line["right"]["after"] - line["right"]["teacher"]) / line["n"] >= -1]
    if len(met) < len(lines):
        out += [
            "",
            f"The bar is one point below the whole model; {len(met)} of {len(lines)} runs meet it. Where validation is best before the",
            "last epoch, more words may help more than more steps. Budgets and folds that are not in the table were not run yet.",
        ]
    return "\n".join([*out, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--student", choices=STUDENTS)
    parser.add_argument("--budget", choices=BUDGETS, default="long")
    parser.add_argument("--fold", type=int, default=0, choices=range(FOLDS))
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--minutes", type=float, default=1e6, help="stop after so many; another call goes on")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--work", type=Path, default=HERE.parents[1] / "runs" / "recurrent")
    options = parser.parse_args()
    asked = [{"student": options.student, "budget": options.budget, "fold": options.fold}] if options.student else []
    if options.all:
        asked = [{"student": student, "budget": options.budget, "fold": fold} for student in STUDENTS for fold in range(FOLDS)]
    end = time.monotonic() + 60 * options.minutes
    try:
        lines = runs(LINES, asked, lambda **one: run(**one, work=options.work, seconds=end - time.monotonic()))
    except Enough:
        raise SystemExit("time is over; call again to go on") from None
    if options.table:
        (HERE / "recurrent.md").write_text(table(lines))


if __name__ == "__main__":
    main()
