"""Golden inputs: raw images with what every stage makes of them, so that any step that was re-typed wrongly shows itself.

From each picture given, the first few are taken as they are; the others are made from them: odd sizes, grey, with an alpha channel, and
turned by EXIF.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from ...core.preprocess import Preprocess, geometry, preprocess
from ...core.tensor import TensorSpec, from_door, rows_axis, to_door
from .postprocess import Answer, Postprocess, answer
from .spec import Golden, Run, Stage

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ...core.artifact import Artifact

RELATIVE = {"fp32": 1e-3, "fp16": 1e-2, "int8": 0.1}
"""How far an output may be off on another machine, as a share of the largest golden output: float sums in another order; half
precision; integers, where a runtime may round a sum the other way in every layer."""


class Picture(msgspec.Struct, frozen=True, kw_only=True):
    """An image before anything was done to it: uint8 (H, W, C), its EXIF orientation, what is special about it."""

    raw: Any
    orientation: int = 1
    kind: str = "as it is"


def pictures(images: Sequence[NDArray[np.uint8]]) -> list[Picture]:
    """The images as they are, and variants of the first ones: two odd sizes, grey (colour where they are grey), alpha, two turns."""
    import numpy as np
    from PIL import Image

    found = [Picture(raw=image) for image in images]
    pick = [images[i % len(images)] for i in range(6)]

    def sized(image: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
        picture = Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image).resize((width, height), Image.Resampling.BICUBIC)
        out = np.asarray(picture)
        return out[:, :, None] if out.ndim == 2 else out

    height, width = pick[0].shape[:2]
    found.append(Picture(raw=sized(pick[0], height * 3 // 2 | 1, width * 5 // 3 | 1), kind="odd size"))
    height, width = pick[1].shape[:2]
    found.append(Picture(raw=sized(pick[1], max(3, height * 4 // 5) | 1, width * 7 // 2 | 1), kind="odd size"))
    rgb = pick[2][:, :, :3]
    if rgb.shape[2] == 1:
        tint = np.asarray([255, 200, 90], np.uint16)
        found.append(Picture(raw=(rgb * tint // 255).astype(np.uint8), kind="colour"))
    else:
        found.append(Picture(raw=np.asarray(Image.fromarray(rgb).convert("L"))[:, :, None], kind="grey"))
    rgb = np.repeat(pick[3], 3, axis=2) if pick[3].shape[2] == 1 else pick[3][:, :, :3]
    fade = np.linspace(40, 255, rgb.shape[1]).astype(np.uint8)
    alpha = np.broadcast_to(fade[None, :, None], (*rgb.shape[:2], 1))
    found.append(Picture(raw=np.ascontiguousarray(np.concatenate([rgb, alpha], axis=2)), kind="alpha"))
    found.append(Picture(raw=np.ascontiguousarray(np.rot90(pick[4], 1)), orientation=6, kind="turned"))
    found.append(Picture(raw=np.ascontiguousarray(pick[5][:, ::-1]), orientation=2, kind="turned"))
    return found


def upright(image: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Undoes the EXIF orientation, 1 to 8 (as Pillow's exif_transpose); the reference for all packages."""
    import numpy as np

    turned = {
        2: image[:, ::-1],
        3: image[::-1, ::-1],
        4: image[::-1],
        5: image.swapaxes(0, 1),
        6: np.rot90(image, -1),
        7: image[::-1, ::-1].swapaxes(0, 1),
        8: np.rot90(image, 1),
    }
    return np.ascontiguousarray(turned.get(orientation, image))


def write_picture(folder: Path, index: int, picture: Picture, spec: Preprocess) -> tuple[Golden, NDArray[np.float32]]:
    """Writes the stages before the artifacts; returns them and the tensor (1, C, H, W)."""
    from PIL import Image

    name = f"golden/{index}"
    (folder / name).mkdir(parents=True)
    raw = picture.raw
    image = Image.fromarray(raw[:, :, 0] if raw.shape[2] == 1 else raw)
    if picture.orientation == 1:
        image.save(folder / name / "image.png")
    else:
        exif = Image.Exif()
        exif[0x0112] = picture.orientation
        image.save(folder / name / "image.png", exif=exif)
    standing = upright(raw, picture.orientation)
    pixels, tensor = geometry(standing, spec), preprocess(standing, spec)[None]
    golden = Golden(
        name=name,
        kind=picture.kind,
        image=f"{name}/image.png",
        orientation=picture.orientation,
        raw=write_stage(folder, f"{name}/raw.bin", raw, 0),
        pixels=write_stage(folder, f"{name}/pixels.bin", pixels, 1),
        tensors=(write_stage(folder, f"{name}/tensor_0.bin", tensor, tensor_tolerance(spec)),),
    )
    return golden, tensor


def write_tensors(folder: Path, index: int, tensors: Sequence[NDArray[Any]]) -> Golden:
    """A golden input of a model that reads plain numbers: one row of each."""
    name = f"golden/{index}"
    (folder / name).mkdir(parents=True)
    stages = tuple(write_stage(folder, f"{name}/tensor_{i}.bin", t, 1e-5) for i, t in enumerate(tensors))
    return Golden(name=name, kind="numbers", tensors=stages)


def write_run(
    folder: Path,
    golden: Golden,
    artifact: Artifact,
    runtime: str,
    doors: Sequence[NDArray[Any]],
    outputs: Sequence[NDArray[Any]],
    tolerances: Sequence[float],
    post: Postprocess,
    labels: Sequence[str],
) -> Golden:
    """Writes what ``artifact`` makes of one golden input: ``doors`` and ``outputs`` as stored in its own doors."""
    stem = f"{golden.name}/{artifact.file}"
    said = logical_output(outputs[post.output], artifact.signature.outputs[post.output])
    found: Answer = answer(said, post, labels, tolerances[post.output])
    run = Run(
        artifact=artifact.file,
        runtime=runtime,
        doors=tuple(
            write_stage(folder, f"{stem}.door_{i}.bin", d, door_tolerance(artifact.signature.inputs[i], golden.tensors[i].tolerance))
            for i, d in enumerate(doors)
        ),
        outputs=tuple(
            write_stage(folder, f"{stem}.output_{i}.bin", real(o, artifact.signature.outputs[i]), tolerances[i])
            for i, o in enumerate(outputs)
        ),
        answer=found,
    )
    return msgspec.structs.replace(golden, runs=(*golden.runs, run))


def tensor_tolerance(spec: Preprocess | None) -> float:
    """One grey level, after normalisation."""
    return 1 / 255 / min((spec.std if spec else ()) or (1.0,)) + 1e-5


def door_tolerance(spec: TensorSpec, tensor: float) -> float:
    """One grey level as the door sees it: in steps for an integer door."""
    return tensor if spec.quantization is None else float(int(tensor / spec.quantization.scale) + 1)


def doors_of(artifact: Artifact, tensors: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
    """Logical tensors as the artifact's own doors want them (a fixed batch is filled up by repeating the row)."""
    import numpy as np

    out = []
    for spec, tensor in zip(artifact.signature.inputs, tensors, strict=True):
        rows = spec.shape[0] if spec.shape and isinstance(spec.shape[0], int) else 1
        out.append(to_door(np.repeat(tensor, rows, axis=0) if tensor.ndim and tensor.shape[0] == 1 else tensor, spec))
    return out


def real(value: NDArray[Any], spec: TensorSpec) -> NDArray[np.float32]:
    """An output as real numbers in the layout it was stored in."""
    import numpy as np

    plain = from_door(value, msgspec.structs.replace(spec, layout=""))
    return np.ascontiguousarray(plain, np.float32)


def logical_output(value: NDArray[Any], spec: TensorSpec) -> NDArray[Any]:
    """The first row of an output, logical: images NCHW."""
    import numpy as np

    logical = from_door(value, spec)
    return np.take(logical, [0], axis=rows_axis(spec)) if logical.ndim else logical


def output_tolerances(outputs: Sequence[Sequence[NDArray[Any]]], precision: str, signature: Sequence[TensorSpec]) -> tuple[float, ...]:
    """For each output, given as real numbers: the share of ``RELATIVE`` of its largest value over all golden inputs, at least one step
    of an integer door."""
    import numpy as np

    found = []
    for i, spec in enumerate(signature):
        largest = max(float(np.max(np.abs(row[i]), initial=0.0)) for row in outputs)
        step = spec.quantization.scale if spec.quantization else 0.0
        found.append(max(RELATIVE.get(precision, 0.1) * largest, 1.01 * step, 1e-6))
    return tuple(found)


def write_stage(folder: Path, name: str, array: NDArray[Any], tolerance: float) -> Stage:
    """Writes an array, little endian."""
    import numpy as np

    plain = np.ascontiguousarray(array)
    (folder / name).write_bytes(plain.astype(plain.dtype.newbyteorder("<"), copy=False).tobytes())
    return Stage(file=name, shape=tuple(int(s) for s in plain.shape), dtype=plain.dtype.name, tolerance=float(tolerance))
