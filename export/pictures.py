"""OpenVINO files with the preprocessing inside (``--openvino-input pixels`` or ``pictures``).

::

    pixels     u8 NHWC at the model's own size                    -> colour order, mean, std -> model
    pictures   u8 NHWC of any size -> resize, as Pillow does it   -> colour order, mean, std -> model

Written with OpenVINO's PrePostProcessor into the IR. What is exact and what is not: the numbers are; a resized pixel may be one step of 255
from Pillow's (two where the picture is enlarged), since the two round between rows and columns differently. So a file that resizes is held
against itself, fed what the host's own preprocessing makes of the same picture.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from ..core.errors import require
from ..core.preprocess import Preprocess, geometry
from ..core.verdict import YES, Verdict, no

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ..core.artifact import Parity
    from ..core.bundle import Bundle
    from ..core.tensor import Signature, TensorSpec
    from ..tasks.samples import Samples
    from .exporter import Options

HOST = "host preprocessing"
PICTURES = 4


def can_take(bundle: Bundle, options: Options) -> Verdict:
    """Whether the bundle's preprocessing can be part of a file so; the reason and what to do where it can't."""
    spec, first = bundle.preprocess, bundle.signature.inputs[0]
    told = f"an OpenVINO file that takes {options.pictures}"
    if spec is None:
        return no(f"{told} needs to know the preprocessing; give --mean and --std, or --data of images")
    if first.layout != "NCHW" or first.shape[1] != spec.channels:
        return no(f"{told} needs a first input of images with {spec.channels} channels ({spec.colour}); '{first.name}' is {first}")
    if options.doors == "integer" or options.layout is not None:
        return no(f"{told} has uint8 NHWC doors of its own; leave --doors and --layout out")
    if options.pictures == "pixels":
        return YES
    if spec.crop is not None or isinstance(spec.size, int):
        what = "a centre crop" if spec.crop is not None else "a resize of the shorter side"
        return no(f"{told} can't hold {what}, which depends on the picture; resize to one size (--size H,W), or take pixels")
    if spec.size is None:
        return no(f"{told} resizes them, and the preprocessing has no size; give --size H,W, or take pixels")
    if spec.resize != "bilinear":
        return no(f"{told} resizes by Pillow's bilinear filter, not by '{spec.resize}'; take pixels")
    if first.shape[2:] != spec.size:
        return no(f"{told} resizes to {spec.size[0]}x{spec.size[1]}, but the model takes {first.shape[2]}x{first.shape[3]}; give --size so")
    return YES


def put_inside(network: Any, signature: Signature, spec: Preprocess, kind: str) -> tuple[Any, Signature]:
    """The network with the preprocessing before its first input, and its doors."""
    module: Any = require("openvino.preprocess", "openvino")
    openvino: Any = require("openvino", "openvino")

    steps = module.PrePostProcessor(network)
    door = steps.input(0)
    door.tensor().set_element_type(openvino.Type.u8).set_layout(openvino.Layout("NHWC"))
    door.model().set_layout(openvino.Layout("NCHW"))
    if kind == "pictures":
        door.tensor().set_spatial_dynamic_shape()
        door.preprocess().resize(module.ResizeAlgorithm.RESIZE_BILINEAR_PILLOW)
    todo = door.preprocess().convert_element_type(openvino.Type.f32)
    if spec.colour == "BGR":
        todo = todo.reverse_channels()
    todo = todo.mean([255 * m for m in spec.mean or (0.0,) * spec.channels])
    todo.scale([255 * s for s in spec.std or (1.0,) * spec.channels])
    return steps.build(), door_of(signature, spec, kind)


def door_of(signature: Signature, spec: Preprocess, kind: str) -> Signature:
    """The signature with pixels at its first door."""
    from ..core.tensor import Signature

    first = signature.inputs[0]
    inside = spec if kind == "pictures" else msgspec.structs.replace(spec, size=None, crop=None)
    height, width = ("picture_height", "picture_width") if kind == "pictures" else first.shape[2:]
    shape = (first.shape[0], height, width, first.shape[1])
    door = msgspec.structs.replace(first, shape=shape, dtype="uint8", layout="NHWC", pixels=inside)
    return Signature((door, *signature.inputs[1:]), signature.outputs)


def through_the_door(inputs: tuple[NDArray[Any], ...], spec: Preprocess) -> tuple[NDArray[Any], ...]:
    """The inputs as a file that takes pixels can see them: samples that were pixels are as they were, noise becomes pixels."""
    from ..core.pixels import from_pixels, to_pixels

    return (from_pixels(to_pixels(inputs[0], spec), spec), *inputs[1:])


def prove_pictures(path: Path, signature: Signature, inputs: tuple[NDArray[Any], ...], samples: Samples | None) -> Parity:
    """The file on pictures of several sizes against itself on what the host makes of them: the worst."""
    import numpy as np

    from ..core.tensor import rows_axis
    from ..targets.runtime import open_session
    from . import parity

    first: TensorSpec = signature.inputs[0]
    spec = first.pixels
    assert spec is not None
    session = open_session(path, "openvino")
    size = first.shape[rows_axis(first)]
    rows = size if isinstance(size, int) else 1
    told, raw, whole = [], [], []
    for picture in _pictures(spec, samples):
        others = [np.ascontiguousarray(np.resize(x[:1], (rows, *x.shape[1:]))) for x in inputs[1:]]
        resized = geometry(picture, msgspec.structs.replace(spec, colour=_stored(spec)))
        raw.append(session.run(np.repeat(picture[None], rows, axis=0), *others))
        whole.append(session.run(np.repeat(resized[None], rows, axis=0), *others))
        told.append(f"{picture.shape[0]}x{picture.shape[1]}")
    columns = zip(*whole, strict=True), zip(*raw, strict=True)
    want, got = ([np.stack(column) for column in side] for side in columns)
    return parity.measure(HOST, want, got, len(told), "openvino", f"pictures of {', '.join(told)}")


def _stored(spec: Preprocess) -> Any:
    """What a door holds: RGB where the model reads BGR."""
    return "RGB" if spec.colour == "BGR" else spec.colour


def _pictures(spec: Preprocess, samples: Samples | None) -> list[NDArray[np.uint8]]:
    """Real pictures where the samples hold some, at sizes of their own and at others; else smooth ones."""
    import numpy as np
    from PIL import Image

    assert isinstance(spec.size, tuple)
    height, width = spec.size
    sizes = [
        (2 * height, 2 * width),
        (height + height // 2, 3 * width),
        (max(2, 2 * height // 3), max(2, width // 2)),
        (height + 1, width + 7),
    ]
    generator = np.random.default_rng(0)
    found = []
    for i, (rows, columns) in enumerate(sizes[:PICTURES]):
        raw = samples.raw(i % len(samples)) if samples is not None and len(samples) else None
        if raw is None:
            raw = generator.integers(0, 256, (max(2, height // 4), max(2, width // 4), 3), np.uint8)
        plain = geometry(raw, Preprocess(colour=_stored(spec)))
        image = Image.fromarray(plain[:, :, 0] if plain.shape[2] == 1 else plain)
        picture = np.asarray(image.resize((columns, rows), Image.Resampling.BICUBIC))
        found.append(np.ascontiguousarray(picture[:, :, None] if picture.ndim == 2 else picture))
    return found
