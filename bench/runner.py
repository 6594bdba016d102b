"""Benches files on a device: every file's agent is loaded and warm, and they take turns, so that all see the same machine.

It speaks to a Link and can't tell one kind from another. Raw seconds come back; stats.py makes the figures.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from ..core.progress import Progress, Silent
from ..core.report import Environment, Latency, Measurement, Memory, Speedup
from ..targets.link.link import Link
from . import stats
from .plan import BenchOptions, turns
from .session import Pusher, Session, Subject, subjects_of
from .stage import Inputs, Stage, fixed_rows

LATENCY_ROWS = 32
SLOW_S = 0.05  # an inference so long that cold caches don't show in it
EMULATED = "the device is emulated; its wall time says nothing about the real one"


class Bench(msgspec.Struct, frozen=True):
    """Measurements in the order of the files given, and the device they ran on."""

    measurements: tuple[Measurement, ...]
    environment: Environment
    notes: tuple[str, ...] = ()


class Timed(msgspec.Struct):
    """What one agent brought back, raw."""

    session: Session
    rows: int
    warm: dict[str, Any] = {}
    blocks: list[list[float]] = []
    settling: list[float] = []
    states: list[dict[str, Any]] = []
    memory: dict[str, Any] = {}

    @property
    def values(self) -> list[float]:
        return [v for block in self.blocks for v in block]


def bench_artifacts(
    artifacts: Sequence[Subject | tuple[Any, ...]],
    link: Link,
    *,
    options: BenchOptions | None = None,
    inputs: Inputs,
    progress: Progress | None = None,
) -> Bench:
    """Latency, memory and speed-up of each (artifact, folder, runtime), measured interleaved.

    ``inputs`` are samples, or logical float32 arrays (N, C, H, W), one per model input; up to 32 rows are used in turn. The
    speed-up of a file stands against the baseline of its runtime and provider: the Subject marked so, else the only fp32 file.
    """
    options, progress = options or BenchOptions(), progress or Silent()
    subjects = subjects_of(artifacts)
    with Stage(inputs, [s.artifact.signature for s in subjects], LATENCY_ROWS) as stage, contextlib.ExitStack() as stack:
        pusher = Pusher(link)
        timed: list[Timed] = []
        for number, subject in enumerate(subjects):
            progress.step("load", number, len(subjects), subject.label)
            rows = fixed_rows(subject.artifact.signature) or options.batch
            session = pusher.open(subject, stage, options, rows=rows, threads=options.threads)
            stack.callback(session.stop)
            timed.append(Timed(session, rows))
        progress.step("load", len(subjects), len(subjects))
        _time(timed, options, progress)
        for one in timed:
            one.memory = one.session.ask("memory")
            one.session.quit()
    return Bench(_measurements(subjects, timed, link, options), environment(link, timed[0].session.hello, timed), _notes(subjects, options))


def _time(timed: list[Timed], options: BenchOptions, progress: Progress) -> None:
    for number, one in enumerate(timed):
        progress.step("warm up", number, len(timed), one.session.subject.label)
        one.warm = one.session.ask("warm", max_s=options.warm_s, extra_s=options.warm_s)
    typical = [stats.median(one.warm["values_s"][-20:]) for one in timed]
    plan = turns(options, typical)
    for number, order in enumerate(plan.rounds):
        progress.step("bench", number, len(plan.rounds))
        for index in order:
            answer = timed[index].session.ask("run", runs=plan.runs[index], settle_s=options.settle_s if typical[index] < SLOW_S else 0)
            timed[index].blocks.append(answer["values_s"])
            timed[index].settling += answer["settle_values_s"]
            timed[index].states += [answer["before"], answer["state"]]
    progress.step("bench", len(plan.rounds), len(plan.rounds))


def _measurements(subjects: list[Subject], timed: list[Timed], link: Link, options: BenchOptions) -> tuple[Measurement, ...]:
    out = []
    for index, (subject, one) in enumerate(zip(subjects, timed, strict=True)):
        artifact, why = subject.artifact, {}
        latency: Latency | None = latency_of(one, options)
        speedup: Speedup | None = None
        reference, reason = _baseline(index, subjects)
        if reference is None:
            why["speedup"] = reason
        elif timed[reference].rows != one.rows:
            why["speedup"] = f"{subjects[reference].label} has a batch of {timed[reference].rows}, this file {one.rows}"
        else:
            ratio = stats.speedup(timed[reference].blocks, one.blocks, seed=options.seed)
            speedup = Speedup(value=ratio.value, ci95=(ratio.low, ratio.high), against=subjects[reference].label)
        if link.kind == "emulated":
            latency, speedup = None, None
            why["latency"] = why["speedup"] = EMULATED
        why["energy"] = "no energy sensor was read"
        out.append(
            Measurement(
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
                latency=latency,
                memory=_memory(one),
                speedup=speedup,
                why=why,
            )
        )
    return tuple(out)


def latency_of(one: Timed, options: BenchOptions) -> Latency:
    """The figures of one file's raw values. All values count; the first of each turn are kept with the warm-up."""
    values = one.values
    bound = stats.percentile(values, 0.9, options.confidence)
    judged = _judge(one, options)
    ready = one.session.ready
    return Latency(
        values_s=tuple(values),
        warmup_s=tuple(one.warm["values_s"]) + tuple(one.settling),
        median_s=stats.median(values),
        p90_s=bound.value,
        p90_confidence=bound.confidence,
        ci95_s=stats.median_interval(values),
        verdict=judged.verdict,
        why=judged.why,
        threads=options.threads,
        batch=one.rows,
        cold_start_s=ready["load_s"] + ready["first_s"],
        first_s=ready["first_s"],
    )


def _judge(one: Timed, options: BenchOptions) -> stats.Judgement:
    judged = stats.judge(one.values, p=options.percentile, confidence=options.confidence, stationary=one.warm["stationary"])
    if judged.verdict == "inconclusive":
        return judged
    throttled = _grown(one.states, "throttle_count")
    if throttled:
        return stats.Judgement("unstable", f"the CPU was throttled {throttled} times: cool the device, or cap its clock")
    stolen = stolen_share(one.states)
    if stolen is not None and stolen > 0.02:
        return stats.Judgement("unstable", f"the host took {stolen:.0%} of this virtual machine's CPU time: measure on a quieter host")
    return judged


def _grown(states: list[dict[str, Any]], name: str) -> int:
    seen = [s[name] for s in states if s.get(name) is not None]
    return int(seen[-1] - seen[0]) if len(seen) > 1 else 0


def stolen_share(states: list[dict[str, Any]]) -> float | None:
    """The share of all CPU time between the first and last state that a hypervisor gave to others; None where it can't be told."""
    ticks = _grown(states, "total_ticks")
    return _grown(states, "steal_ticks") / ticks if ticks > 0 else None


def _memory(one: Timed) -> Memory:
    before = one.session.ready["memory_before"]
    return Memory(peak_bytes=one.memory["peak_bytes"], before_bytes=before["now_bytes"], why=one.memory["why"])


def _baseline(index: int, subjects: list[Subject]) -> tuple[int | None, str]:
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
    notes = [f"latency: single inferences, inputs ready, {options.threads} thread(s), files interleaved in {options.rounds} rounds"]
    if any(s.runtime == "openvino" for s in subjects):
        notes.append("openvino runs with INFERENCE_PRECISION_HINT f32 on CPU, so that fp32 files are not computed in bf16")
    return tuple(notes)


def environment(link: Link, hello: dict[str, Any], timed: Sequence[Timed]) -> Environment:
    """The device as the agents saw it, over the whole measurement."""
    device = hello["device"]
    states = [hello["state"], *(s for one in timed for s in one.states)]
    versions: dict[str, str] = {}
    for one in timed:
        versions.update(one.session.hello["versions"])
    why = {**device["why"], **hello["state"]["why"]}
    return Environment(
        device=link.name,
        kind=link.kind,
        machine=device["machine"],
        cpu=device["cpu"] or "",
        isa=tuple(device["isa"]),
        cores=device["cores"],
        governor=hello["state"]["governor"],
        frequency_mhz=_typical(states, "frequency_mhz"),
        temperature_c=_highest(states, "temperature_c"),
        load=hello["state"]["load"],
        memory_bytes=device["memory_bytes"],
        versions=versions,
        why=why,
    )


def _typical(states: list[dict[str, Any]], name: str) -> float | None:
    seen = [s[name] for s in states if s.get(name) is not None]
    return float(np.median(seen)) if seen else None


def _highest(states: list[dict[str, Any]], name: str) -> float | None:
    seen = [s[name] for s in states if s.get(name) is not None]
    return float(max(seen)) if seen else None


__all__ = ["Bench", "Subject", "bench_artifacts", "environment", "latency_of"]
