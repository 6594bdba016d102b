"""Runs one artifact on one device: loads it, warms it up, times it, computes its outputs. Returns raw values, never a mean.

One file for Python 3.8 and later: the standard library, numpy and one runtime (onnxruntime, openvino, ai_edge_litert or
tflite_runtime). It imports nothing of packlight, which copies it to the device and talks to it in JSON lines.

    python agent.py PLAN.json

    python agent.py --look        what this device is and which runtimes it has, as one JSON line

PLAN (all paths relative to its folder)::

    {"schema": 1, "runtime": "onnxruntime", "file": "m.onnx", "sha256": {"m.onnx": "..."}, "provider": "",
     "threads": 1, "affinity": null, "inputs": [{"file": "x.npy", "axis": 0}], "outputs": [{"axis": 0}],
     "rows": 1, "options": {}, "exclusive": true, "wait_s": 600, "idle_s": 3600}

``inputs`` are arrays as the file's doors want them; ``axis`` is the batch axis, ``rows`` how many rows one timed inference takes.
The inputs may have more rows than that: inference i takes the i-th group, round and round. An ``exclusive`` agent waits up to
``wait_s`` for a bench of another session on this device to end (saying ``busy``). ``threads`` 0 is all cores.

First it says ``hello`` (versions and device), then ``ready`` (load and first inference). Then it obeys one command a line on stdin::

    {"cmd": "warm", "max_s": 10, "max_runs": 5000}    until stationary -> {"event": "warm", "values_s": [...], "stationary": true}
    {"cmd": "run", "runs": 20, "settle_s": 0.005}     -> {"event": "run", "values_s": [...], "settle_values_s": [...],
                                                          "before": {...}, "state": {...}}
    {"cmd": "throughput", "seconds": 5, "rows": 32}   -> {"event": "throughput", "rows": 32, "values_s": [...], "seconds": 5.1}
    {"cmd": "profile", "runs": 20}                    -> {"event": "profile", "ops": [{"name", "type", "values_s"}], "why": ""}
    {"cmd": "outputs", "rows": 100, "to": "out"}      writes out_0.npy ... -> {"event": "outputs", "files": [...], "values_s": [...]}
    {"cmd": "memory"}                                 -> {"event": "memory", "peak_bytes": ..., "maker": {...}}
    {"cmd": "state"}, {"cmd": "quit"}

What goes wrong is one ``error`` line with its kind ("lacks", "artifact", "input", "storage", "runtime", "busy", "clock", "plan"), then exit
code 1. When stdin closes without ``quit``, or nothing is said for ``idle_s``, the host is gone: the agent ends, and removes its
session folder if that holds the marker ``.packlight-root``. SIGTERM and SIGINT end it at once.
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
        options.enable_profiling = bool(plan.get("options", {}).get("profile"))
        options.profile_file_prefix = "profile"
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

    def profile(self, runs: int) -> Tuple[List[Dict[str, Any]], str]:
        with open(self.session.end_profiling()) as file:
            events = [e for e in json.load(file) if e.get("cat") == "Node" and str(e.get("name", "")).endswith("_kernel_time")]
        found: Dict[str, Dict[str, Any]] = {}
        for event in events:
            name = event["name"][: -len("_kernel_time")]
            op = found.setdefault(name, {"name": name, "type": event["args"].get("op_name", ""), "values_s": []})
            op["values_s"].append(event["dur"] / 1e6)
        for op in found.values():
            op["values_s"] = op["values_s"][-runs:]
        return list(found.values()), ""


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
        if plan.get("options", {}).get("profile"):
            config["PERF_COUNT"] = True
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

    def profile(self, runs: int) -> Tuple[List[Dict[str, Any]], str]:
        found: Dict[str, Dict[str, Any]] = {}
        for _ in range(runs):
            self.request.infer()
            for info in self.request.profiling_info:
                if str(info.status).endswith("EXECUTED") and not str(info.status).endswith("NOT_EXECUTED"):
                    kind = "%s %s" % (info.node_type, info.exec_type)
                    op = found.setdefault(info.node_name, {"name": info.node_name, "type": kind, "values_s": []})
                    op["values_s"].append(info.real_time.total_seconds())
        return list(found.values()), ""


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

    def profile(self, runs: int) -> Tuple[List[Dict[str, Any]], str]:
        return [], "the Python API of LiteRT and TFLite gives no times of single operators; its benchmark_model does"


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


ROOT = ""  # tests put another machine's files under it


def text(path: str) -> Optional[str]:
    try:
        with open(ROOT + path, errors="replace") as file:
            return file.read(1 << 20)
    except OSError:
        return None


def number(path: str) -> Optional[int]:
    found = (text(path) or "").strip()
    return int(found) if re.fullmatch(r"-?\d+", found) else None


def folder(path: str, start: str) -> List[str]:
    try:
        return sorted(path + "/" + name for name in os.listdir(ROOT + path) if name.startswith(start))
    except OSError:
        return []


def ask(*command: str, lines: Optional[int] = None) -> Optional[str]:
    """What a small program of the device's maker says, or None where there is none; of one that never ends the first ``lines``."""
    import subprocess

    found = shutil.which(command[0])
    if not found:
        return None
    try:
        child = subprocess.Popen([found, *command[1:]], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    except OSError:
        return None
    timer = threading.Timer(5, child.kill)
    timer.start()
    assert child.stdout is not None
    try:
        said = b"".join(child.stdout.readline() for _ in range(lines)) if lines else child.stdout.read()
        if lines:
            child.kill()
        code = child.wait()
    finally:
        timer.cancel()
        child.stdout.close()
    return said.decode("utf-8", "replace") if said and (lines or code == 0) else None


def emulated() -> bool:
    """Whether this process runs under qemu's user mode: it hides itself behind /proc/self/exe, but not behind the thread's."""
    try:
        return "qemu-" in os.path.basename(os.readlink("/proc/thread-self/exe"))
    except OSError:
        return "QEMU_CPU" in os.environ


def clock_of() -> Tuple[str, Callable[[], int]]:
    """The clock and its name: nanoseconds of ``perf_counter``, or, on an emulator that counts instructions (see tests/rig), that count.

    There, ``getpriority(0x5AFE, 0)`` appends "tag count" to the file named by PACKLIGHT_COUNT, which is ours to remove.
    """
    file = os.environ.get("PACKLIGHT_COUNT")
    if not file:
        return "perf_counter", time.perf_counter_ns
    import ctypes

    library = ctypes.CDLL(None)
    library.getpriority(0x5AFE, 0)
    handle = os.open(file, os.O_RDONLY)
    os.unlink(file)

    def instructions() -> int:
        library.getpriority(0x5AFE, 0)
        return int(os.read(handle, 1 << 16).split()[-1])

    return "instructions", instructions


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
        "emulated": emulated(),
        "pointer_bits": 64 if sys.maxsize > 2**32 else 32,
    }
    for name, reason in (("cpu", "/proc/cpuinfo does not name it"), ("board", "no device tree"), ("memory_bytes", "no /proc/meminfo")):
        if out[name] is None:
            why[name] = reason
    out["why"] = why
    return out


THROTTLED = {0: "under-voltage", 1: "frequency capped", 2: "throttled", 3: "soft temperature limit"}


def state() -> Dict[str, Any]:
    """How the machine is doing now: frequency, heat, power, load, steal, context switches of this process.

    A reading that the device doesn't have is None and its reason stands under ``why``. ``throttle_count`` only grows;
    ``throttle_flags`` are a Raspberry Pi's, now and since its start. ``energy_uj`` are counters by domain, ``power_mw`` rails.
    ``ran_ns`` and ``waited_ns`` count what this process ran on a CPU, and waited for one while others ran.
    """
    why: Dict[str, str] = {}
    base = "/sys/devices/system/cpu/cpu%d/cpufreq/"
    cpu = min(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
    governor = text(base % cpu + "scaling_governor")
    khz = number(base % cpu + "scaling_cur_freq")
    if governor is None:
        why["governor"] = "no cpufreq here (a virtual machine, or a kernel without it)"
    if khz is None:
        why["frequency_mhz"] = why.get("governor", "cpufreq gives no frequency")
    heat = temperatures()
    if not heat:
        why["temperature_c"] = "no thermal zone under /sys/class/thermal"
    pressure = re.search(r"some avg10=([\d.]+)", text("/proc/pressure/cpu") or "")
    if not pressure:
        why["pressure"] = "no /proc/pressure/cpu"
    total = re.search(r"^cpu\s+(.+)$", text("/proc/stat") or "", re.M)
    ticks = [int(t) for t in total.group(1).split()] if total else []
    switches = re.search(r"^nonvoluntary_ctxt_switches:\s*(\d+)", text("/proc/self/status") or "", re.M)
    ran, waited = schedule()
    if waited is None:
        why["waited_ns"] = "no /proc/self/task/*/schedstat (a kernel without CONFIG_SCHED_INFO)"
    energy, power = energies(), rails()
    if not energy and not power:
        why["energy"] = "no energy counter that may be read (powercap) and no INA3221 sensor"
    maximum = number(base % cpu + "cpuinfo_max_freq")
    return {
        "governor": governor.strip() if governor else None,
        "frequency_mhz": khz / 1000.0 if khz is not None else None,
        "max_frequency_mhz": maximum / 1000.0 if maximum is not None else None,
        "temperature_c": max(heat.values()) if heat else None,
        "temperatures": heat,
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "pressure": float(pressure.group(1)) if pressure else None,
        "steal_ticks": ticks[7] if len(ticks) > 7 else None,
        "total_ticks": sum(ticks[:8]) if ticks else None,
        "ran_ns": ran,
        "waited_ns": waited,
        "involuntary_switches": int(switches.group(1)) if switches else None,
        "throttle_count": number("/sys/devices/system/cpu/cpu%d/thermal_throttle/core_throttle_count" % cpu),
        "throttle_flags": pi_flags(text("/sys/devices/platform/soc/soc:firmware/get_throttled")),
        "energy_uj": energy,
        "power_mw": power,
        "why": why,
    }


def schedule() -> Tuple[Optional[int], Optional[int]]:
    """Nanoseconds that all threads of this process ran, and that they were ready but waited for a CPU; None where it isn't told."""
    ran, waited, seen = 0, 0, False
    for thread in folder("/proc/self/task", ""):
        found = re.match(r"(\d+) (\d+) \d+", text(thread + "/schedstat") or "")
        if found:
            ran, waited, seen = ran + int(found.group(1)), waited + int(found.group(2)), True
    return (ran, waited) if seen else (None, None)


def temperatures() -> Dict[str, float]:
    out: Dict[str, float] = {}
    for zone in folder("/sys/class/thermal", "thermal_zone"):
        milli = number(zone + "/temp")
        if milli is not None:
            out[(text(zone + "/type") or os.path.basename(zone)).strip()] = milli / 1000.0
    return out


def energies() -> Dict[str, int]:
    """Energy counters of powercap (RAPL) in microjoules, the packages only."""
    out: Dict[str, int] = {}
    for zone in folder("/sys/class/powercap", "intel-rapl:"):
        count = number(zone + "/energy_uj")
        if count is not None and os.path.basename(zone).count(":") == 1:
            out[(text(zone + "/name") or os.path.basename(zone)).strip() + "@" + os.path.basename(zone)] = count
    return out


def rails() -> Dict[str, float]:
    """Power now of each rail of a Jetson's INA3221, in milliwatts: millivolts times milliamperes."""
    out: Dict[str, float] = {}
    for chip in folder("/sys/class/hwmon", "hwmon"):
        if (text(chip + "/name") or "").strip() != "ina3221":
            continue
        for channel in (1, 2, 3):
            volts, amperes = number("%s/in%d_input" % (chip, channel)), number("%s/curr%d_input" % (chip, channel))
            label = (text("%s/in%d_label" % (chip, channel)) or "rail %d" % channel).strip()
            if volts is not None and amperes is not None:
                out[label] = volts * amperes / 1000.0
    return out


def pi_flags(said: Optional[str]) -> Optional[List[str]]:
    """``get_throttled`` of a Raspberry Pi ("throttled=0x50005", or the firmware's file): bits 0 to 3 now, 16 to 19 since the start."""
    found = re.fullmatch(r"\s*(?:throttled=)?(?:0x)?([0-9a-fA-F]+)\s*", said or "")
    if not found:
        return None
    bits = int(found.group(1), 16)
    now = [name for bit, name in sorted(THROTTLED.items()) if bits >> bit & 1]
    return now + [name + " since its start" for bit, name in sorted(THROTTLED.items()) if bits >> (bit + 16) & 1]


def vcgencmd() -> Dict[str, Any]:
    """A Raspberry Pi's firmware: flags, the clock and the heat that it measures itself, the core's voltage."""
    out: Dict[str, Any] = {}
    flags = ask("vcgencmd", "get_throttled")
    if flags is None:
        return out
    out["throttle_flags"] = pi_flags(flags)
    for name, words, pattern, unit in (
        ("frequency_mhz", ("measure_clock", "arm"), r"frequency\(\d+\)=(\d+)", 1e-6),
        ("temperature_c", ("measure_temp",), r"temp=([\d.]+)", 1.0),
        ("core_volts", ("measure_volts", "core"), r"volt=([\d.]+)", 1.0),
    ):
        found = re.match(pattern, ask("vcgencmd", *words) or "")
        out[name] = float(found.group(1)) * unit if found else None
    return out


def tegrastats(line: str) -> Dict[str, Any]:
    """One line of a Jetson's tegrastats: megahertz of the cores that are on, how many are off, the GPU's load, heat, rails in milliwatts.

    ``RAM 2345/7620MB (lfb 4x4MB) CPU [12%@1510,off] EMC_FREQ 0%@2133 GR3D_FREQ 0%@[305] cpu@48.5C VDD_IN 4892mW/4892mW``: the first figure
    of a rail is now, the second its average. What a line doesn't have is None, or absent where it has a name of its own.
    """
    cores_part = re.search(r"\bCPU \[([^\]]*)\]", line)
    each = cores_part.group(1).split(",") if cores_part else []
    gpu = re.search(r"\bGR3D(?:_FREQ)? (\d+)%", line)
    ram = re.search(r"\bRAM (\d+)/(\d+)MB", line)
    return {
        "cpu_mhz": [int(m.group(1)) for m in (re.match(r"\d+%@(\d+)$", core) for core in each) if m] or None,
        "cores_off": each.count("off") if cores_part else None,
        "gpu_load": int(gpu.group(1)) / 100.0 if gpu else None,
        "ram_used_bytes": int(ram.group(1)) << 20 if ram else None,
        "temperatures": {name: float(c) for name, c in re.findall(r"\b(\w+)@(-?\d+(?:\.\d+)?)C\b", line) if float(c) > -100},
        "power_mw": {name: float(now) for name, now in re.findall(r"\b([A-Z][A-Z0-9_]+) (\d+)mW?/\d+mW?\b", line)},
    }


THERMAL = ("none", "light", "moderate", "severe", "critical", "emergency", "shutdown")


def thermal_status(said: Optional[str]) -> Optional[int]:
    """``dumpsys thermalservice`` of Android 10 and later: 0 (none) to 6 (shutdown)."""
    found = re.search(r"Thermal Status:\s*(\d+)", said or "")
    return int(found.group(1)) if found else None


def thermal(status: int) -> str:
    """ "thermal status 2 (moderate)"."""
    return "thermal status %d (%s)" % (status, THERMAL[status] if status < len(THERMAL) else "unknown")


def battery(said: Optional[str]) -> Optional[Dict[str, Any]]:
    """``dumpsys battery``: heat (it says tenths of a degree), volts (millivolts), charge left (microampere hours), whether it is fed from
    outside. None where there is no battery; a figure that it does not give is None."""
    fields = dict(re.findall(r"^\s*([A-Za-z ]+): (\S+)\s*$", said or "", re.M))
    if "level" not in fields or fields.get("present") == "false":
        return None

    def figure(name: str, unit: float) -> Optional[float]:
        given = fields.get(name, "")
        return int(given) * unit if re.fullmatch(r"-?\d+", given) and int(given) > 0 else None

    plugged = [kind for kind in ("AC", "USB", "Wireless", "Dock") if fields.get(kind + " powered") == "true"]
    return {
        "level": figure("level", 0.01),
        "temperature_c": figure("temperature", 0.1),
        "volts": figure("voltage", 0.001),
        "charge_uah": figure("Charge counter", 1.0),
        "plugged": plugged,
    }


def batterystats(said: Optional[str]) -> Optional[Dict[str, Any]]:
    """``dumpsys batterystats``: "Capacity: 3080, Computed drain: 46.8, actual drain: 30.8-61.6", milliampere hours since the last full
    charge; None where it does not tell."""
    found = re.search(r"Capacity: ([\d.]+), Computed drain: ([\d.]+), [Aa]ctual drain: ([\d.]+)(?:-([\d.]+))?", said or "")
    if not found:
        return None
    capacity, computed, low, high = found.groups()
    return {"capacity_mah": float(capacity), "computed_mah": float(computed), "actual_mah": [float(low), float(high or low)]}


def maker() -> Dict[str, Any]:
    """What the maker's own tools say, at the start and at the end of a launch (they are programs, too slow for every block).

    Only what a tool that is there was asked has a name here, None where it gave no answer that can be read.
    """
    out = vcgencmd()
    mode = ask("nvpmodel", "-q")
    if mode is not None:
        found = re.search(r"NV Power Mode:\s*(\S+)", mode)
        out["power_mode"] = found.group(1) if found else None
    line = ask("tegrastats", "--interval", "100", lines=1)
    if line is not None:
        out["tegrastats"] = tegrastats(line)
    thermal = ask("dumpsys", "thermalservice")
    if thermal is not None:
        out["thermal_status"] = thermal_status(thermal)
        out["battery"] = battery(ask("dumpsys", "battery"))
        out["batterystats"] = batterystats(ask("dumpsys", "batterystats"))
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


def look() -> Dict[str, Any]:
    """What this device is, how it is, and which runtimes it can import (None where it can't)."""
    import importlib

    versions: Dict[str, Optional[str]] = {"python": platform.python_version()}
    why: Dict[str, str] = {}
    for name in ("numpy", "pip"):
        try:
            versions[name] = str(importlib.import_module(name).__version__)
        except ImportError as error:
            versions[name], why[name] = None, first_line(error)
    for name in RUNTIMES:
        try:
            versions[name] = import_runtime(name)
        except AgentError as error:
            versions[name], why[name] = None, first_line(error)
    return {"versions": versions, "why": why, "device": device(), "state": state(), "maker": maker(), "executable": sys.executable}


# --- the session -----------------------------------------------------------------------------------------------------


class Lock:
    """One bench at a time on a device. Agents of the same session share it; it goes with the process that holds it, and leaves no file.

    It is a lock on the folder /tmp itself (on a phone /data/local/tmp; PACKLIGHT_LOCK names another). Who holds it for a session is
    written into the session's own folder.
    """

    def __init__(self, root: str, wait_s: float, say: Callable[..., None]) -> None:
        try:
            import fcntl
        except ImportError:
            return  # no such locks on this system
        places = (os.environ.get("PACKLIGHT_LOCK", ""), "/tmp", "/data/local/tmp")
        place = next((p for p in places if p and os.path.isdir(p)), None)
        if place is None:
            return
        try:
            self.handle = os.open(place, os.O_RDONLY)  # held to the end
        except OSError:
            return
        mark = os.path.join(root, ".bench")
        end, told = time.monotonic() + wait_s, 0.0
        while True:
            try:
                fcntl.flock(self.handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                    return  # this file system locks no folders
                if running(number(mark) if not ROOT else None):
                    return
                if time.monotonic() >= end:
                    who = "process %s" % holder(self.handle)
                    raise AgentError("busy", "another bench (%s) runs on this device; wait for it or stop it" % who) from None
                if time.monotonic() - told > 2:
                    told = time.monotonic()
                    say("busy", holder=holder(self.handle))
                time.sleep(0.1)
                continue
            with open(mark, "w") as file:
                file.write(str(os.getpid()))
            return


def running(pid: Optional[int]) -> bool:
    """Whether there is such a process."""
    if pid is None:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def holder(handle: int) -> str:
    """The process that holds the lock on an open folder, as /proc/locks has it; "unknown" where it doesn't tell."""
    where = re.compile(r"FLOCK\s+ADVISORY\s+WRITE\s+(\d+)\s+\S+:%d\s" % os.fstat(handle).st_ino)
    found = where.search(text("/proc/locks") or "")
    return found.group(1) if found else "unknown"


class Agent:
    """One artifact, open."""

    def __init__(self, plan: Dict[str, Any], say: Callable[..., None]) -> None:
        import numpy as np

        self.np, self.plan, self.say = np, plan, say
        self.clock_name, self.clock = clock_of()
        if plan.get("schema") != SCHEMA:
            raise AgentError("plan", "the plan has schema %r, this agent reads %d" % (plan.get("schema"), SCHEMA))
        if plan["runtime"] not in RUNTIMES:
            raise AgentError("plan", "unknown runtime '%s'; known: %s" % (plan["runtime"], ", ".join(sorted(RUNTIMES))))
        self.pin()
        self.lock = Lock(session_folder(os.getcwd()) or os.getcwd(), float(plan.get("wait_s", 600)), say) if plan.get("exclusive") else None
        plan["threads"] = int(plan["threads"]) or cores() or 1  # 0 is all there are
        start = time.perf_counter()
        version = import_runtime(plan["runtime"])
        imported = time.perf_counter() - start
        versions = {"python": platform.python_version(), "numpy": np.__version__, plan["runtime"]: version, "kernel": platform.release()}
        say(
            "hello",
            versions=versions,
            device=device(),
            state=state(),
            maker=maker(),
            import_s=imported,
            pid=os.getpid(),
            affinity=self.affinity,
            clock=self.clock_name,
        )
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
        start = self.clock()
        self.runtime: Any = RUNTIMES[self.plan["runtime"]](self.plan, self.plan["file"])
        load = (self.clock() - start) / 1e9
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
        clock, run = self.clock, self.runtime.run
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
        if min(out, default=0.0) < 0:
            raise AgentError("clock", "the device's clock went backwards during a run, so its times can't be trusted; run again")
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

    def profile(self, runs: int = 20) -> None:
        """Seconds of every operator in each of the last ``runs`` inferences, where the runtime tells; needs the option ``profile``."""
        if not self.plan.get("options", {}).get("profile"):
            raise AgentError("plan", "a profile needs the option 'profile' in the plan")
        self.time(runs)
        ops, why = self.runtime.profile(runs)
        self.say("profile", ops=ops, why=why, runs=runs)

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
                    reserve("%s_%d.npy" % (to, index))
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
        self.say("memory", maker=maker(), **memory())

    def state(self) -> None:
        self.say("state", **state())


COMMANDS = ("warm", "run", "throughput", "profile", "outputs", "memory", "state")


def sha256(path: str) -> str:
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            for piece in iter(lambda: file.read(1 << 20), b""):
                digest.update(piece)
    except OSError as error:
        raise AgentError("artifact", "'%s' can't be read (%s)" % (path, error.strerror)) from error
    return digest.hexdigest()


def reserve(path: str) -> None:
    """Gives a sparse file its place on the disk, so that a full disk is an error here and not a crash where the file is written."""
    if hasattr(os, "posix_fallocate"):
        with open(path, "r+b") as file:
            os.posix_fallocate(file.fileno(), 0, max(1, os.path.getsize(path)))


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


def session_folder(home: str) -> Optional[str]:
    """The folder around ``home`` that is marked as ours."""
    return next((f for f in (home, os.path.dirname(home)) if os.path.isfile(os.path.join(f, MARKER))), None)


def leave(home: str) -> None:
    """Removes the session folder that holds ``home``, when it is marked as ours."""
    root = session_folder(home)
    if root is not None:
        os.chdir("/")
        for _ in range(10):  # the runtime may be writing there at this moment
            shutil.rmtree(root, ignore_errors=True)
            if not os.path.exists(root):
                return
            time.sleep(0.05)


def main(argv: List[str]) -> int:
    if argv[1:] == ["--look"]:
        out = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)
        out.write(json.dumps(look()) + "\n")
        out.flush()
        return 0
    real = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a runtime prints must not mix with our lines
    lock = threading.Lock()

    def say(event: str, **fields: Any) -> None:
        with lock:
            real.write(json.dumps(dict(fields, event=event)) + "\n")
            real.flush()

    home = os.path.dirname(os.path.abspath(argv[1]))
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
            leave(home)
            os._exit(3)

    signal.signal(signal.SIGINT, signal.SIG_DFL)  # like SIGTERM: at once, in the middle of native code too
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # a lost link is seen on stdin, and cleaned up after
    threading.Thread(target=listen, daemon=True).start()
    try:
        with open(argv[1]) as file:
            plan = json.load(file)
        os.chdir(home)
        agent = Agent(plan, say)
        while True:
            try:
                command = commands.get(timeout=float(plan.get("idle_s", 3600)))
            except queue.Empty:
                leave(home)
                return 3
            if command is None:
                return 0
            name = command.pop("cmd", None)
            if name not in COMMANDS:
                raise AgentError("plan", "unknown command '%s'; known: %s" % (name, ", ".join(COMMANDS)))
            getattr(agent, name)(**command)
    except BrokenPipeError:
        leave(home)
        return 3
    except Exception as error:
        kind, message = classify(error)
        say("error", kind=kind, message=message)
        return 1


if __name__ == "__main__":
    code = main(sys.argv)
    sys.stderr.flush()
    os._exit(code)  # runtimes' threads must not hold the process
