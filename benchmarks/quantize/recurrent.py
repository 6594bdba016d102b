"""LSTM and GRU in int8 files, by road and runtime: size, distance, words read, latency.

    python benchmarks/quantize/recurrent.py --work DIR [--case word-reader crnn gruvideo] [--words 300] [--table]

The CRNN and the GRU video of the test zoo (random weights) and the word reader of ../shared/models (IIIT5K). Each is quantized once by
the scheme of x86-64-avx2 and written twice in each format: with float recurrent layers, and as the scheme says (``recurrent``). What is
measured goes to ``recurrent.json`` beside this file. Time: one thread, batch 1; all files of a case round by round in shuffled order in
one process, over ONNX Runtime's float file; the median of ``LAUNCHES`` launches and their range.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "src"), str(HERE.parent)]

import graphs_work as work
import msgspec
import numpy as np

LAUNCHES = 5
CASES = ("word-reader", "crnn", "gruvideo")
FORMATS = {"onnx": "onnxruntime", "openvino": "openvino", "tflite": "litert"}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--case", nargs="*", default=list(CASES))
    parser.add_argument("--work", type=Path, default=Path("runs/recurrent"))
    parser.add_argument("--words", type=int, default=300)
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--launch", type=int, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.launch is not None:
        print(json.dumps(work.launch(chosen.launch, json.load(sys.stdin))))
        return
    book = HERE / "recurrent.json"
    found = json.loads(book.read_text()) if book.is_file() else {}
    for case in () if chosen.table else chosen.case:
        found[case] = measure(case, chosen.work / case, chosen.words)
        book.write_text(json.dumps(found, indent=1))
    (HERE / "recurrent.md").write_text(page(found))


def measure(case: str, folder: Path, words: int) -> dict[str, Any]:
    import torch

    torch.set_num_threads(1)
    floating, quantized, inputs, score = load(case, folder, words)
    from packlight.export.exporter import Options
    from packlight.export.formats import exporter
    from packlight.export.parity import measure as distance
    from packlight.export.prove import run_file, run_graph
    from packlight.targets.load import load_target

    target = load_target("x86-64-avx2")
    want, near = run_graph(floating, inputs), run_graph(quantized, inputs)
    count = len(inputs[0])
    rows: dict[str, Any] = {"graph_db": distance("", want, near, count).sqnr_db, "score": score(want), "n": count, "files": {}}
    given: dict[str, Any] = {}
    for format, runtime in FORMATS.items():
        for road in ("fp32", "float recurrent", "int8"):
            bundle, precision = (floating, "fp32") if road == "fp32" else (quantized, "int8")
            if road == "float recurrent":
                bundle = floated(quantized, floating)
            place = folder / road.replace(" ", "-")
            place.mkdir(parents=True, exist_ok=True)
            written = exporter(format, "").write(bundle, place, Options(precision=precision), target)
            out = run_file(place / written.file, runtime, written.signature, inputs)
            name = f"{format} {road}"
            rows["files"][name] = {
                "bytes": sum((place / n).stat().st_size for n in written.files),
                "db": distance("", want, out, count).sqnr_db,
                "score": score(out),
                "float_left": len(written.ops.float_left),
                "notes": [n for n in written.notes if "int8 matrices" in n],
            }
            given[f"packlight {format} {road}"] = {
                "file": str(place / written.file),
                "signature": msgspec.to_builtins(written.signature),
            }
            print(case, name, rows["files"][name], flush=True)
    launches = []
    for launch in range(LAUNCHES):
        command = [sys.executable, __file__, "--launch", str(launch)]
        ran = subprocess.run(command, input=json.dumps({"graph": case, "files": given}), capture_output=True, text=True, check=False)
        if ran.returncode:
            raise SystemExit(ran.stderr[-3000:])
        launches.append(json.loads(ran.stdout.splitlines()[-1]))
    base = "packlight onnx fp32"
    for name, line in rows["files"].items():
        each = [float(np.median(np.asarray(one[f"packlight {name}"]) / np.asarray(one[base]))) for one in launches]
        line["time"] = [float(np.median(each)), min(each), max(each)]
    return rows


def floated(quantized: Any, floating: Any) -> Any:
    """The quantized bundle with the matrices of the float one in its recurrent layers."""
    graph, held = quantized.copy_graph(), floating.graph.state_dict()
    for name, value in graph.state_dict().items():
        if "weight_ih" in name or "weight_hh" in name:
            value.copy_(held[name])
    scheme = {**quantized.quantized["scheme"], "recurrent": {}}
    return quantized.replace(graph=graph, quantized={**quantized.quantized, "scheme": scheme})


def load(case: str, folder: Path, words: int) -> tuple[Any, Any, tuple[Any, ...], Any]:
    """The folded and the quantized bundle, the test inputs, and what counts of outputs (None: nothing)."""
    from packlight.compress.passes import Context, run_passes
    from packlight.compress.recipe import make_pass
    from packlight.core.bundle import Bundle
    from packlight.targets.load import load_target

    if case != "word-reader":
        from zoo import ZOO

        bundles = work.prepare(folder, case)
        return bundles["fp32"], bundles["int8"], (ZOO[case].input(16, full=True, seed=3).numpy(),), lambda outputs: None
    models = ROOT.parent / "shared" / "models"
    sys.path.insert(0, str(models))
    import word_reader

    data = np.load(ROOT.parent / "shared" / "data" / "words" / "iiit5k-test.npz", allow_pickle=False)
    x = ((data["x"].astype(np.float32) / 255 - 0.5) / 0.5)[:, None]
    module = word_reader.word_reader().eval()
    from safetensors.torch import load_file

    module.load_state_dict(load_file(str(models / "word-reader.safetensors")))
    import torch

    kept = folder / "bundle.int8"
    bundle = Bundle.capture(module, [torch.from_numpy(x[:2])], name="word-reader")
    context = Context(target=load_target("x86-64-avx2"), calib=work.Rows(x[-96:]), seed=0)
    floating = run_passes(bundle, [make_pass("fold-batchnorm", {})], context)
    if not kept.is_dir():
        run_passes(floating, [make_pass("quantize", {})], context).save(kept, force=True)
    test = np.random.default_rng(0).permutation(len(x) - 96)[:words]
    truth = [str(data["y"][i]) for i in test]

    def score(outputs: Any) -> float:
        """Words right in %, letters and digits only, whatever their case."""
        right = 0
        for labels, word in zip(np.asarray(outputs[0]).argmax(-1).T, truth, strict=True):
            said = [v for i, v in enumerate(labels) if v and (i == 0 or v != labels[i - 1])]
            right += _plain("".join(word_reader.CHARACTERS[v - 1] for v in said)) == _plain(word)
        return 100 * right / len(truth)

    return floating, Bundle.load(kept), (x[test],), score


def _plain(word: str) -> str:
    return "".join(c for c in word.lower() if c.isalnum())


def page(found: dict[str, Any]) -> str:
    packages = ", ".join(f"{n} {importlib.metadata.version(n)}" for n in ("torch", "onnxruntime", "openvino", "ai-edge-litert"))
    lines = [
        "# LSTM and GRU in int8 files",
        "",
        f"Made by `python benchmarks/quantize/recurrent.py` on {datetime.date.today()}: {os.cpu_count()} cores of AMD EPYC (AVX2, no "
        f"VNNI), {platform.system()}, {packages}. Scheme of x86-64-avx2, one quantized graph a model for all files.",
        "",
        "- float recurrent: convolutions and linear layers in int8, recurrent layers in float. int8: recurrent layers by the scheme's "
        "road. ONNX Runtime: LSTM as DynamicQuantizeLSTM, GRU with int8 matrices and float arithmetic (it has no integer GRU). OpenVINO: "
        "int8 matrices, float arithmetic. LiteRT: unrolled, int8 matrices, each step's input quantized when it runs.",
        "- SQNR to float torch; words right on a random draw of IIIT5K without the 96 words calibrated on (the others have random "
        "weights).",
        f"- time: over ONNX Runtime's float file, round by round in one process, the median of {LAUNCHES} launches and their range. Other "
        "work ran on the machine; ratios within a round carry that alike.",
        "",
        "| model | runtime | file | KiB | SQNR dB | words right % | time / ORT float | operators left in float |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for case, rows in found.items():
        for name, line in rows["files"].items():
            format, _, road = name.partition(" ")
            right = "" if line["score"] is None else f"{line['score']:.1f} of {rows['n']} (torch {rows['score']:.1f})"
            middle, low, high = line["time"]
            left = "" if road == "fp32" else str(line["float_left"])
            time = f"{middle:.2f} [{low:.2f}, {high:.2f}]"
            cells = [case, FORMATS[format], road, f"{line['bytes'] / 1024:.0f}", f"{line['db']:.1f}", right, time, left]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
