"""A Swift compiler for a machine that has none: Debian trixie's swiftlang, unpacked into a folder of its own.

    python tests/rig/swift.py FOLDER        # 550 MB to download, 2.5 GB unpacked, 2 to 4 minutes; again: nothing to do

Everything comes from apt, through a private view that leaves the system's own alone. The compiler wants the C library of its own
release, so it runs with that folder as its root, in a mount namespace (a user namespace too where the user is not root); the folder
it works in appears there as /work.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

PACKAGES = ("swiftlang", "libc6-dev", "libstdc++-14-dev", "libgcc-14-dev", "binutils", "coreutils", "dash")
LINKS = ("bin", "lib", "lib64", "sbin")
ENTER = (
    'root="$1"; work="$2"; shift 2; mount -t proc proc "$root/proc" && mount --rbind /dev "$root/dev" && mount --bind "$work" "$root/work"'
    ' && exec chroot "$root" /usr/bin/env -i PATH=/usr/bin:/usr/libexec/swift/bin HOME=/work TMPDIR=/work LANG=C.UTF-8 "$@"'
)


def install(folder: Path, pi: Any) -> Path:
    """Installs what is not there yet; returns the root that the compiler runs in. ``pi`` is the module that knows how to ask apt."""
    for tool in ("apt-get", "dpkg-deb", "unshare", "chroot"):
        if shutil.which(tool) is None:
            raise pi.CannotInstall(f"{tool} is absent")
    if subprocess.run([*_namespace(), "true"], capture_output=True, check=False).returncode != 0:
        raise pi.CannotInstall("this system allows no mount namespace")
    folder = folder.resolve() / "swift"
    root, done = folder / "root", folder / "done"
    if done.is_file():
        return root
    folder.mkdir(parents=True, exist_ok=True)
    apt = pi._apt(folder, "amd64")
    sources = folder / "apt-amd64" / "sources.list"
    sources.write_text(sources.read_text().replace("bookworm", "trixie"))
    pi._run([*apt, "update"], folder, "apt-get update for trixie")
    pi._run([*apt, "--download-only", "install", *PACKAGES], folder, "downloading swiftlang")
    for name in LINKS:
        (root / "usr" / name).mkdir(parents=True, exist_ok=True)
        if not (root / name).is_symlink():
            (root / name).symlink_to(f"usr/{name}")
    for name in ("proc", "dev", "work", "tmp"):
        (root / name).mkdir(exist_ok=True)
    for deb in sorted((folder / "apt-amd64" / "cache" / "archives").glob("*.deb")):
        content = subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(deb)], stdout=subprocess.PIPE)
        command = ["tar", "-x", "--keep-directory-symlink", "--no-same-owner", "-C", str(root)]
        unpacked = subprocess.run(command, stdin=content.stdout, capture_output=True, text=True, check=False)
        if content.wait() or unpacked.returncode:
            raise pi.CannotInstall(f"unpacking {deb.name} failed: {unpacked.stderr[-300:]}")
        deb.unlink()
    done.touch()
    return root


def run(root: Path, work: Path, *command: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Runs a command of the root with the folder ``work`` as /work and as its home."""
    entered = [*_namespace(), "sh", "-c", ENTER, "sh", str(root), str(work.resolve()), *command]
    return subprocess.run(entered, capture_output=True, text=True, check=False, **options)


def _namespace() -> list[str]:
    return ["unshare", "-m", "-p", "-f", "--kill-child", *(() if os.geteuid() == 0 else ("-r",))]


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    import pi as of_apt

    print(install(Path(sys.argv[1]), of_apt))
