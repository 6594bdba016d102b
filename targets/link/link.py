"""How a device is reached: run a command there, carry files. Local, Ssh, Adb and Fake speak this; bench/ can't tell them apart."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Protocol

import msgspec


class Ran(msgspec.Struct, frozen=True):
    """What a finished command said."""

    code: int
    stdout: str
    stderr: str


class Process(Protocol):
    """A command under way on the device. Leaving the ``with`` block ends it there, children included."""

    def lines(self) -> Iterator[str]:
        """Lines of stdout as they come, without their newline; ends when the command does or the link breaks."""

    def wait(self) -> Ran:
        """Waits for the end (``stdout`` holds only what ``lines`` did not give)."""

    def stop(self) -> None:
        """Ends the command and its children on the device."""

    def __enter__(self) -> Process: ...

    def __exit__(self, *error: object) -> None: ...


class Link(Protocol):
    """A device. Paths on it are POSIX, relative to ``root``: a folder of ours there, made on demand, removed by ``close``.

    A broken link raises TargetError naming the device, what was being done and the remedy; a command that fails does not raise:
    ``Ran.code`` says so.
    """

    name: str
    kind: str  # "real", "emulated" or "simulated clock"
    root: PurePosixPath
    python: str | None  # the interpreter that runs the agent there; None where there is none

    def run(self, command: Sequence[str], *, timeout_s: float, env: Mapping[str, str] | None = None) -> Ran:
        """Runs a command to its end, in ``root``."""

    def start(self, command: Sequence[str], *, env: Mapping[str, str] | None = None) -> Process:
        """Starts a command in ``root`` and streams its output."""

    def push(self, local: Path, remote: str) -> None:
        """Copies a file or folder to ``root / remote``."""

    def pull(self, remote: str, local: Path) -> None:
        """Copies a file from ``root / remote``."""

    def close(self) -> None:
        """Removes ``root`` and whatever runs there."""
