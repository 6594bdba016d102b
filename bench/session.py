"""One agent on one device: its files pushed, its process started, its answers read. The only place that knows the protocol's host side."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..core.artifact import Artifact
from ..core.errors import DataError, InputError, LacksError, MissingDependencyError, PacklightError, StorageError, TargetError
from ..core.tensor import rows_axis
from ..targets.link.link import Link, Process
from . import agent
from .plan import BenchOptions
from .stage import Stage


class Subject(NamedTuple):
    """A file in a runtime, about to be measured. ``folder`` holds the files; ``provider`` is the runtime's execution provider or device
    ("" for its CPU); ``baseline`` marks the file that others of the same runtime are compared with."""

    artifact: Artifact
    folder: Path
    runtime: str
    provider: str = ""
    baseline: bool = False

    @property
    def label(self) -> str:
        return f"{self.artifact.file} ({self.runtime}{' ' + self.provider if self.provider else ''})"


class Session:
    """A running agent. ``hello`` and ``ready`` are what it said on opening, once ``wait_ready`` has heard it."""

    def __init__(self, subject: Subject, link: Link, process: Process, answer_s: float, home: str) -> None:
        self.subject, self._link, self._process, self._answer_s, self.home = subject, link, process, answer_s, home
        self.hello: dict[str, Any] = {}
        self.ready: dict[str, Any] = {}

    def wait_ready(self, tell: Callable[[dict[str, Any]], None] | None = None) -> None:
        """Waits until the file is loaded and has answered once; ``tell`` hears that another bench is in the way."""
        if not self.ready:
            self.hello = self._read("hello", tell)
            self.ready = self._read("ready")

    def ask(
        self, command: str, *, tell: Callable[[dict[str, Any]], None] | None = None, extra_s: float = 0, **fields: Any
    ) -> dict[str, Any]:
        """Sends a command and returns its answer; ``tell`` hears its progress. ``extra_s`` is silence to allow on top."""
        self._process.send(json.dumps({"cmd": command, **fields}))
        return self._read(command, tell, extra_s)

    def _read(self, event: str, tell: Callable[[dict[str, Any]], None] | None = None, extra_s: float = 0) -> dict[str, Any]:
        for line in self._process.lines(self._answer_s + extra_s):
            said = _parse(line)
            if said.get("event") == event:
                return said
            if said.get("event") == "error":
                raise self._error(str(said.get("kind")), str(said.get("message")))
            if said.get("event") in ("progress", "busy") and tell:
                tell(said)
        ran = self._process.wait()
        raise TargetError(f"device '{self._link.name}': the agent for {self.subject.label} was ended ({_why(ran.code, ran.stderr)})")

    def _error(self, kind: str, message: str) -> PacklightError:
        told = f"device '{self._link.name}', {self.subject.label}: {message}"
        if kind == "lacks":
            return MissingDependencyError(told) if "install" in message else LacksError(told)
        return {"storage": StorageError, "input": DataError, "artifact": TargetError, "busy": TargetError, "clock": TargetError}.get(
            kind, InputError
        )(told)

    def quit(self) -> None:
        """Ends the agent politely; whatever goes wrong now doesn't matter any more."""
        with contextlib.suppress(TargetError):
            self._process.send(json.dumps({"cmd": "quit"}))
            self._process.wait()
        self._process.stop()

    def stop(self) -> None:
        self._process.stop()


class Pusher:
    """Carries agent, files and inputs to a link, each once."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._there: dict[Path, str] = {}
        self._homes: dict[tuple[Path, str], str] = {}
        self._count = 0
        if link.python is None:
            raise LacksError(f"device '{link.name}' has no Python 3 for the benchmark agent; install python3 and numpy there")
        link.push(Path(agent.__file__), "agent.py")

    def push(self, local: Path, remote: str) -> str:
        """The remote name of ``local``, pushed if it isn't there yet."""
        if local not in self._there:
            self._link.push(local, remote)
            self._there[local] = remote
        return self._there[local]

    def start(
        self, subject: Subject, stage: Stage, options: BenchOptions, *, rows: int, threads: int, more: dict[str, Any] | None = None
    ) -> Session:
        """Pushes what ``subject`` needs and isn't there yet, and starts its agent; ``more`` goes into its plan."""
        artifact = subject.artifact
        home = self._homes.setdefault((subject.folder, artifact.file), f"subject_{len(self._homes)}")
        for name in artifact.files:
            self.push(subject.folder / name, f"{home}/{name}")
        inputs = []
        for spec, file in zip(artifact.signature.inputs, stage.files(artifact.signature), strict=True):
            inputs.append({"file": f"../{self.push(file, f'inputs/{file.name}')}", "axis": rows_axis(spec)})
        plan = {
            "schema": agent.SCHEMA,
            "runtime": subject.runtime,
            "provider": subject.provider,
            "file": artifact.file,
            "sha256": artifact.files,
            "threads": threads,
            "affinity": list(options.affinity) if options.affinity else None,
            "inputs": inputs,
            "outputs": [{"axis": rows_axis(spec)} for spec in artifact.signature.outputs],
            "rows": rows,
            "wait_s": options.wait_s,
            **(more or {}),
        }
        with tempfile.TemporaryDirectory(prefix="packlight-plan-") as folder:
            file = Path(folder) / "plan.json"
            file.write_text(json.dumps(plan), encoding="utf-8")
            name = f"plan_{self._count}.json"
            self._link.push(file, f"{home}/{name}")
        self._count += 1
        assert self._link.python is not None
        command = [self._link.python, "agent.py", f"{home}/{name}"]
        root = str(self._link.root)  # what a runtime drops into the folder for temporary files goes with the session
        env = {
            "PYTHONHASHSEED": "0",
            "PYTHONDONTWRITEBYTECODE": "1",
            "TMPDIR": root,
            **({"OMP_NUM_THREADS": str(threads)} if threads else {}),
        }
        process = self._link.start(command, env=env)
        return Session(subject, self._link, process, options.answer_s, home)


def subjects_of(artifacts: Sequence[Subject | tuple[Any, ...]]) -> list[Subject]:
    """Plain tuples (artifact, folder, runtime, ...) as Subjects; hashes are checked here, before anything runs."""
    out = [s if isinstance(s, Subject) else Subject(*s) for s in artifacts]
    if not out:
        raise InputError("there is nothing to bench; give at least one file")
    for subject in out:
        subject.artifact.verify(subject.folder)
    return out


def _parse(line: str) -> dict[str, Any]:
    try:
        said = json.loads(line)
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


def _why(code: int, stderr: str) -> str:
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    told = f": {lines[-1][:200]}" if lines else ""
    if code in (-9, 137):
        return "killed, maybe for want of memory" + told
    if code in (-11, 139, -4, 132):
        return "the runtime crashed" + told
    return f"exit code {code}{told}"
