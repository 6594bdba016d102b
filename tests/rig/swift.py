"""A Swift compiler for a machine that has none: Debian trixie's swiftlang, unpacked into a folder of its own.

    PYTHONPATH=tests python -m rig.swift .rig   # 550 MB to download, 2.5 GB unpacked, 2 to 4 minutes; again: nothing to do

Everything comes from apt, through a private view that leaves the system's own alone. The compiler wants the C library of its own
release, so it runs with that folder as its root, in a mount namespace (a user namespace too where the user is not root); the folder
it works in appears there as /proof.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from .debian import Apt, CannotInstall
from .debian import run as fetch

PACKAGES = ("swiftlang", "libc6-dev", "libstdc++-14-dev", "libgcc-14-dev", "binutils", "coreutils", "dash")
PATIENCE_S = 900
LINKS = ("bin", "lib", "lib64", "sbin")
ENTER = (
    'root="$1"; work="$2"; shift 2; mount -t proc proc "$root/proc" && mount --rbind /dev "$root/dev" && mount --bind "$work" "$root/proof"'
    ' && exec chroot "$root" /usr/bin/env -i PATH=/usr/bin:/usr/libexec/swift/bin HOME=/proof TMPDIR=/proof LANG=C.UTF-8 "$@"'
)


def install(folder: Path) -> Path:
    """Installs what is not there yet; returns the root that the compiler runs in. Raises CannotInstall with the reason."""
    for tool in ("apt-get", "dpkg-deb", "unshare", "chroot"):
        if shutil.which(tool) is None:
            raise CannotInstall(f"{tool} is absent")
    if subprocess.run([*_namespace(), "true"], capture_output=True, check=False).returncode != 0:
        raise CannotInstall("this system allows no mount namespace")
    if (root := installed(folder)) is not None:
        return root
    home = folder.resolve() / "swift"
    root = home / "root"
    apt = Apt(home, "amd64", "trixie")
    archives = apt.base / "cache" / "archives"
    fetch([*apt.command, "--download-only", "install", *PACKAGES], archives, "downloading swiftlang", patience_s=PATIENCE_S)
    for name in LINKS:
        (root / "usr" / name).mkdir(parents=True, exist_ok=True)
        if not (root / name).is_symlink():
            (root / name).symlink_to(f"usr/{name}")
    for name in ("proc", "dev", "proof", "tmp"):
        (root / name).mkdir(exist_ok=True)
    for deb in sorted(archives.glob("*.deb")):
        content = subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(deb)], stdout=subprocess.PIPE)
        command = ["tar", "-x", "--keep-directory-symlink", "--no-same-owner", "-C", str(root)]
        unpacked = subprocess.run(command, stdin=content.stdout, capture_output=True, text=True, check=False)
        if content.wait() or unpacked.returncode:
            raise CannotInstall(f"unpacking {deb.name} failed: {unpacked.stderr[-300:]}")
        deb.unlink()
    (home / "done").touch()
    return root


def installed(folder: Path) -> Path | None:
    """The root, where it is there."""
    home = folder.resolve() / "swift"
    return home / "root" if (home / "done").is_file() else None


def run(root: Path, work: Path, *command: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Runs a command of the root with the folder ``work`` as /proof and as its home."""
    entered = [*_namespace(), "sh", "-c", ENTER, "sh", str(root), str(work.resolve()), *command]
    return subprocess.run(entered, capture_output=True, text=True, check=False, **options)


def _namespace() -> list[str]:
    return ["unshare", "-m", "-p", "-f", "--kill-child", *(() if os.geteuid() == 0 else ("-r",))]


if __name__ == "__main__":
    print(install(Path(sys.argv[1])))
