"""Four published models through the quantizer and every format: what each file scores in its own runtime.

    python benchmarks/tasks/published.py --out benchmarks/tasks/published.md [--only words] [--rows N]

Wants ../shared/models and ../shared/data beside the repository. A row is kept in a file beside ``--out`` as soon as it is known, so a run
that was stopped goes on. Calibration: Set14 for Set5; Set14 in grey for Set12; 300 of the words, said so, since there is no other set;
other latents for the generator. Latency is not measured here.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from packlight.bench.accuracy import score_artifacts
from packlight.compress.passes import Context, run_passes
from packlight.compress.recipe import make_pass
from packlight.core.load import load_model
from packlight.core.preprocess import Preprocess
from packlight.export.exporter import Options
from packlight.export.run import export_bundle
from packlight.search.formats import folded, subjects_here
from packlight.targets.link.local import Local
from packlight.targets.load import load_target
from packlight.targets.runtime import versions
from packlight.tasks.data.load import load_data
from packlight.tasks.evaluate import outputs_of
from packlight.tasks.load import load_task
from packlight.tasks.samples import Samples, Splits, View, example_rows, with_targets

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared"
MODELS, DATA = SHARED / "models", SHARED / "data"
ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.- "
JUDGE = f"""model = "{MODELS}/digit_gan.py:judge"
weights = "{MODELS}/digit-judge.safetensors"
features = "features"
size = [32, 32]
data = "{DATA}/mnist"
"""
CASES: dict[str, dict[str, Any]] = {
    "super-resolution": {
        "model": "super_resolution.py:compact_sr_x4",
        "weights": "super-resolution-x4.safetensors",
        "task": "restoration:channel=y,shave=4",
        "data": {"test": f"{DATA}/set5", "calib": f"{DATA}/set14", "degrade": "bicubic:4"},
        "published": "28.22 dB (measured without rounding; rounded to 8 bits it is 28.23)",
    },
    "denoise": {
        "model": "denoise.py:dncnn25",
        "weights": "denoise-sigma25.safetensors",
        "task": "restoration",
        "data": {
            "test": f"{DATA}/set12",
            "calib": f"{DATA}/set14",
            "degrade": "noise:25",
            "preprocess": Preprocess(colour="GREY"),
        },
        "published": "30.44 dB (30.43 measured here)",
    },
    "words": {
        "model": "word_reader.py:word_reader",
        "weights": "word-reader.safetensors",
        "task": "recognition",
        "labels": tuple(ALPHABET),
        "data": {
            "test": f"{DATA}/words/iiit5k-test.npz",
            "calib": f"{DATA}/words/iiit5k-test.npz",
            "preprocess": Preprocess(colour="GREY", mean=(0.5,), std=(0.5,)),
        },
        "published": "78.37 % (77.6 % measured here)",
    },
    "digits": {
        "model": "digit_gan.py:generator",
        "weights": "digit-gan.safetensors",
        "task": "generation",
        "data": {"spec": "latents:64x1x1,n=5000"},
        "published": "Frechet 45.6 on the judge's features, 5,000 samples",
    },
}


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/tasks/published.md")
    parser.add_argument("--only", choices=sorted(CASES))
    parser.add_argument("--rows", type=int, help="only so many samples (for trying it out; nothing is written)")
    options = parser.parse_args()
    if not MODELS.is_dir():
        print(f"{MODELS} is not there", file=sys.stderr)
        return 3
    torch.set_num_threads(1)
    kept = options.out.with_suffix(".json")
    rows: dict[str, Any] = json.loads(kept.read_text()) if kept.is_file() else {}
    for name in [options.only] if options.only else CASES:
        if name in rows and not options.rows:
            continue
        found = measure(name, CASES[name], options.rows)
        print(json.dumps(found, indent=1))
        if not options.rows:
            rows[name] = found
            kept.write_text(json.dumps(rows, indent=1) + "\n")
            options.out.write_text(table(rows))
    return 0


def measure(name: str, case: dict[str, Any], limit: int | None) -> dict[str, Any]:
    """The metric in torch, and of each file in each runtime that is installed here."""
    given = dict(case["data"])
    data: Splits = load_data(given.pop("spec", None), **given)
    split, picked, free = example_rows(data)
    assert split is not None
    assert data.test is not None
    examples = [torch.from_numpy(x) for x in split.batch(picked)[0]]
    fields = {"task": case["task"], "labels": case.get("labels", ()), "preprocess": data.preprocess, "free_axes": free}
    bundle = load_model(str(MODELS / case["model"]), weights=MODELS / case["weights"], inputs=examples, name=name, **fields)
    with tempfile.TemporaryDirectory() as place:
        judge = Path(place) / "judge.toml"
        judge.write_text(JUDGE)
        task = load_task(case["task"], case.get("labels", ()), judge if case["task"] == "generation" else None)
    test: Samples = data.test if limit is None else View(data.test, tuple(range(min(limit, len(data.test)))))
    outputs, targets = outputs_of(bundle, test)
    if task.truth == "model":
        targets = outputs[0]
        test = with_targets(test, targets)
    assert targets is not None
    found: dict[str, Any] = {"published": case["published"], "n": len(test), "torch": told(task.score(outputs, targets)), "files": []}
    target = load_target("x86-64-avx2")
    context = Context(target=target, task=task, calib=data.calib)
    floating = folded(bundle, context)
    integer = run_passes(floating, [make_pass("quantize", {"samples": 300} if name == "words" else {})], context)
    found["calibrated_on"] = f"{integer.quantized['samples']} of {data.calib.source if data.calib else ''}".replace(f"{DATA}/", "")  # type: ignore[index]
    with tempfile.TemporaryDirectory() as place, Local() as link:
        for precision, ready in (("fp32", floating), ("int8", integer)):
            for format in target.formats:
                try:
                    files = export_bundle(
                        ready, Path(place), [format], Options(precision=precision), target, data.calib, float_bundle=floating
                    )
                except Exception as error:
                    found["files"].append({"file": f"{name}.{precision}", "format": format, "why": str(error).splitlines()[0][:200]})
                    continue
                subjects = [s for a in files for s in subjects_here(a, Path(place), target, baseline=False)]
                for score in score_artifacts(subjects, link, samples=test, task=task):
                    row = {"file": score.file, "format": format, "runtime": score.runtime, "bytes": files[0].bytes}
                    found["files"].append({**row, **(told(score.metric) if score.metric else {"why": score.why})})
                    print(found["files"][-1], file=sys.stderr, flush=True)
    found["at"] = f"{datetime.date.today()}, {platform.machine()}, torch {torch.__version__}, " + ", ".join(
        f"{k} {v}" for k, v in versions().items()
    )
    return found


def told(metric: Any) -> dict[str, Any]:
    return {
        "metric": metric.name,
        "value": metric.value,
        "ci95": metric.ci95,
        **{k: metric.more[k] for k in ("ssim", "edits_per_100", "frechet") if k in metric.more},
    }


def table(rows: dict[str, Any]) -> str:
    """The table as Markdown."""
    out = [
        "# Published models of four kinds, in every format",
        "",
        "`python benchmarks/tasks/published.py`: metric of the file itself in its own runtime, one machine, one run, seed 0.",
        "int8 is the pass `quantize` with its defaults, for x86-64 without VNNI (7-bit weights). PSNR is taken of images clipped and",
        "rounded to 8 bits, as an app shows them. Latency is not a part of this table. TFLite files have one size and are",
        "not scored on images that differ in size (Set5, Set12).",
    ]
    for name, row in rows.items():
        out += [
            "",
            f"## {name}",
            "",
            f"Published: {row['published']}. {row['n']:,} samples. Calibrated on {row['calibrated_on']}. {row['at']}.",
            "",
        ]
        beside = [k for k in ("ssim", "edits_per_100", "frechet") if k in row["torch"]]
        metric = row["torch"]["metric"]
        out += [f"| file | runtime | bytes | {metric} | 95 % interval | {' | '.join(beside)} |", "|---" * (5 + len(beside)) + "|"]
        for f in [{"file": "the model as it came", "runtime": "torch", **row["torch"]}, *row["files"]]:
            if "why" in f:
                out.append(f"| {f['file']} | {f.get('runtime', f['format'])} | | {f['why']} | |{' |' * len(beside)}")
                continue
            percent = metric == "word_accuracy"
            value = f"{100 * f['value']:.2f} %" if percent else f"{f['value']:.2f} dB"
            low, high = ((100 * v if percent else v) for v in f["ci95"]) if f["ci95"] else (float("nan"), float("nan"))
            extra = " | ".join(f"{f[k]:.4f}" if k == "ssim" else f"{f[k]:.2f}" for k in beside)
            out.append(f"| {f['file']} | {f['runtime']} | {f.get('bytes', '')} | {value} | {low:.2f} to {high:.2f} | {extra} |")
    return "\n".join(out) + "\n"


if __name__ == "__main__":
    sys.exit(main())
