"""benchmark_model's output as the arm64 program of TFLite 2.20 printed it (under an emulator), and what is made of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from packlight.bench.native import bench_native, look, parse
from packlight.bench.plan import BenchOptions
from packlight.core.errors import InputError, TargetError
from packlight.targets.link.fake import Fake
from packlight.targets.link.link import Ran
from packlight.targets.link.local import Local

OUTPUT = """\
INFO: Initialized session in 3543.06ms.
INFO: Running benchmark for at least 3 iterations and at least 0.05 seconds but terminate if exceeding 150 seconds.
INFO: count=3 first=438773 curr=678 min=678 max=438773 avg=146727 std=206507 p5=678 median=731 p95=438773

INFO: Running benchmark for at least 20 iterations and at least 0.1 seconds but terminate if exceeding 150 seconds.
INFO: count=20 first=717 curr=24060 min=658 max=509499 avg=47628.7 std=135337 p5=658 median={median} p95=509499

INFO: Inference timings in us: Init: 3543059, First inference: 438773, Warmup (avg): 146727, Inference (avg): 47628.7
INFO: Memory footprint delta from the start of the tool (MB): init=2.75391 overall=2.75391
INFO: Overall peak memory footprint (MB) via periodic monitoring: 26.7969
"""
PHONE = """\
== machine
aarch64
== /proc/cpuinfo
processor\t: 0
Features\t: fp asimd asimdhp asimddp
CPU part\t: 0xd0b

processor\t: 1
CPU part\t: 0xd05
== /proc/meminfo
MemTotal:        5745996 kB
== /sys/devices/system/cpu/cpu0/cpufreq/scaling_governor
schedutil
== /sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq
1803000
== /proc/loadavg
2.10 1.0 0.5 1/900 1234
== /sys/class/thermal/thermal_zone0
cpu-0-0
41200
== board
Pixel 4a
== android
13
== thermal
IsStatusOverride: false
Thermal Status: 1
== battery
Current Battery Service state:
  AC powered: false
  USB powered: {usb}
  Charge counter: {charge}
  present: true
  level: 87
  voltage: 4000
  temperature: 312
== batterystats
  Estimated power use (mAh):
    Capacity: 3080, Computed drain: 46.8, actual drain: 30.8-61.6
"""


def test_the_output_is_read() -> None:
    launch = parse(OUTPUT.replace("{median}", "676"))
    assert (launch.count, launch.median_s, launch.min_s, launch.max_s) == (20, 676e-6, 658e-6, 0.509499)
    assert (launch.init_s, launch.first_s) == (3.543059, 0.438773)
    assert launch.peak_bytes == int(26.7969 * (1 << 20))


@pytest.mark.parametrize("text", ["", "ERROR: Could not open model", OUTPUT.replace("median={median} ", "")])
def test_output_without_timings_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="gave no timings"):
        parse(text)


def phone(medians: dict[str, list[int]], code: int = 0, usb: str = "true", drop: int = 10) -> Any:
    """A phone whose battery loses ``drop`` microampere hours between any two readings."""
    charge = [2_500_000]

    def answer(command: Sequence[str]) -> Ran:
        if command[0] == "./benchmark_model":
            name = Path(command[1]).name
            return Ran(code, OUTPUT.replace("{median}", str(medians[name].pop(0))) if code == 0 else "ERROR: no such op FOO\n", "")
        if command[0] == "dumpsys":
            charge.append(charge[-1] - drop)
        told = PHONE.replace("{usb}", usb).replace("{charge}", str(charge[-1]))
        return Ran(0, told if command[0] in ("sh", "dumpsys") else "", "")

    return answer


@pytest.fixture
def pair(files: Any) -> list[tuple[Any, ...]]:
    import msgspec

    slow = msgspec.structs.replace(files.tflite, precision="int8")
    return [(files.tflite, files.folder, "litert"), (slow, files.folder, "litert")]


def test_launches_are_what_counts(files: Any, pair: list[tuple[Any, ...]], tmp_path: Path) -> None:
    (tmp_path / "bm").touch()
    with Fake(answer=phone({"net.fp32.tflite": [1000] * 12}), kind="real", python=None) as link:
        bench = bench_native(pair, link, program=tmp_path / "bm")
    first, second = bench.measurements
    assert first.latency is not None
    assert (first.latency.median_s, first.latency.launches, first.latency.ci95_s) == (1e-3, 6, (1e-3, 1e-3))
    assert (first.latency.verdict, first.latency.values_s, first.latency.p90_s) == ("inconclusive", (), None)
    assert "no raw values" in first.latency.why
    assert second.speedup is not None
    assert second.speedup.value == 1
    assert second.notes == ("measured by TFLite's benchmark_model",)
    assert bench.environment.board == "Pixel 4a"


def test_a_phone_is_described_through_its_shell() -> None:
    with Fake(answer=phone({}), kind="real", python=None) as link:
        where = look(link)
    assert (where.machine, where.cpu, where.cores) == ("aarch64", "1 x Cortex-A55 + 1 x Cortex-A76", 2)
    assert (where.governor, where.frequency_mhz, where.temperature_c, where.load) == ("schedutil", 1803, 41.2, 2.1)
    assert (where.versions, where.throttled) == ({"android": "13"}, ("thermal status 1 (light)",))
    assert where.battery is not None
    assert where.battery == {
        "level": 0.87,
        "temperature_c": pytest.approx(31.2),
        "volts": 4.0,
        "charge_uah": 2_500_000,
        "plugged": ["USB"],
        "stats": {"capacity_mah": 3080, "computed_mah": 46.8, "actual_mah": [30.8, 61.6]},
    }
    assert where.isa == ("dotprod", "fp16", "neon")


def test_this_machine_is_described_too() -> None:
    with Local() as link:
        where = look(link)
    assert where.cores
    assert where.memory_bytes
    assert "governor" in where.why or where.governor


def test_failures_and_other_formats_are_told(files: Any, pair: list[tuple[Any, ...]], tmp_path: Path) -> None:
    (tmp_path / "bm").touch()
    with Fake(answer=phone({"net.fp32.tflite": [1] * 12}, code=1), python=None) as link:
        with pytest.raises(TargetError, match="no such op FOO"):
            bench_native(pair, link, program=tmp_path / "bm")
        with pytest.raises(InputError, match="runs tflite files"):
            bench_native([(files.onnx, files.folder, "onnxruntime")], link, program=tmp_path / "bm")


def test_one_launch_proves_no_difference(files: Any, pair: list[tuple[Any, ...]], tmp_path: Path) -> None:
    (tmp_path / "bm").touch()
    with Fake(answer=phone({"net.fp32.tflite": [1000] * 2}), kind="real", python=None) as link:
        bench = bench_native(pair, link, program=tmp_path / "bm", options=BenchOptions(launches=1))
    assert bench.measurements[1].speedup is None
    assert "one launch" in bench.measurements[1].why["speedup"]


def test_a_battery_tells_joules_only_where_nothing_else_feeds_the_phone(pair: list[tuple[Any, ...]], tmp_path: Path) -> None:
    (tmp_path / "bm").touch()

    def energy(**how: Any) -> tuple[Any, str]:
        device = phone({"net.fp32.tflite": [1000] * 4}, **how)
        with Fake(answer=device, kind="real", python=None) as link:
            m = bench_native(pair, link, program=tmp_path / "bm", options=BenchOptions(launches=2)).measurements[0]
        return m.energy, m.why.get("energy", "")

    assert energy() == (None, "the phone is fed from outside (USB): unplug it and reach it over the network")
    given, _ = energy(usb="false")
    assert given["joules_per_inference"] == pytest.approx(10 * 3.6e-3 * 4.0 / 20)  # 10 uAh at 4 V a launch of 20 runs
    assert energy(usb="false", drop=0) == (None, "the battery's charge counter did not move: allow more runs")
