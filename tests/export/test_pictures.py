"""OpenVINO files with the preprocessing inside, against the host's own preprocessing of the same pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from packlight.core.bundle import Bundle
from packlight.core.errors import InputError
from packlight.core.pixels import from_pixels, to_pixels
from packlight.core.preprocess import Preprocess, preprocess
from packlight.core.tensor import from_door, logical, to_door
from packlight.export import pictures
from packlight.export.exporter import Options
from packlight.export.run import export_bundle
from packlight.targets.load import load_target
from packlight.targets.runtime import open_session
from packlight.targets.target import Target

SPECS = {
    "RGB": Preprocess(size=(24, 32), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
    "BGR": Preprocess(colour="BGR", size=(24, 32), mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4)),
    "GREY": Preprocess(colour="GREY", size=(24, 32), mean=(0.5,), std=(0.5,)),
}

SLOWLY = ["RGB", pytest.param("BGR", marks=pytest.mark.slow), pytest.param("GREY", marks=pytest.mark.slow)]


@pytest.fixture(scope="module")
def target() -> Target:
    return load_target("x86-64-avx2")


def net(spec: Preprocess) -> Bundle:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(spec.channels, 8, 3, 2), nn.ReLU(), nn.Conv2d(8, 8, 3, 2), nn.Flatten(), nn.Linear(8 * 5 * 7, 4))
    return Bundle.capture(module.eval(), (torch.randn(2, spec.channels, 24, 32),), name="net", preprocess=spec)


def picture(height: int, width: int, channels: int) -> Any:
    generator = np.random.default_rng(height * width)
    small = generator.integers(0, 256, (height // 3, width // 3, 3), np.uint8)
    image = Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(image) if channels == 3 else np.asarray(image.convert("L"))[:, :, None]


@pytest.mark.parametrize("colour", SPECS)
def test_pixels_cross_the_door_both_ways(colour: str) -> None:
    spec = SPECS[colour]
    stored = np.stack([picture(24, 32, spec.channels), 255 - picture(24, 32, spec.channels)])
    real = from_pixels(stored, spec)
    np.testing.assert_allclose(real[0], preprocess(stored[0], spec), atol=1e-6)
    np.testing.assert_array_equal(to_pixels(real, spec), stored)


@pytest.mark.parametrize("colour", SLOWLY)
def test_a_file_that_takes_pixels(colour: str, target: Target, tmp_path: Path) -> None:
    spec = SPECS[colour]
    bundle = net(spec)
    (artifact,) = export_bundle(bundle, tmp_path, ["openvino"], Options(pictures="pixels"), target)
    (door,) = artifact.signature.inputs
    assert (door.shape, door.dtype, door.layout) == (("batch", 24, 32, spec.channels), "uint8", "NHWC")
    session = open_session(tmp_path / artifact.file, "openvino")
    assert (session.inputs[0].dtype, session.inputs[0].shape) == ("uint8", ("?", 24, 32, spec.channels))
    raw = np.stack([picture(24, 32, spec.channels)] * 3)
    want = bundle.run(torch.from_numpy(np.stack([preprocess(p, spec) for p in raw])))[0].numpy()
    np.testing.assert_allclose(session.run(raw)[0], want, atol=1e-5)
    assert artifact.parity[0].sqnr_db is None or artifact.parity[0].sqnr_db > 90
    real = np.stack([preprocess(p, spec) for p in raw])
    np.testing.assert_array_equal(to_door(real, door), raw)  # how benchmarks feed it
    np.testing.assert_allclose(from_door(raw, door), real, atol=1e-6)
    assert logical(artifact.signature).inputs[0].shape == ("batch", spec.channels, 24, 32)


@pytest.mark.parametrize("colour", SLOWLY)
def test_a_file_that_takes_pictures_of_any_size(colour: str, target: Target, tmp_path: Path) -> None:
    spec = SPECS[colour]
    bundle = net(spec)
    (artifact,) = export_bundle(bundle, tmp_path, ["openvino"], Options(pictures="pictures"), target)
    assert artifact.signature.inputs[0].shape == ("batch", "picture_height", "picture_width", spec.channels)
    (own,) = [p for p in artifact.parity if p.against == pictures.HOST]
    assert own.samples == pictures.PICTURES
    assert own.at.startswith("pictures of 48x64, ")
    session = open_session(tmp_path / artifact.file, "openvino")
    for size in ((60, 45), (24, 32), (20, 40)):
        raw = picture(*size, spec.channels)
        want = bundle.run(torch.from_numpy(preprocess(raw, spec)[None]))[0].numpy()
        noise, signal = np.sum((session.run(raw[None])[0] - want) ** 2), np.sum(want**2)
        assert noise == 0 or 10 * np.log10(signal / noise) > 35


def test_wrong_preprocessing_inside_does_not_pass(target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = pictures.put_inside

    def wrong(network: Any, signature: Any, spec: Preprocess, kind: str) -> Any:
        import msgspec

        made, _ = real(network, signature, msgspec.structs.replace(spec, colour="BGR"), kind)
        return made, pictures.door_of(signature, spec, kind)

    monkeypatch.setattr("packlight.export.openvino.put_inside", wrong)
    with pytest.raises(Exception, match="differs from the torch"):
        export_bundle(net(SPECS["RGB"]), tmp_path, ["openvino"], Options(pictures="pixels"), target)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_integer_files_too(rows: Any, target: Target, tmp_path: Path) -> None:
    from packlight.compress.passes import Context, run_passes
    from packlight.compress.recipe import make_pass

    spec = SPECS["RGB"]
    bundle = net(spec)
    raw = np.stack([picture(24 + i, 32, 3)[:24] for i in range(16)])
    calib = rows(from_pixels(raw, spec))
    after = run_passes(bundle, [make_pass("quantize", {})], Context(target=target, calib=calib))
    options = Options(precision="int8", pictures="pictures")
    (artifact,) = export_bundle(after, tmp_path, ["openvino"], options, target, calib, float_bundle=bundle)
    assert artifact.signature.inputs[0].dtype == "uint8"
    assert {p.against for p in artifact.parity} == {"quantized graph", "torch", pictures.HOST}
    own = next(p for p in artifact.parity if p.against == "quantized graph")
    assert own.sqnr_db is None or own.sqnr_db > 25


@pytest.mark.parametrize(
    ("change", "kind", "why"),
    [
        ({"crop": (24, 32), "size": (30, 40)}, "pictures", "can't hold a centre crop, which depends on the picture"),
        ({"size": 24}, "pictures", "can't hold a resize of the shorter side"),
        ({"size": None}, "pictures", "the preprocessing has no size; give --size H,W, or take pixels"),
        ({"size": (12, 32)}, "pictures", "resizes to 12x32, but the model takes 24x32"),
        ({"resize": "nearest"}, "pictures", "not by 'nearest'"),
    ],
)
def test_what_can_not_be_inside(change: dict[str, Any], kind: Any, why: str, target: Target, tmp_path: Path) -> None:
    import msgspec

    bundle = net(SPECS["RGB"])
    bundle = bundle.replace(preprocess=msgspec.structs.replace(SPECS["RGB"], **change))
    with pytest.raises(InputError, match=why):
        export_bundle(bundle, tmp_path, ["openvino"], Options(pictures=kind), target)
    with pytest.raises(InputError, match="only OpenVINO files take pictures, not onnx"):
        export_bundle(bundle, tmp_path, ["onnx"], Options(pictures=kind), target)
    with pytest.raises(InputError, match="needs to know the preprocessing; give --mean and --std"):
        export_bundle(bundle.replace(preprocess=None), tmp_path, ["openvino"], Options(pictures=kind), target)
