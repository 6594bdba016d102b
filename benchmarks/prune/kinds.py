"""Recurrent networks, generators and restorers with half their hidden units or channels, in three runtimes, beside torch-pruning.

    pip install --no-deps --target PEERS torch-pruning==1.6.1
    PYTHONPATH=src:PEERS OMP_NUM_THREADS=1 python benchmarks/prune/kinds.py recurrent [--only NAME ...]     # goes on where it stopped
    python benchmarks/prune/kinds.py recurrent --table > benchmarks/prune/recurrent.md                       # and images

``ratio=0.5`` of the pass ``prune``: every layer loses half of what may go (hidden units, channels). It passes where every recurrent layer
has half its hidden units (an image network at most 55 % of its MACs), the pruned graph equals the dense one with the same slices set to
zero (relative error of at most 1e-3), and the files for ONNX Runtime, OpenVINO and TFLite (LiteRT) are proven against the graph by export.
torch-pruning is asked for a ``pruning_ratio`` of 0.5 and held to the same, but for the files: one ONNX file that runs (``beside.py``).
Speed-up: median of the ratio dense / pruned over paired runs taken in turn, one thread, one sample.
"""

from __future__ import annotations

import argparse
import datetime
import fcntl
import json
import multiprocessing
import os
import platform
import resource
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1] / "tests")]

import torch
import torch.nn.functional as F
from beside import EXACT, apart, flops, ratio, torch_pruning, write
from torch import Tensor, nn
from zoo import ZOO, smooth

from packlight.compress.passes import Context, run_passes
from packlight.compress.prune.plan import PruneSettings, plan
from packlight.compress.recipe import make_pass
from packlight.core.bundle import Bundle
from packlight.core.cost import macs
from packlight.core.tensor import to_door
from packlight.export.exporter import Options
from packlight.export.run import export_bundle
from packlight.targets.load import load_target

SECONDS = 500
ENOUGH = 0.55
WHO = ("packlight", "torch-pruning")
RUNTIMES = {"onnxruntime": "onnx", "openvino": "onnx", "litert": "tflite"}


class Tagger(nn.Module):
    """linear -> recurrent layers -> linear: (batch, 48 steps, 40 features) -> (batch, 48, 12)."""

    def __init__(self, layer: Callable[[], nn.Module], outputs: int) -> None:
        super().__init__()
        self.into, self.layer, self.out = nn.Linear(40, 64), layer(), nn.Linear(outputs, 12)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.layer(F.relu(self.into(x)))[0])


@dataclass(frozen=True)
class Case:
    """``build`` draws the module, ``shape`` is that of one sample."""

    what: str
    build: Callable[[], nn.Module]
    shape: tuple[int, ...]
    pairs: int = 15

    def make(self) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return self.build().eval()

    def inputs(self, batch: int, seed: int = 1) -> Tensor:
        return smooth((batch, *self.shape), seed)


def tagger(what: str, layer: Callable[[], nn.Module], outputs: int) -> Case:
    return Case(what, lambda: Tagger(layer, outputs), (48, 40))


def of_zoo(name: str, what: str, shape: tuple[int, ...] | None = None, pairs: int = 9) -> Case:
    return Case(what, lambda: ZOO[name].make(full=True), shape or ZOO[name].full_shape[1:], pairs)


CASES: dict[str, dict[str, Case]] = {
    "recurrent": {
        "lstm": tagger("LSTM, 128 units", lambda: nn.LSTM(64, 128, batch_first=True), 128),
        "lstm-two-layers": tagger("LSTM, 2 layers", lambda: nn.LSTM(64, 128, 2, batch_first=True), 128),
        "lstm-bidirectional": tagger("LSTM, bidirectional", lambda: nn.LSTM(64, 128, bidirectional=True, batch_first=True), 256),
        "lstm-projected": tagger("LSTM, 128 units projected to 64", lambda: nn.LSTM(64, 128, proj_size=64, batch_first=True), 64),
        "gru": tagger("GRU, 128 units", lambda: nn.GRU(64, 128, batch_first=True), 128),
        "crnn": of_zoo("crnn", "CNN + 2-layer bidirectional LSTM + CTC head", pairs=15),
        "gruvideo": of_zoo("gruvideo", "CNN on 8 frames + GRU", pairs=15),
        "convlstm": of_zoo("convlstm", "ConvLSTM over 8 frames", pairs=15),
    },
    "images": {
        "dcgan": of_zoo("dcgan", "DCGAN generator, transposed convolutions", pairs=15),
        "cyclegan": of_zoo("cyclegan", "CycleGAN-like: InstanceNorm, reflection padding", (3, 64, 64)),
        "superres": of_zoo("superres", "super-resolution, PReLU, pixel shuffle", (3, 64, 64), 15),
        "unet": of_zoo("unet", "U-Net, transposed convolutions, resize, concatenation", (3, 64, 64)),
    },
}


def units(tensors: dict[str, Tensor]) -> list[int]:
    """Hidden units of every recurrent layer, by its names in the state dict; the ConvLSTM's by its four gates."""
    found = [t.shape[1] for n, t in tensors.items() if ".weight_hh_" in n and n.replace("_hh_", "_hr_") not in tensors]
    found += [t.shape[1] for n, t in tensors.items() if ".weight_hr_" in n]
    return found or [t.shape[0] // 4 for n, t in tensors.items() if n == "gates.weight"]


def share(kind: str, dense: dict[str, Tensor], pruned: dict[str, Tensor], work: float) -> float:
    """What is left of what the table is about: the largest share of hidden units, or of MACs."""
    return max(b / a for a, b in zip(units(dense), units(pruned), strict=True)) if kind == "recurrent" else work


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=CASES)
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--table", action="store_true")
    chosen = parser.parse_args()
    if chosen.table:
        print(table(chosen.kind))
        return
    for name in chosen.only or CASES[chosen.kind]:
        for who in WHO:
            if chosen.only or (name, who) not in latest(chosen.kind):
                process = multiprocessing.get_context("fork").Process(target=run, args=(chosen.kind, name, who))
                process.start()
                process.join()
                if process.exitcode:
                    note(chosen.kind, name, who, "stopped", f"the process ended with {process.exitcode}")


def latest(kind: str) -> dict[tuple[str, str], dict[str, Any]]:
    file = HERE / f"{kind}.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    return {(d["name"], d["who"]): d for d in lines}


def note(kind: str, name: str, who: str, status: str, why: str, **figures: Any) -> None:
    line = {"name": name, "who": who, "status": status, "why": " ".join(why.split())[:400], **figures}
    with (HERE / f"{kind}.jsonl").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(json.dumps(line) + "\n")
    print(line, flush=True)


def run(kind: str, name: str, who: str) -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 10))
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    try:
        (ours if who == "packlight" else theirs)(kind, name, CASES[kind][name])
    except Exception as error:
        note(kind, name, who, "fails", str(error) if type(error).__name__ == "Beaten" else f"{type(error).__name__}: {error}")


def ours(kind: str, name: str, case: Case) -> None:
    dense = Bundle.capture(case.make(), (case.inputs(2),), name=name)
    target = load_target("x86-64-avx2")
    began = time.process_time()
    pruned = run_passes(dense, [make_pass("prune", {"ratio": 0.5})], Context(target=target, seed=0))
    seconds = time.process_time() - began
    work = macs(pruned) / macs(dense)
    left = share(kind, dict(dense.graph.named_parameters()), dict(pruned.graph.named_parameters()), work)
    error = apart(pruned, dense, plan(dense, PruneSettings(ratio=0.5), Context(target=target, seed=0)))
    faster = {}
    with tempfile.TemporaryDirectory() as folder:
        pair = {}
        for form in ("onnx", "tflite"):
            how = Options(precision="fp32", batch=1)
            pair[form] = [export_bundle(b, Path(folder), [form], how, target)[0] for b in (dense, pruned)]
        for runtime, form in RUNTIMES.items():
            files = [Path(folder) / artifact.file for artifact in pair[form]]
            feeds = [to_door(case.inputs(1, 5).numpy(), pair[form][0].signature.inputs[0])]
            faster[runtime] = ratio(files[0], files[1], runtime, feeds, case.pairs)
    problem = (
        f"{left:.2f} of the hidden units are left" if left > ENOUGH else "" if error <= EXACT else f"differs from the masked by {error:.2g}"
    )
    figures = {"left": round(left, 3), "macs": round(work, 3), "parameters": round(pruned.parameters() / dense.parameters(), 3)}
    note(
        kind, name, "packlight", "fails" if problem else "pass", problem, seconds=round(seconds, 2), error=error, speedup=faster, **figures
    )


def theirs(kind: str, name: str, case: Case) -> None:
    x = (case.inputs(1),)
    dense = case.make()
    was, tensors = flops(dense, x), dict(dense.named_parameters())

    def left(module: nn.Module) -> float:
        return share(kind, tensors, dict(module.named_parameters()), flops(module, x) / was)

    found = torch_pruning(case.make, x, left, ENOUGH, (0.5,))
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"{k}.onnx" for k in ("dense", "pruned")]
        for module, file in zip((dense, found["module"]), files, strict=True):
            write(module, x, file)
        faster = ratio(files[0], files[1], "onnxruntime", [case.inputs(1, 5).numpy()], case.pairs)
    told = {"left": round(found["left"], 3), "macs": round(flops(found["module"], x) / was, 3)}
    note(kind, name, "torch-pruning", "pass", "", seconds=round(found["seconds"], 2), speedup={"onnxruntime": faster}, **told)


def table(kind: str) -> str:
    from packlight.targets.runtime import versions

    found = latest(kind)
    told = ", ".join(f"{k} {v}" for k, v in versions().items())
    title = "Half the hidden units" if kind == "recurrent" else "Half the channels of generators and restorers"
    shares = ("left", "macs", "parameters") if kind == "recurrent" else ("macs", "parameters")
    done = [name for name in CASES[kind] if all((name, who) in found for who in WHO)]
    out = [
        f"# {title}\n",
        f"Made by `python benchmarks/prune/kinds.py {kind}`, table of {datetime.date.today()}; {platform.machine()}, Python "
        f"{platform.python_version()}, torch {torch.__version__}, {told}, torch-pruning 1.6.1; weights seed 0; {len(done)} of "
        f"{len(CASES[kind])} run. The script says what passes. Speed-ups: dense / pruned, one thread, one sample, median of paired runs "
        "on a shared machine; error: pruned against masked, relative.\n",
        f"| network | packlight | {'units left | ' if kind == 'recurrent' else ''}MACs left | parameters left | error | ONNX Runtime | "
        "OpenVINO | TFLite | s | torch-pruning |",
        "|" + "---|" * (8 + len(shares)),
    ]
    for name in done:
        d, t = (found[name, who] for who in WHO)
        cells = [CASES[kind][name].what, d["status"], *(str(d.get(k, "")) for k in shares)]
        cells += [f"{d['error']:.1g}" if "error" in d else "", *(str(d.get("speedup", {}).get(r, "")) for r in RUNTIMES)]
        beside = f"pass, {t['speedup']['onnxruntime']} in ONNX Runtime, {t['macs']} of the MACs" if t["status"] == "pass" else t["status"]
        out.append("| " + " | ".join([*cells, str(d.get("seconds", "")), beside]) + " |")
    out.append("\n## What failed\n")
    failed = [(who, n) for who in WHO for n in done if found[n, who]["status"] != "pass"]
    out += [f"- {who}, {CASES[kind][n].what}: {found[n, who]['why']}" for who, n in failed] or ["Nothing."]
    return "\n".join(out)


if __name__ == "__main__":
    main()
