"""A private ssh server on the loopback address, its own keys, nothing of the user's touched; for tests of the Ssh link."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest


def program() -> str | None:
    """The ssh server: the rig's where it has one, else the system's."""
    return shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin:/sbin:/usr/bin")


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
        server = program()
        assert server is not None
        log = self.folder / "log"
        self.child = subprocess.Popen([server, "-D", "-f", str(self.folder / "sshd_config"), "-E", str(log)], stdin=subprocess.DEVNULL)
        for _ in range(100):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 0.2):
                return
            time.sleep(0.05)
        pytest.skip(f"the private sshd did not start: {log.read_text() if log.is_file() else 'no log'}")

    def connections(self) -> list[int]:
        """Pids of the server's children, one or two a connection."""
        assert self.child is not None
        return _children(self.child.pid)

    def cut(self) -> None:
        """Breaks every connection, as a pulled cable or a crash of the server would."""
        for pid in self.connections():
            for child in _children(pid):
                with contextlib.suppress(OSError):
                    if "sshd" in Path(f"/proc/{child}/comm").read_text():
                        os.kill(child, signal.SIGKILL)
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
    if program() is None or shutil.which("ssh") is None:
        pytest.skip("no ssh server or client here; 'make rig' brings them, or apt install openssh-server")
    if os.geteuid() == 0:  # only then does sshd want it
        Path("/run/sshd").mkdir(exist_ok=True)
    server = Sshd(folder, **fields)
    server.start()
    try:
        yield server
    finally:
        server.stop()


def _children(pid: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if stat.read_text().rsplit(") ", 1)[1].split()[1] == str(pid):
                found.append(int(stat.parent.name))
    return found


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
