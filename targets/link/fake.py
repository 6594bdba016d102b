"""A device that exists only in the head: scripted answers, injectable faults, no clock. For tests of whoever speaks to a Link."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

import msgspec

from ...core.errors import StorageError, TargetError
from .link import Ran, place

Answer = Callable[[Sequence[str]], Ran]
Script = Generator[str | None, str | None, int]
"""A running command: yields its lines of output; yields None to get the next line sent to it (None when stdin is closed); returns its
exit code."""


class Faults(msgspec.Struct, frozen=True, kw_only=True):
    """What goes wrong. ``break_after``: calls of run, start, push, pull, send and lines got before the link breaks for good.
    ``disk_bytes``: what fits on the device. ``silent``: running commands never answer."""

    break_after: int | None = None
    disk_bytes: int | None = None
    silent: bool = False


class Fake:
    """The Link to a scripted device.

    ``answer`` gives what a command says; ``script`` starts a long-running one (its generator sees ``folder``, where pushed
    files really lie). ``log`` records every call.
    """

    def __init__(
        self,
        *,
        answer: Answer | None = None,
        script: Callable[[Sequence[str], Path], Script] | None = None,
        faults: Faults = Faults(),  # noqa: B008  frozen
        name: str = "fake",
        kind: str = "simulated clock",
        python: str | None = "python3",
    ) -> None:
        self.name, self.kind, self.python = name, kind, python
        self.folder = Path(tempfile.mkdtemp(prefix="packlight-fake-"))
        self.root = PurePosixPath(self.folder)
        self.log: list[tuple[str, str]] = []
        self.running: list[FakeProcess] = []
        self._answer, self._script, self._faults = answer, script, faults
        self._calls = 0

    def touch(self, doing: str, what: str) -> None:
        """Counts a call; raises where the link is broken."""
        self.log.append((doing, what))
        self._calls += 1
        if self._faults.break_after is not None and self._calls > self._faults.break_after:
            raise TargetError(f"the link to device '{self.name}' broke during {doing} {what}; check the cable or network and run again")
        if not self.folder.is_dir():
            raise TargetError(f"device '{self.name}': the session folder is gone; open the link again")

    def run(self, command: Sequence[str], *, timeout_s: float, env: Mapping[str, str] | None = None) -> Ran:
        self.touch("run", command[0])
        if self._faults.silent:
            raise TargetError(f"device '{self.name}': '{command[0]}' was not done after {timeout_s:g} s and was ended; allow more time")
        return self._answer(command) if self._answer else Ran(127, "", f"{command[0]}: not found")

    def start(self, command: Sequence[str], *, env: Mapping[str, str] | None = None) -> FakeProcess:
        self.touch("start", command[0])
        script = self._script(command, self.folder) if self._script else _replay(self._answer, command)
        process = FakeProcess(self, script, silent=self._faults.silent)
        self.running.append(process)
        return process

    def push(self, local: Path, remote: str) -> None:
        self.touch("push", remote)
        target = Path(place(self.root, remote))
        if not local.exists():
            raise TargetError(f"'{local}' can't be pushed to device '{self.name}': it does not exist")
        size = _size(local)
        if self._faults.disk_bytes is not None and _size(self.folder) + size > self._faults.disk_bytes:
            raise StorageError(f"the disk of device '{self.name}' is full; free some space there")
        target.parent.mkdir(parents=True, exist_ok=True)
        if local.is_dir():
            shutil.copytree(local, target, dirs_exist_ok=True)
        else:
            shutil.copyfile(local, target)

    def pull(self, remote: str, local: Path) -> None:
        self.touch("pull", remote)
        source = Path(place(self.root, remote))
        if not source.is_file():
            raise TargetError(f"device '{self.name}' has no file '{remote}'")
        local.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, local)

    def close(self) -> None:
        for process in self.running:
            process.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Fake:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class FakeProcess:
    """A scripted command under way."""

    def __init__(self, device: Fake, script: Script, *, silent: bool) -> None:
        self._device, self._script, self._silent = device, script, silent
        self._inbox: list[str] = []
        self._waiting = False
        self._closed = False
        self._code: int | None = None

    @property
    def ended(self) -> bool:
        return self._code is not None

    def lines(self, silence_s: float | None = None) -> Iterator[str]:
        while True:
            self._device.touch("lines", "")
            line = self._step()
            if self._code is not None:
                return
            if line is None or self._silent:
                told = f"device '{self._device.name}' said nothing for {silence_s or 0:g} s; it hangs or the link is gone"
                raise TargetError(told)
            yield line

    def _step(self) -> str | None:
        """The next line; None where the command waits for input that nobody sent."""
        while self._code is None:
            try:
                if self._waiting:
                    if not self._inbox and not self._closed:
                        return None
                    said = self._script.send(self._inbox.pop(0) if self._inbox else None)
                else:
                    said = next(self._script)
            except StopIteration as end:
                self._code = int(end.value or 0)
                return None
            self._waiting = said is None
            if said is not None:
                return said
        return None

    def send(self, line: str) -> None:
        self._device.touch("send", line)
        if self._code is not None:
            raise TargetError(f"device '{self._device.name}': the command has ended")
        self._inbox.append(line)

    def wait(self) -> Ran:
        self._closed = True
        rest = []
        while (line := self._step()) is not None:
            rest.append(line + "\n")
        return Ran(self._code or 0, "".join(rest), "")

    def stop(self) -> None:
        if self._code is None:
            self._script.close()
            self._code = 143

    def __enter__(self) -> FakeProcess:
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()


def _replay(answer: Answer | None, command: Sequence[str]) -> Script:
    ran = answer(command) if answer else Ran(127, "", "")
    yield from ran.stdout.splitlines()
    return ran.code


def _size(path: Path) -> int:
    return sum(p.stat().st_size for p in path.rglob("*") if p.is_file()) if path.is_dir() else path.stat().st_size
