"""All of a bundle into one folder."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from ...core.artifact import Artifact, write_json
from ...core.errors import DataError, InputError
from ...core.files import inside, sha256, storage_errors
from ...core.preprocess import Preprocess
from ...core.progress import Progress, Silent
from ...core.report import Gate
from .archive import files_of
from .card import card
from .golden import Picture, doors_of, output_tolerances, real, write_picture, write_run, write_tensors
from .packages import build
from .postprocess import Postprocess, guess
from .spec import NAME, SUMS, Golden, Licence, Override, Provenance, Ship, Trusted
from .verify import Runner

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclasses.dataclass(frozen=True)
class Plan:
    """What goes into a bundle, decided and checked by whoever calls.

    ``artifacts`` lie in ``source``; ``runtimes`` names the runtime here that makes each one's golden outputs. ``pictures`` are the golden
    images, or ``tensors`` (one tuple of rows a golden input) where the model reads plain numbers. ``platforms`` maps each package to
    the artifacts it runs. ``post`` None lets the outputs tell what an app does with them.
    """

    name: str
    source: Path
    artifacts: tuple[Artifact, ...]
    runtimes: Mapping[str, str]
    platforms: Mapping[str, tuple[Artifact, ...]]
    labels: tuple[str, ...]
    preprocess: Preprocess | None
    task: str | None
    pictures: tuple[Picture, ...] = ()
    tensors: tuple[tuple[Any, ...], ...] = ()
    post: Postprocess | None = None
    gates: tuple[Gate, ...] = ()
    overrides: tuple[Override, ...] = ()
    trust: Trusted = dataclasses.field(default_factory=lambda: Trusted(certified=False, why="not judged"))
    licence: Licence = dataclasses.field(default_factory=Licence)
    provenance: Provenance = dataclasses.field(default_factory=lambda: Provenance(packlight=""))
    report: Path | None = None
    notes: tuple[str, ...] = ()


def write_bundle(plan: Plan, folder: Path, runner: Runner, progress: Progress | None = None) -> Ship:
    """Writes every file of the bundle into the empty ``folder``, ship.json and SHA256SUMS last; returns what ship.json says."""
    progress = progress or Silent()
    with storage_errors(folder):
        _copy_models(plan, folder)
        goldens, post, notes = _goldens(plan, folder, runner, progress)
        if plan.labels:
            (folder / "labels.txt").write_text("".join(f"{label}\n" for label in plan.labels), encoding="utf-8")
        if plan.report is not None:
            shutil.copyfile(plan.report, folder / "report.json")
        ship = Ship(
            name=plan.name,
            task=plan.task,
            artifacts=plan.artifacts,
            labels=plan.labels,
            preprocess=plan.preprocess,
            postprocess=post,
            goldens=goldens,
            packages=(),
            gates=plan.gates,
            overrides=plan.overrides,
            trust=plan.trust,
            licence=plan.licence,
            provenance=plan.provenance,
            notes=(*plan.notes, *notes),
            files={},
        )
        packages = tuple(build(platform, ship, artifacts, folder) for platform, artifacts in plan.platforms.items())
        ship = msgspec.structs.replace(ship, packages=packages)
        (folder / "MODEL_CARD.md").write_text(card(ship), encoding="utf-8")
        ship = msgspec.structs.replace(ship, files={name: sha256(folder / name) for name in files_of(folder)})
        write_json(folder / NAME, ship)
        write_sums(folder)
    return ship


def write_sums(folder: Path) -> None:
    """SHA256SUMS: what ``sha256sum`` prints of every other file, sorted by name."""
    lines = [f"{sha256(folder / name)}  {name}\n" for name in files_of(folder) if name != SUMS]
    (folder / SUMS).write_text("".join(lines), encoding="utf-8")


def _copy_models(plan: Plan, folder: Path) -> None:
    (folder / "models").mkdir()
    for artifact in plan.artifacts:
        artifact.verify(plan.source)
        for name in artifact.files:
            target = folder / "models" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(inside(plan.source, name), target)


def _goldens(plan: Plan, folder: Path, runner: Runner, progress: Progress) -> tuple[tuple[Golden, ...], Postprocess, tuple[str, ...]]:
    """The golden inputs, each through every artifact. A variant that a model can't read is left out, and told."""
    inputs: list[tuple[Golden, tuple[NDArray[Any], ...]]] = []
    for i, picture in enumerate(plan.pictures):
        assert plan.preprocess is not None
        golden, tensor = write_picture(folder, i, picture, plan.preprocess)
        inputs.append((golden, (tensor,)))
    for i, tensors in enumerate(plan.tensors):
        inputs.append((write_tensors(folder, len(plan.pictures) + i, tensors), tensors))
    kept, outputs, notes = _run_all(plan, folder, inputs, runner, progress)
    if not kept:
        raise DataError(f"no golden input could be run: {notes[0] if notes else 'none was given'}")
    first = plan.artifacts[0]
    post = plan.post or guess(first.signature, plan.labels, plan.task, _joined([o[first.file][1] for o in outputs]))
    goldens = [golden for golden, _ in kept]
    for artifact in plan.artifacts:
        mine = [o[artifact.file] for o in outputs]
        doors_out = artifact.signature.outputs
        numbers = [[real(o, spec) for o, spec in zip(out, doors_out, strict=True)] for _, out in mine]
        tolerances = output_tolerances(numbers, artifact.precision, doors_out)
        goldens = [
            write_run(folder, golden, artifact, plan.runtimes[artifact.file], doors, out, tolerances, post, plan.labels)
            for golden, (doors, out) in zip(goldens, mine, strict=True)
        ]
    return tuple(goldens), post, notes


def _run_all(
    plan: Plan,
    folder: Path,
    inputs: Sequence[tuple[Golden, tuple[NDArray[Any], ...]]],
    runner: Runner,
    progress: Progress,
) -> tuple[list[tuple[Golden, tuple[NDArray[Any], ...]]], list[dict[str, tuple[Any, Any]]], tuple[str, ...]]:
    kept, outputs, notes = [], [], []
    for number, (golden, tensors) in enumerate(inputs):
        progress.step("golden inputs", number, len(inputs), golden.kind)
        made: dict[str, tuple[Any, Any]] = {}
        try:
            for artifact in plan.artifacts:
                doors = doors_of(artifact, tensors)
                made[artifact.file] = (doors, runner(artifact, folder / "models", doors))
        except InputError as error:
            shutil.rmtree(folder / golden.name)
            notes.append(f"golden input '{golden.kind}' was left out: {error}")
            continue
        kept.append((golden, tensors))
        outputs.append(made)
    progress.step("golden inputs", len(inputs), len(inputs))
    return kept, outputs, tuple(notes)


def _joined(rows: Sequence[Sequence[NDArray[Any]]]) -> list[NDArray[Any]]:
    """One array per output: the rows of all golden inputs where they fit together, else of the first."""
    import numpy as np

    out = []
    for column in zip(*rows, strict=True):
        fits = all(a.shape[1:] == column[0].shape[1:] for a in column)
        out.append(np.concatenate(column) if fits and column[0].ndim else column[0])
    return out
