"""From a folder of measured files to a bundle for apps: what may go out, and what goes into each package.

Refused are files whose parity, budget or trust gate failed, a report about other files, and files that nobody certified; ``allow``
overrides a gate by name, and the bundle says so.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from ..core.artifact import Artifact, Manifest, read_json
from ..core.errors import GateError, InputError, LacksError, ParityError, TargetError
from ..core.files import refuse_existing, staged_folder
from ..core.preprocess import Preprocess
from ..core.progress import Progress
from ..core.report import Gate, Measurement, Report
from ..export.parity import judge as judge_parity
from ..export.ship.archive import pack
from ..export.ship.golden import Picture, pictures
from ..export.ship.packages import load_builders
from ..export.ship.postprocess import Postprocess, text_of
from ..export.ship.spec import Licence, Override, Provenance, Ship, Trusted
from ..export.ship.write import Plan, write_bundle
from .runner import Here, why_not_here

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..targets.target import Target
    from ..tasks.samples import Samples

GATES = ("certified", "max-drop", "max-latency", "min-speedup", "parity", "report", "saturation", "trust")
IMAGES = 4
SIDE = 32
"""The side of golden pictures for models that take any size."""


@dataclasses.dataclass(frozen=True)
class Order:
    """What the user asked for. ``files`` empty takes the recommended one of each format that ``target`` (None: the one that the folder was
    made for) wants; ``allow`` names gates to override. ``labels`` are names for people in the place of the model's own."""

    folder: Path
    platforms: tuple[str, ...]
    out: Path
    files: tuple[str, ...] = ()
    precision: str | None = None
    target: str | None = None
    allow: tuple[str, ...] = ()
    data: str | None = None
    degrade: str | None = None
    preprocess: Preprocess | None = None
    alphabet: str = ""
    labels: tuple[str, ...] = ()
    licence: Licence = dataclasses.field(default_factory=Licence)
    seed: int = 0
    force: bool = False


@dataclasses.dataclass(frozen=True)
class Judged:
    """What the gates say of the chosen files."""

    gates: tuple[Gate, ...]
    trust: Trusted
    report: Path | None


def ship(order: Order, progress: Progress) -> tuple[Ship, Path]:
    """Writes the bundle folder ``order.out`` and beside it the archive ``<out>.zip``; GateError where something may not go out."""
    archive = order.out.with_name(order.out.name + ".zip")
    for out in (order.out, archive):
        refuse_existing(out, order.force)
    wrong = [name for name in order.allow if name not in GATES]
    if wrong:
        raise InputError(f"no gate is called '{wrong[0]}'; there are: {', '.join(GATES)}")
    builders = load_builders()
    manifest = Manifest.read(order.folder)
    report = _read_report(order.folder)
    target, told = _target(order, manifest)
    chosen = {}
    for platform in order.platforms:
        builder = builders.get(platform)
        formats, note = _formats(platform, builder.formats, target)
        chosen[platform] = _choose(manifest, report, order, platform, formats, target)[: builder.most]
        told += note
    artifacts = tuple({a.file: a for files in chosen.values() for a in files}.values())
    for artifact in artifacts:
        artifact.verify(order.folder)
    judged = judge(artifacts, report, order.folder)
    overrides = _overrides(judged.gates, order.allow)
    plan = _plan(order, artifacts, chosen, judged, overrides, manifest, report)
    plan = dataclasses.replace(plan, notes=(*plan.notes, *told))
    with staged_folder(order.out, force=order.force) as stage:
        made = write_bundle(plan, stage, Here(), progress)
    pack(order.out, archive, force=order.force)
    return made, archive


def judge(artifacts: Sequence[Artifact], report: Report | None, folder: Path) -> Judged:
    """Every gate, held or not: parity and the report for each file, the report's own budgets, and what compression broke."""
    gates = [_parity_gate(a) for a in artifacts]
    if report is None:
        why = f"'{folder}' has no report.json: nothing was measured; run 'packlight compress', which measures what it exports"
        gates += [_gate("report", False, why), _gate("certified", False, "not judged: there is no report")]
        return Judged(tuple(gates), Trusted(certified=False, why="there is no report"), None)
    gates += [g for g in report.gates if not g.file or any(g.file == a.file for a in artifacts)]
    trusts = []
    for artifact in artifacts:
        measured = [m for m in report.artifacts if m.file == artifact.file]
        gates.append(_report_gate(artifact, measured))
        trusts += [(artifact, m) for m in measured]
    trust = _trust([m for a, m in trusts if a.file == m.file])
    named = {g.name for g in gates}
    if "trust" not in named:
        broken = [(a, m) for a, m in trusts if (m.trust or {}).get("ok") is False]
        why = f"{broken[0][0].file} in {broken[0][1].runtime}: {(broken[0][1].trust or {}).get('why', '')}" if broken else ""
        gates.append(_gate("trust", not broken, why, broken[0][0].file if broken else ""))
    gates.append(_gate("certified", trust.certified, trust.why))
    return Judged(tuple(gates), trust, folder / "report.json")


def _trust(measured: Sequence[Measurement]) -> Trusted:
    """Certified where every measured file of the recipe is; the first reason where not. The uncompressed model needs no certificate."""
    found = [(m, m.trust or {}) for m in measured]
    judged = [(m, t) for m, t in found if "certified" in t]
    if not judged:
        return Trusted(certified=False, why="not judged against the uncompressed model")
    against, n = str(judged[0][1].get("against", "")), judged[0][1].get("n")
    bad = next(((m, t) for m, t in judged if not t["certified"]), None)
    if bad is not None:
        return Trusted(certified=False, why=f"{bad[0].file} in {bad[0].runtime}: {bad[1].get('why', '')}", against=against, n=n)
    return Trusted(certified=True, against=against, n=n)


def _parity_gate(artifact: Artifact) -> Gate:
    if not artifact.parity:
        return _gate("parity", False, f"{artifact.file} was never compared with its model", artifact.file)
    for parity in artifact.parity:
        try:
            if artifact.precision != "int8":  # an integer file was judged by two references together when it was exported
                judge_parity(artifact.file, artifact.precision, parity)
        except ParityError as error:
            return _gate("parity", False, str(error).partition("; the file was removed")[0], artifact.file)
    return _gate("parity", True, "", artifact.file)


def _report_gate(artifact: Artifact, measured: Sequence[Measurement]) -> Gate:
    if not measured:
        return _gate("report", False, f"the report says nothing about {artifact.file}", artifact.file)
    if any(m.sha256 != artifact.sha256 for m in measured):
        return _gate("report", False, f"the report is stale: it measured another {artifact.file}", artifact.file)
    return _gate("report", True, "", artifact.file)


def _gate(name: str, ok: bool, why: str = "", file: str = "") -> Gate:
    return Gate(name=name, limit=0, value=0.0 if ok else 1.0, ok=ok, file=file, why="" if ok else why)


def _overrides(gates: Sequence[Gate], allow: Sequence[str]) -> tuple[Override, ...]:
    failed = [g for g in gates if not g.ok]
    for gate in failed:
        if gate.name not in allow:
            raise GateError(f"gate '{gate.name}' does not let it out: {gate.why}; override it by name with --allow {gate.name}")
    return tuple({g.name: Override(gate=g.name, why=g.why) for g in failed}.values())


def _target(order: Order, manifest: Manifest) -> tuple[Target | None, tuple[str, ...]]:
    """The profile that decides what is wanted: the one named, else that of the folder; None where the folder's is not known here."""
    from ..targets.load import load_target

    if order.target is not None:
        return load_target(order.target), ()
    name = manifest.artifacts[0].target if manifest.artifacts else ""
    try:
        return load_target(name), ()
    except TargetError:
        return None, (f"target '{name}' is not known here: each package took the formats that it runs, in its own order",)


def _formats(platform: str, runs: Sequence[str], target: Target | None) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The formats of a platform's package in the target's order of preference; where the two share none, the platform's own, and a note."""
    if target is None:
        return tuple(runs), ()
    wanted = tuple(f for f in target.formats if f in runs)
    if wanted:
        return wanted, ()
    return tuple(runs), (f"target '{target.name}' runs nothing that a package for {platform} runs: its own order was taken",)


def _choose(
    manifest: Manifest, report: Report | None, order: Order, platform: str, formats: Sequence[str], target: Target | None
) -> tuple[Artifact, ...]:
    """The files of one package, in the order of ``formats``: those named, else for each format the recommended or smallest precision
    among those that the target runs.

    A file that the report found slower than the float file of its runtime goes only by name, or where its precision was asked for.
    """
    pool = [a for a in manifest.artifacts if a.format in formats and order.precision in (None, a.precision)]
    if order.files:
        for name in order.files:
            manifest.find(name)
        pool = [a for a in pool if a.file in order.files]
    elif target is not None:
        pool = [a for a in pool if a.format not in target.formats or target.runtimes_for(a.format, a.precision)]
    if not pool:
        has = ", ".join(a.file for a in manifest.artifacts)
        on = f" on target '{target.name}'" if target is not None else ""
        raise InputError(f"nothing in '{order.folder}' is for {platform}, which runs {', '.join(formats)}{on}; it holds: {has}")
    liked = {m.file for m in report.artifacts if m.recommended} if report else set()
    slow = _slower(report) if report and platform == "linux" else set()
    wanted = next((a.precision for a in manifest.artifacts if a.file in liked), None)
    chosen = []
    for format in formats:
        mine = [a for a in pool if a.format == format]
        if mine:
            chosen.append(min(mine, key=lambda a: (a.file in slow, a.precision != wanted, a.bytes)))
    return tuple(chosen)


def _slower(report: Report) -> set[str]:
    """The files that are proven slower than float in every runtime they were measured in."""
    from .judge import slower

    measured = {m.file for m in report.artifacts}
    return {f for f in measured if all(slower(m) for m in report.artifacts if m.file == f)}


def _plan(
    order: Order,
    artifacts: tuple[Artifact, ...],
    chosen: dict[str, tuple[Artifact, ...]],
    judged: Judged,
    overrides: tuple[Override, ...],
    manifest: Manifest,
    report: Report | None,
) -> Plan:
    runtimes = {}
    for artifact in artifacts:
        why = why_not_here(artifact)
        if why:
            raise LacksError(f"'{artifact.file}' can't be run here to make its golden outputs: {why}")
        runtimes[artifact.file] = Here.runtime(artifact)
    first = artifacts[0]
    spec, notes = _sized(order.preprocess or first.preprocess, first)
    if order.preprocess is not None and first.preprocess not in (None, order.preprocess):
        notes = (*notes, "the preprocessing was given by hand: the files were measured with another")
    shots, tensors, told = _inputs(order, spec, first)
    labels, post = _postprocess(order, first, _labels(order, first))
    return Plan(
        name=first.model,
        source=order.folder,
        artifacts=artifacts,
        runtimes=runtimes,
        platforms=chosen,
        labels=labels,
        post=post,
        preprocess=spec if shots else None,
        task=first.task,
        pictures=shots,
        tensors=tensors,
        gates=judged.gates,
        overrides=overrides,
        trust=judged.trust,
        licence=order.licence,
        provenance=Provenance(
            packlight=manifest.packlight,
            versions=manifest.versions,
            target=first.target,
            created=report.created if report else "",
            seed=report.seed if report else 0,
            history=first.history,
        ),
        report=judged.report,
        notes=(*notes, *told),
    )


def _postprocess(order: Order, artifact: Artifact, labels: tuple[str, ...]) -> tuple[tuple[str, ...], Postprocess | None]:
    """The labels that an app shows, and what the task says of the outputs; None where the outputs themselves tell (export/ship)."""
    from ..tasks.generation import Generation
    from ..tasks.load import load_task
    from ..tasks.recognition import Recognition
    from ..tasks.restoration import Restoration

    task = load_task(artifact.task, labels) if artifact.task else None
    blank = task.settings.blank if isinstance(task, Recognition) else 0
    alphabet = order.alphabet or ("".join(labels) if isinstance(task, Recognition) else "")
    if alphabet:
        return (), text_of(artifact.signature, alphabet, blank)
    if isinstance(task, Restoration | Generation):
        return (), Postprocess(kind="image", range=(task.settings.low, task.settings.high))
    return labels, None


def _labels(order: Order, artifact: Artifact) -> tuple[str, ...]:
    """The names given, one for each of the model's own labels, else those."""
    if order.labels and artifact.labels and len(order.labels) != len(artifact.labels):
        raise InputError(f"{len(order.labels)} labels were given; '{artifact.file}' has {len(artifact.labels)}")
    return order.labels or artifact.labels


def _sized(spec: Preprocess | None, artifact: Artifact) -> tuple[Preprocess | None, tuple[str, ...]]:
    """An app's pictures have any size: where the model wants one and the specification names none, the model's is written into it."""
    door = artifact.signature.inputs[0]
    if spec is None or spec.size is not None or spec.crop is not None or len(door.shape) != 4:
        return spec, ()
    height, width = (door.shape[1], door.shape[2]) if door.layout == "NHWC" else (door.shape[2], door.shape[3])
    if not isinstance(height, int) or not isinstance(width, int):
        return spec, ()
    note = f"pictures of another size are resized to {height}x{width}, which the model reads; its own data had that size"
    return msgspec.structs.replace(spec, size=(height, width)), (note,)


def _inputs(
    order: Order, spec: Preprocess | None, artifact: Artifact
) -> tuple[tuple[Picture, ...], tuple[tuple[NDArray[Any], ...], ...], tuple[str, ...]]:
    """Golden inputs from the data, else made up: pictures where the model reads images with a known preprocessing, else plain numbers."""
    samples = _samples(order, spec)
    if samples is not None and spec is not None and (images := _images(samples)):
        images, told = _small(images, spec, artifact)
        return tuple(pictures(images)), (), told
    if samples is not None:
        rows = [samples.batch([i])[0] for i in _spread(samples, IMAGES)]
        return (), tuple(tuple(r) for r in rows), ("golden inputs are the model's own numbers: the data hold no images",)
    note = ("golden inputs are made up: no --data was given",)
    if spec is not None:
        return tuple(pictures(_made_up(spec, artifact, order.seed))), (), note
    return (), tuple(_noise(artifact, order.seed, i) for i in range(IMAGES)), note


def _samples(order: Order, spec: Preprocess | None) -> Samples | None:
    if order.data is None:
        return None
    from ..tasks.data.load import load_data

    splits = load_data(order.data, preprocess=spec, seed=order.seed, degrade=order.degrade)
    return splits.test or splits.val or splits.train


def _images(samples: Samples) -> list[NDArray[Any]]:
    found = [samples.raw(i) for i in _spread(samples, IMAGES)]
    return [f for f in found if f is not None]


def _small(images: list[NDArray[Any]], spec: Preprocess, artifact: Artifact) -> tuple[list[NDArray[Any]], tuple[str, ...]]:
    """Where the model takes pictures of any size, its golden outputs are as large as they: the middle of each is enough."""
    door = artifact.signature.inputs[0]
    free = len(door.shape) == 4 and any(isinstance(s, str) for s in (door.shape[1:3] if door.layout == "NHWC" else door.shape[2:]))
    if not free or spec.size is not None or spec.crop is not None or all(max(i.shape[:2]) <= SIDE for i in images):
        return images, ()
    cut = []
    for image in images:
        top, left = max(0, image.shape[0] - SIDE) // 2, max(0, image.shape[1] - SIDE) // 2
        cut.append(image[top : top + SIDE, left : left + SIDE])
    return cut, (f"golden pictures are the middle {SIDE}x{SIDE} of the data's: the model takes any size",)


def _spread(samples: Samples, count: int) -> list[int]:
    """The first sample of each of several classes where there are labels, else the first few."""
    from ..tasks.samples import gather_targets

    targets = gather_targets(samples)
    if targets is None or targets.ndim != 1 or targets.dtype.kind not in "iu":
        return list(range(min(count, len(samples))))
    firsts: dict[int, int] = {}
    for i, label in enumerate(targets.tolist()):
        firsts.setdefault(label, i)
        if len(firsts) == count:
            break
    return sorted(firsts.values())


def _made_up(spec: Preprocess, artifact: Artifact, seed: int) -> list[NDArray[Any]]:
    """Smooth pictures with some noise, a little larger than what the model reads."""
    import numpy as np

    size = spec.size if isinstance(spec.size, tuple) else (spec.size or SIDE, spec.size or SIDE)
    rng = np.random.default_rng(seed)
    out = []
    for i in range(IMAGES):
        y, x, c = np.mgrid[: size[0], : size[1], : spec.channels]
        waves = 90 * np.sin(y * (i + 1) / 9 + c) * np.cos(x * (i + 2) / 11 - c) + 128
        out.append(np.clip(waves + rng.normal(0, 8, waves.shape), 0, 255).astype(np.uint8))
    return out


def _noise(artifact: Artifact, seed: int, index: int) -> tuple[NDArray[Any], ...]:
    import numpy as np

    rng = np.random.default_rng([seed, index])
    rows = []
    for spec in artifact.signature.inputs:
        sizes = [s if isinstance(s, int) else 8 for s in spec.shape]
        if spec.layout == "NHWC":
            sizes = [sizes[0], sizes[3], sizes[1], sizes[2]]
        rows.append(rng.random([1, *sizes[1:]], dtype=np.float32))
    return tuple(rows)


def _read_report(folder: Path) -> Report | None:
    if not (folder / "report.json").is_file():
        return None
    report: Report = read_json(folder / "report.json", Report)
    return report
