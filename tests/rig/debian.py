"""Packages from Debian's mirror, unpacked into a folder: a private view of apt for any architecture. The system's own stays as it is, and
no root is needed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
SUITE = "bookworm"
PATIENCE_S = 180
OF_THE_SYSTEM = ("libc6_", "libc-bin_", "libgcc-s1_", "gcc-12-base_", "libcrypt1_", "perl-base_", "dpkg_", "tar_", "debconf_", "passwd_")
"""What must never be mixed with the running system's own, where a program of the package is run on this machine."""


class CannotInstall(Exception):
    """Why there can be no such part of the rig here, in one line."""


def run(command: Sequence[str | Path], cwd: Path, what: str, patience_s: float = PATIENCE_S) -> str:
    """Runs a command; its stdout, or CannotInstall with its last words."""
    words = [str(word) for word in command]
    try:
        ran = subprocess.run(words, cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=patience_s)
    except subprocess.TimeoutExpired:
        raise CannotInstall(f"{what} was not done after {patience_s:g} s") from None
    except OSError as error:
        raise CannotInstall(f"{what} failed: {error}") from None
    if ran.returncode != 0:
        said = [line for line in (ran.stderr + ran.stdout).splitlines() if line.strip()]
        raise CannotInstall(f"{what} failed: {said[-1][:200] if said else f'exit code {ran.returncode}'}")
    return ran.stdout


def mirror() -> str:
    """The Debian mirror that this system's own sources name."""
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise CannotInstall(f"{tool} is absent: this is not a Debian system")
    if not KEYRING.is_file():
        raise CannotInstall(f"{KEYRING} is absent, so Debian's packages can't be checked")
    sources = [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*"))]
    for file in sources:
        text = file.read_text(errors="replace") if file.is_file() else ""
        for found in re.findall(r"^URIs:\s*(\S+)|^deb\s+(?:\[[^\]]*\]\s*)?(\S+)\s", text, re.M):
            uri = found[0] or found[1]
            if uri.rstrip("/").endswith("/debian"):
                return uri
    raise CannotInstall("the system's apt sources name no Debian mirror")


class Apt:
    """An apt-get for ``arch`` and ``suite`` with its own lists, status and cache in ``folder``."""

    def __init__(self, folder: Path, arch: str, suite: str = SUITE) -> None:
        self.base = folder / f"apt-{suite}-{arch}"
        for sub in ("state/lists/partial", "cache/archives/partial", "debs"):
            (self.base / sub).mkdir(parents=True, exist_ok=True)
        (self.base / "status").touch()
        (self.base / "sources.list").write_text(f"deb [signed-by={KEYRING}] {mirror()} {suite} main\n")
        options = {
            "APT::Architecture": arch,
            "APT::Architectures": arch,
            "Dir::State": self.base / "state",
            "Dir::State::status": self.base / "status",
            "Dir::Cache": self.base / "cache",
            "Dir::Etc::sourceparts": "/nonexistent",
            "Dir::Etc::sourcelist": self.base / "sources.list",
            "APT::Install-Recommends": "false",
            "APT::Sandbox::User": "root" if os.geteuid() == 0 else "",
            "Acquire::Languages": "none",
            "Acquire::http::Timeout": "20",
            "Acquire::https::Timeout": "20",
            "Acquire::Retries": "1",
        }
        self.command = ["apt-get", "-q", "-y", *(word for k, v in options.items() if v != "" for word in ("-o", f"{k}={v}"))]
        run([*self.command, "update"], self.base, f"apt-get update for {suite} {arch}")

    def unpack(self, root: Path, *packages: str, dependencies: bool = False, skip: Sequence[str] = ()) -> None:
        """Downloads ``packages``, with all they depend on where told, and unpacks them under ``root``, but for those whose file name
        starts with one of ``skip``."""
        where = self.base / "cache" / "archives" if dependencies else self.base / "debs"
        root.mkdir(parents=True, exist_ok=True)
        words = ["--download-only", "install"] if dependencies else ["download"]
        run([*self.command, *words, *packages], where, f"downloading {packages[0]}")
        for deb in sorted(where.glob("*.deb")):
            if not deb.name.startswith(tuple(skip)):
                run(["dpkg-deb", "-x", deb, root], where, f"unpacking {deb.name}")
            deb.unlink()


def wheels(site: Path, *packages: str, platforms: Sequence[str], python: str) -> None:
    """Wheels of another platform, unpacked into ``site``; ``python`` is the interpreter whose pip is asked."""
    words = [word for platform in platforms for word in ("--platform", platform)]
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--upgrade"]
    words += ["--python-version", "3.11", "--implementation", "cp", "--only-binary=:all:", "--target", str(site)]
    run([*pip, *words, *packages], site.parent, f"installing wheels for {platforms[0]}")


def script(path: Path, *lines: str) -> None:
    """An executable shell script."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(("#!/bin/sh", *lines)) + "\n")
    path.chmod(0o755)
