"""A real adbd (Debian trixie's, of Android platform 34) in a network namespace of its own, reached by the system's adb.

    with phone(folder) as adb: Adb("127.0.0.1:5555", program=str(adb), base=...)

Its shell is this machine's, so it is adb's protocol that is real here, not Android. Needs root (for the namespace), ``adb`` and ``gcc``;
14 MB from Debian's mirror, about 15 s once.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SERIAL = "127.0.0.1:5555"


def install(folder: Path, pi: Any) -> Path:
    """Downloads and unpacks adbd with its libraries; ``pi`` is the module that knows how to ask apt."""
    if os.geteuid() != 0:
        raise pi.CannotInstall("a network namespace for adbd needs root")
    for tool in ("adb", "gcc", "unshare", "nsenter", "ip"):
        if shutil.which(tool) is None:
            raise pi.CannotInstall(f"{tool} is absent")
    if subprocess.run(["unshare", "-n", "true"], capture_output=True, check=False).returncode != 0:
        raise pi.CannotInstall("this system allows no network namespace")
    folder = folder.resolve() / "phone"
    if (folder / "done").is_file():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    apt = pi._apt(folder, "amd64")
    sources = folder / "apt-amd64" / "sources.list"
    sources.write_text(sources.read_text().replace("bookworm", "trixie"))
    pi._run([*apt, "update"], folder, "apt-get update for trixie")
    pi._run([*apt, "--download-only", "install", "adbd"], folder, "downloading adbd")
    for deb in sorted((folder / "apt-amd64" / "cache" / "archives").glob("*.deb")):
        pi._run(["dpkg-deb", "-x", str(deb), str(folder / "root")], folder, f"unpacking {deb.name}")
    source = Path(__file__).with_name("novsock.c")
    pi._run(["gcc", "-O2", "-shared", "-fPIC", "-o", str(folder / "novsock.so"), str(source), "-ldl"], folder, "compiling novsock")
    (folder / "done").touch()
    return folder


@contextlib.contextmanager
def phone(folder: Path) -> Iterator[Path]:
    """adbd running; yields a program that is ``adb`` inside its namespace."""
    libraries = folder / "root" / "usr" / "lib" / "x86_64-linux-gnu"
    adbd = folder / "root" / "usr" / "lib" / "android-sdk" / "platform-tools" / "adbd"
    loader = f"{libraries}/ld-linux-x86-64.so.2 --preload {folder}/novsock.so --library-path {libraries}:{libraries}/android {adbd}"
    log = open(folder / "log", "wb")  # noqa: SIM115  the daemon's, as long as it lives
    daemon = subprocess.Popen(
        ["unshare", "-n", "sh", "-c", f"ip link set lo up; exec {loader}"],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        start_new_session=True,
    )
    program = folder / "adb"
    home = folder / "home"
    home.mkdir(exist_ok=True)
    program.write_text(
        f'#!/bin/sh\nexport HOME={home} ANDROID_ADB_SERVER_PORT=15037\nexec nsenter -t {daemon.pid} -n {shutil.which("adb")} "$@"\n'
    )
    program.chmod(0o755)
    try:
        end = time.monotonic() + 20
        while "adbd started" not in (folder / "log").read_text(errors="replace"):
            if daemon.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"adbd did not start: {(folder / 'log').read_text(errors='replace')[-300:]}")
            time.sleep(0.05)
        yield program
    finally:
        subprocess.run([str(program), "kill-server"], capture_output=True, check=False)
        daemon.kill()
        daemon.wait()
        log.close()
