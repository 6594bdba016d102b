"""What a device is, which runtimes it has, and the exact command that installs what is missing there."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from ..core.errors import ContractError, LacksError
from ..targets.link.link import Link
from . import agent

PACKAGES = {"onnxruntime": "onnxruntime", "openvino": "openvino", "litert": "ai-edge-litert", "tflite-runtime": "tflite-runtime"}
WHEELS = {
    "x86_64": ("onnxruntime", "openvino", "litert", "tflite-runtime"),
    "aarch64": ("onnxruntime", "openvino", "litert", "tflite-runtime"),
    "armv7l": ("tflite-runtime",),
}
"""The runtimes that PyPI has wheels of for Linux, by machine (looked up in November 2026)."""


class Missing(msgspec.Struct, frozen=True):
    """Something the device lacks. ``install`` is the command to run there, None where there is no way (and ``why`` says so)."""

    what: str
    why: str
    install: str | None


class DeviceCheck(msgspec.Struct, frozen=True, kw_only=True):
    """What was found. ``ok``: at least one of the runtimes wanted can run there."""

    device: str
    kind: str
    python: str | None
    machine: str
    board: str | None = None
    cpu: str | None = None
    isa: tuple[str, ...] = ()
    cores: int | None = None
    memory_bytes: int | None = None
    versions: dict[str, str | None] = {}
    runtimes: tuple[str, ...] = ()
    missing: tuple[Missing, ...] = ()
    state: dict[str, Any] = {}
    ok: bool = False

    def lines(self) -> list[str]:
        """What a person reads."""
        size = f"{self.memory_bytes / 2**30:.1f} GiB" if self.memory_bytes else "memory unknown"
        out = [f"{self.device}: {self.board or self.machine} ({self.kind}), {self.cpu or 'CPU unknown'}, {self.cores} cores, {size}"]
        out.append(f"isa       {', '.join(self.isa) or 'unknown'}")
        out.append(f"python    {self.python or 'none'} {self.versions.get('python') or ''}".rstrip())
        out += [f"runtime   {name} {self.versions[name]}" for name in self.runtimes]
        for gap in self.missing:
            out.append(f"missing   {gap.what}: {gap.install or gap.why}")
        out += [f"now       {name} {self.state[name]}" for name in STATE_SHOWN if self.state.get(name) not in (None, [], {})]
        return out


STATE_SHOWN = ("governor", "frequency_mhz", "temperature_c", "throttle_flags", "power_mode", "thermal_status", "load", "pressure")


def check_device(link: Link, wanted: Sequence[str] = tuple(PACKAGES)) -> DeviceCheck:
    """Runs the agent's look on the device. ``wanted`` are the runtimes that matter; those absent are named with their remedy."""
    if link.python is None:
        machine = link.run(("uname", "-m"), timeout_s=60).stdout.strip()
        gap = Missing("python3", "the benchmark agent is a Python program", "sudo apt install python3 python3-pip python3-numpy")
        return DeviceCheck(device=link.name, kind=link.kind, python=None, machine=machine, missing=(gap,))
    link.push(Path(agent.__file__), "agent.py")
    ran = link.run((link.python, "agent.py", "--look"), timeout_s=300)
    if ran.code != 0:
        said = [line for line in ran.stderr.splitlines() if line.strip()]
        raise LacksError(f"device '{link.name}': {link.python} can't run the agent ({said[-1][:200] if said else f'exit code {ran.code}'})")
    try:
        look = json.loads(ran.stdout)
    except ValueError as error:
        raise ContractError(f"device '{link.name}': the agent's look is not JSON ({ran.stdout[:80]!r})") from error
    device, versions = look["device"], look["versions"]
    runtimes = tuple(r for r in wanted if versions.get(r))
    return DeviceCheck(
        device=link.name,
        kind="emulated" if device["emulated"] else link.kind,
        python=look["executable"],
        machine=device["machine"],
        board=device["board"],
        cpu=device["cpu"],
        isa=tuple(device["isa"]),
        cores=device["cores"],
        memory_bytes=device["memory_bytes"],
        versions=versions,
        runtimes=runtimes if versions.get("numpy") else (),
        missing=_missing(look, wanted),
        state={**look["state"], **look["maker"]},
        ok=bool(runtimes) and bool(versions.get("numpy")),
    )


def _missing(look: dict[str, Any], wanted: Sequence[str]) -> tuple[Missing, ...]:
    versions, why = look["versions"], look["why"]
    machine = look["device"]["machine"]
    if look["device"]["pointer_bits"] == 32 and machine == "aarch64":
        machine = "armv7l"  # a 64-bit kernel under a 32-bit system, as Raspberry Pi OS had
    python = shlex.quote(look["executable"])
    out = []
    if not versions.get("pip"):
        out.append(Missing("pip", why.get("pip", ""), "sudo apt install python3-pip"))
    if not versions.get("numpy"):
        out.append(Missing("numpy", why.get("numpy", ""), f"{python} -m pip install numpy"))
    for name in wanted:
        if versions.get(name):
            continue
        if machine in WHEELS and name not in WHEELS[machine]:
            out.append(Missing(name, f"PyPI has no wheel of it for {machine}", None))
        else:
            out.append(Missing(name, why.get(name, ""), f"{python} -m pip install {PACKAGES[name]}"))
    return tuple(out)
