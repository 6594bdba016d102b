"""One model in several precisions and formats: what ``packlight export`` does.

A float file is written from the graph with BatchNorm folded (the same function); an int8 file from a quantized bundle, or from a float
one that is quantized here by the target's scheme, calibrated on the user's data. There is one quantized model for all formats.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.artifact import Artifact
from ..core.bundle import Bundle
from ..core.errors import DataError, ModelError
from ..core.progress import Progress, Silent

if TYPE_CHECKING:
    from ..bench.session import Subject
    from ..compress.passes import Context
    from ..export.exporter import Options
    from ..targets.target import Target
    from ..tasks.samples import Samples, Splits


def export_precisions(
    bundle: Bundle,
    data: Splits | None,
    folder: Path,
    formats: tuple[str, ...],
    choices: Sequence[Options],
    target: Target,
    seed: int,
    progress: Progress,
    *,
    strict_target: bool = False,
) -> list[Artifact]:
    """Writes every choice in every format under ``folder``, with parity, and the manifest. ``strict_target``: see ``export_bundle``."""
    from ..compress.passes import Context
    from ..export.run import export_bundle, write_manifest

    calib = next((s for s in (data.calib, data.train, data.val) if s is not None and len(s)), None) if data else None
    context = Context(target=target, calib=calib, seed=seed, progress=progress)
    samples = calib or (data.test if data else None)
    artifacts: list[Artifact] = []
    floating = None if bundle.quantized else folded(bundle, context)
    for options in choices:
        ready = _ready(bundle, floating, options.precision, calib, context)
        artifacts += export_bundle(
            ready, folder, formats, options, target, samples, float_bundle=floating, strict_target=strict_target, progress=progress
        )
    write_manifest(folder, artifacts)
    return artifacts


def folded(bundle: Bundle, context: Context) -> Bundle:
    """The same function with BatchNorm folded: what any exporter of a float model should be given."""
    import dataclasses

    from ..compress.passes import run_passes
    from ..compress.recipe import make_pass

    return run_passes(bundle, [make_pass("fold-batchnorm", {})], dataclasses.replace(context, progress=Silent()))


def _ready(bundle: Bundle, floating: Bundle | None, precision: str, calib: Samples | None, context: Context) -> Bundle:
    if precision not in ("int8", "int16"):
        if floating is None:
            raise ModelError(f"'{bundle.name}' is quantized; it can't be exported as {precision}; give the float model")
        return floating
    if floating is None:
        return bundle
    if calib is None:
        raise DataError(f"{precision} needs images to calibrate on; give --calib or --data (labels are not needed), or a quantized bundle")
    from ..compress.passes import run_passes
    from ..compress.recipe import make_pass

    return run_passes(floating, [make_pass("quantize", {"activation-bits": 16} if precision == "int16" else {})], context)


def integer_precision(bundle: Bundle) -> str:
    """The precision of a quantized bundle's files: "int8", or "int16" where its activations have 16 bits."""
    return "int16" if (bundle.quantized or {}).get("activation_bits") == 16 else "int8"


def subjects_here(artifact: Artifact, folder: Path, target: Target, *, baseline: bool) -> list[Subject]:
    """The artifact in each of the target's CPU runtimes that is installed here."""
    from ..bench.session import Subject
    from ..targets.runtime import installed

    runtimes = [r for r in target.runtimes_for(artifact.format, artifact.precision) if installed(r.name)]
    return [Subject(artifact, folder, name, baseline=baseline) for name in dict.fromkeys(r.name for r in runtimes)]
