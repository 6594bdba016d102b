"""How a device is reached: run a command there, carry files. Local, Ssh, Adb and Fake speak this; bench/ can't tell them apart."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Protocol

import msgspec

from ...core.errors import TargetError

MARKER = ".packlight-root"
"""The file in ``root`` that says that the folder is ours and may be removed whole."""


class Ran(msgspec.Struct, frozen=True):
    """What a finished command said."""

    code: int
    stdout: str
    stderr: str


class Process(Protocol):
    """A command under way on the device. Leaving the ``with`` block ends it there, children included."""

    def lines(self, silence_s: float | None = None) -> Iterator[str]:
        """Lines of stdout as they come, without their newline; ends when the command does.

        More than ``silence_s`` seconds without a line, or a broken link, raise TargetError. May be called again for the lines that follow.
        """

    def send(self, line: str) -> None:
        """Writes a line to the command's stdin; TargetError where it has ended or the link is broken."""

    def wait(self) -> Ran:
        """Closes stdin and waits for the end (``stdout`` holds only what ``lines`` did not give)."""

    def stop(self) -> None:
        """Ends the command and its children on the device."""

    def __enter__(self) -> Process: ...

    def __exit__(self, *error: object) -> None: ...


class Link(Protocol):
    """A device. Paths on it are POSIX, relative to ``root``: a folder of ours there, made on demand, removed by ``close``.

    A broken link raises TargetError naming the device, what was being done and the remedy; a full disk raises StorageError; a
    command that fails does not raise: ``Ran.code`` says so (127 for one that is not there).
    """

    name: str
    kind: str  # "real", "emulated" or "simulated clock"
    root: PurePosixPath
    python: str | None  # the interpreter that runs the agent there; None where there is none

    def run(self, command: Sequence[str], *, timeout_s: float, env: Mapping[str, str] | None = None) -> Ran:
        """Runs a command to its end, in ``root``; one that takes longer than ``timeout_s`` is ended there and raises TargetError."""

    def start(self, command: Sequence[str], *, env: Mapping[str, str] | None = None) -> Process:
        """Starts a command in ``root`` and streams its output; it ends when its stdin is closed by a lost host."""

    def push(self, local: Path, remote: str) -> None:
        """Copies a file or folder to ``root / remote``, making folders on the way; replaces a file that is there."""

    def pull(self, remote: str, local: Path) -> None:
        """Copies a file from ``root / remote``."""

    def close(self) -> None:
        """Removes ``root`` and whatever runs there. May be called twice."""

    def __enter__(self) -> Link: ...

    def __exit__(self, *error: object) -> None: ...


def place(root: PurePosixPath, remote: str) -> PurePosixPath:
    """``root / remote``, refused where it would lie outside ``root``."""
    path = PurePosixPath(remote)
    if not remote or path.is_absolute() or ".." in path.parts or "\0" in remote or str(path) == ".":
        raise TargetError(f"device path '{remote}' leads outside the session folder")
    return root / path
