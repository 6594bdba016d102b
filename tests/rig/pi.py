"""An emulated 64-bit Raspberry Pi: Debian's aarch64 Python with the aarch64 wheels of the runtimes, under qemu's user mode.

``python-a72`` and ``python-a76`` are its interpreters, as a Pi 4 and a Pi 5 have them; ``python-count`` counts instructions. It is an
emulator: results and counts mean something, wall time doesn't.
"""

from __future__ import annotations

import sys
from pathlib import Path

from .debian import Apt, CannotInstall, run, script, wheels
from .tools import LIBRARIES, compile_shared, complete

CPUINFO = (
    "processor\t: {n}\nBogoMIPS\t: 108.00\nFeatures\t: fp asimd evtstrm crc32 cpuid{more}\nCPU implementer\t: 0x41\n"
    "CPU architecture: 8\nCPU variant\t: 0x0\nCPU part\t: {part}\nCPU revision\t: 3\n\n"
)
CPUS = {"cortex-a72": ("0xd08", ""), "cortex-a76": ("0xd0b", " fphp asimdhp asimddp")}
WHEELS = ("numpy", "onnxruntime", "ai-edge-litert", "openvino", "flatbuffers", "packaging", "protobuf", "ml_dtypes", "tqdm",
          "typing-extensions", "backports.strenum")  # fmt: skip
PLATFORMS = ("manylinux_2_35_aarch64", "manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux2014_aarch64")
MODEL = "Raspberry Pi (emulated)\0"


def install(folder: Path) -> None:
    """qemu, an aarch64 root for each CPU, the wheels, the counting plugin and the interpreters."""
    qemu(folder)
    root = folder / "root-cortex-a72"
    Apt(folder, "arm64").unpack(root, "python3.11", "libstdc++6", dependencies=True)
    other = folder / "root-cortex-a76"
    other.mkdir(exist_ok=True)
    for entry in root.iterdir():
        if entry.name not in ("proc", "sys") and not (other / entry.name).is_symlink():
            (other / entry.name).symlink_to(entry)
    for cpu, (part, more) in CPUS.items():
        text = "".join(CPUINFO.format(n=n, part=part, more=more) for n in range(4))
        shadow(folder / f"root-{cpu}", {"proc/cpuinfo": text, "proc/device-tree/model": MODEL})
    wheels(folder / "site", *WHEELS, platforms=PLATFORMS, python=sys.executable)
    compile_shared(folder, Path(__file__).with_name("count.c"), folder / "libcount.so")
    for name, cpu in (("python-a72", "cortex-a72"), ("python-a76", "cortex-a76"), ("python-count", "cortex-a72")):
        _interpreter(folder, name, cpu, count=name == "python-count")
    said = run([folder / "python-a72", "-c", "import platform, numpy; print(platform.machine())"], folder, "starting the emulated Python")
    if said.strip() != "aarch64":
        raise CannotInstall(f"the emulated Python calls itself {said.strip()!r}")


def qemu(folder: Path) -> None:
    """The two emulators out of Debian's qemu-user, which has 40."""
    apt, host = Apt(folder, "amd64"), folder / "host"
    apt.unpack(host, "qemu-user", "libcapstone4", "liburing2")
    for program in (host / "usr" / "bin").glob("qemu-*"):
        if program.name not in ("qemu-aarch64", "qemu-arm"):
            program.unlink()
    complete(apt, host, [host / "usr" / "bin" / "qemu-aarch64"], "qemu-user")


def emulate(folder: Path, program: str, root: Path, cpu: str, *more: str) -> str:
    """The line of a shell script that runs the words after it under qemu: "qemu -L root ..."."""
    words = ["-U LD_LIBRARY_PATH", f"-L '{root}'", f"-E QEMU_CPU={cpu}", f"-cpu {cpu}", *more]
    return f"LD_LIBRARY_PATH='{folder / 'host' / LIBRARIES}' exec '{folder}/host/usr/bin/{program}' {' '.join(words)}"


def shadow(root: Path, files: dict[str, str]) -> None:
    """Files under an emulated root are served in place of this machine's: without a cpuinfo of Arm's the runtimes crash."""
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def _interpreter(folder: Path, name: str, cpu: str, *, count: bool) -> None:
    root = folder / f"root-{cpu}"
    more = [f"-E PYTHONPATH='{folder}/site'"]
    before = []
    if count:
        more += ["-E PYTHONHASHSEED=0", f"-plugin '{folder}/libcount.so'"]
        before = ["PACKLIGHT_COUNT=$(mktemp)", "export PACKLIGHT_COUNT"]
    script(folder / name, *before, f"{emulate(folder, 'qemu-aarch64', root, cpu, *more)} '{root}/usr/bin/python3.11' \"$@\"")
