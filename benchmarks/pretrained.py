"""Every pretrained model of ../shared/models: its metric on its data, in torch and in each of nine files.

    PYTHONPATH=src OMP_NUM_THREADS=1 python benchmarks/pretrained.py [--model NAME ...] [--precision P ...] [--again]
    PYTHONPATH=src python benchmarks/pretrained.py --model digit-gan --blame                            # which layers lose what in int8
    python benchmarks/pretrained.py --table > benchmarks/pretrained.md

A run goes on where it stopped; ``--again`` makes the cells of these models and precisions anew. ``--limit`` takes the first N samples and
writes nothing.

Data, degradations, metrics and int8 (the pass ``quantize`` with its defaults, target x86-64-avx2) are packlight's own. Calibration never
sees the images that are reported on: CIFAR and MNIST training images, Set14 for Set5 and Set12 (grey), Set5 for Set14, other latents, the
last 300 words (there is no other set of words). Super-resolution and denoising run at each image's own size: one ONNX and one OpenVINO
file with free height and width, and one TFLite file a size, with the same scales. TFLite files have a batch of one, the others a free
batch. Each file also passes the exporter's own proof, in every runtime; the figures are of ONNX Runtime, OpenVINO and LiteRT with XNNPACK.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from packlight.compress.passes import Context, run_passes
from packlight.compress.recipe import make_pass
from packlight.core.bundle import Bundle
from packlight.core.preprocess import Preprocess
from packlight.core.tensor import from_door, rows_first, to_door
from packlight.export.exporter import Options
from packlight.export.parity import sqnr_db
from packlight.export.run import export_bundle
from packlight.targets.load import load_target
from packlight.targets.runtime import open_session
from packlight.tasks.data.degrade import read_degrade
from packlight.tasks.data.load import load_data, read_sets
from packlight.tasks.evaluate import outputs_of
from packlight.tasks.load import load_task
from packlight.tasks.samples import View, alike, by_shape, gather_targets, ragged

SHARED = Path(__file__).resolve().parents[2] / "shared"
MODELS, DATA = SHARED / "models", SHARED / "data"
LINES = Path(__file__).parent / "pretrained.jsonl"
RUNTIMES = {"onnx": "onnxruntime", "openvino": "openvino", "tflite": "litert"}
PRECISIONS = ("fp32", "fp16", "int8")
ROWS = 50
MORE = ("ssim", "edits_per_100", "frechet")
Sets = tuple[Any, Any]


def cifar() -> Sets:
    spec = Preprocess(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    splits = load_data(f"{DATA / 'cifar10' / 'load.py'}:split", preprocess=spec)
    return splits.calib, splits.test


def mnist() -> Sets:
    splits = load_data(str(DATA / "mnist"), preprocess=Preprocess(colour="GREY", size=(32, 32)))
    return splits.calib, splits.test


def degraded(report: str, calibrate: str, how: str, colour: Any) -> Callable[[], Sets]:
    def sets() -> Sets:
        worse, spec = read_degrade(how), Preprocess(colour=colour)
        calib = read_sets(str(DATA / calibrate), msgspec.structs.replace(spec, crop=(48, 48)), {}, worse)[0]["all"]
        return calib, read_sets(str(DATA / report), spec, {}, worse)[0]["all"]

    return sets


def latents() -> Sets:
    splits = load_data("latents:64x1x1,n=5000")
    return splits.calib, splits.test


def words() -> Sets:
    spec = Preprocess(colour="GREY", mean=(0.5,), std=(0.5,))
    whole = read_sets(str(DATA / "words" / "iiit5k-test.npz"), spec, {})[0]["all"]
    return View(whole, tuple(range(len(whole) - 300, len(whole)))), View(whole, tuple(range(len(whole) - 300)))


@dataclasses.dataclass(frozen=True)
class Entry:
    """``free``: free axes beside the batch; ``published`` stands beside the figures."""

    source: str
    weights: str
    task: str
    sets: Callable[[], Sets]
    published: str
    free: dict[int, str] | None = None
    alphabet: bool = False


TOP1, LUMA, GREY = "classification", "restoration:channel=y,shave=4,bits=0", "restoration:bits=0"
SIZES = {2: "height", 3: "width"}
CIFAR, DIGITS, SR = "cifar_resnet.py", "digit_gan.py", "super_resolution.py:compact_sr_x4"
ENTRIES = {
    "resnet20": Entry(f"{CIFAR}:resnet20", "cifar10-resnet20", TOP1, cifar, "91.73 % (CIFAR-10)"),
    "resnet56": Entry(f"{CIFAR}:resnet56", "cifar10-resnet56", TOP1, cifar, "93.39 % (CIFAR-10)"),
    "digit-judge": Entry(f"{DIGITS}:judge", "digit-judge", TOP1, mnist, "99.1 % (MNIST)"),
    "digit-gan": Entry(f"{DIGITS}:generator", "digit-gan", "generation", latents, "none; Fréchet 45.6 measured in torch"),
    "word-reader": Entry("word_reader.py:word_reader", "word-reader", "recognition", words, "78.37 % of all 3,000 words", alphabet=True),
    "super-resolution-x4, Set5": Entry(
        SR, "super-resolution-x4", LUMA, degraded("set5", "set14", "bicubic:4", "RGB"), "none; 28.22 dB measured in torch", SIZES
    ),
    "super-resolution-x4, Set14": Entry(SR, "super-resolution-x4", LUMA, degraded("set14", "set5", "bicubic:4", "RGB"), "none", SIZES),
    "denoise-sigma25": Entry(
        "denoise.py:dncnn25", "denoise-sigma25", GREY, degraded("set12", "set14", "noise:25", "GREY"), "30.44 dB (Set12)", SIZES
    ),
}
WHY: dict[str, str] = {
    "super-resolution-x4, Set5": "the quantized graph in torch loses it already, and the files follow; Set14 loses less than half of it. "
    "Which layers do was not looked into.",
}
"""What was found where an int8 file falls by more than POINTS or DECIBELS."""
POINTS, DECIBELS = 0.5, 0.3


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", nargs="*", default=list(ENTRIES), help="names, or their beginnings")
    parser.add_argument("--precision", nargs="*", default=list(PRECISIONS), choices=PRECISIONS)
    parser.add_argument("--format", nargs="*", default=list(RUNTIMES), choices=list(RUNTIMES))
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--seconds", type=float, default=1e9, help="begin no cell after this many seconds")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="settings of the pass quantize, to try; writes nothing")
    parser.add_argument("--blame", action="store_true")
    parser.add_argument("--table", action="store_true")
    chosen = parser.parse_args()
    if chosen.table:
        print(table())
        return
    until, anew = time.monotonic() + chosen.seconds, chosen.again or chosen.limit or chosen.set
    for name in (n for n in ENTRIES if any(n.startswith(m) for m in chosen.model)):
        done = set() if anew else {(d["precision"], d["format"]) for d in lines() if d["name"] == name}
        cells = [(p, f) for p in chosen.precision for f in ("torch", *chosen.format) if (p, f) not in done and (p, f) != ("fp16", "torch")]
        if chosen.blame or (cells and time.monotonic() < until):
            work = Work(name, chosen.limit, dict(pair.split("=", 1) for pair in chosen.set))
            if chosen.blame:
                work.blame()
            else:
                work.run(cells, until)


class Work:
    """One model: its bundles, data and task."""

    def __init__(self, name: str, limit: int | None, settings: dict[str, Any]) -> None:
        import sys

        import torch

        self.name, self.entry, self.settings, self.trial = name, ENTRIES[name], settings, bool(limit or settings)
        sys.path[:0] = [str(MODELS)]
        labels: tuple[str, ...] = ()
        if self.entry.alphabet:
            import word_reader

            labels = tuple(word_reader.CHARACTERS)
        self.calib, test = self.entry.sets()
        self.test = View(test, tuple(range(min(limit or len(test), len(test)))))
        judge = None
        if name == "digit-gan":
            judge = Path(tempfile.mkdtemp()) / "judge.toml"
            weights = MODELS / "digit-judge.safetensors"
            text = f'model = "{MODELS / "digit_gan.py"}:judge"\nweights = "{weights}"\nfeatures = "features"\nsize = [32, 32]\n'
            judge.write_text(text + f'data = "{DATA / "mnist"}"\n')
        self.task = load_task(self.entry.task, labels, judge)
        self.context = Context(target=load_target("x86-64-avx2"), calib=self.calib, seed=0)
        free = [self.entry.free] if self.entry.free else []
        example = torch.from_numpy(np.concatenate([self.calib.batch([i])[0][0] for i in range(2)]))
        bundle = Bundle.capture(load_module(self.entry), [example], name=name.partition(",")[0], free_axes=free)
        self.floating = run_passes(bundle, [make_pass("fold-batchnorm", {})], self.context)

    def quantized(self) -> Bundle:
        return run_passes(self.floating, [make_pass("quantize", self.settings)], self.context)

    def run(self, cells: list[tuple[str, str]], until: float) -> None:
        began = time.process_time()
        self.reference = outputs_of(self.floating, self.test, batch=ROWS)[0]
        self.targets = self.reference[0] if self.task.truth == "model" else gather_targets(self.test)
        if ("fp32", "torch") in cells:
            self.note("fp32", "torch", self.reference, 0, began)
        ready = self.floating
        for precision, format in sorted(cells, key=lambda c: PRECISIONS.index(c[0])):
            if time.monotonic() > until:
                return
            began = time.process_time()
            if precision == "int8" and ready.quantized is None:
                ready = self.quantized()
            if format == "torch":
                if precision != "fp32":
                    self.note(precision, format, outputs_of(ready, self.test, batch=ROWS)[0], 0, began)
                continue
            self.one(ready, precision, format)

    def one(self, ready: Bundle, precision: str, format: str) -> None:
        """All samples through one file (one a size for TFLite)."""
        import torch

        began, size, found = time.process_time(), 0, {}
        sizes = by_shape(self.test)
        groups = sizes if format == "tflite" else [[i for group in sizes for i in group]]
        for group in groups:
            with tempfile.TemporaryDirectory() as folder:
                fixed = ready
                if self.entry.free and format == "tflite":
                    fixed = ready.replace(samples=(torch.from_numpy(np.concatenate([self.test.batch(group[:1])[0][0]] * 2)),))
                proof = View(self.test, tuple(group[: 1 if self.entry.free else 64]))
                options = Options(precision=precision)
                (made,) = export_bundle(fixed, Path(folder), [format], options, self.context.target, proof, float_bundle=self.floating)
                size = made.bytes
                session = open_session(Path(folder) / made.file, RUNTIMES[format])
                (door,), outs = made.signature.inputs, made.signature.outputs
                rows = ROWS if door.shape[0] == "batch" else 1
                for some in alike(self.test, group, rows):
                    answer = session.run(to_door(self.test.batch(some)[0][0], door))
                    heads = [rows_first(from_door(v, spec), spec) for v, spec in zip(answer, outs, strict=True)]
                    for row, index in enumerate(some):
                        found[index] = [h[row] for h in heads]
        outputs = tuple(joined_rows([found[i][k] for i in range(len(self.test))]) for k in range(len(found[0])))
        self.note(precision, format, outputs, size, began)

    def note(self, precision: str, format: str, outputs: Any, size: int, began: float) -> None:
        metric = self.task.score(outputs, self.targets)
        answers, known = self.task.answers(outputs), self.task.answers(self.reference)
        ours = [sqnr_db(np.asarray(a), np.asarray(b)) for a, b in zip(self.reference[0], outputs[0], strict=True)]
        near = [f for f in ours if f is not None]
        more = {k: round(metric.more[k], 4) for k in MORE if metric.more.get(k) is not None}
        line = {"name": self.name, "precision": precision, "format": format, "metric": metric.name, "value": round(metric.value, 5)}
        line |= {"ci95": [round(v, 5) for v in metric.ci95] if metric.ci95 else None, "unit": metric.unit, "n": metric.n, "more": more}
        line |= {"differ": None if answers is None else int((answers != known).sum())}
        line |= {"sqnr_db": round(float(np.median(near)), 1) if near else None, "bytes": size}
        line |= {"calib": min(len(self.calib), 320), "seconds": round(time.process_time() - began, 1)}
        if not self.trial:
            with LINES.open("a") as file:
                file.write(json.dumps(line) + "\n")
        print(line, flush=True)

    def blame(self) -> None:
        """The layers of the int8 graph, worst first, on 64 samples."""
        import torch

        from packlight.compress.quantize.blame import blame
        from packlight.compress.quantize.blame import table as told

        group = by_shape(self.test)[0][: 2 if self.entry.free else 64]
        batch = tuple(torch.from_numpy(x) for x in self.test.batch(group)[0])
        print(told(blame(self.floating, self.quantized(), [batch], self.task.answers), 20))


def joined_rows(rows: list[Any]) -> Any:
    return np.stack(rows) if all(r.shape == rows[0].shape for r in rows) else ragged(rows)


def load_module(entry: Entry) -> Any:
    import importlib

    from safetensors.torch import load_file

    file, _, factory = entry.source.partition(":")
    module = getattr(importlib.import_module(file.removesuffix(".py")), factory)()
    module.load_state_dict(load_file(MODELS / f"{entry.weights}.safetensors"))
    return module.eval()


def lines() -> list[dict[str, Any]]:
    return [json.loads(line) for line in LINES.read_text().splitlines()] if LINES.exists() else []


def table() -> str:
    from packlight.targets.runtime import versions

    told = ", ".join(f"{k} {v}" for k, v in versions().items())
    out = [
        "# The pretrained models in nine files each\n",
        f"Made by `python benchmarks/pretrained.py`, table of {datetime.date.today()}; {platform.machine()}, Python "
        f"{platform.python_version()}, {told}.\n",
        "The metric on n test samples: top-1 or words right in %, or PSNR in dB (luma and a shave of 4 for super-resolution, without "
        "rounding to 8 bits). Beside it SSIM, edits per 100 characters, or the generator's Fréchet distance on the judge's features (lower "
        "is better; its PSNR is to the images of float torch). In brackets: labels or words that differ from float torch, or the median "
        "SQNR of the outputs. int8 torch is the quantized graph; int8 is the pass `quantize` with its defaults, for x86-64 without VNNI "
        f"(7-bit weights). In bold: more than {POINTS} points or {DECIBELS} dB below float torch. Latency is not a part of this table. "
        "TFLite int8, but for the word reader: of before weights of 7 bits were stored in 8 there.\n",
        "| model | n | published | precision | torch | onnx | openvino | tflite |",
        "|" + "---|" * 8,
    ]
    for name, entry in ENTRIES.items():
        mine = {(d["precision"], d["format"]): d for d in lines() if d["name"] == name}
        for precision in PRECISIONS if ("fp32", "torch") in mine else ():
            cells = [cell(mine.get((precision, f)), mine["fp32", "torch"]) for f in ("torch", *RUNTIMES)]
            n = mine["fp32", "torch"]["n"]
            out.append(f"| {name} | {n:,} | {entry.published} | {precision} | " + " | ".join(cells) + " |")
    out += ["\nKiB of each file, and its 95 % interval:\n", "| model | precision | onnx | openvino | tflite |", "|" + "---|" * 5]
    for name in ENTRIES:
        mine = {(d["precision"], d["format"]): d for d in lines() if d["name"] == name}
        for precision in PRECISIONS if mine else ():
            files = [mine.get((precision, f)) for f in RUNTIMES]
            out.append(f"| {name} | {precision} | " + " | ".join("" if d is None else weight(d) for d in files) + " |")
    out += ["\n## Where int8 falls\n", *(f"- {name}: {why}" for name, why in WHY.items())] if WHY else []
    return "\n".join(out)


def weight(line: dict[str, Any]) -> str:
    low, high = (percent(line, v) for v in line["ci95"])
    return f"{line['bytes'] / 1024:,.0f} ({low:.2f} to {high:.2f})"


def percent(line: dict[str, Any], value: float) -> float:
    return 100 * value if line["unit"] == "%" else value


def cell(line: dict[str, Any] | None, known: dict[str, Any]) -> str:
    if line is None:
        return ""
    value, least = (percent(d, d["value"]) for d in (line, known))
    more = line["more"]
    figure = f"{value:.2f}"
    if value < least - (DECIBELS if line["unit"] == "dB" else POINTS) and "frechet" not in more:
        figure = f"**{figure}**"
    beside = [f"{more[k]:.4f}" if k == "ssim" else f"{more[k]:.1f}" for k in (("frechet",) if "frechet" in more else MORE) if k in more]
    if line["format"] == "torch" and line["precision"] == "fp32":
        return " / ".join([figure, *beside])
    apart = f"{line['differ']} differ" if line["differ"] is not None else "equal" if line["sqnr_db"] is None else f"{line['sqnr_db']} dB"
    return f"{' / '.join([figure, *beside])} ({apart})"


if __name__ == "__main__":
    main()
