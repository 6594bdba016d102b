"""Sensors of devices that aren't here, from their files as documented; and what a device lacks."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from packlight.bench import agent
from packlight.bench.device import check_device
from packlight.core.errors import LacksError
from packlight.targets.link.fake import Fake
from packlight.targets.link.link import Ran
from packlight.targets.link.local import Local


def lay(root: Path, files: dict[str, str]) -> None:
    for name, content in files.items():
        path = root / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


CPU = "/sys/devices/system/cpu/cpu0/cpufreq/"
PI = {
    "/proc/cpuinfo": "processor\t: 0\nFeatures\t: fp asimd asimdhp asimddp\nCPU part\t: 0xd0b\n\n" * 4,
    "/proc/device-tree/model": "Raspberry Pi 5 Model B Rev 1.0\x00",
    "/proc/meminfo": "MemTotal:        8245996 kB\n",
    "/proc/stat": "cpu  100 0 50 800 10 0 5 0 0 0\n",
    "/proc/self/task/10/schedstat": "5000 20 3\n",
    "/proc/self/task/11/schedstat": "1000 5 1\n",
    CPU + "scaling_governor": "ondemand\n",
    CPU + "scaling_cur_freq": "1500000\n",
    CPU + "cpuinfo_max_freq": "2400000\n",
    "/sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
    "/sys/class/thermal/thermal_zone0/temp": "61350\n",
    "/sys/devices/platform/soc/soc:firmware/get_throttled": "50005\n",
}
JETSON = {
    "/proc/device-tree/model": "NVIDIA Jetson Orin Nano Developer Kit\x00",
    "/sys/class/thermal/thermal_zone0/type": "cpu-thermal",
    "/sys/class/thermal/thermal_zone0/temp": "48500",
    "/sys/class/thermal/thermal_zone1/type": "gpu-thermal",
    "/sys/class/thermal/thermal_zone1/temp": "50125",
    "/sys/class/thermal/thermal_zone2/type": "off",
    "/sys/class/thermal/thermal_zone2/temp": "",
    "/sys/class/hwmon/hwmon0/name": "pwmfan",
    "/sys/class/hwmon/hwmon1/name": "ina3221",
    "/sys/class/hwmon/hwmon1/in1_label": "VDD_IN",
    "/sys/class/hwmon/hwmon1/in1_input": "5000",
    "/sys/class/hwmon/hwmon1/curr1_input": "1200",
    "/sys/class/hwmon/hwmon1/in2_label": "VDD_CPU_GPU_CV",
    "/sys/class/hwmon/hwmon1/in2_input": "5000",
    "/sys/class/hwmon/hwmon1/curr2_input": "400",
}
RAPL = {
    "/sys/class/powercap/intel-rapl:0/name": "package-0",
    "/sys/class/powercap/intel-rapl:0/energy_uj": "123456789",
    "/sys/class/powercap/intel-rapl:0:0/name": "core",
    "/sys/class/powercap/intel-rapl:0:0/energy_uj": "5",
}


@pytest.fixture
def at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(agent, "ROOT", str(tmp_path))
    monkeypatch.setattr(agent.os, "sched_getaffinity", lambda pid: {0, 1, 2, 3}, raising=False)
    return lambda files: lay(tmp_path, files)


def test_a_pi_tells_its_clock_heat_and_voltage(at: Any) -> None:
    at(PI)
    state = agent.state()
    assert (state["governor"], state["frequency_mhz"], state["max_frequency_mhz"]) == ("ondemand", 1500, 2400)
    assert state["temperature_c"] == 61.35
    assert state["throttle_flags"] == ["under-voltage", "throttled", "under-voltage since its start", "throttled since its start"]
    assert state["steal_ticks"] == 0
    assert (state["ran_ns"], state["waited_ns"]) == (6000, 25)
    assert "governor" not in state["why"]
    assert "energy" in state["why"]
    device = agent.device()
    assert (device["board"], device["cpu"]) == ("Raspberry Pi 5 Model B Rev 1.0", "4 x Cortex-A76")
    assert device["memory_bytes"] == 8245996 * 1024


def test_a_jetson_tells_its_rails(at: Any) -> None:
    at(JETSON)
    state = agent.state()
    assert state["temperatures"] == {"cpu-thermal": 48.5, "gpu-thermal": 50.125}
    assert state["power_mw"] == {"VDD_IN": 6000.0, "VDD_CPU_GPU_CV": 2000.0}
    assert state["throttle_flags"] is None


def test_rapl_counts_packages_once(at: Any) -> None:
    at(RAPL)
    assert agent.state()["energy_uj"] == {"package-0@intel-rapl:0": 123456789}


def test_a_bare_machine_says_why_nothing_is_known(at: Any) -> None:
    state, device = agent.state(), agent.device()
    for name in ("governor", "frequency_mhz", "temperature_c", "pressure", "waited_ns"):
        assert state[name] is None
        assert state["why"][name]
    assert set(device["why"]) >= {"board", "memory_bytes"}


@pytest.mark.parametrize(
    ("said", "flags"),
    [
        ("throttled=0x0", []),
        ("throttled=0x4", ["throttled"]),
        ("throttled=0xe0000", ["frequency capped since its start", "throttled since its start", "soft temperature limit since its start"]),
        ("VCHI initialization failed", None),
        (None, None),
    ],
)
def test_throttle_bits_as_documented_for_vcgencmd(said: str | None, flags: list[str] | None) -> None:
    assert agent.pi_flags(said) == flags


TEGRASTATS = (
    "11-24-2026 10:00:01 RAM 2345/7620MB (lfb 4x4MB) SWAP 0/3810MB (cached 0MB) CPU [12%@1510,3%@1344,off,off,0%@729,0%@729] "
    "EMC_FREQ 0%@2133 GR3D_FREQ 37%@[305] CV0@-256C cpu@48.5C SOC2@47.5C tj@50.125C VDD_IN 4892mW/4801mW VDD_CPU_GPU_CV 1020mW/990mW"
)
BATTERY = """Current Battery Service state:
  AC powered: false
  USB powered: true
  Wireless powered: false
  Max charging current: 0
  Charge counter: 2500000
  status: 2
  present: true
  level: 87
  scale: 100
  voltage: 4123
  temperature: 312
  technology: Li-ion
"""
TOOLS = {
    "vcgencmd": 'case "$1" in get_throttled) echo throttled=0x50000;; measure_clock) echo "frequency(48)=1500345728";; '
    'measure_temp) echo "temp=61.3\'C";; measure_volts) echo volt=0.8768V;; esac',
    "nvpmodel": "printf 'NV Power Mode: 15W\\n0\\n'",
    "tegrastats": f"while :; do echo '{TEGRASTATS}'; sleep 0.1; done",
    "dumpsys": f"""case "$1" in thermalservice) echo "IsStatusOverride: false"; echo "Thermal Status: 2";; battery) cat <<'X'
{BATTERY}X
;; batterystats) echo "  Capacity: 3080, Computed drain: 46.8, actual drain: 30.8-61.6";; esac""",
}


def tools(folder: Path, monkeypatch: pytest.MonkeyPatch, **scripts: str) -> None:
    for name, body in scripts.items():
        (folder / name).write_text(f"#!/bin/sh\n{body}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")


def test_makers_tools_are_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tools(tmp_path, monkeypatch, **TOOLS)
    assert agent.maker() == {
        "throttle_flags": ["under-voltage since its start", "throttled since its start"],
        "frequency_mhz": pytest.approx(1500.345728),
        "temperature_c": 61.3,
        "core_volts": 0.8768,
        "power_mode": "15W",
        "tegrastats": {
            "cpu_mhz": [1510, 1344, 729, 729],
            "cores_off": 2,
            "gpu_load": 0.37,
            "ram_used_bytes": 2345 << 20,
            "temperatures": {"cpu": 48.5, "SOC2": 47.5, "tj": 50.125},
            "power_mw": {"VDD_IN": 4892.0, "VDD_CPU_GPU_CV": 1020.0},
        },
        "thermal_status": 2,
        "battery": {
            "level": pytest.approx(0.87),
            "temperature_c": pytest.approx(31.2),
            "volts": pytest.approx(4.123),
            "charge_uah": 2_500_000,
            "plugged": ["USB"],
        },
        "batterystats": {"capacity_mah": 3080, "computed_mah": 46.8, "actual_mah": [30.8, 61.6]},
    }


def test_tools_that_fail_hang_or_speak_otherwise_give_nothing_never_zero(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tools(
        tmp_path,
        monkeypatch,
        vcgencmd='[ "$1" = get_throttled ] && echo "VCHI initialization failed" || exit 1',
        nvpmodel="echo something else",
        tegrastats="echo no line of ours",
        dumpsys="echo Can not find service: $1",
    )
    assert agent.maker() == {
        "throttle_flags": None,
        "frequency_mhz": None,
        "temperature_c": None,
        "core_volts": None,
        "power_mode": None,
        "tegrastats": {"cpu_mhz": None, "cores_off": None, "gpu_load": None, "ram_used_bytes": None, "temperatures": {}, "power_mw": {}},
        "thermal_status": None,
        "battery": None,
        "batterystats": None,
    }


def test_a_battery_without_figures_has_none_of_them() -> None:
    found = agent.battery("  AC powered: true\n  present: true\n  level: 50\n  voltage: 0\n  temperature: -\n")
    assert found == {"level": 0.5, "temperature_c": None, "volts": None, "charge_uah": None, "plugged": ["AC"]}
    assert agent.battery("  present: false\n  level: 0\n") is None


def test_this_machine_checks_out() -> None:
    with Local() as link:
        check = check_device(link, ["onnxruntime", "tflite-runtime"])
    assert check.versions["onnxruntime"]
    assert check.ok
    assert check.runtimes == ("onnxruntime",)
    gap = next(m for m in check.missing if m.what == "tflite-runtime")
    assert gap.install is not None
    assert gap.install.endswith("-m pip install tflite-runtime")


def looked(**changes: Any) -> Any:
    look = {
        "versions": {
            "python": "3.9",
            "numpy": None,
            "pip": None,
            "onnxruntime": None,
            "openvino": None,
            "litert": None,
            "tflite-runtime": None,
        },
        "why": {"numpy": "No module named 'numpy'"},
        "device": {"machine": "aarch64", "pointer_bits": 32, "emulated": False, "board": "Raspberry Pi 3", "cpu": "4 x Cortex-A53"}
        | {"isa": ["neon"], "cores": 4, "memory_bytes": 1 << 30},
        "state": {},
        "maker": {},
        "executable": "/usr/bin/python3",
    }

    def answer(command: Sequence[str]) -> Ran:
        return Ran(0, json.dumps(look | changes), "") if "--look" in command else Ran(0, "aarch64\n", "")

    return answer


def test_what_is_missing_has_its_command() -> None:
    with Fake(answer=looked()) as link:
        check = check_device(link)
    assert not check.ok
    assert {m.what: m.install for m in check.missing} == {
        "pip": "sudo apt install python3-pip",
        "numpy": "/usr/bin/python3 -m pip install numpy",
        "onnxruntime": None,
        "openvino": None,
        "litert": None,
        "tflite-runtime": "/usr/bin/python3 -m pip install tflite-runtime",
    }
    assert "no wheel" in next(m.why for m in check.missing if m.what == "openvino")


def test_a_device_without_python_is_described_all_the_same() -> None:
    with Fake(answer=looked(), python=None) as link:
        check = check_device(link)
    assert (check.machine, check.ok, check.missing[0].what) == ("aarch64", False, "python3")


def test_an_interpreter_too_old_for_the_agent_is_told() -> None:
    broken = Ran(1, "", "  File 'agent.py'\nSyntaxError: invalid syntax\n")
    with Fake(answer=lambda command: broken) as link, pytest.raises(LacksError, match="SyntaxError"):
        check_device(link)
