"""A private ssh server on the loopback address, its own keys, nothing of the user's touched; for tests of the Ssh link."""

from __future__ import annotations

import contextlib
import getpass
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

SSHD = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/sbin:/usr/bin")


class Sshd:
    """``config`` is the client's config with the aliases ``box`` (known), ``stranger`` (no known key), ``jumped`` (through
    ``box``), ``keyless`` (no accepted key) and ``deaf`` (nothing listens)."""

    def __init__(self, folder: Path, *, extra: str = "") -> None:
        self.folder, self.port = folder, _free_port()
        for name in ("host", "user", "other"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
        (folder / "authorized").write_text((folder / "user.pub").read_text())
        (folder / "known").write_text(f"[127.0.0.1]:{self.port} {(folder / 'host.pub').read_text()}")
        (folder / "wrong").write_text(f"[127.0.0.1]:{self.port} {(folder / 'other.pub').read_text()}")
        (folder / "none").touch()
        (folder / "sshd_config").write_text(
            f"Port {self.port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nPidFile {folder}/pid\n"
            f"AuthorizedKeysFile {folder}/authorized\nStrictModes no\nUsePAM no\nPasswordAuthentication no\n"
            f"KbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\n{extra}"
        )
        common = f"  HostName 127.0.0.1\n  Port {self.port}\n  User {getpass.getuser()}\n"
        common += "  IdentitiesOnly yes\n  GlobalKnownHostsFile /dev/null\n"
        self.config = folder / "config"
        self.config.write_text(
            "".join(
                f"Host {name}\n{common}  IdentityFile {folder}/{key}\n  UserKnownHostsFile {folder}/{known}\n{more}"
                for name, key, known, more in (
                    ("box", "user", "known", ""),
                    ("stranger", "user", "none", ""),
                    ("changed", "user", "wrong", ""),
                    ("keyless", "other", "known", ""),
                    ("jumped", "user", "known", "  ProxyJump box\n"),
                )
            )
            + f"Host deaf\n  HostName 127.0.0.1\n  Port {_free_port()}\n"
        )
        self.child: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        assert SSHD is not None
        Path("/run/sshd").mkdir(exist_ok=True)
        log = self.folder / "log"
        self.child = subprocess.Popen([SSHD, "-D", "-f", str(self.folder / "sshd_config"), "-E", str(log)], stdin=subprocess.DEVNULL)
        for _ in range(100):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 0.2):
                return
            time.sleep(0.05)
        pytest.skip(f"the private sshd did not start: {log.read_text() if log.is_file() else 'no log'}")

    def connections(self) -> list[int]:
        """Pids of the server's children, one or two a connection."""
        assert self.child is not None
        found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(self.child.pid)], capture_output=True, text=True, check=False)
        return [int(pid) for pid in found.stdout.split()]

    def cut(self) -> None:
        """Breaks every connection, as a pulled cable or a crash of the server would."""
        import os
        import signal

        for pid in self.connections():
            for child in subprocess.run(
                ["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False
            ).stdout.split():
                if "sshd" in Path(f"/proc/{child}/comm").read_text():
                    os.kill(int(child), signal.SIGKILL)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def stop(self) -> None:
        if self.child is not None:
            self.cut()
            self.child.terminate()
            self.child.wait(10)


@contextlib.contextmanager
def sshd(folder: Path, **fields: str) -> Iterator[Sshd]:
    """A running server; skips with the reason where there can't be one."""
    if SSHD is None or shutil.which("ssh") is None:
        pytest.skip("no ssh server or client here (apt install openssh-server)")
    try:
        Path("/run/sshd").mkdir(exist_ok=True)
    except OSError:
        pytest.skip("/run/sshd is absent and can't be made here; sshd wants it")
    server = Sshd(folder, **fields)
    server.start()
    try:
        yield server
    finally:
        server.stop()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
