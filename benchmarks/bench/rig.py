"""The same files on this machine and on an emulated Raspberry Pi: are the labels equal, and what does an inference cost in instructions?

    make rig && python benchmarks/bench/rig.py --work FOLDER --rig .rig      # resumable (rig.jsonl); about ten minutes on an idle machine

ResNet-20 of ../shared, exported into FOLDER by the Pi's own profile (int8 with full 8-bit weights), and for x86-64 without VNNI (7-bit
weights), float and int8, for three runtimes. Images are the first of CIFAR-10's test set.
"""

from __future__ import annotations

import argparse
import datetime
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import resnet

from packlight.bench.accuracy import score_artifacts
from packlight.bench.plan import BenchOptions
from packlight.bench.runner import bench_artifacts
from packlight.bench.session import Subject
from packlight.core.artifact import Manifest
from packlight.targets.link.local import Local
from packlight.tasks.load import load_task

HERE = Path(__file__).parent
LINES = HERE / "rig.jsonl"
COUNTED = BenchOptions(launches=2, rounds=1, runs=10, warm_s=3, answer_s=1200)
EXPORTS = (
    ("float", "raspberry-pi-5", "fp32", "onnx,openvino,tflite"),
    ("pi", "raspberry-pi-5", "int8", "onnx,tflite"),
    ("x86", "x86-64-avx2", "int8", "onnx,openvino,tflite"),
)
PLACES = {"host": None, "cortex-a72": "python-a72", "cortex-a76": "python-a76"}


def subjects(work: Path) -> dict[str, Subject]:
    """By label: each file in its first runtime."""
    out = {}
    for name, target, precision, formats in EXPORTS:
        folder = resnet.export(work / name, target, precision, formats)
        for artifact in Manifest.read(folder).artifacts:
            weights = {"float": "", "pi": ", 8-bit weights (raspberry-pi-5)", "x86": ", 7-bit weights (x86-64-avx2)"}[name]
            out[f"{artifact.precision} {artifact.format}{weights}"] = Subject(artifact, folder, artifact.runtimes[0])
    return out


def score(subject: Subject, python: str | None, images: Any) -> dict[str, Any]:
    with Local("pi", python=python) as link:
        options = BenchOptions(score_threads=1, answer_s=1200)
        (found,) = score_artifacts([subject], link, samples=images, task=load_task("classification"), options=options, keep_outputs=True)
    ordered = np.sort(found.outputs[0], axis=1)
    assert found.metric is not None
    return {
        "answers": np.asarray(found.answers).tolist(),
        "margins": [round(float(m), 5) for m in ordered[:, -1] - ordered[:, -2]],
        "top1": found.metric.value,
    }


def in_float(file: Path, images: Any) -> dict[str, Any]:
    """What a quantized ONNX file answers where every operator between its (de)quantizations is computed in float: what it means."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {session.get_inputs()[0].name: images.x})
    return {"answers": logits.argmax(1).tolist()}


def count(subject: Subject, python: str, images: Any) -> dict[str, Any]:
    with Local("counted", python=python) as link:
        bench = bench_artifacts([subject], link, options=COUNTED, inputs=images)
    (m,) = bench.measurements
    assert bench.environment.kind == "simulated clock"
    assert m.latency is not None
    return {"launches": np.median(np.array(m.latency.values_s).reshape(2, -1), axis=1).tolist()}


def table(lines: dict[tuple[str, str], dict[str, Any]], labels: list[str], count_of: int) -> str:
    out = [
        "# The same files on x86-64 and on an emulated Raspberry Pi\n",
        f"{datetime.date.today()}; ResNet-20 (CIFAR-10), the first {count_of} test images; host x86-64 with AVX2, without VNNI;",
        "qemu's user mode with the aarch64 wheels of onnxruntime, ai-edge-litert and openvino.",
        "`python benchmarks/bench/rig.py --work FOLDER --rig .rig`\n",
        "A label that differs has its margin on the host beside it: how far the best output lies before the second; the median margin of",
        "all images tells how close a call it was. Instructions (millions) of one inference on cortex-a72: the medians of two launches,",
        "and how far they lie apart. Emulated wall time is not measured.",
        "Off float: labels other than those of the same quantization with every operator computed in float (ONNX Runtime, not optimised),",
        "which is what the file means. Where the host is off it and the Pi is not, the host's kernels saturate (u8 x s8 without VNNI,",
        "full 8-bit weights); where the Pi is off it, its kernels are: OpenVINO documents integer kernels for x86-64 only.\n",
        "| file | top-1 host | a72 | a76 | labels off the host's: a72 | a76 | off float: host | a72 | their margins | median margin "
        "| instructions, M | launches apart |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for label in labels:
        host = lines.get(("host", label))
        if host is None:
            continue
        cells, wrong, differ = [f"{host['top1']:.1%}"], set(), []
        for place in ("cortex-a72", "cortex-a76"):
            there = lines.get((place, label))
            cells.append(f"{there['top1']:.1%}" if there else "not run")
            off = [i for i, (a, b) in enumerate(zip(host["answers"], there["answers"], strict=True)) if a != b] if there else []
            differ.append(str(len(off)) if there else "not run")
            wrong |= set(off)
        meant = lines.get(("float", label))
        for place in ("host", "cortex-a72"):
            there = lines.get((place, label))
            off = sum(a != b for a, b in zip(meant["answers"], there["answers"], strict=True)) if meant and there else "-"
            differ.append(str(off))
        near = ", ".join(f"{host['margins'][i]:.3f}" for i in sorted(wrong)) or "-"
        counted = lines.get(("count", label))
        first, second = counted["launches"] if counted else (0.0, 0.0)
        cost = [f"{first * 1e3:.2f}, {second * 1e3:.2f}", f"{abs(second / first - 1):.3%}"] if counted else ["not counted", "-"]
        out.append("| " + " | ".join([label, *cells, *differ, near, f"{np.median(host['margins']):.2f}", *cost]) + " |")
    return "\n".join(out) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--rig", type=Path, required=True)
    parser.add_argument("--images", type=int, default=200)
    args = parser.parse_args()
    files = subjects(args.work)
    images = resnet.Images(args.images, next(iter(files.values())).artifact.preprocess)
    done = {(line["place"], line["label"]): line for line in map(json.loads, LINES.read_text().splitlines())} if LINES.is_file() else {}

    def keep(place: str, label: str, make: Callable[[], dict[str, Any]]) -> None:
        if (place, label) not in done:
            done[place, label] = {"place": place, "label": label, **make()}
            with LINES.open("a") as file:
                file.write(json.dumps(done[place, label]) + "\n")
            print(place, label, flush=True)

    for place, python in PLACES.items():
        for label, subject in files.items():
            where = str(args.rig / python) if python else None
            if place == "cortex-a76" and "8-bit" not in label:
                continue  # its dot product computes nothing but full-range int8 otherwise than a72 does
            keep(place, label, lambda subject=subject, where=where: score(subject, where, images))  # type: ignore[misc]
        (HERE / "rig.md").write_text(table(done, list(files), args.images))
    for label in files:
        if "int8" in label and "tflite" not in label:
            onnx = args.work / ("pi" if "8-bit" in label else "x86") / "resnet20.int8.onnx"
            keep("float", label, lambda onnx=onnx: in_float(onnx, images))  # type: ignore[misc]
    for label, subject in files.items():
        keep("count", label, lambda subject=subject: count(subject, str(args.rig / "python-count"), images))  # type: ignore[misc]
    (HERE / "rig.md").write_text(table(done, list(files), args.images))


if __name__ == "__main__":
    main()
