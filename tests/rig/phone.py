"""A real adbd (Debian trixie's, of Android platform 34) in a network namespace of its own, reached by a real adb.

    with phone(folder) as adb: Adb(SERIAL, program=str(adb), base=...)

Its shell is this machine's, so it is adb's protocol that is real here, not Android. Needs root, for the namespace.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from .debian import Apt, CannotInstall, script
from .tools import compile_shared

SERIAL = "127.0.0.1:5555"
LOOPBACK_UP = (
    "import fcntl,socket,struct\n"
    "s=socket.socket()\n"
    "fcntl.ioctl(s,0x8914,struct.pack('16sH14x',b'lo',0x49))"  # SIOCSIFFLAGS: up, running, loopback
)


def install(folder: Path) -> None:
    """adbd and adb with their libraries."""
    if os.geteuid() != 0:
        raise CannotInstall("a network namespace for adbd needs root")
    if subprocess.run(["unshare", "-n", "true"], capture_output=True, check=False).returncode != 0:
        raise CannotInstall("this system allows no network namespace")
    root = folder / "root-phone"
    Apt(folder, "amd64", "trixie").unpack(root, "adbd", "adb", dependencies=True)
    compile_shared(folder, Path(__file__).with_name("novsock.c"), folder / "novsock.so")


def _loader(folder: Path, *more: str) -> str:
    """The words that run a program of the phone's root with the root's own libraries."""
    libraries = folder / "root-phone" / "usr" / "lib" / "x86_64-linux-gnu"
    return f"'{libraries}/ld-linux-x86-64.so.2' {' '.join(more)} --library-path '{libraries}:{libraries}/android'"


@contextlib.contextmanager
def phone(folder: Path) -> Iterator[Path]:
    """adbd running; yields a program that is ``adb`` inside its namespace."""
    tools = folder / "root-phone" / "usr" / "lib" / "android-sdk" / "platform-tools"
    with tempfile.TemporaryDirectory(prefix="packlight-phone-") as name:
        home = Path(name)
        log = open(home / "log", "wb")  # noqa: SIM115  the daemon's, as long as it lives
        up = f"'{sys.executable}' -c \"{LOOPBACK_UP}\""
        daemon = subprocess.Popen(
            ["unshare", "-n", "sh", "-c", f"{up} && exec {_loader(folder, f'--preload {folder}/novsock.so')} '{tools}/adbd'"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        own = shutil.which("adb")
        adb = f"'{own}'" if own else f"{_loader(folder)} '{tools}/adb'"
        program = home / "adb"
        script(program, f"export HOME={home} ANDROID_ADB_SERVER_PORT=15037", f'exec nsenter -t {daemon.pid} -n {adb} "$@"')
        # Started here, since under a loader of its own adb can't start its server itself.
        server = subprocess.Popen(
            [str(program), "server", "nodaemon"], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
        try:
            _wait(daemon, home / "log")
            yield program
        finally:
            for child in (server, daemon):
                child.kill()
                child.wait()
            log.close()


def _wait(daemon: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + 20
    while "adbd started" not in log.read_text(errors="replace"):
        if daemon.poll() is not None or time.monotonic() > end:
            raise RuntimeError(f"adbd did not start: {log.read_text(errors='replace')[-300:]}")
        time.sleep(0.05)
