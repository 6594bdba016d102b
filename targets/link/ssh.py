"""A device over the user's own ``ssh``: their config, aliases, ProxyJump, keys and agent, and their known hosts, which are always checked.

Never asks: BatchMode, so an unknown host or a missing key is an error with its remedy. All commands share one connection.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ...core.errors import MissingDependencyError, TargetError
from .remote import Remote, single

LOST = 255  # ssh's own failures
_HOST = re.compile(r"[A-Za-z0-9_.%@:/\[\]-]+")

_CAUSES = (
    ("REMOTE HOST IDENTIFICATION HAS CHANGED", "its host key has changed: check why, then remove the old one with 'ssh-keygen -R'"),
    ("Host key verification failed", "its host key is not known: connect once by hand with 'ssh {host}' and check the key"),
    ("Permission denied", "it does not accept a key without a password: add one with 'ssh-copy-id {host}', or start ssh-agent"),
    ("Too many authentication failures", "too many keys were tried: name one with IdentityFile and IdentitiesOnly in your ssh config"),
    ("Could not resolve hostname", "the host name is not known: check it, or add it to your ssh config"),
    ("Connection refused", "nothing answers at its ssh port: start sshd there, or check the port"),
    ("timed out", "it does not answer: check that it is on and reachable"),
    ("No route to host", "it can't be reached: check the network"),
    ("Network is unreachable", "it can't be reached: check the network"),
)


class Ssh(Remote):
    """The Link to ``host``: an alias of the ssh config, ``user@host`` or ``ssh://user@host:port``.

    ``options`` are further words for ssh (``["-p", "2222"]``), ``config`` a config file instead of the user's. ``python`` is the
    interpreter there (default: its python3). ``kind`` is "emulated" where the user says so.
    """

    def __init__(
        self,
        host: str,
        *,
        options: Sequence[str] = (),
        config: Path | None = None,
        python: str | None = None,
        kind: str = "real",
        connect_s: int = 10,
        name: str | None = None,
    ) -> None:
        if host.startswith("-") or not _HOST.fullmatch(host):
            raise TargetError(f"'{host}' is not a host; give an alias, user@host or ssh://user@host:port")
        if shutil.which("ssh") is None:
            raise MissingDependencyError("ssh is not installed; install it with: apt install openssh-client")
        self.host, self.name, self.kind = host, name or f"ssh:{host}", kind
        self._control = Path(tempfile.mkdtemp(prefix="pl-"))
        self._base = ["ssh", *(["-F", str(config)] if config else []), *options]
        for option in (
            "BatchMode=yes",
            f"ConnectTimeout={connect_s}",
            "ServerAliveInterval=5",
            "ServerAliveCountMax=3",
            f"ControlPath={self._control}/c",
            "ForwardX11=no",
            "RequestTTY=no",
            "EscapeChar=none",
            "LogLevel=ERROR",
        ):
            self._base += ["-o", option]
        try:
            self._connect()
            self.open_root(python, "${TMPDIR:-/var/tmp}")
        except BaseException:
            self._disconnect()
            raise

    def _connect(self) -> None:
        """Opens the shared connection; it ends by itself a minute after its last use, also if this program is killed."""
        with tempfile.TemporaryFile() as said:
            master = [*self._base, "-f", "-N", "-M", "-o", "ControlPersist=60", self.host]
            code = subprocess.run(
                master, stdin=subprocess.DEVNULL, stdout=said, stderr=said, check=False, start_new_session=True
            ).returncode
            said.seek(0)
            error = self.lost(code, said.read().decode("utf-8", "replace"), "connecting")
        if error is not None:
            raise error

    def _disconnect(self) -> None:
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            exit_ = [*self._base, "-O", "exit", self.host]
            subprocess.run(exit_, capture_output=True, check=False, timeout=10, start_new_session=True)
        shutil.rmtree(self._control, ignore_errors=True)

    def argv(self, script: str) -> list[str]:
        return [*self._base, "-o", "ControlMaster=no", self.host, f"exec sh -c {single(script)}"]

    def lost(self, code: int, stderr: str, doing: str) -> TargetError | None:
        if code != LOST:
            return None
        for sign, cause in _CAUSES:
            if sign in stderr:
                return TargetError(f"device '{self.name}': {doing} failed; {cause.format(host=self.host)}")
        lines = [line.strip() for line in stderr.splitlines() if line.strip()]
        told = f" ({lines[-1][:200]})" if lines else ""
        return TargetError(f"the link to device '{self.name}' broke while {doing}{told}; check the network and run again")

    def close(self) -> None:
        try:
            with contextlib.suppress(subprocess.TimeoutExpired):
                super().close()
        finally:
            self._disconnect()

    def __enter__(self) -> Ssh:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
