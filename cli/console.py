"""What the terminal shows: progress on stderr, results on stdout."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any, NoReturn

import click


class Console:
    """A Progress that draws a bar with the time left on a terminal, and plain lines elsewhere."""

    def __init__(self, verbose: bool = False) -> None:
        self.verbose = verbose
        self._bar: Any = None
        self._tasks: dict[str, Any] = {}
        self._last: dict[str, float] = {}

    def __enter__(self) -> Console:
        if sys.stderr.isatty():
            from rich.console import Console as Rich
            from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

            columns = (
                TextColumn("{task.description:<24}"),
                BarColumn(bar_width=30),
                TextColumn("{task.percentage:>3.0f}%"),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}"),
            )
            self._bar = Progress(*columns, console=Rich(stderr=True), transient=True)
            self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def step(self, label: str, done: float, total: float | None, note: str = "") -> None:
        if self._bar is not None:
            if label not in self._tasks:
                self._tasks[label] = self._bar.add_task(label, total=total, note=note)
            self._bar.update(self._tasks[label], completed=done, total=total, note=note)
            if total is not None and done >= total:
                self._bar.update(self._tasks.pop(label), visible=False)
            return
        now = time.monotonic()
        finished = total is not None and done >= total
        if finished or now - self._last.get(label, now - 60.0) >= 30.0:
            self._last[label] = now
            share = f" {100 * done / total:.0f}%" if total else ""
            click.echo(f"  {label}{share} {note}".rstrip(), err=True)
        if finished:
            self._last.pop(label, None)

    def say(self, line: str) -> None:
        if self._bar is not None:
            self._bar.console.print(line, highlight=False, markup=False)
        else:
            click.echo(line, err=True)


def gate_failed(why: str, as_json: bool) -> NoReturn:
    """Ends with exit code 1 and ``why`` on stderr; where a JSON object was printed already it stays the only one on stdout."""
    from ..core.errors import GateError

    if not as_json:
        raise GateError(why)
    click.echo(f"packlight: {why}", err=True)
    raise click.exceptions.Exit(GateError.exit_code)


def show(renderable: Any) -> None:
    """Prints a rich renderable on stdout, wide enough not to be cut where stdout is a pipe."""
    from rich.console import Console as Rich

    width = None if sys.stdout.isatty() else 160
    Rich(width=width, soft_wrap=False, highlight=False).print(renderable)
