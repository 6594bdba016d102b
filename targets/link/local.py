"""This machine as a device: a temporary folder as root, commands in their own sessions."""

from __future__ import annotations

import errno
import os
import shutil
import sys
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from ...core.errors import StorageError, TargetError
from .link import MARKER, Ran, place
from .pipe import PipeProcess


class Local:
    """The Link to this machine. Files are hard-linked where they can be, else copied."""

    def __init__(self, name: str = "local", *, python: str | None = None) -> None:
        self.name = name
        self.kind = "real"
        self.python: str | None = python or sys.executable
        self.root = PurePosixPath(tempfile.mkdtemp(prefix="packlight-"))
        (Path(self.root) / MARKER).touch()
        self._running: weakref.WeakSet[PipeProcess] = weakref.WeakSet()

    def run(self, command: Sequence[str], *, timeout_s: float, env: Mapping[str, str] | None = None) -> Ran:
        self._alive()
        program = str(Path(self.root) / command[0]) if "/" in command[0] else command[0]
        if shutil.which(program, path=(env or {}).get("PATH") or os.environ.get("PATH")) is None:
            return Ran(127, "", f"{command[0]}: not found\n")
        with self.start(command, env=env) as process:
            return process.wait(timeout_s)

    def start(self, command: Sequence[str], *, env: Mapping[str, str] | None = None) -> PipeProcess:
        self._alive()
        process = PipeProcess(command, device=self.name, cwd=str(self.root), env={**os.environ, **(env or {})})
        self._running.add(process)
        return process

    def push(self, local: Path, remote: str) -> None:
        self._alive()
        target = Path(place(self.root, remote))
        if not local.exists():
            raise TargetError(f"'{local}' can't be pushed to device '{self.name}': it does not exist")
        with _storage(self.name):
            target.parent.mkdir(parents=True, exist_ok=True)
            if local.is_dir():
                shutil.copytree(local, target, dirs_exist_ok=True, copy_function=_link_or_copy)
            else:
                _link_or_copy(str(local), str(target))

    def pull(self, remote: str, local: Path) -> None:
        self._alive()
        source = Path(place(self.root, remote))
        if not source.is_file():
            raise TargetError(f"device '{self.name}' has no file '{remote}'")
        with _storage(str(local.parent)):
            local.parent.mkdir(parents=True, exist_ok=True)
            _link_or_copy(str(source), str(local))

    def close(self) -> None:
        for process in list(self._running):
            process.stop()
        shutil.rmtree(self.root, ignore_errors=True)

    def _alive(self) -> None:
        if not Path(self.root).is_dir():
            raise TargetError(f"device '{self.name}': the session folder is gone; open the link again")

    def __enter__(self) -> Local:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class _storage:
    """Turns a full disk into StorageError naming the device."""

    def __init__(self, device: str) -> None:
        self.device = device

    def __enter__(self) -> None:
        return

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageError(f"the disk of device '{self.device}' is full; free some space there") from error


def _link_or_copy(source: str, target: str) -> str:
    Path(target).unlink(missing_ok=True)
    try:
        os.link(os.path.realpath(source), target)
    except OSError:
        shutil.copyfile(source, target)
    return target
