"""A child process of ours with piped stdin and stdout: what Local, Ssh and Adb stream through."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import IO

from ...core.errors import TargetError
from .link import Ran

GRACE_S = 3.0


class PipeProcess:
    """A Process over ``subprocess``, in its own session so that Ctrl-C in our terminal does not reach it and ``stop`` ends its children.

    ``device`` is named in errors, ``what`` is the command's name there. ``lost`` answers an error where an exit code and stderr mean
    that the link failed, not the command (255 of ssh).
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        device: str,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        lost: Callable[[int, str], TargetError | None] = lambda code, stderr: None,
        what: str | None = None,
    ) -> None:
        self.device, self.command, self._lost = device, list(command), lost
        self.what = what or self.command[0]
        try:
            self._child = subprocess.Popen(
                self.command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd=cwd,
                env=None if env is None else dict(env),
                start_new_session=True,
                text=True,
                encoding="utf-8",
                errors="replace",
                bufsize=1,
            )
        except OSError as error:
            raise TargetError(f"device '{device}': '{self.command[0]}' can't be started ({error.strerror})") from error
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._stderr: list[str] = []
        assert self._child.stdout is not None
        assert self._child.stderr is not None
        self._readers = [
            threading.Thread(target=self._read_out, args=(self._child.stdout,), daemon=True),
            threading.Thread(target=self._read_err, args=(self._child.stderr,), daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    def _read_out(self, pipe: IO[str]) -> None:
        with contextlib.suppress(ValueError, OSError):
            for line in pipe:
                self._lines.put(line)
        self._lines.put(None)

    def _read_err(self, pipe: IO[str]) -> None:
        with contextlib.suppress(ValueError, OSError):
            for line in pipe:
                self._stderr.append(line)
                del self._stderr[:-200]

    def lines(self, silence_s: float | None = None) -> Iterator[str]:
        while True:
            try:
                line = self._lines.get(timeout=silence_s)
            except queue.Empty:
                raise TargetError(f"device '{self.device}' said nothing for {silence_s:g} s; it hangs or the link is gone") from None
            if line is None:
                self._lines.put(None)
                self._check_link()
                return
            yield line.removesuffix("\n")

    def _check_link(self) -> None:
        try:
            code = self._child.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            return
        self._readers[1].join(GRACE_S)
        error = self._lost(code, "".join(self._stderr))
        if error is not None:
            raise error

    def complaint(self) -> str:
        """The last line of stderr, in brackets, for messages."""
        said = [line.strip() for line in self._stderr if line.strip()]
        return f" ({said[-1][:200]})" if said else ""

    def send(self, line: str) -> None:
        assert self._child.stdin is not None
        try:
            self._child.stdin.write(line + "\n")
            self._child.stdin.flush()
        except (OSError, ValueError) as error:
            self._check_link()
            raise TargetError(f"device '{self.device}': the command has ended{self.complaint()}") from error

    def wait(self, timeout_s: float | None = None, *, close_stdin: bool = True) -> Ran:
        """As in Process; ``close_stdin`` is False where stdin is what keeps a remote command alive."""
        if close_stdin:
            self._close_stdin()
        try:
            code = self._child.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.stop()
            told = f"'{self.what}' was not done after {timeout_s:g} s and was ended"
            raise TargetError(f"device '{self.device}': {told}; allow more time") from None
        for reader in self._readers:
            reader.join(GRACE_S)
        self._check_link()
        rest = []
        while not self._lines.empty():
            line = self._lines.get()
            if line is None:
                self._lines.put(None)
                break
            rest.append(line)
        return Ran(code, "".join(rest), "".join(self._stderr))

    def stop(self) -> None:
        """Closes stdin, asks the session to end, then kills it."""
        self._close_stdin()
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._child.pid, number)
            try:
                self._child.wait(GRACE_S)
                break
            except subprocess.TimeoutExpired:
                continue
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._child.pid, signal.SIGKILL)  # children that outlived the command
        for reader in self._readers:
            reader.join(GRACE_S)

    def _close_stdin(self) -> None:
        if self._child.stdin is not None:
            with contextlib.suppress(OSError, ValueError):
                self._child.stdin.close()

    def __enter__(self) -> PipeProcess:
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()
