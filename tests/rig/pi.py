"""An emulated Raspberry Pi: aarch64 Python with the aarch64 wheels of the runtimes under qemu's user mode.

    python tests/rig/pi.py FOLDER        # installs into FOLDER, about 40 s on an idle machine and 300 MB; again: nothing to do

Everything comes from apt (Debian's qemu-user and arm64 packages, through a private view that leaves the system's own alone) and
from pip; nothing is installed system-wide, and no root is needed. The folder then holds ``python-a72`` and ``python-a76``
(interpreters as a device has them: give one as ``--python``), and ``python-count``, which counts instructions.

It is an emulator: results count, wall time doesn't.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

ARM_CPUINFO = (
    "processor\t: {n}\nBogoMIPS\t: 108.00\nFeatures\t: fp asimd evtstrm crc32 cpuid{more}\nCPU implementer\t: 0x41\n"
    "CPU architecture: 8\nCPU variant\t: 0x0\nCPU part\t: {part}\nCPU revision\t: 3\n\n"
)
CPUS = {"cortex-a72": ("0xd08", ""), "cortex-a76": ("0xd0b", " fphp asimdhp asimddp")}
ARM_PACKAGES = ("python3.11", "libstdc++6")
HOST_PACKAGES = ("qemu-user", "libcapstone4", "liburing2")
WHEELS = ("numpy", "onnxruntime", "ai-edge-litert", "flatbuffers", "packaging", "protobuf", "ml_dtypes", "tqdm", "typing-extensions")
MORE_WHEELS = ("backports.strenum", "openvino")
PLATFORMS = ("manylinux_2_35_aarch64", "manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux2014_aarch64")
MODEL = "Raspberry Pi (emulated)\0"


class CannotInstall(Exception):
    """Why there can be no rig here, in one line."""


def install(folder: Path, *, openvino: bool = True) -> Path:
    """Installs what is not there yet; returns ``folder``."""
    folder = folder.resolve()
    done = folder / ("done-all" if openvino else "done")
    if done.is_file() or (folder / "done-all").is_file():
        return folder
    for tool, package in (("apt-get", "apt"), ("dpkg-deb", "dpkg"), ("gcc", "gcc")):
        if shutil.which(tool) is None:
            raise CannotInstall(f"{tool} is absent; the rig needs Debian with {package}")
    release = dict(re.findall(r'^(\w+)="?([^"\n]*)"?$', Path("/etc/os-release").read_text(), re.M))
    if release.get("VERSION_CODENAME") != "bookworm":
        raise CannotInstall(f"the rig is written for Debian bookworm, this is {release.get('PRETTY_NAME', 'something else')}")
    folder.mkdir(parents=True, exist_ok=True)
    for step in (_qemu, _sysroot, _plugin, _wheels, _interpreters):
        start = time.time()
        step(folder) if step is not _wheels else _wheels(folder, WHEELS + (MORE_WHEELS if openvino else MORE_WHEELS[:1]))
        print(f"{step.__name__[1:]:<14} {time.time() - start:5.1f} s", file=sys.stderr)
    done.touch()
    return folder


def _run(command: list[str], cwd: Path, what: str) -> None:
    ran = subprocess.run(command, cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if ran.returncode != 0:
        said = [line for line in (ran.stderr + ran.stdout).splitlines() if line.strip()]
        raise CannotInstall(f"{what} failed: {said[-1][:300] if said else f'exit code {ran.returncode}'}")


def _mirror() -> str:
    """The Debian mirror that this system's own sources name."""
    sources = [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*"))]
    for file in sources:
        text = file.read_text(errors="replace") if file.is_file() else ""
        for found in re.findall(r"^URIs:\s*(\S+)|^deb\s+(?:\[[^\]]*\]\s*)?(\S+)\s+bookworm\s", text, re.M):
            uri = found[0] or found[1]
            if uri.rstrip("/").endswith("/debian"):
                return uri
    raise CannotInstall("the system's apt sources name no Debian mirror")


def _apt(folder: Path, arch: str) -> list[str]:
    """An apt-get of its own for ``arch``: own lists, own status, own cache."""
    base = folder / f"apt-{arch}"
    for sub in ("state/lists/partial", "cache/archives/partial"):
        (base / sub).mkdir(parents=True, exist_ok=True)
    (base / "status").touch()
    keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"
    (base / "sources.list").write_text(f"deb [signed-by={keyring}] {_mirror()} bookworm main\n")
    options = {
        "APT::Architecture": arch,
        "APT::Architectures": arch,
        "Dir::State": base / "state",
        "Dir::State::status": base / "status",
        "Dir::Cache": base / "cache",
        "Dir::Etc::sourceparts": "/nonexistent",
        "Dir::Etc::sourcelist": base / "sources.list",
        "APT::Install-Recommends": "false",
        "APT::Sandbox::User": "root" if os.geteuid() == 0 else "",
        "Acquire::Languages": "none",
    }
    return ["apt-get", "-q", "-y", *(word for key, value in options.items() if value != "" for word in ("-o", f"{key}={value}"))]


def _qemu(folder: Path) -> None:
    apt, debs = _apt(folder, "amd64"), folder / "apt-amd64" / "debs"
    debs.mkdir(exist_ok=True)
    _run([*apt, "update"], debs, "apt-get update")
    _run([*apt, "download", *HOST_PACKAGES], debs, "downloading qemu-user")
    for deb in debs.glob("*.deb"):
        _run(["dpkg-deb", "-x", str(deb), str(folder / "host")], debs, f"unpacking {deb.name}")
        deb.unlink()
    wanted = {"qemu-aarch64", "qemu-arm"}
    for program in (folder / "host" / "usr" / "bin").iterdir():
        if program.name not in wanted:
            program.unlink()


def _sysroot(folder: Path) -> None:
    apt = _apt(folder, "arm64")
    _run([*apt, "update"], folder, "apt-get update for arm64")
    _run([*apt, "--download-only", "install", *ARM_PACKAGES], folder, "downloading arm64 packages")
    for cpu in CPUS:
        root = folder / f"root-{cpu}"
        if cpu == "cortex-a72":
            for deb in sorted((folder / "apt-arm64" / "cache" / "archives").glob("*.deb")):
                _run(["dpkg-deb", "-x", str(deb), str(root)], folder, f"unpacking {deb.name}")
        else:
            root.mkdir(exist_ok=True)
            for entry in (folder / "root-cortex-a72").iterdir():
                if entry.name not in ("proc", "sys"):
                    link = root / entry.name
                    if not link.is_symlink():
                        link.symlink_to(entry)
        part, more = CPUS[cpu]
        files = {"proc/cpuinfo": "".join(ARM_CPUINFO.format(n=n, part=part, more=more) for n in range(4)), "proc/device-tree/model": MODEL}
        for name, text in files.items():  # files under the root are served in place of the host's
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text)


def _wheels(folder: Path, wheels: tuple[str, ...]) -> None:
    words = [word for platform in PLATFORMS for word in ("--platform", platform)]
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--upgrade"]
    words += ["--python-version", "3.11", "--implementation", "cp", "--only-binary=:all:", "--target", str(folder / "site")]
    _run([*pip, *words, *wheels], folder, "installing the aarch64 wheels")


def _plugin(folder: Path) -> None:
    source = Path(__file__).with_name("count.c")
    _run(["gcc", "-O2", "-shared", "-fPIC", "-o", str(folder / "libcount.so"), str(source)], folder, "compiling the plugin")


def _interpreters(folder: Path) -> None:
    libraries = folder / "host" / "usr" / "lib" / "x86_64-linux-gnu"
    for name, cpu, more in (
        ("python-a72", "cortex-a72", ""),
        ("python-a76", "cortex-a76", ""),
        ("python-count", "cortex-a72", f"-E PYTHONHASHSEED=0 -plugin '{folder}/libcount.so'"),
    ):
        root = f"{folder}/root-{cpu}"
        script = folder / name
        count = "PACKLIGHT_COUNT=$(mktemp)\nexport PACKLIGHT_COUNT\n" if name == "python-count" else ""
        script.write_text(
            f"#!/bin/sh\n{count}export LD_LIBRARY_PATH='{libraries}'\n"
            f"exec '{folder}/host/usr/bin/qemu-aarch64' -U LD_LIBRARY_PATH -L '{root}' -E PYTHONPATH='{folder}/site' -E QEMU_CPU={cpu} "
            f"-cpu {cpu} {more} '{root}/usr/bin/python3.11' \"$@\"\n"
        )
        script.chmod(0o755)
    ran = subprocess.run(
        [str(folder / "python-a72"), "-c", "import platform, numpy; print(platform.machine())"], capture_output=True, text=True
    )
    if ran.stdout.strip() != "aarch64":
        raise CannotInstall(f"the emulated Python does not run: {(ran.stderr.strip().splitlines() or [f'exit code {ran.returncode}'])[-1]}")


if __name__ == "__main__":
    try:
        print(install(Path(sys.argv[1])))
    except CannotInstall as why:
        sys.exit(f"no rig: {why}")
