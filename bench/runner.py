"""Benches files on a device: every file's agent is loaded and warm, and they take turns, so that all see the same machine.

It speaks to a Link and can't tell one kind from another. Raw seconds come back; stats.py makes the figures.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from ..core.errors import TargetError
from ..core.files import storage_errors
from ..core.progress import Progress, Silent
from ..core.report import Environment, Latency, Measurement, Memory, Speedup
from ..targets.link.link import Link
from . import agent, stats
from .plan import BenchOptions, Turns, turns
from .session import Pusher, Session, Subject, subjects_of
from .stage import Inputs, Stage, fixed_rows

LATENCY_ROWS = 32
BUSY = 0.10  # above this share of waiting for a CPU other work on the device is a part of what is measured
SLOW_S = 0.05  # an inference so long that cold caches don't show in it
INPUT_RAILS = ("VDD_IN", "POM_5V_IN")  # a Jetson's input: the other rails are a part of it
CLOCK_SLACK_S = 1.0
EMULATED = "the device is emulated; its wall time says nothing about the real one"


class Bench(msgspec.Struct, frozen=True):
    """Measurements in the order of the files given, and the device they ran on."""

    measurements: tuple[Measurement, ...]
    environment: Environment
    notes: tuple[str, ...] = ()


class Timed(msgspec.Struct):
    """What the agents of one file brought back, raw: ``launches`` of blocks of seconds, in the order they ran."""

    subject: Subject
    rows: int
    hello: dict[str, Any] = {}
    ready: dict[str, Any] = {}
    memory: dict[str, Any] = {}
    end: dict[str, Any] = {}
    warm: list[dict[str, Any]] = []
    launches: list[list[list[float]]] = []
    settling: list[float] = []
    states: list[dict[str, Any]] = []

    @property
    def values(self) -> list[float]:
        return [v for launch in self.launches for block in launch for v in block]

    @property
    def unsettled(self) -> int:
        return sum(not warm["stationary"] for warm in self.warm)


def bench_artifacts(
    artifacts: Sequence[Subject | tuple[Any, ...]],
    link: Link,
    *,
    options: BenchOptions | None = None,
    inputs: Inputs,
    progress: Progress | None = None,
    journal: Path | None = None,
) -> Bench:
    """Latency, memory and speed-up of each (artifact, folder, runtime), measured interleaved.

    ``inputs`` are samples, or logical float32 arrays (N, C, H, W), one per model input; up to 32 rows are used in turn. The
    speed-up of a file stands against the baseline of its runtime and provider: the Subject marked so, else the only fp32 file.
    Raw values are appended to ``journal`` (JSON lines) as they come, so that a lost link loses nothing.
    """
    options, progress = options or BenchOptions(), progress or Silent()
    subjects = subjects_of(artifacts)
    timed = [Timed(s, fixed_rows(s.artifact.signature) or options.batch) for s in subjects]
    with Stage(inputs, [s.artifact.signature for s in subjects], LATENCY_ROWS) as stage:
        pusher = Pusher(link)
        plan: Turns | None = None
        for number in range(options.launches):
            with contextlib.ExitStack() as stack:
                sessions = _open(timed, pusher, stage, options, stack, number, progress)
                _warm(timed, sessions, options, number, progress)
                if plan is None:
                    plan = turns(options, [_typical_s(one) for one in timed])
                _time(timed, sessions, plan, options, number, progress, journal)
                for one, session in zip(timed, sessions, strict=True):
                    said = session.ask("memory")
                    one.memory, one.end = one.memory or said, said.get("maker") or {}
                    session.quit()
        progress.step("bench", 1, 1)
    return Bench(_measurements(subjects, timed, link, options), environment(link, timed), _notes(subjects, options))


def _open(
    timed: list[Timed],
    pusher: Pusher,
    stage: Stage,
    options: BenchOptions,
    stack: contextlib.ExitStack,
    number: int,
    progress: Progress,
) -> list[Session]:
    """One fresh agent per file. The first time one after the other, so that loading is timed alone; then all at once."""
    sessions = []
    for index, one in enumerate(timed):
        if number == 0:
            progress.step("load", index, len(timed), one.subject.label)
        session = pusher.start(one.subject, stage, options, rows=one.rows, threads=options.threads, more={"exclusive": True})
        stack.callback(session.stop)
        if number == 0:
            session.wait_ready(lambda said: progress.step("wait for another bench on the device", 0, None))
            one.hello, one.ready = session.hello, session.ready
        sessions.append(session)
    for session in sessions:
        session.wait_ready()
    return sessions


def _warm(timed: list[Timed], sessions: list[Session], options: BenchOptions, number: int, progress: Progress) -> None:
    for index, (one, session) in enumerate(zip(timed, sessions, strict=True)):
        if number == 0:
            progress.step("warm up", index, len(timed), one.subject.label)
        one.warm.append(session.ask("warm", max_s=options.warm_s, extra_s=options.warm_s))


def _typical_s(one: Timed) -> float:
    return stats.median(one.warm[0]["values_s"][-20:])


def _time(
    timed: list[Timed], sessions: list[Session], plan: Turns, options: BenchOptions, number: int, progress: Progress, journal: Path | None
) -> None:
    rounds = plan.launches[number]
    for one in timed:
        one.launches.append([])
    for step, order in enumerate(rounds):
        progress.step("bench", number * len(rounds) + step, options.launches * len(rounds))
        for index in order:
            one = timed[index]
            settle_s = options.settle_s if _typical_s(one) < SLOW_S else 0.0
            began = time.monotonic()
            answer = sessions[index].ask("run", runs=plan.runs[index], settle_s=settle_s)
            _check_clock(one, answer, time.monotonic() - began)
            one.launches[-1].append(answer["values_s"])
            one.settling += answer["settle_values_s"]
            one.states += [answer["before"], answer["state"]]
            if journal is not None:
                _keep(journal, {"file": one.subject.label, "launch": number, "round": step, **answer})


def _check_clock(one: Timed, answer: dict[str, Any], here_s: float) -> None:
    """A block can't have taken longer there than its question and answer took here."""
    there_s = sum(answer["values_s"]) + sum(answer["settle_values_s"])
    if one.hello.get("clock") == "perf_counter" and there_s > here_s + CLOCK_SLACK_S:
        raise TargetError(
            f"the device's clock jumped: it says {there_s:.1f} s for runs of {one.subject.label} that took {here_s:.1f} s; "
            "was it suspended? run again"
        )


def _keep(journal: Path, entry: dict[str, Any]) -> None:
    with storage_errors(journal.parent), open(journal, "ab") as file:
        file.write(msgspec.json.encode(entry) + b"\n")


def _measurements(subjects: list[Subject], timed: list[Timed], link: Link, options: BenchOptions) -> tuple[Measurement, ...]:
    out = []
    for index, (subject, one) in enumerate(zip(subjects, timed, strict=True)):
        why: dict[str, str] = {}
        latency: Latency | None = latency_of(one, options)
        speedup: Speedup | None = None
        reference, reason = baseline_of(index, subjects)
        if reference is None:
            why["speedup"] = reason
        elif timed[reference].rows != one.rows:
            why["speedup"] = f"{subjects[reference].label} has a batch of {timed[reference].rows}, this file {one.rows}"
        else:
            ratio = stats.speedup(timed[reference].launches, one.launches, seed=options.seed)
            speedup = Speedup(value=ratio.value, ci95=(ratio.low, ratio.high), against=subjects[reference].label)
        if kind_of(link, timed) == "emulated":
            latency, speedup = None, None
            why["latency"] = why["speedup"] = EMULATED
        energy = energy_of(one)
        if energy is None:
            why["energy"] = one.hello["state"]["why"].get("energy", "no energy counter was read")
        out.append(measurement(subject, latency=latency, memory=_memory(one), energy=energy, speedup=speedup, why=why))
    return tuple(out)


def measurement(subject: Subject, **figures: Any) -> Measurement:
    """What the manifest says of a file, with the figures measured."""
    artifact = subject.artifact
    return Measurement(
        file=artifact.file,
        format=artifact.format,
        runtime=subject.runtime,
        precision=artifact.precision,
        bytes=artifact.bytes,
        sha256=artifact.sha256,
        macs=artifact.macs,
        parameters=artifact.parameters,
        parity=artifact.parity[0] if artifact.parity else None,
        ops=artifact.ops,
        **figures,
    )


def latency_of(one: Timed, options: BenchOptions) -> Latency:
    """The figures of one file's raw values. All values count; the first of each turn are kept with the warm-up."""
    values = one.values
    bound = stats.percentile(values, 0.9, options.confidence)
    asked = stats.percentile(values, options.percentile, options.confidence)
    judged = _judge(one, options)
    return Latency(
        values_s=tuple(values),
        warmup_s=(*(v for warm in one.warm for v in warm["values_s"]), *one.settling),
        median_s=stats.median(values),
        p90_s=bound.value,
        p90_confidence=bound.confidence,
        ci95_s=stats.center_interval(values, len(one.launches)),
        verdict=judged.verdict,
        why=judged.why,
        percentile=options.percentile,
        percentile_s=asked.value,
        percentile_confidence=asked.confidence,
        threads=options.threads,
        launches=len(one.launches),
        batch=one.rows,
        cold_start_s=one.ready["load_s"] + one.ready["first_s"],
        first_s=one.ready["first_s"],
    )


def _judge(one: Timed, options: BenchOptions) -> stats.Judgement:
    judged = stats.judge(
        one.values,
        p=options.percentile,
        confidence=options.confidence,
        stationary=3 * one.unsettled <= len(one.warm),
        launches=len(one.launches),
    )
    if judged.verdict == "inconclusive":
        return judged
    flags = sorted({f for s in [*one.states, one.end] for f in s.get("throttle_flags") or () if "since" not in f})
    flags += [agent.thermal(s["thermal_status"]) for s in (one.hello.get("maker", {}), one.end) if (s.get("thermal_status") or 0) > 1][-1:]
    if flags:
        return stats.Judgement("unstable", f"the device reports {', '.join(flags)}: use a stronger power supply, or cool it")
    throttled = _grown(one.states, "throttle_count")
    if throttled:
        return stats.Judgement("unstable", f"the CPU was throttled {throttled} times: cool the device, or cap its clock")
    stolen = stolen_share(one.states)
    if stolen is not None and stolen > 0.02:
        return stats.Judgement("unstable", f"the host took {stolen:.0%} of this virtual machine's CPU time: measure on a quieter host")
    waited = waited_share(one.states)
    if waited is not None and waited > BUSY:
        return stats.Judgement("unstable", f"it waited for a CPU {waited:.0%} of the time: stop what else runs there")
    pressure = _typical(one.states, "pressure") if waited is None else None
    if pressure is not None and pressure > 100 * BUSY:
        return stats.Judgement("unstable", f"some process waited for a CPU {pressure:.0f} % of the time: stop what else runs there")
    return judged


def _grown(states: list[dict[str, Any]], name: str) -> int:
    seen = [s[name] for s in states if s.get(name) is not None]
    return int(seen[-1] - seen[0]) if len(seen) > 1 else 0


def stolen_share(states: list[dict[str, Any]]) -> float | None:
    """The share of all CPU time between the first and last state that a hypervisor gave to others; None where it can't be told."""
    ticks = _grown(states, "total_ticks")
    return _grown(states, "steal_ticks") / ticks if ticks > 0 else None


def waited_share(states: list[dict[str, Any]]) -> float | None:
    """Of the time that the measured process could have run in its blocks, the share that it waited for a CPU; None where it can't be told.

    ``states`` are pairs, before and after each block."""
    ran = waited = 0
    for before, after in zip(states[::2], states[1::2], strict=True):
        if before.get("waited_ns") is None or after.get("waited_ns") is None:
            return None
        ran += after["ran_ns"] - before["ran_ns"]
        waited += after["waited_ns"] - before["waited_ns"]
    return waited / (ran + waited) if ran + waited > 0 else None


def energy_of(one: Timed) -> dict[str, Any] | None:
    """Joules of one inference, from the sensors read before and after each block; they see the whole package or board, idle parts too.

    Counters (powercap) are exact for the block. Where there are only rails that tell their power (INA3221), the mean of the two readings
    times the seconds of the block's runs; the total is the input rail where there is one, else the sum of the rails.
    """
    runs = len(one.values)
    counted: dict[str, float] = {}
    powered: dict[str, float] = {}
    blocks = [block for launch in one.launches for block in launch]
    for before, after, block in zip(one.states[::2], one.states[1::2], blocks, strict=True):
        for name, count in (after.get("energy_uj") or {}).items():
            grown = count - (before.get("energy_uj") or {}).get(name, count)
            if grown >= 0:  # a counter that wrapped around says nothing
                counted[name] = counted.get(name, 0.0) + grown / 1e6
        for name, power in (after.get("power_mw") or {}).items():
            watts = (power + (before.get("power_mw") or {}).get(name, power)) / 2e3
            powered[name] = powered.get(name, 0.0) + watts * sum(block)
    joules = counted or powered
    if not joules or not runs:
        return None
    total = next((joules[name] for name in INPUT_RAILS if name in joules), sum(joules.values()))
    return {
        "joules_per_inference": total / runs,
        "by_domain": {k: v / runs for k, v in joules.items()},
        "source": "powercap" if counted else "ina3221, power before and after each block",
    }


def _memory(one: Timed) -> Memory:
    before = one.ready["memory_before"]
    return Memory(peak_bytes=one.memory["peak_bytes"], before_bytes=before["now_bytes"], why=one.memory["why"])


def baseline_of(index: int, subjects: list[Subject]) -> tuple[int | None, str]:
    """Which subject the one at ``index`` is compared with, or None and why."""
    mine = subjects[index]
    same = [i for i, s in enumerate(subjects) if (s.runtime, s.provider) == (mine.runtime, mine.provider)]
    marked = [i for i in same if subjects[i].baseline]
    found = marked or [i for i in same if subjects[i].artifact.precision == "fp32"]
    if not found:
        return None, f"no fp32 file was measured in {mine.runtime}"
    if len(found) > 1 and not marked:
        return None, f"several fp32 files were measured in {mine.runtime}; none is marked as the baseline"
    return (None, "this is the baseline") if found[0] == index else (found[0], "")


def _notes(subjects: list[Subject], options: BenchOptions) -> tuple[str, ...]:
    notes = [
        f"latency: single inferences, inputs ready, {options.threads} thread(s), files interleaved, {options.launches} launches of each"
    ]
    if any(s.runtime == "openvino" for s in subjects):
        notes.append("openvino runs with INFERENCE_PRECISION_HINT f32 on CPU, so that fp32 files are not computed in bf16")
    return tuple(notes)


def kind_of(link: Link, timed: Sequence[Timed]) -> str:
    """The link's kind, or what the device was seen to be: "simulated clock" where it counts instructions (shown at 1 ns each)."""
    if timed[0].hello.get("clock") == "instructions":
        return "simulated clock"
    return "emulated" if timed[0].hello["device"].get("emulated") else link.kind


def environment(link: Link, timed: Sequence[Timed]) -> Environment:
    """The device as the agents saw it, over the whole measurement."""
    hello = timed[0].hello
    device, maker = hello["device"], hello.get("maker", {})
    states = [hello["state"], *(s for one in timed for s in one.states)]
    versions: dict[str, str] = {}
    for one in timed:
        versions.update(one.hello["versions"])
    makers = [maker, *(one.end for one in timed)]
    flags = [s["throttle_flags"] for s in [*states, *makers] if s.get("throttle_flags") is not None]
    flags += [[agent.thermal(m["thermal_status"])] if m["thermal_status"] else [] for m in makers if m.get("thermal_status") is not None]
    tegra = [m["tegrastats"]["temperatures"] for m in makers if m.get("tegrastats")]
    warm = [*states, *makers, *({"temperature_c": max(found.values(), default=None)} for found in tegra)]
    why = {**device["why"], **hello["state"]["why"]}
    for name in ("temperature_c", "frequency_mhz"):
        if _range(warm, name):
            why.pop(name, None)
    return Environment(
        device=link.name,
        kind=kind_of(link, timed),
        machine=device["machine"],
        board=device.get("board"),
        cpu=device["cpu"] or "",
        isa=tuple(device["isa"]),
        cores=device["cores"],
        governor=hello["state"]["governor"],
        power_mode=maker.get("power_mode"),
        frequency_mhz=_typical(states, "frequency_mhz") or _typical(makers, "frequency_mhz"),
        max_frequency_mhz=hello["state"].get("max_frequency_mhz"),
        frequency_range_mhz=_range(states, "frequency_mhz") or _range(makers, "frequency_mhz"),
        temperature_c=(_range(warm, "temperature_c") or (None, None))[1],
        temperature_range_c=_range(warm, "temperature_c"),
        throttled=tuple(sorted({f for found in flags for f in found})) if flags else None,
        load=hello["state"]["load"],
        pressure=_typical(states, "pressure"),
        waited=waited_share([s for one in timed for s in one.states]),
        steal=stolen_share(timed[0].states),
        battery=next((m["battery"] for m in reversed(makers) if m.get("battery")), None),
        memory_bytes=device["memory_bytes"],
        versions=versions,
        why=why,
    )


def _typical(states: list[dict[str, Any]], name: str) -> float | None:
    seen = [s[name] for s in states if s.get(name) is not None]
    return float(np.median(seen)) if seen else None


def _range(states: list[dict[str, Any]], name: str) -> tuple[float, float] | None:
    seen = [s[name] for s in states if s.get(name) is not None]
    return (float(min(seen)), float(max(seen))) if seen else None


__all__ = ["EMULATED", "Bench", "Subject", "baseline_of", "bench_artifacts", "environment", "latency_of", "measurement"]
