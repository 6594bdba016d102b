"""64 architectures of pytorchcv in three formats, float and int8: does the file give what the model gives?

    pip install --no-deps --target PEERS pytorchcv==0.0.67
    PYTHONPATH=src:PEERS OMP_NUM_THREADS=1 python benchmarks/architectures.py [--seconds 540] [--only NAME ...]   # goes on where it stopped
    python benchmarks/architectures.py --table > benchmarks/architectures.md

The list is benchmarks/architectures.json (cv.py draws it). Weights are random under a seed, BatchNorm statistics come from two forward
passes on smooth random images. int8 is quantized by the scheme of x86-64-avx2 on the ranges (min-max) of 8 such images; parity is taken
on 4 others (64 for CIFAR, 16 for CUB, which have few classes), in every runtime installed. A cell passes where the exporter's own proof
holds in all runtimes: 80 dB against torch for fp32. For int8 the file must also be as near to the float model as the quantized graph is,
within 0.5 dB, or within 40 dB of the quantized graph; where the first images
leave that open, 32 or four times as many decide (random weights amplify every rounding: on few images the two figures differ by chance),
and the 0.5 dB become what the quantized graph itself moves by when torch sums in another order (without oneDNN), where that is more.
Each architecture runs in a process of its own, for 600 s of CPU at most, the short ones first; each cell is one line of
architectures.jsonl. Several runs may work at the same time.
"""

from __future__ import annotations

import argparse
import datetime
import fcntl
import gc
import json
import multiprocessing
import os
import platform
import resource
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parent)]

from cv import inputs, listed, make

from packlight.compress.passes import Context, run_passes
from packlight.compress.recipe import make_pass
from packlight.core.artifact import Artifact
from packlight.core.bundle import Bundle
from packlight.core.errors import ContractError, GateError, PacklightError
from packlight.export import parity
from packlight.export.exporter import Options
from packlight.export.prove import references, run_graph
from packlight.export.run import export_bundle
from packlight.targets.load import load_target

FORMATS, PRECISIONS = ("onnx", "openvino", "tflite"), ("fp32", "int8")
CELLS = [(precision, format) for precision in PRECISIONS for format in FORMATS]
LINES = Path(__file__).parent / "architectures.jsonl"
SECONDS = 600
MORE = 32
AGREE_DB, NEAR_DB = 0.5, 40.0
REMARKS = {
    "segnet_cityscapes fp32 openvino": (
        "looked at by hand, with the poolings as further outputs of the IR: the places of their maxima are torch's but for one, in a "
        "window whose two largest numbers are closer than float32 rounds the convolutions before it. Max-unpooling puts that number one "
        "pixel further in one image of the four."
    ),
}
"""What was found out about a cell by hand."""


class Rows:
    """Unlabelled arrays as Samples."""

    classes: tuple[str, ...] = ()
    source = "random"

    def __init__(self, *columns: Any) -> None:
        self.columns = columns

    def __len__(self) -> int:
        return len(self.columns[0])

    def batch(self, indices: Any) -> tuple[tuple[Any, ...], None]:
        return tuple(c[list(indices)] for c in self.columns), None

    def raw(self, index: int) -> None:
        return None


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--seconds", type=float, default=1e9, help="begin no architecture after this many seconds")
    parser.add_argument("--table", action="store_true")
    chosen = parser.parse_args()
    if chosen.table:
        print(table())
        return
    entries = [e for e in listed()["list"] if not chosen.only or e["name"] in chosen.only]
    entries.sort(key=lambda e: e["layers"] + e["macs"] / 1e7)  # the short ones first; a machine that others use too gives no promise
    started = time.monotonic()
    import onnxruntime  # noqa: F401  loaded once, before the processes part
    import onnxscript  # noqa: F401
    import torchao.quantization.pt2e.quantize_pt2e  # noqa: F401

    for entry in entries:
        if time.monotonic() - started > chosen.seconds:
            break
        with open(Path(tempfile.gettempdir()) / f"architectures.{entry['name']}.lock", "w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue  # another run has it
            missing = [c for c in CELLS if (entry["name"], *c) not in {(d["name"], d["precision"], d["format"]) for d in lines()}]
            if not missing:
                continue
            process = multiprocessing.get_context("fork").Process(target=run, args=(entry, missing))
            process.start()
            process.join()
            if process.exitcode:
                known = {(d["name"], d["precision"], d["format"]) for d in lines()}
                for cell in missing:
                    if (entry["name"], *cell) not in known:
                        note(entry, cell, "stopped", f"the process ended with {process.exitcode} (-24: {SECONDS} s of CPU)", 0.0)
                        break


def lines() -> list[dict[str, Any]]:
    return [json.loads(line) for line in LINES.read_text().splitlines()] if LINES.exists() else []


def note(entry: dict[str, Any], cell: tuple[str, str], status: str, why: str, seconds: float, **figures: Any) -> None:
    """Appends one cell in one write."""
    precision, format = cell
    line = {"name": entry["name"], "precision": precision, "format": format, "status": status, "why": " ".join(why.split())[:600]}
    line |= {"seconds": round(seconds, 1), **figures}
    with LINES.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(json.dumps(line) + "\n")
    print(line["name"], precision, format, status, figures or line["why"], f"{seconds:.0f} s", flush=True)


def run(entry: dict[str, Any], missing: list[tuple[str, str]]) -> None:
    """The missing cells of one architecture."""
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 10))
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)  # a tenth of the time otherwise
    target = load_target("x86-64-avx2")
    calib, test = (Rows(*(x.numpy() for x in inputs(entry, n, seed))) for n, seed in ((8, 2), (rows_of(entry), 3)))
    context = Context(target=target, calib=calib, seed=0)
    started = time.process_time()
    try:
        floating = Bundle.capture(make(entry), inputs(entry, 2, 1), name=entry["name"])
        floating = run_passes(floating, [make_pass("fold-batchnorm", {})], context)
    except Exception as error:
        for cell in missing:
            note(entry, cell, *verdict(error), time.process_time() - started)
        return
    for precision in PRECISIONS:
        cells = [c for c in missing if c[0] == precision]
        if not cells:
            continue
        try:
            ready = run_passes(floating, [make_pass("quantize", {"calibrator": "minmax"})], context) if precision == "int8" else floating
            known = references(ready, floating, test) if precision == "int8" else None
            graph = near_float(known, test) if known else None
        except Exception as error:
            for cell in cells:
                note(entry, cell, *verdict(error), time.process_time() - started)
            continue
        for cell in cells:
            one(entry, cell, ready, floating, target, test, graph, started)
            started = time.process_time()


def rows_of(entry: dict[str, Any]) -> int:
    """How many images parity is taken on: two roundings of n numbers differ by some 4.3 sqrt(4 / n) dB, and few classes give few."""
    if entry["kind"] != "small classification":
        return 4
    return 64 if entry["size"] == [32, 32] else 16


def near_float(known: Any, test: Rows) -> float | None:
    """The quantized graph's SQNR against the float model."""
    found: float | None = parity.measure("torch", known.floating, known.quantized, len(test)).sqnr_db
    return found


def moves_by(ready: Bundle, known: Any, test: Rows, graph: float | None) -> float:
    """How far that figure moves when torch sums in another order: what is left to chance in the graph itself."""
    import torch

    with torch.backends.mkldnn.flags(enabled=False):
        summed = run_graph(ready, known.inputs)
    other = parity.measure("torch", known.floating, summed, len(test)).sqnr_db
    return 0.0 if graph is None or other is None else abs(graph - other)


def one(
    entry: Any,
    cell: Any,
    ready: Bundle,
    floating: Bundle,
    target: Any,
    test: Rows,
    graph: float | None,
    started: float,
    agree: float = AGREE_DB,
) -> None:
    """One file: written, proven, judged."""
    precision, format = cell
    figures: dict[str, Any] = {}
    try:
        with tempfile.TemporaryDirectory() as folder:
            options = Options(precision=precision)
            (made,) = export_bundle(ready, Path(folder), [format], options, target, test, float_bundle=floating)
        own, far = (worst(made, "quantized graph"), worst(made, "torch")) if precision == "int8" else (worst(made, "torch"), None)
        near = own is None or own >= NEAR_DB or far is None or graph is None or far >= graph - agree
        status, why = "pass", ""
        if precision == "int8" and not near:
            status, why = "apart", f"{far:.1f} dB from the float model where the quantized graph has {graph:.1f}"
        figures = {"own_db": own, "torch_db": far, "graph_db": graph, "kib": made.bytes // 1024}
        figures |= {"transposes": made.ops.transposes if made.ops else 0, "images": len(test)}
        figures |= {"moves_db": round(agree, 2)} if agree > AGREE_DB else {}
    except Exception as error:
        status, why = verdict(error)
    if precision == "int8" and len(test) == rows_of(entry) and (status == "apart" or "ParityError" in why):
        larger = Rows(*(x.numpy() for x in inputs(entry, max(MORE, 4 * len(test)), 3)))
        known = references(ready, floating, larger)
        again = near_float(known, larger)
        agree = max(AGREE_DB, moves_by(ready, known, larger, again))
        one(entry, cell, ready, floating, target, larger, again, started, agree)
        return
    note(entry, cell, status, why, time.process_time() - started, **figures)


def worst(made: Artifact, against: str) -> float | None:
    """The least SQNR of all runtimes; None where all are equal."""
    found = [p.sqnr_db for p in made.parity if p.against == against and p.sqnr_db is not None]
    return round(min(found), 1) if found else None


def verdict(error: Exception) -> tuple[str, str]:
    """A cell's status: a wrong answer that was caught, a bug of ours, or a refusal."""
    why = f"{type(error).__name__}: {error}"
    if isinstance(error, GateError):
        return "wrong", why
    if isinstance(error, ContractError) or not isinstance(error, PacklightError):
        return "crash", why
    return "refusal", why


def table() -> str:
    from packlight.targets.runtime import versions

    text, cells = listed(), {(d["name"], d["precision"], d["format"]): d for d in lines()}
    for d in list(cells.values()):
        if (
            d["precision"] == "int8" and d["status"] == "pass" and d["graph_db"] is None
        ):  # integers that lose nothing: no output to speak of
            for cell in CELLS:
                cells[d["name"], *cell]["status"] = "void"
    done = [e for e in text["list"] if all((e["name"], *c) in cells for c in CELLS)]
    kinds = ", ".join(f"{n} {kind}" for kind, n in Counter(e["kind"] for e in done).most_common())
    told = ", ".join(f"{k} {v}" for k, v in versions().items())
    out = [
        "# pytorchcv in three formats\n",
        f"Made by `python benchmarks/architectures.py`, table of {datetime.date.today()}; {platform.machine()}, Python "
        f"{platform.python_version()}, {told}, pytorchcv 0.0.67. {len(done)} of {len(text['list'])} architectures of the list run so far, "
        "the short ones first; one of each family that was drawn, seed "
        f"{text['seed']}: {kinds}.",
        f"Limits: {text['limits']['parameters']:,} parameters, {text['limits']['layers']} layers, {text['limits']['macs']:,} MACs at the "
        "input given. Random weights, BatchNorm statistics from smooth random images.",
        "fp32 passes at 80 dB against torch in every runtime, or where it is as near to float64 as torch itself within 6 dB; "
        "int8 where the file proves itself in every runtime and is as near to float "
        f"torch as the quantized graph within {AGREE_DB} dB, or within {NEAR_DB:g} dB of the quantized graph (on 4 images, or "
        f"{MORE} or more where those leave it open; there, within what the graph itself moves by when torch sums in another order). "
        f"{sum('images' not in d for d in cells.values())} of {len(cells)} cells were made by "
        "an earlier state of the day's code and not again. CPU seconds, "
        f"{sum(cells[(e['name'], *c)]['seconds'] for e in done for c in CELLS):,.0f} in all.\n",
        "| precision | format | pass | refused | wrong answer caught | int8 apart | bug | out of time | proves nothing | of |\n|"
        + "---|" * 10,
    ]
    for cell in CELLS:
        n = Counter(cells[(e["name"], *cell)]["status"] for e in done)
        figures = (
            f"**{n['pass']}** ({100 * n['pass'] / max(1, len(done)):.0f} %)",
            n["refusal"],
            n["wrong"],
            n["apart"],
            n["crash"],
            n["stopped"],
            n["void"],
        )
        out.append(f"| {cell[0]} | {cell[1]} | " + " | ".join(map(str, figures)) + f" | {len(done)} |")
    out.append(
        "\nSQNR in dB, the worst runtime: fp32 against torch; int8: the quantized graph against torch, then each file against torch.\n"
    )
    out.append(
        "| architecture | kind | input | M parameters | MMACs | fp32 onnx | openvino | tflite | int8 graph | onnx | openvino | tflite | s |"
    )
    out.append("|" + "---|" * 13)
    for e in done:
        mine = [cells[(e["name"], *c)] for c in CELLS]
        shape = ", ".join("x".join(map(str, s)) or "integer" for s, _ in e["inputs"])
        row = [e["name"], e["kind"], shape, f"{e['parameters'] / 1e6:.1f}", f"{e['macs'] / 1e6:.0f}"]
        row += [figure(c, "own_db") for c in mine[:3]]
        row += [next((figure(c, "graph_db") for c in mine[3:] if "graph_db" in c), ""), *(figure(c, "torch_db") for c in mine[3:])]
        out.append("| " + " | ".join([*row, f"{sum(c['seconds'] for c in mine):.0f}"]) + " |")
    out.append("\n## What did not pass\n")
    reasons: dict[str, list[str]] = {}
    for e in done:
        for c in CELLS:
            d = cells[(e["name"], *c)]
            if d["status"] != "pass":
                d["why"] = d["why"] or "int8 equals float to the last bit, so the output is a constant or none; counted neither way"
                reasons.setdefault(f"{e['name']}: {d['why']}", []).append(f"{c[0]} {c[1]}")
    out += [f"- {', '.join(where)}: {why}" for why, where in reasons.items()] or ["Nothing."]
    left = {(e["name"], *c) for e in done for c in CELLS if cells[(e["name"], *c)]["status"] != "pass"}
    moved = {f"{e['name']} int8 {c[1]}": cells[(e["name"], *c)] for e in done for c in CELLS[3:]}
    out += [
        f"\n{name}: passes, as its quantized graph moves by {d['moves_db']:.2f} dB when torch sums without oneDNN."
        for name, d in moved.items()
        if "moves_db" in d and d["status"] == "pass" and d["torch_db"] < d["graph_db"] - AGREE_DB
    ]
    out += [f"\n{cell}: {told}" for cell, told in REMARKS.items() if tuple(cell.split()) in left]
    out.append("\n## Families drawn and left out\n")
    out += [f"- {family}: {why}" for family, why in text["left_out"].items()]
    return "\n".join(out)


def figure(cell: dict[str, Any], key: str) -> str:
    if "own_db" not in cell:
        return str(cell["status"])
    value = "equal" if cell[key] is None else f"{cell[key]:.1f}"
    return value if cell["status"] == "pass" else f"{value} ({cell['status']})"


if __name__ == "__main__":
    main()
