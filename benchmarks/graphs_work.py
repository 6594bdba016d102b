"""The work behind ``benchmarks/graphs.py``, in steps that can be done again or go on: prepare, write, judge, time.

A cell is one file: a graph, who writes it, a format, a precision. Everything measured is one JSON line of ``graphs.jsonl``.

- **write**: a forked process a cell, that holds torch and the model already; CPU seconds (imports of the writer's packages included) and
  the growth of its peak memory over what it held.
- **judge**: every runtime installed here (LiteRT with and without XNNPACK), 16 inputs that calibration did not see.
- **time**: ``LAUNCHES`` processes a graph; in each, all files of the graph in turn, round by round in shuffled order, one thread. A ratio
  is taken within a round; a launch gives the median of its rounds.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import resource
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from packlight.core.tensor import Signature, to_door

FORMATS = ("onnx", "openvino", "tflite")
PRECISIONS = ("fp32", "fp16", "int8")
OURS = [f"packlight {f} {p}" for f in FORMATS for p in PRECISIONS]
PEERS = ["litert-torch tflite fp32", "ai-edge-quantizer tflite int8", "raw-pt2e onnx int8"]
CELLS = ["packlight tflite fp32", "packlight tflite int8", "packlight onnx fp32", *PEERS]
CELLS += [cell for cell in OURS if cell not in CELLS]
LAUNCHES = 6
RUNTIMES = {"onnx": ["onnxruntime"], "openvino": ["openvino"], "tflite": ["litert", "litert without XNNPACK"]}


class Rows:
    """Unlabelled arrays as Samples: whatever shape the graph reads."""

    classes: tuple[str, ...] = ()
    source = "random"

    def __init__(self, x: Any) -> None:
        self.x = x

    def __len__(self) -> int:
        return len(self.x)

    def batch(self, indices: Any) -> Any:
        return (self.x[list(indices)],), None

    def raw(self, index: int) -> None:
        return None


class Book:
    """The JSON lines, read once; a line of one key replaces an earlier one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        lines = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
        self.lines = {(line["step"], line["graph"], line["cell"]): line for line in lines}

    def add(self, step: str, graph: str, cell: str, **found: Any) -> None:
        line = {"step": step, "graph": graph, "cell": cell, **found}
        self.lines[step, graph, cell] = line
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")
        print(step, graph, cell, {k: v for k, v in found.items() if k not in ("ops", "signature", "float_left")}, flush=True)

    def get(self, step: str, graph: str, cell: str) -> dict[str, Any] | None:
        return self.lines.get((step, graph, cell))


def prepare(work: Path, graph: str) -> dict[str, Any]:
    """The folded and the quantized bundle of a graph, kept under ``work``; by precision."""
    from zoo import ZOO

    from packlight.compress.passes import Context, run_passes
    from packlight.compress.recipe import make_pass
    from packlight.core.bundle import Bundle
    from packlight.targets.load import load_target

    folder, entry = work / graph, ZOO[graph]
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "bundle.int8").is_dir():
        bundle = Bundle.capture(entry.make(full=True), [entry.input(2, full=True)], name=graph)
        calib = Rows(entry.input(32, full=True, seed=2).numpy())
        context = Context(target=load_target("x86-64-avx2"), calib=calib, seed=0)
        folded = run_passes(bundle, [make_pass("fold-batchnorm", {})], context)
        folded.save(folder / "bundle.fp32", force=True)
        run_passes(folded, [make_pass("quantize", {})], context).save(folder / "bundle.int8", force=True)
    floating = Bundle.load(folder / "bundle.fp32")
    return {"fp32": floating, "fp16": floating, "int8": Bundle.load(folder / "bundle.int8")}


def write(work: Path, graph: str, book: Book, cells: list[str]) -> None:
    """Every cell that the book lacks, each in a process of its own."""
    todo = [c for c in cells if not book.get("write", graph, c)]
    if not todo:
        return
    import torch

    torch.set_num_threads(1)
    bundles = prepare(work, graph)
    for cell in todo:
        book.add("write", graph, cell, **_forked(lambda cell=cell: _write(work / graph, bundles, cell)))


def _forked(job: Any) -> dict[str, Any]:
    """What ``job`` returns in a child of this process, with its CPU seconds and how far its memory grew."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
        try:
            with contextlib.redirect_stdout(sys.stderr):
                found = job()
        except BaseException as error:  # a peer may raise anything; the table says what
            traceback.print_exc()
            found = {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
        found.setdefault("seconds", time.process_time() - started)
        found["grew_mib"] = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        with os.fdopen(writing, "w") as pipe:
            pipe.write(json.dumps(found))
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        text = pipe.read()
    _, status = os.waitpid(child, 0)
    return json.loads(text) if text else {"error": f"the process ended with status {status}"}


def _write(folder: Path, bundles: dict[str, Any], cell: str) -> dict[str, Any]:
    from packlight.export.exporter import Options
    from packlight.export.formats import exporter
    from packlight.targets.load import load_target

    writer, format, precision = cell.split()
    target, bundle = load_target("x86-64-avx2"), bundles[precision]
    place = folder / writer
    place.mkdir(exist_ok=True)
    started = time.process_time()
    if writer == "raw-pt2e":
        return _raw(bundle, place)
    if writer == "ai-edge-quantizer":
        return _edge(folder, bundles["fp32"], place)
    options = Options(precision=precision, converter=writer if writer == "litert-torch" else "")
    written = exporter(format, options.converter).write(bundle, place, options, target)
    seconds = time.process_time() - started
    return {"seconds": seconds, **_facts(place, written.file, written.files, written.signature, written.ops)}


def _facts(place: Path, file: str, files: Any, signature: Any, ops: Any) -> dict[str, Any]:
    return {
        "file": f"{place.name}/{file}",
        "bytes": sum((place / name).stat().st_size for name in files),
        "ops": sum(ops.file.values()),
        "transposes": ops.transposes,
        "float_left": list(ops.float_left),
        "signature": msgspec.to_builtins(signature),
    }


def _raw(bundle: Any, place: Path) -> dict[str, Any]:
    """The quantized graph through torch.onnx and nothing else."""
    import onnx
    import torch

    from packlight.core.artifact import Ops
    from packlight.export.onnx.count import float_left, optimise

    started = time.process_time()
    file = f"{bundle.name}.int8.onnx"
    program = bundle.export()
    torch.onnx.export(program, (), str(place / file), dynamo=True, verbose=False, external_data=False, opset_version=20)
    seconds = time.process_time() - started
    counts: dict[str, int] = {}
    for node in onnx.load(place / file).graph.node:
        counts[node.op_type] = counts.get(node.op_type, 0) + 1
    ran, _ = optimise(place / file)
    ops = Ops(file=counts, float_left=float_left(ran) if ran is not None else (), transposes=counts.get("Transpose", 0))
    return {"seconds": seconds, **_facts(place, file, [file], bundle.signature, ops)}


def _edge(folder: Path, bundle: Any, place: Path) -> dict[str, Any]:
    """ai-edge-quantizer's static int8 recipe on litert-torch's float file, calibrated on the same 32 inputs; seconds without those of the
    float file."""
    from ai_edge_quantizer import quantizer, recipe
    from zoo import ZOO

    from packlight.export.litert_torch.edit import finish, look

    source = folder / "litert-torch" / f"{bundle.name}.fp32.tflite"
    seen = look(source.read_bytes(), "fp32")
    (spec,) = bundle.signature.inputs
    inputs = ZOO[bundle.name].input(32, full=True, seed=2).numpy()
    door = msgspec.structs.replace(spec, shape=seen.inputs[0].shape, layout="NHWC" if inputs.ndim == 4 else spec.layout)
    rows = [{spec.name: to_door(inputs[i : i + 1], door)} for i in range(32)]
    started = time.process_time()
    made = quantizer.Quantizer(str(source), recipe.static_wi8_ai8())
    result = made.quantize(made.calibrate({"serving_default": rows}, num_threads=1), enable_progress_report=False)
    seconds = time.process_time() - started
    names = [s.name for s in bundle.signature.inputs], [s.name for s in bundle.signature.outputs]
    data = finish(bytes(result.quantized_model), *names, {}, float_doors=True)  # it gives integer doors; ours take and give float32
    file = f"{bundle.name}.int8.tflite"
    (place / file).write_bytes(data)
    seen = look(data, "int8")

    def doors(own: Any, found: Any) -> Any:
        return tuple(
            msgspec.structs.replace(
                a, shape=b.shape, dtype=b.dtype, quantization=b.quantization, layout="NHWC" if len(b.shape) == 4 and a.layout else a.layout
            )
            for a, b in zip(own, found, strict=True)
        )

    signature = Signature(doors(bundle.signature.inputs, seen.inputs), doors(bundle.signature.outputs, seen.outputs))
    return {"seconds": seconds, **_facts(place, file, [file], signature, seen.ops)}


def judge(work: Path, graph: str, book: Book, cells: list[str]) -> None:
    """The distance of every file from its graph and from float torch, the worst runtime's."""
    todo = [c for c in cells if _written(book, graph, c) and not book.get("judge", graph, c)]
    if not todo:
        return
    import torch
    from zoo import ZOO

    from packlight.export.parity import measure
    from packlight.export.prove import run_file, run_graph

    torch.set_num_threads(1)
    bundles = prepare(work, graph)
    inputs = (ZOO[graph].input(16, full=True, seed=3).numpy(),)
    floating, quantized = run_graph(bundles["fp32"], inputs), run_graph(bundles["int8"], inputs)
    own_db = measure("torch", floating, quantized, 16).sqnr_db
    for cell in todo:
        line = _written(book, graph, cell)
        assert line is not None
        signature = msgspec.convert(line["signature"], Signature)
        integer = cell.endswith("int8")
        found = []
        try:
            for runtime in RUNTIMES[cell.split()[1]]:
                name, _, plain = runtime.partition(" ")
                out = run_file(work / graph / line["file"], name, signature, inputs, optimise=not plain)
                found.append((measure("", quantized if integer else floating, out, 16), measure("", floating, out, 16)))
        except Exception as error:  # a peer's file may not even load
            book.add("judge", graph, cell, error=f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")
            continue
        worst = min(found, key=lambda pair: float("inf") if pair[0].sqnr_db is None else pair[0].sqnr_db)
        far = min(float("inf") if pair[1].sqnr_db is None else pair[1].sqnr_db for pair in found)
        own, graph_db = worst[0], own_db if integer else None
        book.add("judge", graph, cell, max_abs=own.max_abs, sqnr_db=own.sqnr_db, float_db=far, graph_db=graph_db)


def measure_times(work: Path, graph: str, book: Book, cells: list[str]) -> None:
    """``LAUNCHES`` processes, each with every file of the graph."""
    files = {c: line for c in cells if (line := _written(book, graph, c)) and not (book.get("judge", graph, c) or {}).get("error")}
    done = book.get("time", graph, "all")
    if not files or (done and set(done["launches"][0]) >= set(files)):
        return
    given = {c: {"file": str(work / graph / line["file"]), "signature": line["signature"]} for c, line in files.items()}
    launches = []
    for launch in range(LAUNCHES):
        command = [sys.executable, str(Path(__file__).with_name("graphs.py")), "--launch", str(launch)]
        ran = subprocess.run(command, input=json.dumps({"graph": graph, "files": given}), capture_output=True, text=True, check=False)
        if ran.returncode:
            raise SystemExit(ran.stderr[-3000:])
        launches.append(json.loads(ran.stdout.splitlines()[-1]))
    book.add("time", graph, "all", launches=launches)


def launch(number: int, told: dict[str, Any], seconds: float = 6.0) -> dict[str, list[float]]:
    """The seconds of every round of every file, in this process: all files once a round, in shuffled order."""
    from packlight.targets.runtime import open_session

    rng, order = np.random.default_rng(number), random.Random(number)
    calls: dict[str, Any] = {}
    for cell, line in told["files"].items():
        runtime = RUNTIMES[cell.split()[1]][0]
        signature = msgspec.convert(line["signature"], Signature).fixed(batch=1)
        doors = [
            rng.standard_normal(s.shape).astype(np.float32) if s.quantization is None else rng.integers(-99, 99, s.shape, s.dtype)
            for s in signature.inputs
        ]
        session = open_session(Path(line["file"]), runtime, threads=1)
        calls[cell] = lambda session=session, doors=doors: session.run(*doors)
    once: dict[str, float] = {}
    for cell, call in calls.items():
        call()
        once[cell] = min(_clock(call, 1) for _ in range(2))
    inner = {cell: max(1, min(20, round(2e-3 / t))) for cell, t in once.items()}
    rounds = int(np.clip(seconds / sum(once[c] * inner[c] for c in calls), 10, 80))
    found: dict[str, list[float]] = {cell: [] for cell in calls}
    names = list(calls)
    for _ in range(rounds):
        order.shuffle(names)
        for cell in names:
            found[cell].append(_clock(calls[cell], inner[cell]))
    return found


def _clock(call: Any, times: int) -> float:
    started = time.perf_counter()
    for _ in range(times):
        call()
    return (time.perf_counter() - started) / times


def ratio(book: Book, graph: str, cell: str, base: str) -> tuple[float, float, float] | None:
    """The time of ``cell`` over that of ``base``: the median of the launches, the least and the largest (of six: a 97 % interval)."""
    line = book.get("time", graph, "all")
    if line is None or any(cell not in one or base not in one for one in line["launches"]):
        return None
    each = [float(np.median(np.asarray(one[cell]) / np.asarray(one[base]))) for one in line["launches"]]
    return float(np.median(each)), min(each), max(each)


def _written(book: Book, graph: str, cell: str) -> dict[str, Any] | None:
    line = book.get("write", graph, cell)
    return None if line is None or "error" in line else line
