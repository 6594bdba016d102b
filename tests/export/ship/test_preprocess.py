"""One preprocessing, five languages: each against core.preprocess on odd sizes, grey, alpha and turned images.

A case is one line: raw file, output file, height, width, channels, orientation, colour, size of the shorter side, height, width, nearest
or not, crop height, crop width, mean, std. The output file holds three int32 (height, width, channels), the pixels and the tensor.
"""

from __future__ import annotations

import importlib.util
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import msgspec
import numpy as np
import PIL
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps

from packlight.core.preprocess import Preprocess, geometry, preprocess
from packlight.export.ship.templates import fill

HARNESS = Path(__file__).parent / "harness"
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
SPECS = [
    Preprocess(size=(32, 32), **IMAGENET),
    Preprocess(size=40, crop=(32, 33), **IMAGENET),
    Preprocess(colour="BGR", size=(17, 91)),
    Preprocess(colour="GREY", size=(28, 28), mean=(0.1307,), std=(0.3081,)),
    Preprocess(size=(31, 45), resize="nearest", mean=(0.5, 0.5, 0.5)),
    Preprocess(colour="GREY"),
    Preprocess(size=(224, 224), std=(0.5, 0.25, 0.125)),
]
# Pillow 13 changed the order of the two passes; an older one may differ from it by a grey level.
GREY_LEVELS = 0 if int(PIL.__version__.partition(".")[0]) >= 13 else 1
SIZES = [(32, 32, 3), (37, 53, 3), (101, 67, 4), (64, 48, 1), (301, 203, 3), (43, 47, 4), (41, 600, 3)]


class Case(NamedTuple):
    raw: NDArray[np.uint8]
    orientation: int
    spec: Preprocess


def cases() -> list[Case]:
    """Noise and smooth pictures in turn; every spec with every size, orientations 1 to 8 going round."""
    rng = np.random.default_rng(0)
    out = []
    for i, spec in enumerate(SPECS):
        for j, size in enumerate(SIZES):
            height, width, channels = size
            if (i + j) % 2:
                raw = rng.integers(0, 256, size, np.uint8)
            else:
                y, x, c = np.mgrid[:height, :width, :channels]
                raw = ((np.sin(y / 7 + c) + np.cos(x / 5 - c)) * 63 + 128).astype(np.uint8)
            out.append(Case(raw, (i * len(SIZES) + j) % 8 + 1, spec))
    return out


def turned(raw: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """What Pillow makes of the orientation."""
    picture = Image.fromarray(raw[:, :, 0] if raw.shape[2] == 1 else raw)
    picture.getexif()[0x0112] = orientation
    out = np.asarray(ImageOps.exif_transpose(picture))
    return out[:, :, None] if out.ndim == 2 else out


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Case], list[str], Path]:
    """The cases, their lines and the folder with their files."""
    folder = tmp_path_factory.mktemp("cases")
    lines = []
    for i, case in enumerate(cases()):
        (folder / f"{i}.raw").write_bytes(case.raw.tobytes())
        spec, size = case.spec, case.spec.size
        short, (h, w) = (size, (0, 0)) if isinstance(size, int) else (0, size or (0, 0))
        numbers = [",".join(map(repr, values)) or "-" for values in (spec.mean, spec.std)]
        sizes = [short, h, w, int(spec.resize == "nearest"), *(spec.crop or (0, 0))]
        fields = [folder / f"{i}.raw", folder / f"{i}.out", *case.raw.shape, case.orientation, spec.colour, *sizes, *numbers]
        lines.append(" ".join(map(str, fields)))
    return cases(), lines, folder


def compare(cases: list[Case], folder: Path) -> None:
    for i, case in enumerate(cases):
        image = turned(case.raw, case.orientation)
        expected, tensor = geometry(image, case.spec), preprocess(image, case.spec)
        data = (folder / f"{i}.out").read_bytes()
        assert tuple(np.frombuffer(data, "<i4", 3)) == expected.shape, case.spec
        pixels = np.frombuffer(data, np.uint8, expected.size, 12).reshape(expected.shape)
        alike(pixels, expected)
        found = np.frombuffer(data, "<f4", tensor.size, 12 + expected.size).reshape(tensor.shape)
        step = GREY_LEVELS / 255 / min(case.spec.std or (1.0,))
        np.testing.assert_allclose(found, tensor, rtol=0, atol=1e-6 + step)


def alike(pixels: NDArray[np.uint8], expected: NDArray[np.uint8]) -> None:
    assert pixels.shape == expected.shape
    assert np.abs(pixels.astype(int) - expected).max() <= GREY_LEVELS


def run(command: list[str], lines: list[str]) -> None:
    done = subprocess.run(command, input="\n".join(lines) + "\n", text=True, capture_output=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    """The Python package's preprocess.py, which knows numpy alone."""
    path = tmp_path_factory.mktemp("python") / "preprocess.py"
    path.write_text(fill("linux/python/preprocess.py"))
    spec = importlib.util.spec_from_file_location("shipped_preprocess", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_python_is_the_reference_without_pillow(python: ModuleType) -> None:
    assert "PIL" not in fill("linux/python/preprocess.py")
    for case in cases():
        image, spec = turned(case.raw, case.orientation), msgspec.to_builtins(case.spec)
        np.testing.assert_array_equal(python.upright(case.raw, case.orientation), image)
        alike(python.geometry(image, spec), geometry(image, case.spec))
        if not GREY_LEVELS:
            np.testing.assert_array_equal(python.preprocess(case.raw, spec, case.orientation)[0], preprocess(image, case.spec))


def test_python_on_a_large_photograph_and_on_enlarging(python: ModuleType) -> None:
    photo = np.random.default_rng(1).integers(0, 256, (1203, 1601, 3), np.uint8)
    spec = Preprocess(size=256, crop=(224, 224))
    alike(python.geometry(photo, msgspec.to_builtins(spec)), geometry(photo, spec))
    tiny, up = photo[:5, :3], Preprocess(size=(97, 201))
    alike(python.geometry(tiny, msgspec.to_builtins(up)), geometry(tiny, up))


def test_a_crop_that_does_not_fit_is_refused(python: ModuleType) -> None:
    with pytest.raises(ValueError, match="crop 9x9 is larger than the image 8x8"):
        python.geometry(np.zeros((8, 8, 3), np.uint8), msgspec.to_builtins(Preprocess(crop=(9, 9))))


def test_cpp(written: tuple[list[Case], list[str], Path], tmp_path: Path, tool: Callable[..., str]) -> None:
    (tmp_path / "preprocess.hpp").write_text(fill("linux/cpp/preprocess.hpp"))
    compiler, program = tool("g++", "clang++"), tmp_path / "harness"
    flags = ["-std=c++17", "-O2", "-Wall", "-Wextra", "-Werror", f"-I{tmp_path}"]
    built = subprocess.run([compiler, *flags, str(HARNESS / "main.cpp"), "-o", str(program)], capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr[-2000:]
    run([str(program)], written[1])
    compare(written[0], written[2])


def test_javascript(written: tuple[list[Case], list[str], Path], tmp_path: Path, tool: Callable[..., str]) -> None:
    (tmp_path / "preprocess.mjs").write_text(fill("web/preprocess.js"))
    run([tool("node"), str(HARNESS / "main.mjs"), str(tmp_path / "preprocess.mjs")], written[1])
    compare(written[0], written[2])


@pytest.mark.slow
def test_kotlin(
    written: tuple[list[Case], list[str], Path], tmp_path: Path, tool: Callable[..., str], npm_package: Callable[[str], Path]
) -> None:
    java, compiler = tool("java"), npm_package("kotlin-compiler")
    (tmp_path / "Preprocess.kt").write_text(fill("android/Preprocess.kt", {"package": "packlight.test"}))
    jars = ":".join(map(str, (compiler / "lib").glob("*.jar")))
    kotlinc = [java, "-Xmx1g", "-cp", jars, "org.jetbrains.kotlin.cli.jvm.K2JVMCompiler", "-Werror", "-no-reflect"]
    sources = [str(tmp_path / "Preprocess.kt"), str(HARNESS / "Main.kt")]
    jar = str(tmp_path / "out.jar")
    home = ["-kotlin-home", str(compiler)]
    built = subprocess.run([*kotlinc, *home, *sources, "-d", jar], capture_output=True, text=True, check=False, timeout=300)
    assert built.returncode == 0, built.stderr[-2000:]
    run([java, "-cp", f"{jar}:{compiler / 'lib' / 'kotlin-stdlib.jar'}", "packlight.test.MainKt"], written[1])
    compare(written[0], written[2])


@pytest.mark.slow
def test_swift(written: tuple[list[Case], list[str], Path], swift: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    folder = written[2]
    (folder / "Preprocess.swift").write_text(fill("ios/Preprocess.swift"))
    (folder / "main.swift").write_text((HARNESS / "main.swift").read_text())
    built = swift(folder, "swiftc", "-O", "-warnings-as-errors", "/proof/Preprocess.swift", "/proof/main.swift", "-o", "/proof/harness")
    assert built.returncode == 0, built.stderr[-2000:]
    (folder / "lines").write_text("\n".join(written[1]).replace(f"{folder}/", "/proof/") + "\n")
    done = swift(folder, "sh", "-c", "/proof/harness < /proof/lines")
    assert done.returncode == 0, done.stderr[-2000:]
    compare(written[0], folder)
