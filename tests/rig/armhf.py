"""An emulated 32-bit Raspberry Pi: Debian's armhf Python and numpy with tflite-runtime, the one runtime that has a wheel for it."""

from __future__ import annotations

import sys
from pathlib import Path

from .debian import Apt, run, script, wheels
from .pi import emulate, shadow

CPUINFO = (
    "processor\t: {n}\nmodel name\t: ARMv7 Processor rev 5 (v7l)\nBogoMIPS\t: 38.40\n"
    "Features\t: half thumb fastmult vfp edsp neon vfpv3 tls vfpv4 idiva idivt vfpd32 lpae evtstrm\n"
    "CPU implementer\t: 0x41\nCPU architecture: 7\nCPU variant\t: 0x0\nCPU part\t: 0xc07\nCPU revision\t: 5\n\n"
)
CPU = "cortex-a7"


def install(folder: Path) -> None:
    """An armhf root and ``python-armhf``; needs qemu from ``pi.install``."""
    root = folder / "root-armhf"
    Apt(folder, "armhf").unpack(root, "python3.11", "python3-numpy", "libstdc++6", dependencies=True)
    libraries = root / "usr" / "lib" / "arm-linux-gnueabihf"
    for name in ("blas", "lapack"):  # Debian links these when it configures the packages
        link = libraries / f"lib{name}.so.3"
        if not link.is_symlink():
            link.symlink_to(f"{name}/lib{name}.so.3")
    shadow(root, {"proc/cpuinfo": "".join(CPUINFO.format(n=n) for n in range(4)), "proc/device-tree/model": "Raspberry Pi 2 (emulated)\0"})
    wheels(folder / "site-armhf", "tflite-runtime==2.14.0", platforms=("manylinux_2_34_armv7l",), python=sys.executable)
    line = emulate(folder, "qemu-arm", root, CPU, f"-E PYTHONPATH='{folder}/site-armhf:{root}/usr/lib/python3/dist-packages'")
    script(folder / "python-armhf", f"{line} '{root}/usr/bin/python3.11' \"$@\"")
    run([folder / "python-armhf", "-c", "import numpy"], folder, "starting the emulated 32-bit Python")
