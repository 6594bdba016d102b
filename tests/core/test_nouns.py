"""The nouns: tensors and doors, preprocessing, registry, artifacts and reports on disk."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import msgspec
import numpy as np
import pytest
from PIL import Image

from packlight.core.artifact import Artifact, Manifest
from packlight.core.errors import ContractError, DataError, InputError
from packlight.core.preprocess import Preprocess, preprocess
from packlight.core.registry import Registry
from packlight.core.report import Environment, Latency, Measurement, Model, Report, json_schema
from packlight.core.tensor import DoorQuantization, Signature, TensorSpec, from_door, to_door


def test_doors_transpose_and_quantize_by_the_formula() -> None:
    spec = TensorSpec(name="x", shape=("batch", 2, 2, 3), dtype="int8", layout="NHWC", quantization=DoorQuantization(0.5, -10))
    logical = np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2) - 3
    stored = to_door(logical, spec)
    assert stored.dtype == np.int8
    assert stored.shape == (2, 2, 2, 3)
    assert stored[0, 1, 0, 2] == np.rint(logical[0, 2, 1, 0] / 0.5) - 10
    assert np.array_equal(from_door(stored, spec), logical)
    assert to_door(np.full((1, 3, 2, 2), 1e9, np.float32), spec).max() == 127


def test_a_wrong_shape_is_named() -> None:
    spec = TensorSpec(name="image", shape=("batch", 3, 4, 4), layout="NCHW")
    with pytest.raises(DataError, match="'image' wants shape"):
        to_door(np.zeros((1, 1, 4, 4), np.float32), spec)


def test_preprocess_against_pillow_and_arithmetic() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (7, 9, 3), dtype=np.uint8)
    plain = preprocess(image, Preprocess(mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 2.0)))
    expected = (image.astype(np.float64) / 255 - [0.1, 0.2, 0.3]) / [0.5, 0.25, 2.0]
    assert np.allclose(plain, expected.transpose(2, 0, 1), atol=1e-6)
    assert np.array_equal(preprocess(image, Preprocess(colour="BGR")), preprocess(image, Preprocess())[::-1])
    resized = np.asarray(Image.fromarray(image).resize((5, 4), Image.Resampling.BILINEAR), np.float32).transpose(2, 0, 1) / 255
    assert np.allclose(preprocess(image, Preprocess(size=(4, 5))), resized, atol=1e-6)
    assert preprocess(image, Preprocess(size=14)).shape == (3, 14, 18)
    assert np.array_equal(preprocess(image, Preprocess(crop=(3, 3))), preprocess(image[2:5, 3:6], Preprocess()))


def test_grey_and_alpha() -> None:
    grey = np.full((2, 2), 51, np.uint8)
    assert np.allclose(preprocess(grey, Preprocess()), 0.2)
    assert preprocess(grey, Preprocess(colour="GREY")).shape == (1, 2, 2)
    red = np.zeros((1, 1, 4), np.uint8)
    red[..., 0], red[..., 3] = 200, 128
    assert preprocess(red, Preprocess())[0, 0, 0] == np.float32(100 / 255)
    luma = preprocess(np.array([[[255, 0, 0]]], np.uint8), Preprocess(colour="GREY"))
    assert abs(float(luma[0, 0, 0]) - 0.299) < 1 / 255


@pytest.mark.parametrize("fields", [{"mean": (0.5,)}, {"std": (0.0, 1.0, 1.0)}, {"size": 0}, {"crop": (-1, 2)}])
def test_a_bad_preprocessing_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises((DataError, msgspec.ValidationError)):
        msgspec.convert(fields, Preprocess)


def test_registry_lists_what_is_known_and_refuses_twins() -> None:
    registry: Registry[int] = Registry("thing")
    registry.register("alpha")(1)
    with pytest.raises(InputError, match=r"unknown thing 'alpah' \(did you mean 'alpha'\?\); known: alpha"):
        registry.get("alpah")
    with pytest.raises(ContractError):
        registry.register("alpha")(2)


def _artifact(folder: Path) -> Artifact:
    (folder / "m.fp32.onnx").write_bytes(b"abc")
    spec = TensorSpec(name="x", shape=("batch", 3, 4, 4), layout="NCHW")
    return Artifact(
        file="m.fp32.onnx",
        files={"m.fp32.onnx": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
        model="m",
        format="onnx",
        precision="fp32",
        runtimes=("onnxruntime",),
        target="x86-64-avx2",
        bytes=3,
        signature=Signature((spec,), (spec,)),
    )


def test_manifest_goes_to_disk_and_back_and_finds_a_changed_byte(tmp_path: Path) -> None:
    manifest = Manifest(packlight="0", versions={}, artifacts=(_artifact(tmp_path),))
    manifest.write(tmp_path)
    back = Manifest.read(tmp_path)
    assert back == manifest
    back.find("m.fp32.onnx").verify(tmp_path)
    (tmp_path / "m.fp32.onnx").write_bytes(b"abd")
    with pytest.raises(InputError, match="sha256"):
        back.artifacts[0].verify(tmp_path)
    with pytest.raises(InputError, match="it holds"):
        back.find("other")


def test_an_unknown_field_of_a_manifest_is_named(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"schema": 1, "packlight": "0", "versions": {}, "artifacts": [], "oops": 1}')
    with pytest.raises(InputError, match="oops"):
        Manifest.read(tmp_path)


def test_report_obeys_its_published_schema() -> None:
    measured = Measurement(
        file="a",
        format="onnx",
        runtime="onnxruntime",
        precision="fp32",
        bytes=1,
        sha256="0",
        latency=Latency(values_s=(0.1,), why="one run"),
    )
    report = Report(
        packlight="0",
        created="2026-01-01T00:00:00Z",
        model=Model(name="m", parameters=1, macs=1),
        task="classification",
        target="t",
        environment=Environment(),
        artifacts=(measured,),
    )
    jsonschema.validate(json.loads(msgspec.json.encode(report)), json_schema())
    assert msgspec.json.decode(msgspec.json.encode(report), type=Report) == report


def test_one_thing_may_have_several_names() -> None:
    registry: Registry[int] = Registry("thing")
    registry.register("a", "b")(1)
    assert (registry.find("a"), registry.get("b"), registry.find("c")) == (1, 1, None)
    with pytest.raises(ContractError):
        registry.register("c", "b")(2)
