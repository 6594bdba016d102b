"""What was measured, of which file, where: report.json, schema 1, and its JSON Schema.

A figure that could not be measured is None and a ``why`` stands beside it. Raw values are always kept.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from .artifact import Ops, Parity
from .history import Step


class Environment(msgspec.Struct, frozen=True, kw_only=True):
    """The device at the time of a measurement. ``kind``: "real", "emulated" or "simulated clock".

    ``frequency_mhz`` is typical and ``temperature_c`` the highest, over the whole measurement; the ranges are their least and
    greatest. ``pressure`` is the share of time (%) that some process waited for a CPU, ``waited`` the share that the measured process
    itself did, ``steal`` the share of CPU time that a hypervisor gave to others, ``throttled`` what the device says of capped clocks, heat
    and low voltage, ``battery`` an Android device's. ``why`` tells why a field is None.
    """

    device: str = "local"
    kind: str = "real"
    machine: str = ""
    board: str | None = None
    cpu: str = ""
    isa: tuple[str, ...] = ()
    cores: int | None = None
    governor: str | None = None
    power_mode: str | None = None
    frequency_mhz: float | None = None
    max_frequency_mhz: float | None = None
    frequency_range_mhz: tuple[float, float] | None = None
    temperature_c: float | None = None
    temperature_range_c: tuple[float, float] | None = None
    throttled: tuple[str, ...] | None = None
    load: float | None = None
    pressure: float | None = None
    waited: float | None = None
    steal: float | None = None
    battery: dict[str, Any] | None = None
    memory_bytes: int | None = None
    versions: dict[str, str] = {}
    why: dict[str, str] = {}


class Latency(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds of single inferences, in the order they ran: ``launches`` processes one after the other, equally many runs of each.

    ``p90_confidence`` is the confidence with which the order statistic given bounds the 90th percentile from above; ``percentile_s`` and
    ``percentile_confidence`` are the same for the ``percentile`` that was asked for. ``ci95_s`` is the 95 % interval of the
    median. ``warmup_s`` are the runs that don't count. ``cold_start_s`` is from opening the file to its first output, the runtime already
    imported; ``first_s`` the first inference of it.
    """

    values_s: tuple[float, ...] = ()
    warmup_s: tuple[float, ...] = ()
    median_s: float | None = None
    p90_s: float | None = None
    p90_confidence: float | None = None
    ci95_s: tuple[float, float] | None = None
    verdict: Literal["stable", "unstable", "inconclusive"] = "inconclusive"
    why: str = ""
    percentile: float = 0.9
    percentile_s: float | None = None
    percentile_confidence: float | None = None
    threads: int = 1
    batch: int = 1
    launches: int = 1
    cold_start_s: float | None = None
    first_s: float | None = None


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """Peak resident memory of the process that ran the artifact, and what it had before the artifact was loaded."""

    peak_bytes: int | None = None
    before_bytes: int | None = None
    why: str = ""


class Metric(msgspec.Struct, frozen=True, kw_only=True):
    """A task's metric over ``n`` samples with its 95 % interval. ``more`` holds further figures (top5, per_class)."""

    name: str
    value: float
    n: int
    ci95: tuple[float, float] | None = None
    higher_is_better: bool = True
    unit: str = ""
    more: dict[str, Any] = {}


class Speedup(msgspec.Struct, frozen=True, kw_only=True):
    """Baseline seconds over this file's, both measured interleaved; above one is faster."""

    value: float
    ci95: tuple[float, float]
    against: str


class Throughput(msgspec.Struct, frozen=True, kw_only=True):
    """The offline scenario: nobody waits for a single answer. ``rows_per_s`` over the whole run, ``rows`` in one inference, ``threads`` at
    work; ``values_s`` are the seconds of each inference in the order they ran, ``ci95`` the interval of ``rows_per_s``."""

    rows_per_s: float
    ci95: tuple[float, float] | None = None
    rows: int = 1
    threads: int = 1
    values_s: tuple[float, ...] = ()


class Kernels(msgspec.Struct, frozen=True, kw_only=True):
    """An integer file by this CPU's integer kernels against the same file computed as written, in float, over ``samples`` inputs.

    ``gap_db``: how much nearer to the float file the latter is (None: no float file beside it); ``between_db``: SQNR between the two (None:
    equal); ``changed``: share of answers that differ.
    """

    gap_db: float | None
    between_db: float | None
    changed: float | None
    samples: int
    ok: bool
    why: str = ""


class Measurement(msgspec.Struct, frozen=True, kw_only=True):
    """One artifact in one runtime, measured."""

    file: str
    format: str
    runtime: str
    precision: str
    bytes: int
    sha256: str
    macs: int | None = None
    parameters: int | None = None
    parity: Parity | None = None
    ops: Ops | None = None
    latency: Latency | None = None
    throughput: Throughput | None = None
    memory: Memory | None = None
    energy: dict[str, Any] | None = None
    metric: Metric | None = None
    speedup: Speedup | None = None
    trust: dict[str, Any] | None = None
    kernels: Kernels | None = None
    recommended: bool = False
    notes: tuple[str, ...] = ()
    why: dict[str, str] = {}


class Gate(msgspec.Struct, frozen=True, kw_only=True):
    """A limit and what was found. ``file`` names the artifact; ``limit`` and ``value`` are in the gate's own unit."""

    name: str
    limit: float
    value: float | None
    ok: bool
    file: str = ""
    why: str = ""


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """The model as it came; ``labels`` name its classes where they are known."""

    name: str
    parameters: int
    macs: int | None
    metric: Metric | None = None
    source: str = ""
    labels: tuple[str, ...] = ()


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """report.json, schema 1. ``baseline`` is the uncompressed float file that speed-ups in the table head
    stand against (each artifact's own speed-up names its own); ``artifacts`` are all files measured.

    ``blame`` lists the integer layers, worst first: layer, op, changed (share of answers with this layer alone in integers), alone_db (SQNR
    of the output then), sqnr_db (of the layer in the whole quantized model), samples.
    """

    schema: Literal[1] = 1
    packlight: str
    created: str
    model: Model
    task: str | None
    target: str
    environment: Environment
    baseline: Measurement | None = None
    artifacts: tuple[Measurement, ...] = ()
    history: tuple[Step, ...] = ()
    gates: tuple[Gate, ...] = ()
    notes: tuple[str, ...] = ()
    seed: int = 0
    blame: tuple[dict[str, Any], ...] = ()


def json_schema() -> dict[str, Any]:
    """The JSON Schema of report.json (draft 2020-12), made from the structs above."""
    schema = msgspec.json.schema(Report)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "packlight report, schema 1", **schema}
