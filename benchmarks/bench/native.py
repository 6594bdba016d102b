"""The agent against the runtimes' own programs on the same file, launch by launch in turns; and what the agent's loop itself costs.

    chrt -r 1 python benchmarks/bench/native.py --rounds 10 --work FOLDER       # writes native.md; about 4 minutes of one core

- ONNX Runtime: its C API (``OrtApi::Run`` on bound buffers), called through ctypes from ``ort_c.py``: a call costs under a microsecond.
- OpenVINO: its ``benchmark_app`` (synchronous, one thread, one stream, f32); its median is of what the request itself timed.
- LiteRT: its ``litert-benchmark`` (Python like the agent, on the newer CompiledModel API; the wheel has no native program for x86), on
  ResNet-20 exported into FOLDER. Its median is printed to a hundredth of a millisecond.

The agent is called as the runner calls it: push, load, warm up, run.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import models
import numpy as np
import resnet
from scipy import stats as sps

from packlight.bench import agent
from packlight.bench.plan import BenchOptions
from packlight.bench.runner import bench_artifacts
from packlight.core.artifact import Artifact, Manifest
from packlight.core.files import sha256
from packlight.core.tensor import Signature, TensorSpec
from packlight.targets.link.local import Local

HERE = Path(__file__).parent
RUNS = 400
OPTIONS = BenchOptions(launches=1, rounds=8, runs=RUNS)


def ours(artifact: Artifact, folder: Path, runtime: str, x: np.ndarray) -> float:
    with Local() as link:
        latency = bench_artifacts([(artifact, folder, runtime)], link, options=OPTIONS, inputs=x).measurements[0].latency
    return float(np.median(latency.values_s))


def ort_c(file: Path) -> float:
    done = subprocess.run([sys.executable, str(HERE / "ort_c.py"), str(file), str(RUNS)], capture_output=True, text=True, check=True)
    return float(np.median(json.loads(done.stdout)))


def openvino_app(file: Path) -> float:
    with tempfile.TemporaryDirectory() as folder:
        words = ["-m", str(file), "-d", "CPU", "-api", "sync", "-hint", "none", "-nthreads", "1", "-nstreams", "1", "-nireq", "1"]
        words += [
            "-infer_precision",
            "f32",
            "-niter",
            str(RUNS),
            "-data_shape",
            "[1,3,32,32]",
            "-json_stats",
            "-report_type",
            "no_counters",
        ]
        app = str(Path(sys.executable).with_name("benchmark_app"))
        subprocess.run([app, *words, "-report_folder", folder], capture_output=True, check=True)
        report = json.loads(next(Path(folder).glob("*.json")).read_text())
    return float(report["execution_results"]["latency (ms)"]) / 1e3  # the median, to a hundredth of a millisecond


def litert_app(file: Path) -> float:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.json"
        app = str(Path(sys.executable).with_name("litert-benchmark"))
        words = ["--model", str(file), "--num_runs", str(RUNS), "--warmup_runs", "100", "--num_threads", "1", "--result_json", str(out)]
        subprocess.run([app, *words], capture_output=True, check=True)
        return float(json.loads(out.read_text())["latency"]["median_ms"]) / 1e3


def loop_cost_us() -> float:
    """Microseconds that the agent's timed region takes around a runtime that does nothing: two clock readings and a call."""

    class Nothing:
        inputs = ("x",)

        def feed(self, arrays: list[np.ndarray]) -> None:
            return

        def run(self) -> None:
            return

    loop = agent.Agent.__new__(agent.Agent)
    loop.np, loop.inputs, loop.axes, loop.count, loop.rows, loop.turn = np, [np.zeros((8, 3, 32, 32), np.float32)], [0], 8, 1, 0
    loop.runtime = Nothing()
    loop.clock_name, loop.clock = agent.clock_of()
    loop.time(1000)
    return float(np.median(loop.time(20000))) * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--work", type=Path, required=True)
    args = parser.parse_args()
    x = np.random.default_rng(0).normal(0, 1, (8, 3, 32, 32)).astype(np.float32)
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        onnx = models.artifact(folder, "small.onnx")
        models.write(folder / "net.onnx", scale=3)  # larger, since benchmark_app tells hundredths of a millisecond
        import openvino as ov

        ov.save_model(ov.convert_model(str(folder / "net.onnx")), str(folder / "ir.xml"), compress_to_fp16=False)
        doors = Signature((TensorSpec(name="x", shape=("batch", 3, 32, 32)),), (TensorSpec(name="y", shape=("batch", 10)),))
        files = {n: sha256(folder / n) for n in ("ir.xml", "ir.bin")}
        xml = Artifact(
            file="ir.xml",
            files=files,
            model="net",
            format="openvino",
            precision="fp32",
            runtimes=("openvino",),
            target="",
            bytes=1,
            signature=doors,
        )
        resnet20 = resnet.export(args.work / "float", "raspberry-pi-5", "fp32", "onnx,openvino,tflite")
        lite = next(a for a in Manifest.read(resnet20).artifacts if a.format == "tflite")
        images = np.random.default_rng(0).normal(0, 1, (8, 3, 32, 32)).astype(np.float32)
        cases: dict[str, tuple[Callable[[], float], Callable[[], float]]] = {
            "onnxruntime: C API": (lambda: ours(onnx, folder, "onnxruntime", x), lambda: ort_c(folder / "small.onnx")),
            "openvino: benchmark_app": (lambda: ours(xml, folder, "openvino", x), lambda: openvino_app(folder / "ir.xml")),
            "litert: litert-benchmark": (
                lambda: ours(lite, resnet20, "litert", images),
                lambda: litert_app(resnet20 / lite.file),
            ),
        }
        out = [
            "# The agent against the runtimes' own programs\n",
            f"{datetime.date.today()}, {platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the start, real-time",
            f"priority; {', '.join(f'{n} {metadata.version(n)}' for n in ('onnxruntime', 'openvino', 'ai-edge-litert'))}.",
            f"Same file, one thread, {args.rounds} rounds in turns (seed 0), {RUNS} runs each; medians of the rounds' medians, and",
            "Student's 95 % interval of the mean ratio.",
            f"`chrt -r 1 python benchmarks/bench/native.py --rounds {args.rounds} --work FOLDER`\n",
            "| runtime and its own program | agent, ms | own program, ms | of these medians | agent / own, round by round (95 %) |",
            "|---|---|---|---|---|",
        ]
        for label, pair in cases.items():
            seconds: list[tuple[float, float]] = []
            for _ in range(args.rounds):
                got = {}
                for which in rng.permutation(2):
                    got[int(which)] = pair[which]()
                seconds.append((got[0], got[1]))
                print(label, [f"{s * 1e3:.4f}" for s in seconds[-1]], file=sys.stderr)
            a, b = np.array(seconds).T
            logs = np.log(a / b)
            half = sps.t.ppf(0.975, len(logs) - 1) * logs.std(ddof=1) / math.sqrt(len(logs))
            low, value, high = np.exp([logs.mean() - half, logs.mean(), logs.mean() + half])
            mine, theirs = np.median(a) * 1e3, np.median(b) * 1e3
            out.append(f"| {label} | {mine:.4f} | {theirs:.4f} | {mine / theirs:.4f} | {value:.4f} ({low:.4f} to {high:.4f}) |")
        out.append(f"\nThe agent's timed region around a runtime that does nothing: {loop_cost_us():.2f} microseconds an inference.")
    (HERE / "native.md").write_text("\n".join(out) + "\n")


if __name__ == "__main__":
    main()
