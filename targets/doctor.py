"""What works on this machine: measured where it can be, and what is missing with the command that gets it."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec

from .machine import Machine, look
from .probe import Probed
from .runtime import RUNTIMES, installed, versions
from .target import Runtime, Target

# Distribution -> the extra that installs it ("" belongs to packlight itself). pyproject.toml has the versions.
PACKAGES = {
    "torch": "",
    "numpy": "",
    "pillow": "",
    "safetensors": "",
    "scipy": "",
    "onnx": "onnx",
    "onnxscript": "onnx",
    "onnxruntime": "onnx",
    "openvino": "openvino",
    "ai-edge-litert": "tflite",
    "flatbuffers": "tflite",
    "torchao": "quantize",
    "lightning-fabric": "train",
    "jinja2": "report",
    "matplotlib": "report",
    "scikit-learn": "demo",
}
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
PROBE_TIMEOUT_S = 120.0
NOT_TRIED = "not installed"


class Package(msgspec.Struct, frozen=True, kw_only=True):
    """A distribution; ``version`` is None where it isn't installed, and ``install`` gets it."""

    name: str
    version: str | None
    install: str


class Exercise(msgspec.Struct, frozen=True, kw_only=True):
    """Whether one runtime of the target can run its files here (``ok``), and what that is worth or why not (``why``)."""

    runtime: str
    provider: str
    format: str
    ok: bool
    why: str


class DoctorReport(msgspec.Struct, frozen=True, kw_only=True):
    """What ``packlight doctor --json`` prints. ``fits`` is the profile that suits this machine, None where none does.

    ``saturates`` is measured: whether u8 x s8 integer kernels lose full-range weights here; None where no runtime could be asked.
    """

    packlight: str
    python: str
    machine: Machine
    packages: tuple[Package, ...]
    runtimes: tuple[Probed, ...]
    runtime_versions: dict[str, str]
    saturates: bool | None
    browser: str | None
    fits: str | None
    fits_why: str
    target: str | None = None
    exercises: tuple[Exercise, ...] = ()

    @property
    def missing(self) -> tuple[Package, ...]:
        return tuple(p for p in self.packages if p.version is None)


def examine(target: Target | None = None) -> DoctorReport:
    """Looks at this machine; each installed runtime runs tiny models in a process of its own (some seconds). Raises nothing of its own."""
    from .. import __version__

    machine = look()
    probed = tuple(_probe(name) if installed(name) else Probed(runtime=name, ok=False, why=NOT_TRIED) for name in RUNTIMES)
    answers = [p.saturates for p in probed if p.saturates is not None]
    saturates = any(answers) if answers else None
    fits, why = suggest(machine, saturates)
    return DoctorReport(
        packlight=__version__,
        python=platform.python_version(),
        machine=machine,
        packages=tuple(_package(name, extra) for name, extra in PACKAGES.items()),
        runtimes=probed,
        runtime_versions=versions(),
        saturates=saturates,
        browser=next((path for b in BROWSERS if (path := shutil.which(b))), None),
        fits=fits,
        fits_why=why,
        target=target.name if target else None,
        exercises=tuple(_exercise(r, target, machine, probed) for r in target.runtimes) if target else (),
    )


def suggest(machine: Machine, saturates: bool | None) -> tuple[str | None, str]:
    """The shipped profile that fits a machine, and why. What was measured counts more than what the CPU lists."""
    board, isa = machine.board or "", set(machine.isa)
    for text, name in (("Raspberry Pi 4", "raspberry-pi-4"), ("Raspberry Pi 5", "raspberry-pi-5"), ("Orin Nano", "jetson-orin-nano")):
        if text in board and machine.machine == "aarch64":
            return name, f"the board says '{board}'"
    if machine.machine in ("x86_64", "AMD64"):
        if saturates:
            return "x86-64-avx2", "integer kernels saturate here (measured): weights need 7 bits"
        vnni = sorted(i for i in isa if "vnni" in i)
        if vnni and saturates is False:
            return "x86-64-vnni", f"the CPU has {vnni[0]} and nothing saturates (measured)"
        if vnni:
            return "x86-64-vnni", f"the CPU has {vnni[0]}; whether kernels saturate was not measured"
        if saturates is False:
            return "x86-64-avx2", "nothing saturates here (measured), but the CPU lists no VNNI: 7-bit weights are the safe choice"
        if "avx2" in isa:
            return "x86-64-avx2", "the CPU has AVX2 and no VNNI"
        return None, "the CPU lists neither AVX2 nor VNNI; write a profile.toml (docs: CONTRIBUTING.md, a target)"
    if machine.machine in ("aarch64", "arm64"):
        near = "raspberry-pi-5" if "dotprod" in isa else "raspberry-pi-4"
        kind = "with" if "dotprod" in isa else "without"
        return near, f"no shipped profile names this board; it is Arm 64-bit {kind} the dot product, as that one"
    return None, f"no shipped profile is for {machine.machine}; write a profile.toml (docs: CONTRIBUTING.md, a target)"


def lines(report: DoctorReport) -> Iterator[str]:
    """The report for a terminal."""
    m = report.machine
    yield f"packlight {report.packlight}, Python {report.python}"
    ram = f"{m.ram_bytes / 2**30:.1f} GiB" if m.ram_bytes else "memory not known"
    yield f"machine    {m.cpu or 'CPU not known'}, {m.machine}, {m.cores or '?'} cores, {ram}{f', {m.board}' if m.board else ''}"
    yield f"isa        {', '.join(m.isa) or 'not known'}"
    yield f"governor   {m.governor or 'not told (a virtual machine, or no cpufreq)'}"
    for p in report.runtimes:
        version = report.runtime_versions.get(p.runtime, "")
        if p.ok:
            devices = f" [{', '.join(p.devices)}]" if p.devices else ""
            yield f"runtime    {p.runtime} {version}: works (a convolution is {p.error:.0e} off the closed form){devices}"
        elif p.why == NOT_TRIED:
            yield f"runtime    {p.runtime}: not installed; {RUNTIMES[p.runtime].install}"
        else:
            yield f"runtime    {p.runtime} {version}: FAILS: {p.why}"
    for p in report.runtimes:
        if p.gap_full is not None and p.gap_63 is not None:
            told = "saturate" if p.saturates else "don't saturate"
            off = f"full-range weights are {p.gap_full:.1%} off, weights within +-63 {p.gap_63:.1%}"
            yield f"integers   {p.runtime}: u8 x s8 products {told}: {off} (measured)"
    yield f"target     {report.fits or 'none fits'}: {report.fits_why}"
    yield f"browser    {report.browser or 'none (only the tests of the report want one; Debian: apt-get install chromium)'}"
    yield "packages   " + ", ".join(f"{p.name} {p.version}" for p in report.packages if p.version is not None)
    for package in report.missing:
        yield f"missing    {package.name}: {package.install}"
    if report.target:
        yield f"for target {report.target}:"
        for e in report.exercises:
            yield f"  {e.runtime}{' on ' + e.provider if e.provider else ''} ({e.format}): {'yes' if e.ok else 'no'}, {e.why}"


def _package(name: str, extra: str) -> Package:
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        version = None
    return Package(name=name, version=version, install=f"pip install 'packlight[{extra}]'" if extra else "pip install packlight")


def _probe(runtime: str) -> Probed:
    """Runs the probe in a child; a crash or a hang is told as such."""
    root = str(Path(__file__).parents[2])  # where ``packlight`` is found, installed or not
    path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-m", f"{__package__}.probe", runtime]
    try:
        ran = subprocess.run(
            command, capture_output=True, text=True, timeout=PROBE_TIMEOUT_S, env={**os.environ, "PYTHONPATH": path}, check=False
        )
    except subprocess.TimeoutExpired:
        return Probed(runtime=runtime, ok=False, why=f"a tiny model did not end within {PROBE_TIMEOUT_S:g} s")
    except OSError as error:
        return Probed(runtime=runtime, ok=False, why=f"{sys.executable} can't be started ({error.strerror})")
    if ran.returncode < 0:
        name = signal.Signals(-ran.returncode).name
        return Probed(runtime=runtime, ok=False, why=f"the process died of {name}: the package does not suit this CPU or system")
    try:
        return msgspec.json.decode(ran.stdout.splitlines()[-1], type=Probed)
    except (IndexError, msgspec.DecodeError):
        last = (ran.stderr.strip().splitlines() or ["it said nothing"])[-1]
        return Probed(runtime=runtime, ok=False, why=f"the probe ended with {ran.returncode}: {last[:200]}")


def _exercise(runtime: Runtime, target: Target, machine: Machine, probed: tuple[Probed, ...]) -> Exercise:
    """Whether the runtime and its provider work here, and whether this machine is like the target's."""
    found = next(p for p in probed if p.runtime == runtime.name)
    ok, why = found.ok, found.why
    if why == NOT_TRIED:
        why = f"not installed; {RUNTIMES[runtime.name].install}"
    if ok and runtime.provider and runtime.name in ("onnxruntime", "openvino"):
        have = {d.partition(".")[0] for d in found.devices}
        ok = runtime.provider in have
        why = why if ok else f"this build has no {runtime.provider}; it has {', '.join(sorted(have))}"
    elif ok and runtime.provider == "edgetpu":
        ok, why = False, "the Edge TPU runs files compiled for it, on the board; xnnpack here can check the file they are compiled from"
    elif ok and runtime.provider == "gpu":
        ok, why = False, "the GPU delegate runs on the phone; xnnpack here can check the same file"
    if ok:
        same = machine.machine == target.device.machine
        why = "parity, accuracy and latency" if same else f"parity and accuracy; latency needs the device ({target.device.machine})"
    return Exercise(runtime=runtime.name, provider=runtime.provider, format=runtime.format, ok=ok, why=why)
