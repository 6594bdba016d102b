"""For devices without Python: TFLite's own ``benchmark_model``, pushed and run over the same Link, its output read.

It prints a summary of each launch (median, least, greatest, in microseconds), not raw values: that is said beside every figure, no
percentile is bounded from it, and what is independent, the launches, is what intervals count. Accuracy can't be measured so.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from ..core.errors import InputError, TargetError
from ..core.progress import Progress, Silent
from ..core.report import Environment, Latency, Measurement, Memory, Speedup
from ..targets.link.link import Link
from . import agent, stats
from .plan import BenchOptions
from .runner import EMULATED, Bench, baseline_of, measurement
from .session import Subject, subjects_of

SUMMARY = "benchmark_model gives a summary of each launch, no raw values, so no percentile can be bounded"
SCRIPT = """\
echo "== machine"; uname -m
for f in /proc/cpuinfo /proc/meminfo /sys/devices/system/cpu/cpu0/cpufreq/scaling_governor \\
  /sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq /proc/loadavg; do echo "== $f"; cat $f 2>/dev/null; done
for z in /sys/class/thermal/thermal_zone*; do echo "== $z"; cat $z/type $z/temp 2>/dev/null; done
if command -v getprop >/dev/null; then echo "== board"; getprop ro.product.model; echo "== android"; getprop ro.build.version.release; fi
if command -v dumpsys >/dev/null; then echo "== thermal"; dumpsys thermalservice; echo "== battery"; dumpsys battery; \
  echo "== batterystats"; dumpsys batterystats; fi
"""


class Launch(msgspec.Struct, frozen=True, kw_only=True):
    """What one launch printed, in seconds and bytes. ``count`` runs after the warm-up."""

    count: int
    median_s: float
    min_s: float
    max_s: float
    init_s: float
    first_s: float
    peak_bytes: int | None = None


def parse(text: str) -> Launch:
    """Reads ``benchmark_model``'s output (the format of TFLite 2.14 and later, which prints p5, median and p95)."""
    runs = re.findall(r"^INFO: count=(\d+) (.*)$", text, re.M)
    timings = re.search(r"^INFO: Inference timings in us: Init: ([\d.e+]+), First inference: ([\d.e+]+),", text, re.M)
    fields = dict(re.findall(r"(\w+)=([\d.e+]+)", runs[-1][1])) if runs else {}
    if not timings or "median" not in fields:
        lines = [line for line in text.splitlines() if re.match(r"ERROR|E/|.*(error|fail)", line, re.I)]
        raise InputError(f"benchmark_model gave no timings ({lines[-1][:200] if lines else 'it says nothing of an error'})")
    peak = re.search(r"peak memory footprint \(MB\).*?: ([\d.]+)", text)
    return Launch(
        count=int(runs[-1][0]),
        median_s=float(fields["median"]) / 1e6,
        min_s=float(fields["min"]) / 1e6,
        max_s=float(fields["max"]) / 1e6,
        init_s=float(timings[1]) / 1e6,
        first_s=float(timings[2]) / 1e6,
        peak_bytes=int(float(peak[1]) * (1 << 20)) if peak else None,
    )


def bench_native(
    artifacts: Sequence[Subject | tuple[Any, ...]],
    link: Link,
    *,
    program: Path,
    options: BenchOptions | None = None,
    progress: Progress | None = None,
) -> Bench:
    """Latency and memory of each TFLite file by ``program``, a ``benchmark_model`` built for the device, launches in turns."""
    options, progress = options or BenchOptions(), progress or Silent()
    subjects = subjects_of(artifacts)
    for subject in subjects:
        if subject.artifact.format != "tflite":
            raise InputError(f"benchmark_model runs tflite files, not '{subject.artifact.file}' ({subject.artifact.format})")
    link.push(program, "benchmark_model")
    link.run(("chmod", "755", "benchmark_model"), timeout_s=60)
    for number, subject in enumerate(subjects):
        link.push(subject.artifact.path(subject.folder), f"{number}/{subject.artifact.file}")
    where = look(link)
    launches: list[list[Launch]] = [[] for _ in subjects]
    drained: list[list[float | None]] = [[] for _ in subjects]
    rng = np.random.default_rng(options.seed)
    for turn in range(options.launches):
        progress.step("bench", turn, options.launches)
        for index in rng.permutation(len(subjects)):
            before = _battery(link) if where.battery else None
            launches[index].append(_launch(link, f"{index}/{subjects[index].artifact.file}", options))
            drained[index].append(joules(before, _battery(link)) if before else None)
    progress.step("bench", options.launches, options.launches)
    found = tuple(_measurement(i, subjects, launches, link, options, _energy(where, drained[i], launches[i])) for i in range(len(subjects)))
    return Bench(found, where, (f"latency: {SUMMARY}; {options.launches} launches of each file, in turns",))


def _battery(link: Link) -> dict[str, Any] | None:
    return agent.battery(link.run(("dumpsys", "battery"), timeout_s=60).stdout)


def joules(before: dict[str, Any], after: dict[str, Any] | None) -> float | None:
    """What a battery gave between two readings: its loss of charge (1 microampere hour is 3.6 mC) times the mean voltage; None where
    either does not tell."""
    if after is None or any(x[name] is None for x in (before, after) for name in ("charge_uah", "volts")):
        return None
    charge = (before["charge_uah"] - after["charge_uah"]) * 3.6e-3
    return float(charge * (before["volts"] + after["volts"]) / 2)


def _energy(where: Environment, drained: Sequence[float | None], launches: Sequence[Launch]) -> dict[str, Any] | str:
    """Joules of an inference of the whole phone, screen and warm-up included, or why there is no such figure."""
    if where.battery is None:
        return where.why.get("battery", "no battery that tells")
    if where.battery["plugged"]:
        return f"the phone is fed from outside ({', '.join(where.battery['plugged'])}): unplug it and reach it over the network"
    known = [d for d in drained if d is not None]
    if len(known) < len(launches):
        return "the phone's battery has no charge counter"
    if sum(known) <= 0:
        return "the battery's charge counter did not move: allow more runs"
    per = sum(known) / sum(launch.count for launch in launches)
    return {"joules_per_inference": per, "by_domain": {"phone": per}, "source": "charge of the battery before and after each launch"}


def _launch(link: Link, file: str, options: BenchOptions) -> Launch:
    words = [f"--graph={file}", f"--num_threads={options.threads}", f"--num_runs={options.required()}", "--min_secs=0.5"]
    words += [f"--max_secs={options.budget_s:g}", "--warmup_min_secs=0.3", "--use_xnnpack=true", "--report_peak_memory_footprint=true"]
    ran = link.run(("./benchmark_model", *words), timeout_s=options.answer_s + options.budget_s)
    if ran.code != 0:
        said = [line for line in (ran.stdout + ran.stderr).splitlines() if line.strip()]
        raise TargetError(
            f"device '{link.name}': benchmark_model failed on '{file}' ({said[-1][:200] if said else f'exit code {ran.code}'})"
        )
    return parse(ran.stdout + "\n" + ran.stderr)


def _measurement(
    index: int,
    subjects: list[Subject],
    launches: list[list[Launch]],
    link: Link,
    options: BenchOptions,
    energy: dict[str, Any] | str,
) -> Measurement:
    mine = launches[index]
    medians = [launch.median_s for launch in mine]
    latency: Latency | None = Latency(
        median_s=stats.median(medians),
        ci95_s=stats.median_interval(medians),
        verdict="inconclusive",
        why=SUMMARY,
        threads=options.threads,
        launches=len(mine),
        cold_start_s=mine[0].init_s + mine[0].first_s,
        first_s=mine[0].first_s,
    )
    why: dict[str, str] = {"metric": "benchmark_model gives no outputs"}
    if isinstance(energy, str):
        why["energy"] = energy
    speedup: Speedup | None = None
    reference, reason = baseline_of(index, subjects)
    if reference is None:
        why["speedup"] = reason
    elif len(mine) < 2:
        why["speedup"] = "one launch of each says nothing about a difference"
    else:
        ratio = stats.speedup([[[x.median_s]] for x in launches[reference]], [[[m]] for m in medians])
        speedup = Speedup(value=ratio.value, ci95=(ratio.low, ratio.high), against=subjects[reference].label)
    if link.kind == "emulated":
        latency, speedup = None, None
        why["latency"] = why["speedup"] = EMULATED
    peaks = [launch.peak_bytes for launch in mine if launch.peak_bytes]
    memory = Memory(peak_bytes=max(peaks) if peaks else None, why="by benchmark_model's own monitoring, approximate")
    return measurement(
        subjects[index],
        latency=latency,
        memory=memory,
        energy=energy if isinstance(energy, dict) else None,
        speedup=speedup,
        why=why,
        notes=("measured by TFLite's benchmark_model",),
    )


def look(link: Link) -> Environment:
    """What a device without Python tells through its shell."""
    said = link.run(("sh", "-c", SCRIPT), timeout_s=120).stdout
    parts = {head: body.strip() for head, body in re.findall(r"^== (.*)\n((?:(?!== ).*\n?)*)", said, re.M)}
    cpu = parts.get("/proc/cpuinfo", "")
    frequency = parts.get("/sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq", "")
    heat = [int(body.split()[-1]) / 1000 for head, body in parts.items() if "thermal_zone" in head and re.search(r"\s-?\d+$", body)]
    memory = re.search(r"MemTotal:\s*(\d+) kB", parts.get("/proc/meminfo", ""))
    status = agent.thermal_status(parts.get("thermal"))
    power = agent.battery(parts.get("battery"))
    governor = parts.get("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor") or None
    if not heat and power and power["temperature_c"] is not None:
        heat.append(power["temperature_c"])
    why = {} if heat else {"temperature_c": "no thermal zone that the shell may read, and no battery that tells"}
    if status is None:
        why["throttled"] = "no 'dumpsys thermalservice' that tells (Android 10 and later have it)"
    if power is None:
        why["battery"] = "no 'dumpsys battery' that tells"
    return Environment(
        device=link.name,
        kind=link.kind,
        machine=parts.get("machine", ""),
        board=parts.get("board") or None,
        cpu=agent.cpu_name(cpu) or "",
        isa=tuple(agent.isa_flags(cpu)),
        cores=len(re.findall(r"^processor\s*:", cpu, re.M)) or None,
        governor=governor,
        frequency_mhz=int(frequency) / 1000 if frequency.isdigit() else None,
        temperature_c=max(heat) if heat else None,
        throttled=None if status is None else (agent.thermal(status),) if status else (),
        battery={**power, "stats": agent.batterystats(parts.get("batterystats"))} if power else None,
        load=float(parts["/proc/loadavg"].split()[0]) if parts.get("/proc/loadavg") else None,
        memory_bytes=int(memory[1]) * 1024 if memory else None,
        versions={"android": parts["android"]} if parts.get("android") else {},
        why=why if governor else {**why, "governor": "no cpufreq that the shell may read"},
    )
