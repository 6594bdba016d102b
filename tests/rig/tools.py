"""What the rig runs on this machine itself: ssh, its server and keys, adb, and a C compiler (tcc, 0.3 MB). What the system has is used; the
rest is unpacked under ``host`` and started through scripts in ``bin``, so nothing is installed system-wide and no daemon is started."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from pathlib import Path

from .debian import OF_THE_SYSTEM, Apt, CannotInstall, run, script

SBIN = "/usr/local/sbin:/usr/sbin:/sbin"
PROGRAMS = {"ssh": "openssh-client", "ssh-keygen": "openssh-client", "sshd": "openssh-server"}
GNU_STACK, READ_WRITE = 0x6474E551, 6
LIBRARIES = "usr/lib/x86_64-linux-gnu"


def install(folder: Path) -> None:
    """Compiler and ssh."""
    if os.uname().machine != "x86_64":
        raise CannotInstall(f"the rig's programs are for x86_64, this is {os.uname().machine}")
    apt, host = Apt(folder, "amd64"), folder / "host"
    apt.unpack(host, "tcc")
    absent = {name: package for name, package in PROGRAMS.items() if not found(name)}
    if absent:
        apt.unpack(host, *sorted(set(absent.values())))
        where = {name: host / "usr" / ("sbin" if name == "sshd" else "bin") / name for name in absent}
        complete(apt, host, list(where.values()), *sorted(set(absent.values())))
        for name, program in where.items():
            _wrap(folder, name, program)


def found(program: str) -> bool:
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:{SBIN}") is not None


def complete(apt: Apt, host: Path, programs: list[Path], *packages: str) -> None:
    """Adds the libraries that ``programs`` lack here."""
    environment = {**os.environ, "LD_LIBRARY_PATH": str(host / LIBRARIES)}
    said = [subprocess.run(["ldd", p], capture_output=True, text=True, check=False, env=environment).stdout for p in programs]
    if any("not found" in text for text in said):
        apt.unpack(host, *packages, dependencies=True, skip=OF_THE_SYSTEM)


def compile_shared(folder: Path, source: Path, out: Path) -> None:
    """A shared library from one C file without headers."""
    tcc, own = folder / "host" / "usr" / "bin" / "tcc", folder / "host" / LIBRARIES / "tcc"
    run([tcc, "-B", own, "-nostdlib", "-nostdinc", "-shared", "-fPIC", "-o", out, source], folder, f"compiling {source.name}")
    out.write_bytes(without_executable_stack(out.read_bytes()))


def without_executable_stack(library: bytes) -> bytes:
    """tcc leaves out the program header that says that the stack need not be executable, and then some systems refuse to load the file: the
    headers are written again at its end, with that one."""
    start, size, count = struct.unpack_from("<Q", library, 32)[0], *struct.unpack_from("<HH", library, 54)
    stack = struct.pack("<IIQQQQQQ", GNU_STACK, READ_WRITE, 0, 0, 0, 0, 0, 16)
    out = bytearray(library) + b"\0" * (-len(library) % 8)
    struct.pack_into("<Q", out, 32, len(out))
    struct.pack_into("<H", out, 56, count + 1)
    return bytes(out + library[start : start + size * count] + stack)


def _wrap(folder: Path, name: str, program: Path) -> None:
    export = f"export LD_LIBRARY_PATH='{folder / 'host' / LIBRARIES}'"
    if name != "sshd" or os.geteuid() != 0 or "\nsshd:" in Path("/etc/passwd").read_text():
        script(folder / "bin" / name, export, f"exec '{program}' \"$@\"")
        return
    # As root sshd wants a user of its own: it sees one in a mount namespace, the system does not.
    users = folder / "host" / "etc" / "passwd"
    users.parent.mkdir(parents=True, exist_ok=True)
    users.write_text(Path("/etc/passwd").read_text() + "sshd:x:64999:65534::/run/sshd:/usr/sbin/nologin\n")
    inner = f"mount --bind '{users}' /etc/passwd && {export} && exec '{program}' \"$@\""
    script(folder / "bin" / name, f'exec unshare -m sh -c {_quoted(inner)} sshd "$@"')


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\"'\"'") + "'"
