"""Packages of models that read text or give images: the answer in every language, from tiny ONNX files written by hand."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from packlight.core.artifact import Artifact, Parity
from packlight.core.files import sha256
from packlight.core.preprocess import Preprocess, preprocess
from packlight.core.progress import Silent
from packlight.core.tensor import Signature, TensorSpec
from packlight.export.run import write_manifest
from packlight.export.ship.spec import read_ship
from packlight.export.ship.templates import fill
from packlight.search.ship import Order, ship
from packlight.search.verify import verify_bundle

HARNESS = Path(__file__).parent / "harness"
ALPHABET = "ab $é"
BLANK = 2
FLOOR = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}


def save(path: Path, nodes: list[object], inputs: tuple[list[object], list[object]], weights: dict[str, np.ndarray]) -> None:
    from onnx import TensorProto, helper, numpy_helper, save

    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in zip(("x", "y"), inputs, strict=True))
    graph = helper.make_graph(nodes, "g", [x], [y], [numpy_helper.from_array(v, k) for k, v in weights.items()])
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), str(path))


def folder_of(folder: Path, name: str, signature: Signature, task: str, spec: Preprocess, labels: tuple[str, ...]) -> Path:
    file = f"{name}.fp32.onnx"
    artifact = Artifact(
        file=file,
        files={file: sha256(folder / file)},
        model=name,
        format="onnx",
        precision="fp32",
        runtimes=("onnxruntime",),
        target="x86-64-avx2",
        bytes=(folder / file).stat().st_size,
        signature=signature,
        preprocess=spec,
        labels=labels,
        task=task,
        parity=(Parity(against="torch", max_abs=0.0, sqnr_db=None, samples=1, runtime="onnxruntime"),),
    )
    write_manifest(folder, [artifact])
    return folder


def reader(folder: Path) -> Path:
    """Each column of an 8 x 24 picture is a step: its brightness chooses among six classes. Output (24, batch, 6): steps first."""
    from onnx import helper

    folder.mkdir()
    levels = np.linspace(-1, 1, len(ALPHABET) + 1, dtype=np.float32)
    nodes = [
        helper.make_node("ReduceMean", ["x", "axes"], ["m"], keepdims=0),  # (batch, 24)
        helper.make_node("Unsqueeze", ["m", "last"], ["u"]),
        helper.make_node("Sub", ["u", "levels"], ["d"]),
        helper.make_node("Abs", ["d"], ["a"]),
        helper.make_node("Neg", ["a"], ["n"]),
        helper.make_node("Transpose", ["n"], ["y"], perm=[1, 0, 2]),
    ]
    weights = {"axes": np.array([1, 2]), "last": np.array([2]), "levels": levels}
    save(folder / "reader.fp32.onnx", nodes, (["batch", 1, 8, 24], [24, "batch", 6]), weights)
    x = TensorSpec(name="x", shape=("batch", 1, 8, 24), layout="NCHW")
    doors = Signature((x,), (TensorSpec(name="y", shape=(24, "batch", 6)),))
    spec = Preprocess(colour="GREY", size=(8, 24), mean=(0.5,), std=(0.5,))
    return folder_of(folder, "reader", doors, f"recognition:blank={BLANK}", spec, tuple(ALPHABET))


def enlarger(folder: Path) -> Path:
    """Twice as large by nearest neighbours, from [0, 1] to [-1, 1], any size."""
    from onnx import helper

    folder.mkdir()
    nodes = [
        helper.make_node("Resize", ["x", "", "scales"], ["r"], mode="nearest", **FLOOR),
        helper.make_node("Mul", ["r", "two"], ["t"]),
        helper.make_node("Sub", ["t", "one"], ["y"]),
    ]
    weights = {"scales": np.array([1, 1, 2, 2], np.float32), "two": np.float32(2)[None], "one": np.float32(1)[None]}
    save(folder / "enlarger.fp32.onnx", nodes, (["batch", 3, "h", "w"], ["batch", 3, "H", "W"]), weights)
    x = TensorSpec(name="x", shape=("batch", 3, "h", "w"), layout="NCHW")
    doors = Signature((x,), (TensorSpec(name="y", shape=("batch", 3, "H", "W"), layout="NCHW"),))
    return folder_of(folder, "enlarger", doors, "restoration:low=-1,high=1", Preprocess(), ())


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Both, for all platforms."""
    place = tmp_path_factory.mktemp("kinds")
    texts = np.array(["-"] * 6)
    np.savez(place / "words.npz", x_train=words(), y_train=texts, x_test=words(), y_test=texts)
    found = {}
    for name, folder, data in (("reader", reader(place / "r"), str(place / "words.npz")), ("enlarger", enlarger(place / "e"), None)):
        allow, platforms = ("report", "certified"), ("linux", "web", "android", "ios")
        ship(Order(folder=folder, platforms=platforms, out=place / name, data=data, allow=allow), Silent())
        found[name] = place / name
    return found


def words() -> np.ndarray:
    """Six pictures of 8 x 24 whose columns spell something."""
    rng = np.random.default_rng(3)
    classes = rng.integers(0, len(ALPHABET) + 1, (6, 8)).repeat(3, axis=1)
    return (classes[:, None, :] * 51).repeat(8, axis=1).astype(np.uint8)


def spelled(picture: np.ndarray) -> str:
    """The closed form: the class of each column, repeats dropped, then blanks."""
    classes = np.rint(picture[0].reshape(-1) / 51).astype(int)
    kept = [k for i, k in enumerate(classes) if k != BLANK and (i == 0 or classes[i - 1] != k)]
    return "".join(ALPHABET[k - (k > BLANK)] for k in kept)


@pytest.mark.parametrize("name", ["reader", "enlarger"])
def test_the_bundle_replays(name: str, bundles: dict[str, Path]) -> None:
    result = verify_bundle(bundles[name], device="local", progress=Silent())
    assert result.findings == ()
    assert result.goldens >= 10


def test_golden_texts_are_the_closed_form(bundles: dict[str, Path]) -> None:
    made = read_ship(bundles["reader"])
    assert made.postprocess.alphabet == ALPHABET
    assert made.postprocess.blank == BLANK
    assert made.labels == ()
    seen = [g for g in made.goldens if g.kind == "as it is"]
    assert len(seen) == 4
    for golden in seen:
        assert golden.raw is not None
        raw = np.fromfile(bundles["reader"] / golden.raw.file, np.uint8).reshape(golden.raw.shape)
        assert golden.runs[0].answer.text == spelled(raw)


@pytest.mark.parametrize(("old", "new"), [('"blank": 2', '"blank": 1'), ('"alphabet": "ab $é"', '"alphabet": "ba $é"')])
def test_another_alphabet_or_blank_is_named(old: str, new: str, bundles: dict[str, Path], tmp_path: Path) -> None:
    copy = tmp_path / "bundle"
    shutil.copytree(bundles["reader"], copy)
    text = (copy / "ship.json").read_text(encoding="utf-8")
    assert old in text
    (copy / "ship.json").write_text(text.replace(old, new), encoding="utf-8")
    found = verify_bundle(copy, device="local", progress=Silent()).findings
    assert any(f.place == "labels" and "the golden one" in f.what for f in found), found


def run(command: list[str | Path], cwd: Path | None = None) -> str:
    ran = subprocess.run([str(c) for c in command], cwd=cwd, capture_output=True, text=True, check=False, timeout=300)
    assert ran.returncode == 0, ran.stdout[-2000:] + ran.stderr[-2000:]
    return ran.stdout


@pytest.mark.parametrize("name", ["reader", "enlarger"])
def test_python_and_cpp(name: str, bundles: dict[str, Path], tmp_path: Path, tool: Callable[..., str]) -> None:
    import onnxruntime

    home = bundles[name] / "linux" / "python"
    code = [sys.executable, "-B", "-m", f"{name}_model"]
    assert "every stage of every golden input came out as shipped" in run([*code, "--selftest"], home)
    (library,) = (Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so.*")
    (tmp_path / "libonnxruntime.so.1").symlink_to(library)
    program, data = tmp_path / "program", home / f"{name}_model" / "data"
    flags = ["-std=c++17", "-Wall", "-Wextra", "-Werror", f"-Wl,-rpath,{tmp_path}"]
    run([tool("g++", "clang++"), *flags, bundles[name] / "linux/cpp/main.cpp", tmp_path / "libonnxruntime.so.1", "-o", program])
    assert "every stage of" in run([program, "--data", data, "--selftest"])
    if name == "reader":
        Image.fromarray(words()[0]).save(tmp_path / "x.pgm")
        wanted = spelled(words()[0][:, :, None])
        assert run([program, "--data", data, tmp_path / "x.pgm"]).startswith(f"{wanted} (")
        assert json.loads(run([*code, tmp_path / "x.pgm"], home))["text"] == wanted
    else:
        small = np.random.default_rng(0).integers(0, 256, (9, 13, 3), np.uint8)
        Image.fromarray(small).save(tmp_path / "x.ppm")
        run([program, "--data", data, "--write", tmp_path / "y.ppm", tmp_path / "x.ppm"])
        np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "y.ppm")), small.repeat(2, 0).repeat(2, 1))


def test_javascript_answers(bundles: dict[str, Path], tmp_path: Path, tool: Callable[..., str]) -> None:
    """The page's postprocess.js over the golden outputs, with the runtime's shapes."""
    (tmp_path / "postprocess.mjs").write_text(fill("web/postprocess.js"))
    script = """
import { readFileSync } from "node:fs";
const { answer } = await import(process.argv[2]);
const spec = JSON.parse(readFileSync(process.argv[3] + "/spec.json", "utf8"));
const out = spec.goldens.map((golden) => {
  const stage = golden.outputs[0];
  const data = new Float32Array(Uint8Array.from(readFileSync(process.argv[3] + "/" + stage.file)).buffer);
  const said = answer({ data, dims: stage.shape }, spec.postprocess, spec.labels, spec.outputs[0]);
  return said.text ?? [said.height, said.width, said.channels, ...said.data];
});
console.log(JSON.stringify(out));
"""
    (tmp_path / "main.mjs").write_text(script)
    for name, bundle in bundles.items():
        said = json.loads(run([tool("node"), tmp_path / "main.mjs", tmp_path / "postprocess.mjs", bundle / "web"]))
        made = read_ship(bundle)
        for answer, golden in zip(said, made.goldens, strict=True):
            if name == "reader":
                assert answer == golden.runs[0].answer.text
            else:
                assert golden.pixels is not None
                pixels = np.fromfile(bundle / golden.pixels.file, np.uint8).reshape(golden.pixels.shape)
                height, width, channels, *data = answer
                np.testing.assert_array_equal(np.array(data).reshape(height, width, channels), pixels.repeat(2, 0).repeat(2, 1))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["reader", "enlarger"])
def test_kotlin(name: str, bundles: dict[str, Path], tmp_path: Path, tool: Callable[..., str], npm_package: Callable[[str], Path]) -> None:
    """The Android package's own self-test on a Java machine, with the golden outputs in the runtime's place."""
    java, compiler = tool("java"), npm_package("kotlin-compiler")
    replay = (HARNESS / "Replay.kt").read_text().replace("packlight.models.critters", f"packlight.models.{name}")
    (tmp_path / "Replay.kt").write_text(replay.replace("ModelSpec.INT8_TFLITE, ModelSpec.INT8_ONNX", "ModelSpec.FP32_ONNX"))
    sources = [*(bundles[name] / "android" / "src").rglob("*.kt"), *(HARNESS / "stubs").glob("*.kt"), tmp_path / "Replay.kt"]
    jars = ":".join(map(str, (compiler / "lib").glob("*.jar")))
    jar = tmp_path / "out.jar"
    command = [java, "-Xmx1g", "-cp", jars, "org.jetbrains.kotlin.cli.jvm.K2JVMCompiler", "-no-reflect", "-kotlin-home", compiler]
    run([*command, *sources, "-d", jar])
    classes = f"{jar}:{compiler / 'lib' / 'kotlin-stdlib.jar'}"
    goldens = read_ship(bundles[name]).goldens
    shapes = ";".join(",".join(map(str, g.runs[0].outputs[0].shape)) for g in goldens)
    said = run([java, "-cp", classes, f"packlight.models.{name}.ReplayKt", bundles[name] / "android/src/androidTest/assets", shapes])
    assert f"replayed {len(goldens)}" in said


def test_the_reference_reads_as_the_closed_form() -> None:
    """What the tiny reader sees of a column is its class."""
    tensor = preprocess(words()[0], Preprocess(colour="GREY", size=(8, 24), mean=(0.5,), std=(0.5,)))
    np.testing.assert_allclose(tensor[0, 0], words()[0][0] / 127.5 - 1, atol=1e-6)
