"""What this machine says of itself. Instruction sets get the names that profiles use; what isn't known is None, never a guess."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path

import msgspec

# Flag in /proc/cpuinfo -> name in a profile. Arm calls NEON "asimd", its half precision "asimdhp", its dot product "asimddp".
_FLAGS = {
    "avx2": "avx2",
    "fma": "fma",
    "f16c": "f16c",
    "avx_vnni": "avx_vnni",
    "avx512f": "avx512f",
    "avx512_vnni": "avx512_vnni",
    "avx512_bf16": "avx512_bf16",
    "avx512_fp16": "avx512_fp16",
    "amx_int8": "amx_int8",
    "amx_bf16": "amx_bf16",
    "asimd": "neon",
    "neon": "neon",
    "asimdhp": "fp16",
    "asimddp": "dotprod",
    "i8mm": "i8mm",
    "bf16": "bf16",
    "sve": "sve",
}
# Arm's main ID register names the core by its part number.
_ARM = {
    "0xd03": "Cortex-A53",
    "0xd04": "Cortex-A35",
    "0xd05": "Cortex-A55",
    "0xd07": "Cortex-A57",
    "0xd08": "Cortex-A72",
    "0xd09": "Cortex-A73",
    "0xd0a": "Cortex-A75",
    "0xd0b": "Cortex-A76",
    "0xd0c": "Neoverse-N1",
    "0xd40": "Neoverse-V1",
    "0xd41": "Cortex-A78",
    "0xd42": "Cortex-A78AE",
    "0xd49": "Neoverse-N2",
    "0xd4f": "Neoverse-V2",
}


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """A machine: ``machine`` as uname names it; ``cores`` are those this process may use; ``board`` from the device tree."""

    machine: str
    system: str
    cpu: str | None
    isa: tuple[str, ...]
    cores: int | None
    ram_bytes: int | None
    governor: str | None
    board: str | None


def look(root: Path = Path("/")) -> Machine:
    """This machine; ``root`` is where /proc and /sys are found."""
    info = _read(root / "proc/cpuinfo")
    memory = re.search(r"^MemTotal:\s*(\d+) kB", _read(root / "proc/meminfo"), re.MULTILINE)
    board = _read(root / "proc/device-tree/model") or _read(root / "sys/firmware/devicetree/base/model")
    affinity = getattr(os, "sched_getaffinity", None)
    return Machine(
        machine=platform.machine(),
        system=platform.system(),
        cpu=cpu_name(info) or platform.processor() or None,
        isa=instruction_sets(info),
        cores=len(affinity(0)) if affinity else os.cpu_count(),
        ram_bytes=int(memory[1]) * 1024 if memory else None,
        governor=_read(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").strip() or None,
        board=board.strip("\x00\n ") or None,
    )


def instruction_sets(cpuinfo: str) -> tuple[str, ...]:
    """What /proc/cpuinfo lists, by the names that profiles use, in the order above; only what every core has."""
    lines = [set(m.split()) for m in re.findall(r"^(?:flags|Features)\s*:\s*(.+)$", cpuinfo, re.MULTILINE)]
    common = set.intersection(*lines) if lines else set()
    return tuple(dict.fromkeys(name for flag, name in _FLAGS.items() if flag in common))


def cpu_name(cpuinfo: str) -> str | None:
    """x86's model name, or Arm's cores by part number ("4 x Cortex-A72"; several kinds where they differ)."""
    if found := re.search(r"^model name\s*:\s*(.+)$", cpuinfo, re.MULTILINE):
        return found[1].strip()
    parts = re.findall(r"^CPU part\s*:\s*(0x[0-9a-f]+)", cpuinfo, re.MULTILINE)
    kinds = dict.fromkeys(parts)
    return " + ".join(f"{parts.count(p)} x {_ARM.get(p, f'part {p}')}" for p in kinds) or None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
