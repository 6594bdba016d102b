"""Every pretrained model of ../shared/models: its metric on its data, in torch and in each of nine files.

    PYTHONPATH=src OMP_NUM_THREADS=1 python benchmarks/pretrained.py [--model NAME ...] [--limit N]     # goes on where it stopped
    PYTHONPATH=src python benchmarks/pretrained.py --model digit-gan --blame                            # which layers lose what in int8
    python benchmarks/pretrained.py --table > benchmarks/pretrained.md

Data, degradations, metrics and int8 (the recipe's passes, target x86-64-avx2) are packlight's own. Calibration never sees the images that
are reported on: CIFAR and MNIST training images, Set14 for the restoration models, other latents, the last 300 words. Super-resolution and
denoising run at each image's own size: one ONNX and one OpenVINO file with free height and width, and one TFLite file a size, with the same
scales. ``--limit`` takes the first N samples; each line says how many it is from.
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
from packlight.tasks.samples import View, by_shape, gather_targets, ragged

SHARED = Path(__file__).resolve().parents[2] / "shared"
MODELS, DATA = SHARED / "models", SHARED / "data"
LINES = Path(__file__).parent / "pretrained.jsonl"
RUNTIMES = {"onnx": "onnxruntime", "openvino": "openvino", "tflite": "litert"}
PRECISIONS = ("fp32", "fp16", "int8")
ROWS = 50
Sets = tuple[Any, Any]


def cifar() -> Sets:
    spec = Preprocess(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    splits = load_data(f"{DATA / 'cifar10' / 'load.py'}:split", preprocess=spec)
    return splits.calib, splits.test


def mnist() -> Sets:
    splits = load_data(str(DATA / "mnist"), preprocess=Preprocess(colour="GREY", size=(32, 32)))
    return splits.calib, splits.test


def degraded(report: str, how: str, colour: Any) -> Callable[[], Sets]:
    def sets() -> Sets:
        worse, spec = read_degrade(how), Preprocess(colour=colour)
        calib = read_sets(str(DATA / "set14"), msgspec.structs.replace(spec, crop=(48, 48)), {}, worse)["all"]
        return calib, read_sets(str(DATA / report), spec, {}, worse)["all"]

    return sets


def latents() -> Sets:
    splits = load_data("latents:64x1x1,n=5000")
    return splits.calib, splits.test


def words() -> Sets:
    spec = Preprocess(colour="GREY", mean=(0.5,), std=(0.5,))
    whole = read_sets(str(DATA / "words" / "iiit5k-test.npz"), spec, {})["all"]
    return View(whole, tuple(range(len(whole) - 300, len(whole)))), View(whole, tuple(range(len(whole) - 300)))


@dataclasses.dataclass(frozen=True)
class Entry:
    """``shape`` of an example; ``free`` its free axes beside the batch; ``published`` stands beside the figures."""

    source: str
    weights: str
    shape: tuple[int, ...]
    task: str
    sets: Callable[[], Sets]
    published: str
    free: dict[int, str] | None = None
    alphabet: bool = False


TOP1, LUMA = "classification", "restoration:channel=y,shave=4"
ENTRIES = {
    "resnet20": Entry("cifar_resnet.py:resnet20", "cifar10-resnet20", (2, 3, 32, 32), TOP1, cifar, "91.73 top-1 of 10,000"),
    "resnet56": Entry("cifar_resnet.py:resnet56", "cifar10-resnet56", (2, 3, 32, 32), TOP1, cifar, "93.39 top-1 of 10,000"),
    "digit-judge": Entry("digit_gan.py:judge", "digit-judge", (2, 1, 32, 32), TOP1, mnist, "99.1 top-1 of 10,000"),
    "digit-gan": Entry("digit_gan.py:generator", "digit-gan", (2, 64, 1, 1), "generation", latents, "Fréchet 45.6 (measured, 5,000)"),
    "word-reader": Entry(
        "word_reader.py:word_reader", "word-reader", (2, 1, 32, 128), "recognition", words, "78.37 % of 3,000 words", alphabet=True
    ),
    "super-resolution-x4": Entry(
        "super_resolution.py:compact_sr_x4", "super-resolution-x4", (2, 3, 48, 48), LUMA, degraded("set5", "bicubic:4", "RGB"),
        "28.22 dB (measured, Set5)", {2: "height", 3: "width"},
    ),
    "denoise-sigma25": Entry(
        "denoise.py:dncnn25", "denoise-sigma25", (2, 1, 48, 48), "restoration:bits=0", degraded("set12", "noise:25", "GREY"),
        "30.44 dB (Set12)", {2: "height", 3: "width"},
    ),
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", nargs="*", default=list(ENTRIES))
    parser.add_argument("--limit", type=int)
    parser.add_argument("--blame", action="store_true")
    parser.add_argument("--table", action="store_true")
    chosen = parser.parse_args()
    if chosen.table:
        print(table())
        return
    for name in chosen.model:
        work = Work(name, chosen.limit)
        if chosen.blame:
            work.blame()
        else:
            work.run()


class Work:
    """One model: its bundles, data and task."""

    def __init__(self, name: str, limit: int | None) -> None:
        import sys

        self.name, self.entry = name, ENTRIES[name]
        sys.path[:0] = [str(MODELS)]
        labels: tuple[str, ...] = ()
        if self.entry.alphabet:
            import word_reader

            labels = tuple(word_reader.CHARACTERS)
        calib, test = self.entry.sets()
        self.test = View(test, tuple(range(min(limit or len(test), len(test)))))
        judge = None
        if name == "digit-gan":
            judge = Path(tempfile.mkdtemp()) / "judge.toml"
            weights = MODELS / "digit-judge.safetensors"
            text = f'model = "{MODELS / "digit_gan.py"}:judge"\nweights = "{weights}"\nfeatures = "features"\nsize = [32, 32]\n'
            judge.write_text(text + f'data = "{DATA / "mnist"}"\n')
        self.task = load_task(self.entry.task, labels, judge)
        self.context = Context(target=load_target("x86-64-avx2"), calib=calib, seed=0)
        module = load_module(self.entry)
        free = [self.entry.free] if self.entry.free else []
        import torch

        example = torch.from_numpy(np.concatenate([calib.batch([i])[0][0] for i in range(2)]))
        bundle = Bundle.capture(module, [example], name=name, free_axes=free)
        self.floating = run_passes(bundle, [make_pass("fold-batchnorm", {})], self.context)

    def quantized(self, **settings: Any) -> Bundle:
        return run_passes(self.floating, [make_pass("quantize", settings)], self.context)

    def run(self) -> None:
        done = {(d["precision"], d["format"]) for d in lines() if d["name"] == self.name}
        torch_outputs = outputs_of(self.floating, self.test, batch=ROWS)[0]
        self.targets = torch_outputs[0] if self.task.truth == "model" else gather_targets(self.test)
        self.reference = torch_outputs
        if ("fp32", "torch") not in done:
            self.note("fp32", "torch", torch_outputs, 0, 0.0)
        for precision in PRECISIONS:
            formats = [f for f in RUNTIMES if (precision, f) not in done]
            if not formats and (precision != "int8" or ("int8", "torch") in done):
                continue
            ready = self.quantized() if precision == "int8" else self.floating
            if precision == "int8" and ("int8", "torch") not in done:
                self.note("int8", "torch", outputs_of(ready, self.test, batch=ROWS)[0], 0, 0.0)
            for format in formats:
                self.one(ready, precision, format)

    def one(self, ready: Bundle, precision: str, format: str) -> None:
        """All samples through one file (one a size for TFLite)."""
        import torch

        began, size, found = time.process_time(), 0, {}
        for group in by_shape(self.test):
            inputs = [self.test.batch([i])[0][0] for i in group]
            with tempfile.TemporaryDirectory() as folder:
                fixed = ready.replace(samples=(torch.from_numpy(np.concatenate([inputs[0]] * 2)),)) if self.entry.free else ready
                proof = View(self.test, tuple(group[:4]))
                options = Options(precision=precision)
                (made,) = export_bundle(fixed, Path(folder), [format], options, self.context.target, proof, float_bundle=self.floating)
                size = made.bytes
                session = open_session(Path(folder) / made.file, RUNTIMES[format])
                (door,), outs = made.signature.inputs, made.signature.outputs
                rows = ROWS if door.shape[0] == "batch" and not self.entry.free else 1
                for start in range(0, len(group), rows):
                    x = np.concatenate(inputs[start : start + rows])
                    answer = session.run(to_door(x, door))
                    heads = [rows_first(from_door(v, spec), spec) for v, spec in zip(answer, outs, strict=True)]
                    for row, index in enumerate(group[start : start + rows]):
                        found[index] = [h[row] for h in heads]
        outputs = tuple(joined_rows([found[i][k] for i in range(len(self.test))]) for k in range(len(found[0])))
        self.note(precision, format, outputs, size, time.process_time() - began)

    def note(self, precision: str, format: str, outputs: Any, size: int, seconds: float) -> None:
        metric = self.task.score(outputs, self.targets)
        answers, known = self.task.answers(outputs), self.task.answers(self.reference)
        differ = None if answers is None else int((answers != known).sum())
        ours = [sqnr_db(np.asarray(a), np.asarray(b)) for a, b in zip(self.reference[0], outputs[0], strict=True)]
        near = [f for f in ours if f is not None]
        line = {"name": self.name, "precision": precision, "format": format, "metric": metric.name, "value": round(metric.value, 4)}
        line |= {"unit": metric.unit, "n": metric.n, "frechet": metric.more.get("frechet"), "differ": differ}
        line |= {"sqnr_db": round(float(np.median(near)), 1) if near else None, "bytes": size, "seconds": round(seconds, 1)}
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
        f"{platform.python_version()}, {told}. The metric on the test data (n samples); for the generator the Fréchet distance, lower is "
        "better, with the PSNR to torch's images in brackets. In the second line of a cell: labels or words that differ from float torch, "
        "or for images the median SQNR of the outputs in dB. int8 torch is the quantized graph.\n",
        "| model | n | published | precision | torch | onnx | openvino | tflite |",
        "|" + "---|" * 8,
    ]
    for name, entry in ENTRIES.items():
        mine = {(d["precision"], d["format"]): d for d in lines() if d["name"] == name}
        for precision in PRECISIONS if mine else ():
            cells = [cell(mine.get((precision, f))) for f in ("torch", *RUNTIMES)]
            n = next(iter(mine.values()))["n"]
            out.append(f"| {name} | {n:,} | {entry.published} | {precision} | " + " | ".join(cells) + " |")
    return "\n".join(out)


def cell(line: dict[str, Any] | None) -> str:
    if line is None:
        return ""
    scale = 100 if line["unit"] == "%" and line["value"] <= 1 else 1
    value = f"{line['frechet']:.1f} ({line['value']:.1f} dB)" if line["frechet"] is not None else f"{scale * line['value']:.2f}"
    apart = f"{line['differ']} differ" if line["differ"] is not None else "equal" if line["sqnr_db"] is None else f"{line['sqnr_db']} dB"
    return f"{value}<br>{apart}"


if __name__ == "__main__":
    main()
