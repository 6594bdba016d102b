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
    for name in ("governor", "frequency_mhz", "temperature_c", "pressure"):
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


def test_makers_tools_are_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in {
        "vcgencmd": "throttled=0x50000",
        "nvpmodel": "NV Power Mode: 15W\n0",
        "dumpsys": "IsStatusOverride: false\nThermal Status: 2",
    }.items():
        (tmp_path / name).write_text(f"#!/bin/sh\ncat <<'X'\n{text}\nX\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert agent.maker() == {
        "throttle_flags": ["under-voltage since its start", "throttled since its start"],
        "power_mode": "15W",
        "thermal_status": 2,
    }


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
