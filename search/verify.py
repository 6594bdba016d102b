"""A shipped bundle replayed, here or on a device."""

from __future__ import annotations

import dataclasses
import hashlib
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from ..core.artifact import Artifact, read_json
from ..core.errors import InputError, TargetError
from ..core.progress import Progress
from ..core.report import Report
from ..core.tensor import from_door, rows_axis, to_door
from ..export.ship.archive import unpack
from ..export.ship.spec import NAME, read_ship
from ..export.ship.verify import Finding, Verified, verify
from .runner import Here, why_not_here
from .ship import judge

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..targets.link.link import Link


def verify_bundle(bundle: Path, *, device: str, progress: Progress) -> Verified:
    """Checks and replays a bundle folder or archive; on "local" the models run in this process, else over the device's link."""
    with opened(bundle) as folder:
        if device == "local":
            return _with_gates(folder, verify(folder, runner=Here(), runs=why_not_here, progress=progress))
        from ..targets.link.known import open_link

        with open_link(device) as link:
            return verify_over(folder, link, progress)


def verify_over(folder: Path, link: Link, progress: Progress) -> Verified:
    """Checks a bundle folder here and replays its models over ``link``."""
    there = There(link)
    return _with_gates(folder, verify(folder, runner=there, runs=there.why_not, ahead=there.ahead, progress=progress))


def _with_gates(folder: Path, result: Verified) -> Verified:
    """What the gates say of the bundle's own report and files must be what ship.json says, and what failed must be overridden by name."""
    ship = read_ship(folder)
    try:
        report: Report | None = read_json(folder / "report.json", Report) if (folder / "report.json").is_file() else None
    except InputError:
        return result  # named already
    judged = judge(ship.artifacts, report, folder)
    said = {(g.name, g.file): g for g in ship.gates}
    overridden = {o.gate for o in ship.overrides}
    found = []
    for gate in judged.gates:
        shown = said.get((gate.name, gate.file)) or next((g for g in ship.gates if g.name == gate.name), None)
        if shown is None:
            found.append(f"gate '{gate.name}' is not in {NAME}")
        elif shown.ok and not gate.ok:
            found.append(f"gate '{gate.name}': {NAME} says that it held; the report says: {gate.why or f'{gate.value} of {gate.limit}'}")
        elif not gate.ok and gate.name not in overridden:
            found.append(f"gate '{gate.name}' failed and {NAME} names no override: {gate.why or f'{gate.value} of {gate.limit}'}")
    if judged.trust.certified != ship.trust.certified and not any(g.name == "certified" for g in judged.gates if not g.ok):
        found.append(f"certified: {NAME} says {ship.trust.certified}, the report {judged.trust.certified}")
    if (judged.trust.n or 0) != (ship.trust.n or 0):
        found.append(f"certified: {NAME} says {ship.trust.n or 0:,} samples, the report {judged.trust.n or 0:,}")
    more = tuple(Finding("gates", what) for what in dict.fromkeys(found))
    return msgspec.structs.replace(result, findings=(*result.findings, *more)) if more else result


@contextmanager
def opened(bundle: Path) -> Iterator[Path]:
    """The folder of a bundle; an archive is opened safely into a temporary one."""
    if bundle.is_dir():
        yield bundle
        return
    if not bundle.is_file():
        raise InputError(f"bundle '{bundle}' does not exist; give the folder or the .zip that 'packlight ship' wrote")
    with tempfile.TemporaryDirectory(prefix="packlight-bundle-") as place:
        yield unpack(bundle, Path(place) / "bundle")


class There:
    """A Runner of export/ship over a Link: the benchmark's agent opens the file there, in its first runtime. What it will be asked it
    does ahead, all golden inputs of one shape in one run of the agent."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._done: dict[tuple[str, ...], list[NDArray[Any]]] = {}

    def __call__(self, artifact: Artifact, folder: Path, doors: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        done = self._done.get(_key(artifact, doors))
        return self._run(artifact, folder, doors) if done is None else done

    def ahead(self, artifact: Artifact, folder: Path, asked: Sequence[Sequence[NDArray[Any]]]) -> None:
        """Runs rows of one shape together; where an output has no row for each, or the device refuses, each is run when it is asked for."""
        import numpy as np

        shapes: dict[tuple[Any, ...], list[Sequence[NDArray[Any]]]] = {}
        for doors in asked:
            shapes.setdefault(tuple((d.shape, d.dtype.name) for d in doors), []).append(doors)
        axes = [rows_axis(s) for s in artifact.signature.inputs]
        for group in shapes.values():
            together = [np.concatenate(column, axis) for column, axis in zip(zip(*group, strict=True), axes, strict=True)]
            try:
                outputs = self._run(artifact, folder, together)
                parts = [np.split(o, len(group), rows_axis(s)) for o, s in zip(outputs, artifact.signature.outputs, strict=True)]
            except TargetError:
                raise
            except (InputError, ValueError):
                continue
            for i, doors in enumerate(group):
                self._done[_key(artifact, doors)] = [part[i] for part in parts]

    def _run(self, artifact: Artifact, folder: Path, doors: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        import numpy as np

        from ..bench.accuracy import score_artifacts
        from ..bench.session import Subject
        from ..bench.stage import any_rows

        signature = artifact.signature
        rows = Rows(tuple(from_door(d, s) for d, s in zip(doors, signature.inputs, strict=True)))
        subject = Subject(artifact, folder, artifact.runtimes[0])
        (score,) = score_artifacts([subject], self._link, samples=rows, task=_Plain(), keep_outputs=True)  # type: ignore[arg-type]
        return [to_door(np.moveaxis(o, 0, rows_axis(s)), any_rows(s)) for o, s in zip(score.outputs, signature.outputs, strict=True)]

    def why_not(self, artifact: Artifact) -> str:
        """Why a file can't be run there; "" where it may be tried."""
        return "" if artifact.runtimes else "no runtime is named for it"


@dataclasses.dataclass(frozen=True)
class Rows:
    """Samples that are arrays as they are, unlabelled."""

    arrays: tuple[NDArray[Any], ...]
    classes: tuple[str, ...] = ()
    source: str = "golden input"

    def __len__(self) -> int:
        return len(self.arrays[0])

    def batch(self, indices: Sequence[int]) -> tuple[tuple[NDArray[Any], ...], None]:
        return tuple(a[list(indices)] for a in self.arrays), None

    def raw(self, index: int) -> None:
        return None


def _key(artifact: Artifact, doors: Sequence[NDArray[Any]]) -> tuple[str, ...]:
    return (artifact.file, *(f"{d.shape}{d.dtype}{hashlib.sha256(d.tobytes()).hexdigest()}" for d in doors))


class _Plain:
    """A task that answers nothing: only the outputs are wanted."""

    def answers(self, outputs: Any) -> None:
        return None
