"""Runs one artifact on one device: loads it, warms it up, times it, computes its outputs. Returns raw values, never a mean.

One file for Python 3.8 and later: the standard library, numpy and one runtime (onnxruntime, openvino, ai_edge_litert or
tflite_runtime). It imports nothing of packlight, which copies it to the device and talks to it in JSON lines.

    python agent.py PLAN.json

PLAN (all paths relative to its folder)::

    {"schema": 1, "runtime": "onnxruntime", "file": "m.onnx", "sha256": {"m.onnx": "..."}, "provider": "",
     "threads": 1, "affinity": null, "inputs": [{"file": "x.npy", "axis": 0}], "outputs": [{"axis": 0}],
     "rows": 1, "options": {}}

``inputs`` are arrays as the file's doors want them; ``axis`` is the batch axis, ``rows`` how many rows one timed inference takes.
The inputs may have more rows than that: inference i takes the i-th group, round and round.

First it says ``hello`` (versions and device), then ``ready`` (load and first inference). Then it obeys one command a line on stdin::

    {"cmd": "warm", "max_s": 10, "max_runs": 5000}    until stationary -> {"event": "warm", "values_s": [...], "stationary": true}
    {"cmd": "run", "runs": 20, "settle_s": 0.005}      -> {"event": "run", "values_s": [...], "settle_values_s": [...], ...}
    {"cmd": "throughput", "seconds": 5, "rows": 32}   -> {"event": "throughput", "rows": [...], "values_s": [...]}
    {"cmd": "outputs", "rows": 100, "to": "out"}      writes out_0.npy ... -> {"event": "outputs", "files": [...], "values_s": [...]}
    {"cmd": "memory"}, {"cmd": "state"}, {"cmd": "quit"}

What goes wrong is one ``error`` line with its kind ("lacks", "artifact", "input", "storage", "runtime", "plan"), then exit code 1.
When stdin closes without ``quit`` the host is gone: the agent ends, and removes its session folder if that holds the
marker ``.packlight-root``. SIGTERM and SIGINT end it at once.
"""

from __future__ import annotations

import errno
import gc
import hashlib
import json
import os
import platform
import queue
import re
import shutil
import signal
import sys
import threading
import time
from typing import Any, Callable, Dict, List, Optional, Tuple

SCHEMA = 1
MARKER = ".packlight-root"
WINDOW_RUNS = 10
WINDOW_S = 0.1
SHIFT = 0.02


class AgentError(Exception):
    """Something the host must hear of; ``kind`` is for programs, the message for people."""

    def __init__(self, kind: str, message: str) -> None:
        self.kind = kind
        super().__init__(message)


def stationary(values: List[float], window: int) -> bool:
    """Whether the last ``2 * window`` values have stopped drifting.

    The two windows are compared: stationary if their medians differ by at most 2 %, or if a two-sided Mann-Whitney test
    (normal approximation with tie correction) can't tell them apart at 5 %.
    """
    if len(values) < 2 * window:
        return False
    before, after = values[-2 * window : -window], values[-window:]
    a, b = _median(before), _median(after)
    if abs(a - b) <= SHIFT * min(a, b):
        return True
    return abs(mann_whitney_z(before, after)) < 1.96


def mann_whitney_z(a: List[float], b: List[float]) -> float:
    """(U - n m / 2) / sd(U), U counting the pairs where ``a`` is larger (ties a half); sd with the tie correction."""
    n, m = len(a), len(b)
    merged = sorted([(v, 0) for v in a] + [(v, 1) for v in b])
    rank_a, ties, i = 0.0, 0.0, 0
    while i < n + m:
        j = i
        while j < n + m and merged[j][0] == merged[i][0]:
            j += 1
        rank = (i + j + 1) / 2.0
        rank_a += rank * sum(1 for k in range(i, j) if merged[k][1] == 0)
        ties += float(j - i) ** 3 - (j - i)
        i = j
    u = rank_a - n * (n + 1) / 2.0
    total = n + m
    variance = n * m / 12.0 * ((total + 1) - ties / (total * (total - 1.0)))
    return 0.0 if variance <= 0 else (u - n * m / 2.0) / variance**0.5


def window_for(typical_s: float) -> int:
    """Runs in a window of the warm-up test: 10, or a tenth of a second where that is more; fewer where one run is slow."""
    if typical_s > WINDOW_S:
        return max(2, int(10 * WINDOW_S / typical_s))
    return min(500, max(WINDOW_RUNS, int(WINDOW_S / max(typical_s, 1e-9)) + 1))


def _median(values: List[float]) -> float:
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2.0


# --- runtimes: open, feed (untimed), run (timed), read (untimed) -----------------------------------------------------


class OnnxRuntime:
    """ONNX Runtime with bound inputs: one run is ``Run`` alone, as its own C++ benchmark times it."""

    distributions = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino", "onnxruntime-qnn")

    def __init__(self, plan: Dict[str, Any], path: str) -> None:
        import onnxruntime as ort

        provider = plan.get("provider") or "CPUExecutionProvider"
        if provider not in ort.get_available_providers():
            raise AgentError("lacks", "this onnxruntime has no %s; it has: %s" % (provider, ", ".join(ort.get_available_providers())))
        options = ort.SessionOptions()
        options.intra_op_num_threads = plan["threads"]
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        if plan.get("options", {}).get("optimise") is False:
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        self.session = ort.InferenceSession(path, options, providers=[provider])
        if provider not in self.session.get_providers():
            raise AgentError("lacks", "onnxruntime did not start %s; it runs on: %s" % (provider, ", ".join(self.session.get_providers())))
        self.inputs = [i.name for i in self.session.get_inputs()]
        self.shapes = [list(i.shape) for i in self.session.get_inputs()]
        self.binding = self.session.io_binding()
        self.outputs = [o.name for o in self.session.get_outputs()]

    def feed(self, arrays: List[Any]) -> None:
        self.arrays = arrays
        for name, array in zip(self.inputs, arrays):
            self.binding.bind_cpu_input(name, array)
        for name in self.outputs:
            self.binding.bind_output(name, "cpu")

    def run(self) -> None:
        self.session.run_with_iobinding(self.binding)

    def read(self) -> List[Any]:
        return list(self.binding.copy_outputs_to_cpu())


class OpenVino:
    """OpenVINO, one stream, inputs set once per inference; fp32 arithmetic where the file is fp32 (no silent bf16)."""

    distributions = ("openvino",)

    def __init__(self, plan: Dict[str, Any], path: str) -> None:
        import openvino as ov

        device = plan.get("provider") or "CPU"
        core = ov.Core()
        if device.split(".")[0] not in [d.split(".")[0] for d in core.available_devices]:
            raise AgentError("lacks", "this openvino has no device %s; it has: %s" % (device, ", ".join(core.available_devices)))
        config: Dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY"}
        if device == "CPU":
            config.update(INFERENCE_NUM_THREADS=plan["threads"], NUM_STREAMS=1, INFERENCE_PRECISION_HINT="f32")
        self.ov = ov
        self.model = core.compile_model(path, device, config)
        self.inputs = [i.any_name if i.names else str(n) for n, i in enumerate(self.model.inputs)]
        self.request = self.model.create_infer_request()

    def feed(self, arrays: List[Any]) -> None:
        self.arrays = arrays
        for index, array in enumerate(arrays):
            self.request.set_input_tensor(index, self.ov.Tensor(array, shared_memory=True))

    def run(self) -> None:
        self.request.infer()

    def read(self) -> List[Any]:
        return [self.request.get_output_tensor(i).data.copy() for i in range(len(self.model.outputs))]


class Tflite:
    """LiteRT (ai_edge_litert) or tflite_runtime with XNNPACK as they ship it; one run is ``invoke``."""

    distributions = ("ai-edge-litert",)
    module = "ai_edge_litert.interpreter"

    def __init__(self, plan: Dict[str, Any], path: str) -> None:
        import importlib

        module = importlib.import_module(self.module)
        kwargs: Dict[str, Any] = {"model_path": path, "num_threads": plan["threads"]}
        if plan.get("options", {}).get("delegate") is False:
            kwargs["experimental_op_resolver_type"] = module.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        self.interpreter = module.Interpreter(**kwargs)
        self.interpreter.allocate_tensors()
        self.details()

    def details(self) -> None:
        self.doors = self.interpreter.get_input_details()
        self.inputs = [d["name"] for d in self.doors]
        self.indices = [d["index"] for d in self.interpreter.get_output_details()]
        self.sizes = [tuple(int(s) for s in d["shape"]) for d in self.doors]

    def feed(self, arrays: List[Any]) -> None:
        if [a.shape for a in arrays] != self.sizes:
            for door, array in zip(self.doors, arrays):
                self.interpreter.resize_tensor_input(door["index"], array.shape)
            self.interpreter.allocate_tensors()
            self.details()
        for door, array in zip(self.doors, arrays):
            self.interpreter.set_tensor(door["index"], array)

    def run(self) -> None:
        self.interpreter.invoke()

    def read(self) -> List[Any]:
        return [self.interpreter.get_tensor(i) for i in self.indices]

    def reset(self) -> None:
        self.interpreter.reset_all_variables()


class TfliteRuntime(Tflite):
    distributions = ("tflite-runtime",)
    module = "tflite_runtime.interpreter"


RUNTIMES: Dict[str, Any] = {"onnxruntime": OnnxRuntime, "openvino": OpenVino, "litert": Tflite, "tflite-runtime": TfliteRuntime}


def import_runtime(name: str) -> str:
    """Imports the runtime; its version, or an AgentError naming what to install."""
    import importlib

    module = {"onnxruntime": "onnxruntime", "openvino": "openvino", "litert": Tflite.module, "tflite-runtime": TfliteRuntime.module}[name]
    package = RUNTIMES[name].distributions[0]
    try:
        loaded = importlib.import_module(module)
    except ImportError as error:
        what = "runtime '%s' is not usable with %s (%s)" % (name, sys.executable, first_line(error))
        raise AgentError("lacks", "%s; install it there with: %s -m pip install %s" % (what, sys.executable, package)) from error
    version = getattr(loaded, "__version__", None)
    if not isinstance(version, str):
        from importlib import metadata

        for distribution in RUNTIMES[name].distributions:
            try:
                return metadata.version(distribution)
            except metadata.PackageNotFoundError:
                continue
    return str(version or "unknown")


# --- the device: every reader answers a value, or None and why -------------------------------------------------------

ISA = {
    "sse4_2": "sse4.2", "avx": "avx", "avx2": "avx2", "fma": "fma", "f16c": "f16c", "avx512f": "avx512f", "avx512_vnni": "avx512_vnni",
    "avx_vnni": "avx_vnni", "avx512_bf16": "avx512_bf16", "amx_int8": "amx_int8", "neon": "neon", "asimd": "neon",
    "asimdhp": "fp16", "asimddp": "dotprod", "i8mm": "i8mm", "bf16": "bf16", "sve": "sve", "sve2": "sve2",
}  # fmt: skip
ARM_PARTS = {
    "0xb76": "ARM1176", "0xc07": "Cortex-A7", "0xc08": "Cortex-A8", "0xc09": "Cortex-A9", "0xc0f": "Cortex-A15",
    "0xd03": "Cortex-A53", "0xd04": "Cortex-A35", "0xd05": "Cortex-A55", "0xd07": "Cortex-A57", "0xd08": "Cortex-A72",
    "0xd09": "Cortex-A73", "0xd0a": "Cortex-A75", "0xd0b": "Cortex-A76", "0xd0c": "Neoverse-N1", "0xd0d": "Cortex-A77",
    "0xd40": "Neoverse-V1", "0xd41": "Cortex-A78", "0xd42": "Cortex-A78AE", "0xd44": "Cortex-X1", "0xd46": "Cortex-A510",
    "0xd47": "Cortex-A710", "0xd48": "Cortex-X2", "0xd49": "Neoverse-N2", "0xd4d": "Cortex-A715", "0xd80": "Cortex-A520",
}  # fmt: skip


def text(path: str) -> Optional[str]:
    try:
        with open(path, errors="replace") as file:
            return file.read(1 << 20)
    except OSError:
        return None


def cpu_name(cpuinfo: str) -> Optional[str]:
    """The CPU's name from /proc/cpuinfo: x86's own, or Arm cores by their part numbers (big.LITTLE gives several)."""
    named = re.search(r"^model name\s*:\s*(.+)$", cpuinfo, re.M)
    if named:
        return named.group(1).strip()
    parts = re.findall(r"^CPU part\s*:\s*(0x[0-9a-f]+)", cpuinfo, re.M)
    names = {p: ARM_PARTS.get(p, "part " + p) for p in parts}
    return " + ".join("%d x %s" % (parts.count(p), names[p]) for p in sorted(names)) or None


def isa_flags(cpuinfo: str) -> List[str]:
    flags = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", cpuinfo, re.M)
    found = set(flags.group(1).split()) if flags else set()
    return sorted({name for flag, name in ISA.items() if flag in found})


def cores() -> Optional[int]:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def device() -> Dict[str, Any]:
    """What the machine is. A None has its reason under ``why``."""
    cpuinfo = text("/proc/cpuinfo") or ""
    why: Dict[str, str] = {}
    board = text("/proc/device-tree/model") or text("/sys/firmware/devicetree/base/model")
    memory = re.search(r"^MemTotal:\s*(\d+) kB", text("/proc/meminfo") or "", re.M)
    out: Dict[str, Any] = {
        "machine": platform.machine(),
        "cpu": cpu_name(cpuinfo) or platform.processor() or None,
        "isa": isa_flags(cpuinfo),
        "cores": cores(),
        "board": board.strip("\x00\n ") if board else None,
        "memory_bytes": int(memory.group(1)) * 1024 if memory else None,
        "kernel": platform.release(),
        "os": platform.system(),
        "pointer_bits": 64 if sys.maxsize > 2**32 else 32,
    }
    for name, reason in (("cpu", "/proc/cpuinfo does not name it"), ("board", "no device tree"), ("memory_bytes", "no /proc/meminfo")):
        if out[name] is None:
            why[name] = reason
    out["why"] = why
    return out


def state() -> Dict[str, Any]:
    """How the machine is doing now: frequency, heat, load, steal, context switches of this process."""
    why: Dict[str, str] = {}
    base = "/sys/devices/system/cpu/cpu%d/cpufreq/"
    cpu = min(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
    governor = text(base % cpu + "scaling_governor")
    current = text(base % cpu + "scaling_cur_freq")
    if governor is None:
        why["governor"] = "no cpufreq here (a virtual machine, or a kernel without it)"
    mhz = int(current) / 1000.0 if current and current.strip().isdigit() else None
    if mhz is None:
        why["frequency_mhz"] = why.get("governor", "cpufreq gives no frequency")
    heat = temperatures()
    if not heat:
        why["temperature_c"] = "no thermal zone under /sys/class/thermal"
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    pressure = re.search(r"some avg10=([\d.]+)", text("/proc/pressure/cpu") or "")
    if not pressure:
        why["pressure"] = "no /proc/pressure/cpu"
    steal = re.search(r"^cpu\s+(.+)$", text("/proc/stat") or "", re.M)
    ticks = [int(t) for t in steal.group(1).split()] if steal else []
    status = text("/proc/self/status") or ""
    switches = re.search(r"^nonvoluntary_ctxt_switches:\s*(\d+)", status, re.M)
    throttle = text("/sys/devices/system/cpu/cpu%d/thermal_throttle/core_throttle_count" % cpu)
    return {
        "governor": governor.strip() if governor else None,
        "frequency_mhz": mhz,
        "temperature_c": max(heat.values()) if heat else None,
        "temperatures": heat,
        "load": load,
        "pressure": float(pressure.group(1)) if pressure else None,
        "steal_ticks": ticks[7] if len(ticks) > 7 else None,
        "total_ticks": sum(ticks[:8]) if ticks else None,
        "involuntary_switches": int(switches.group(1)) if switches else None,
        "throttle_count": int(throttle) if throttle and throttle.strip().isdigit() else None,
        "why": why,
    }


def temperatures() -> Dict[str, float]:
    out: Dict[str, float] = {}
    root = "/sys/class/thermal"
    try:
        zones = sorted(z for z in os.listdir(root) if z.startswith("thermal_zone"))
    except OSError:
        return out
    for zone in zones:
        raw = (text("%s/%s/temp" % (root, zone)) or "").strip()
        if re.fullmatch(r"-?\d+", raw):
            out[(text("%s/%s/type" % (root, zone)) or zone).strip()] = int(raw) / 1000.0
    return out


def memory() -> Dict[str, Any]:
    """Peak (VmHWM) and present (VmRSS) resident bytes of this process."""
    status = text("/proc/self/status") or ""
    found = {k: int(v) * 1024 for k, v in re.findall(r"^(VmHWM|VmRSS):\s*(\d+) kB", status, re.M)}
    if "VmHWM" in found:
        return {"peak_bytes": found["VmHWM"], "now_bytes": found.get("VmRSS"), "why": ""}
    try:
        import resource
    except ImportError:
        return {"peak_bytes": None, "now_bytes": None, "why": "neither /proc/self/status nor resource here"}
    unit = 1 if sys.platform == "darwin" else 1024
    return {"peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit, "now_bytes": None, "why": "from getrusage"}


# --- the session -----------------------------------------------------------------------------------------------------


class Agent:
    """One artifact, open."""

    def __init__(self, plan: Dict[str, Any], say: Callable[..., None]) -> None:
        import numpy as np

        self.np, self.plan, self.say = np, plan, say
        if plan.get("schema") != SCHEMA:
            raise AgentError("plan", "the plan has schema %r, this agent reads %d" % (plan.get("schema"), SCHEMA))
        if plan["runtime"] not in RUNTIMES:
            raise AgentError("plan", "unknown runtime '%s'; known: %s" % (plan["runtime"], ", ".join(sorted(RUNTIMES))))
        self.pin()
        plan["threads"] = int(plan["threads"]) or cores() or 1  # 0 is all there are
        start = time.perf_counter()
        version = import_runtime(plan["runtime"])
        imported = time.perf_counter() - start
        versions = {"python": platform.python_version(), "numpy": np.__version__, plan["runtime"]: version, "kernel": platform.release()}
        say("hello", versions=versions, device=device(), state=state(), import_s=imported, pid=os.getpid(), affinity=self.affinity)
        for name, digest in plan["sha256"].items():
            if sha256(name) != digest:
                raise AgentError("artifact", "'%s' arrived damaged (its sha256 differs); push it again" % name)
        self.inputs = [np.load(i["file"], mmap_mode="r", allow_pickle=False) for i in plan["inputs"]]
        self.axes = [int(i["axis"]) for i in plan["inputs"]]
        counts = sorted({int(a.shape[x]) for a, x in zip(self.inputs, self.axes)})
        if len(counts) != 1:
            raise AgentError("input", "the inputs have different numbers of rows: %s" % counts)
        self.count = counts[0]
        self.rows = int(plan["rows"])
        if self.count < 1:
            raise AgentError("input", "no input rows were given")
        self.open()

    def pin(self) -> None:
        wanted = self.plan.get("affinity")
        self.affinity: Optional[List[int]] = None
        if not wanted:
            return
        if not hasattr(os, "sched_setaffinity"):
            raise AgentError("lacks", "this system can't pin a process to cores; leave affinity out")
        try:
            os.sched_setaffinity(0, wanted)
        except OSError as error:
            raise AgentError("plan", "cores %s can't be used (%s)" % (wanted, error.strerror)) from error
        self.affinity = sorted(os.sched_getaffinity(0))

    def open(self) -> None:
        before = memory()
        start = time.perf_counter_ns()
        self.runtime: Any = RUNTIMES[self.plan["runtime"]](self.plan, self.plan["file"])
        load = (time.perf_counter_ns() - start) / 1e9
        if len(self.runtime.inputs) != len(self.inputs):
            raise AgentError("input", "the file has %d inputs, %d were given" % (len(self.runtime.inputs), len(self.inputs)))
        self.turn = 0
        first = self.time(1)[0]
        self.say("ready", load_s=load, first_s=first, memory_before=before, memory=memory(), inputs=self.runtime.inputs)

    def group(self, start: int, rows: int) -> List[Any]:
        """Rows ``start`` to ``start + rows`` of every input (round and round), contiguous and in memory."""
        np = self.np
        if start + rows <= self.count:
            index: Any = slice(start, start + rows)
        else:
            index = [i % self.count for i in range(start, start + rows)]
        out = []
        for array, axis in zip(self.inputs, self.axes):
            where = (slice(None),) * axis + (index,)
            out.append(np.array(array[where], order="C"))
        return out

    def time(self, runs: int) -> List[float]:
        """Seconds of ``runs`` single inferences; input copies and garbage collection are outside the clock."""
        clock, run = time.perf_counter_ns, self.runtime.run
        out: List[float] = []
        enabled = gc.isenabled()
        gc.disable()
        try:
            for _ in range(runs):
                self.runtime.feed(self.group(self.turn * self.rows % self.count, self.rows))
                self.turn += 1
                start = clock()
                run()
                out.append((clock() - start) / 1e9)
        finally:
            if enabled:
                gc.enable()
        return out

    def warm(self, max_s: float = 10.0, max_runs: int = 100000) -> None:
        """Runs until ``stationary``, tested once a window (see ``window_for``), or until a bound."""
        values: List[float] = []
        start = time.perf_counter()
        settled = False
        while not settled and time.perf_counter() - start < max_s and len(values) < max_runs:
            window = window_for(_median(values[-WINDOW_RUNS:])) if values else 2
            for _ in range(window):
                values.extend(self.time(1))
                if time.perf_counter() - start >= max_s or len(values) >= max_runs:
                    break
            settled = stationary(values, window)
        self.say("warm", values_s=values, stationary=settled, seconds=time.perf_counter() - start)

    def run(self, runs: int, settle_s: float = 0.0) -> None:
        """``runs`` timed runs, after ``settle_s`` seconds of runs that refill the caches; state before and after."""
        settling: List[float] = []
        while sum(settling) < settle_s and len(settling) < 50:
            settling.extend(self.time(1))
        before = state()
        values = self.time(runs)
        self.say("run", values_s=values, settle_values_s=settling, before=before, state=state())

    def throughput(self, seconds: float, rows: int = 1) -> None:
        """Offline: rows per second when nobody waits for a single answer. Inputs are ready; ``rows`` go into one inference."""
        was, self.rows = self.rows, rows
        try:
            self.time(2)
            values: List[float] = []
            start = time.perf_counter()
            while time.perf_counter() - start < seconds or len(values) < 2:
                values.extend(self.time(1))
            self.say("throughput", values_s=values, rows=rows, seconds=time.perf_counter() - start, state=state())
        finally:
            self.rows = was

    def outputs(self, to: str, rows: int = 1, limit: Optional[int] = None) -> None:
        """The outputs for all input rows, as ``<to>_<i>.npy`` with the batch axis first; a last group is filled up and cut."""
        np = self.np
        count = self.count if limit is None else min(limit, self.count)
        axes = [int(o["axis"]) for o in self.plan["outputs"]]
        files: List[Any] = []
        values: List[float] = []
        spoke = time.perf_counter()
        for start in range(0, count, rows):
            if hasattr(self.runtime, "reset"):
                self.runtime.reset()
            self.runtime.feed(self.group(start, rows))
            begin = time.perf_counter_ns()
            self.runtime.run()
            values.append((time.perf_counter_ns() - begin) / 1e9)
            results = self.runtime.read()
            if len(results) != len(axes):
                raise AgentError("input", "the file has %d outputs, the plan says %d" % (len(results), len(axes)))
            for index, (result, axis) in enumerate(zip(results, axes)):
                if result.ndim <= axis or result.shape[axis] != rows:
                    raise AgentError("input", "output %d has shape %s for %d rows; no batch on axis %d" % (index, result.shape, rows, axis))
                result = np.moveaxis(result, axis, 0)
                if len(files) <= index:
                    shape = (count, *result.shape[1:])
                    files.append(np.lib.format.open_memmap("%s_%d.npy" % (to, index), mode="w+", dtype=result.dtype, shape=shape))
                if result.shape[1:] != files[index].shape[1:]:
                    raise AgentError("input", "output %d changes its shape from batch to batch" % index)
                files[index][start : min(start + rows, count)] = result[: count - start]
            if time.perf_counter() - spoke > 0.5:
                spoke = time.perf_counter()
                self.say("progress", done=min(start + rows, count), total=count)
        for file in files:
            file.flush()
        self.say("outputs", files=["%s_%d.npy" % (to, i) for i in range(len(files))], n=count, rows=rows, values_s=values)

    def memory(self) -> None:
        self.say("memory", **memory())

    def state(self) -> None:
        self.say("state", **state())


COMMANDS = ("warm", "run", "throughput", "outputs", "memory", "state")


def sha256(path: str) -> str:
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            for piece in iter(lambda: file.read(1 << 20), b""):
                digest.update(piece)
    except OSError as error:
        raise AgentError("artifact", "'%s' can't be read (%s)" % (path, error.strerror)) from error
    return digest.hexdigest()


def first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:300]


def classify(error: BaseException) -> Tuple[str, str]:
    """Kind and one line for any exception."""
    if isinstance(error, AgentError):
        return error.kind, first_line(error)
    if isinstance(error, MemoryError):
        return "lacks", "out of memory"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "storage", "the device's disk is full"
    if isinstance(error, ImportError):
        return "lacks", first_line(error)
    return "runtime", "%s: %s" % (type(error).__name__, first_line(error))


def leave(folder: str) -> None:
    """Removes the session folder that holds ``folder``, when it is marked as ours."""
    for candidate in (folder, os.path.dirname(folder)):
        if os.path.isfile(os.path.join(candidate, MARKER)):
            os.chdir("/")
            shutil.rmtree(candidate, ignore_errors=True)
            return


def main(argv: List[str]) -> int:
    real = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a runtime prints must not mix with our lines
    lock = threading.Lock()

    def say(event: str, **fields: Any) -> None:
        with lock:
            real.write(json.dumps(dict(fields, event=event)) + "\n")
            real.flush()

    folder = os.path.dirname(os.path.abspath(argv[1]))
    commands: queue.Queue[Optional[Dict[str, Any]]] = queue.Queue()
    said_quit = threading.Event()

    def listen() -> None:
        for line in sys.stdin:
            try:
                command = json.loads(line)
            except ValueError:
                command = {"cmd": line.strip()[:40]}
            if command.get("cmd") == "quit":
                said_quit.set()
                break
            commands.put(command)
        if said_quit.is_set():
            commands.put(None)
        else:  # the host is gone: end even in the middle of native code
            leave(folder)
            os._exit(3)

    signal.signal(signal.SIGINT, signal.SIG_DFL)  # like SIGTERM: at once, in the middle of native code too
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # a lost link is seen on stdin, and cleaned up after
    threading.Thread(target=listen, daemon=True).start()
    try:
        with open(argv[1]) as file:
            plan = json.load(file)
        os.chdir(folder)
        agent = Agent(plan, say)
        while True:
            command = commands.get()
            if command is None:
                return 0
            name = command.pop("cmd", None)
            if name not in COMMANDS:
                raise AgentError("plan", "unknown command '%s'; known: %s" % (name, ", ".join(COMMANDS)))
            getattr(agent, name)(**command)
    except BrokenPipeError:
        leave(folder)
        return 3
    except Exception as error:
        kind, message = classify(error)
        say("error", kind=kind, message=message)
        return 1


if __name__ == "__main__":
    code = main(sys.argv)
    sys.stderr.flush()
    os._exit(code)  # runtimes' threads must not hold the process
