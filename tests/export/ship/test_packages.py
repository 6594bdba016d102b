"""The packages for apps, built and run as an app would: Python without torch, C++ against the C API, the page in Chromium, Kotlin on a Java
machine, Swift on Linux."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import shipping

from packlight.export.ship.spec import read_ship
from packlight.export.ship.templates import fill

HARNESS = Path(__file__).parent / "harness"
ALONE = """
import sys
class Only:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "packlight", "onnx", "msgspec", "scipy", "openvino", "click"}:
            raise ImportError(f"{name} is not on this machine")
sys.meta_path.insert(0, Only())
import runpy
sys.argv = ["critters_model", *sys.argv[1:]]
runpy.run_module("critters_model", run_name="__main__", alter_sys=True)
"""


SERVE = """
from http.server import ThreadingHTTPServer
from critters_model import serve

class Told(ThreadingHTTPServer):
    def serve_forever(self):
        print(self.server_address[1], flush=True)
        super().serve_forever()

serve.ThreadingHTTPServer = Told
serve.serve("127.0.0.1", 0, 1)
"""


@pytest.fixture(scope="module")
def bundle(critters: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shipping.make_bundle(critters, tmp_path_factory.mktemp("packages") / "out", "linux", "web", "android", "ios")


def run(command: list[str | Path], cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, **environment}
    return subprocess.run([str(c) for c in command], cwd=cwd, env=env, capture_output=True, text=True, timeout=300, check=False)


def alone(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run([sys.executable, "-c", ALONE, *arguments], cwd=folder)


def test_the_python_package_runs_without_torch(bundle: Path, tmp_path: Path) -> None:
    folder = tmp_path / "python"
    shutil.copytree(bundle / "linux" / "python", folder)
    tested = alone(folder, "--selftest")
    assert tested.returncode == 0, tested.stdout + tested.stderr
    assert "every stage of every golden input came out as shipped" in tested.stdout
    golden = next(g for g in read_ship(bundle).goldens if g.runs[0].answer.decided)
    said = alone(folder, f"critters_model/data/{golden.image}")
    assert json.loads(said.stdout)["label"] == golden.runs[0].answer.label, said.stderr
    spec = folder / "critters_model" / "data" / "spec.json"
    spec.write_text(spec.read_text().replace("0.485", "0.6"))
    assert "the tensor differs" in alone(folder, "--selftest").stdout


def test_the_python_package_with_integer_doors(critters: Path, tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert")
    out = shipping.make_bundle(critters, tmp_path / "out", "linux", files=("critters.int8.tflite",))
    assert read_ship(out).artifacts[0].signature.inputs[0].quantization is not None
    tested = alone(out / "linux" / "python", "--selftest")
    assert tested.returncode == 0, tested.stdout + tested.stderr


def test_the_python_package_answers_over_http(bundle: Path) -> None:
    import urllib.error
    import urllib.request

    server = subprocess.Popen(
        [sys.executable, "-c", SERVE], cwd=bundle / "linux" / "python", stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        assert server.stdout is not None
        url = f"http://127.0.0.1:{int(server.stdout.readline())}/"
        image = (bundle / "golden" / "0" / "image.png").read_bytes()
        with urllib.request.urlopen(urllib.request.Request(url, image), timeout=30) as said:
            assert json.load(said)["label"] in shipping.LABELS
        with urllib.request.urlopen(url, timeout=30) as said:
            assert json.load(said)["name"] == "critters"
        with pytest.raises(urllib.error.HTTPError, match="400"):
            urllib.request.urlopen(urllib.request.Request(url, b"not an image"), timeout=30)
    finally:
        server.kill()
        server.wait()


@pytest.mark.slow
def test_the_python_package_installs_alone(bundle: Path, tmp_path: Path) -> None:
    """A fresh environment with numpy, Pillow and onnxruntime of this one, and nothing else."""
    home = tmp_path / "venv"
    assert run([sys.executable, "-m", "venv", home]).returncode == 0
    (site,) = home.glob("lib/python*/site-packages")
    import numpy
    import onnxruntime
    import PIL

    for module in (numpy, PIL, onnxruntime):
        folder = Path(module.__file__ or "").parent
        (site / folder.name).symlink_to(folder)
        libraries = next(iter(folder.parent.glob(f"{folder.name}.libs")), None)
        if libraries:
            (site / libraries.name).symlink_to(libraries)
    wheel = run([sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", tmp_path, bundle / "linux" / "python"])
    assert wheel.returncode == 0, wheel.stdout + wheel.stderr
    (file,) = tmp_path.glob("*.whl")
    installed = run([home / "bin" / "python", "-m", "pip", "install", "--no-deps", "--no-index", "--quiet", file])
    assert installed.returncode == 0, installed.stderr
    tested = run([home / "bin" / "critters-model", "--selftest"], cwd=tmp_path)
    assert tested.returncode == 0, tested.stdout + tested.stderr


def test_the_cpp_example_against_the_c_api(bundle: Path, tmp_path: Path, tool: Callable[..., str]) -> None:
    import onnxruntime

    compiler = tool("g++", "clang++")
    (library,) = (Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so.*")
    (tmp_path / "libonnxruntime.so.1").symlink_to(library)
    program = tmp_path / "critters"
    flags = ["-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", f"-Wl,-rpath,{tmp_path}"]
    built = run([compiler, *flags, bundle / "linux/cpp/main.cpp", tmp_path / "libonnxruntime.so.1", "-o", program])
    assert built.returncode == 0, built.stderr[-2000:]
    data = bundle / "linux" / "python" / "critters_model" / "data"
    tested = run([program, "--data", data, "--selftest"])
    assert tested.returncode == 0, tested.stdout + tested.stderr
    assert "every stage of 10 golden inputs came out as shipped" in tested.stdout
    made = read_ship(bundle)
    golden = next(g for g in made.goldens if g.kind == "as it is" and g.runs[0].answer.decided)
    from PIL import Image

    Image.open(bundle / str(golden.image)).convert("RGB").save(tmp_path / "x.ppm")
    said = run([program, "--data", data, tmp_path / "x.ppm"])
    assert said.stdout.split()[0] == golden.runs[0].answer.label, said.stderr
    (tmp_path / "bad.ppm").write_bytes(b"P6 99999999 1 255 ")
    assert run([program, "--data", data, tmp_path / "bad.ppm"]).returncode == 2


def test_the_unit_file_is_one(bundle: Path, tool: Callable[..., str], tmp_path: Path) -> None:
    unit = bundle / "linux" / "critters-model.service"
    sections = [line for line in unit.read_text().splitlines() if line.startswith("[")]
    assert sections == ["[Unit]", "[Service]", "[Install]"]
    analyze = tool("systemd-analyze")
    copy = tmp_path / unit.name
    copy.write_text(unit.read_text().replace("/opt/critters_model/venv/bin/python", sys.executable))
    checked = run([analyze, "verify", copy])
    assert "Unknown" not in checked.stderr, checked.stderr
    assert checked.returncode == 0, checked.stderr


def test_the_npm_package_lists_what_it_holds(bundle: Path, tool: Callable[..., str], tmp_path: Path) -> None:
    packed = run([tool("npm"), "pack", "--dry-run", "--json", "--offline", bundle / "web"], cwd=tmp_path)
    assert packed.returncode == 0, packed.stderr
    names = {f["path"] for f in json.loads(packed.stdout)[0]["files"]}
    there = {p.relative_to(bundle / "web").as_posix() for p in (bundle / "web").rglob("*") if p.is_file()}
    assert names == there


@pytest.mark.slow
def test_the_page_in_chromium(bundle: Path, tool: Callable[..., str], npm_package: Callable[[str], Path]) -> None:
    """Every stage of every golden input, in a real browser; the outputs of WebAssembly against those of the native runtime."""
    chromium, modules = tool("chromium", "chromium-browser", "google-chrome"), npm_package("onnxruntime-web").parent
    ran = run([sys.executable, HARNESS / "browse.py", chromium, bundle / "web", modules])
    assert ran.returncode == 0, ran.stderr[-2000:]
    result = json.loads(ran.stdout)
    assert result["wrong"] == []
    assert result["goldens"] == 10
    assert result["largest"]["pixels"] <= 1
    assert result["latency"]["median"] > 0


@pytest.mark.slow
def test_the_kotlin_compiles_and_replays(
    bundle: Path, tmp_path: Path, tool: Callable[..., str], npm_package: Callable[[str], Path]
) -> None:
    java, compiler = tool("java"), npm_package("kotlin-compiler")
    jars = ":".join(map(str, (compiler / "lib").glob("*.jar")))
    sources = [*(bundle / "android" / "src").rglob("*.kt"), *(HARNESS / "stubs").glob("*.kt"), HARNESS / "Replay.kt"]
    jar = tmp_path / "out.jar"
    command = [java, "-Xmx1g", "-cp", jars, "org.jetbrains.kotlin.cli.jvm.K2JVMCompiler", "-no-reflect", "-kotlin-home", compiler]
    built = run([*command, *sources, "-d", jar])
    assert built.returncode == 0, built.stderr[-3000:]
    ours = [line for line in built.stderr.splitlines() if "warning:" in line and "stubs" not in line]
    assert ours == []
    assets = bundle / "android" / "src" / "androidTest" / "assets"
    classes = f"{jar}:{compiler / 'lib' / 'kotlin-stdlib.jar'}"
    replayed = run([java, "-cp", classes, "packlight.models.critters.ReplayKt", assets])
    assert replayed.returncode == 0, replayed.stderr[-2000:]
    assert "replayed 10" in replayed.stdout


def test_the_swift_parses(bundle: Path) -> None:
    parser = pytest.importorskip("tree_sitter", reason="tree-sitter and tree-sitter-swift are not installed")
    grammar = pytest.importorskip("tree_sitter_swift", reason="tree-sitter-swift is not installed")
    reader = parser.Parser(parser.Language(grammar.language()))
    for file in (bundle / "ios").rglob("*.swift"):
        tree = reader.parse(file.read_bytes())
        assert not tree.root_node.has_error, file.name


@pytest.mark.slow
def test_the_swift_package_passes_its_own_tests(
    bundle: Path, tmp_path: Path, swift: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    """All but Pictures.swift, which only Apple's systems compile: the shipped XCTest on Linux, against ONNX Runtime's own library."""
    import onnxruntime

    shutil.copytree(bundle / "ios", tmp_path / "ios")
    shutil.copytree(HARNESS / "ort", tmp_path / "onnxruntime-swift-package-manager")
    (tmp_path / "onnxruntime-swift-package-manager/Sources/COrt/ort_c.h").write_text(fill("linux/cpp/ort_c.h"))
    (library,) = (Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so.*")
    shutil.copy(library, tmp_path / "libonnxruntime.so")
    manifest = tmp_path / "ios" / "Package.swift"
    remote = '.package(url: "https://github.com/microsoft/onnxruntime-swift-package-manager", from: "1.20.0")'
    assert remote in manifest.read_text()
    manifest.write_text(manifest.read_text().replace(remote, '.package(path: "../onnxruntime-swift-package-manager")'))
    command = ["env", "ORT_LIBRARY=/proof/libonnxruntime.so", "swift-test", "--package-path", "/proof/ios"]
    tested = swift(tmp_path, *command)
    assert tested.returncode == 0, tested.stdout[-2000:] + tested.stderr[-2000:]
    assert "Executed 1 test, with 0 failures" in tested.stdout + tested.stderr
    assert "warning:" not in tested.stderr
    (pixels,) = (tmp_path / "ios" / "Tests").glob("*/Golden/golden/0/pixels.bin")
    pixels.write_bytes(bytes(255 - v for v in pixels.read_bytes()))
    tested = swift(tmp_path, *command)
    assert "golden/0: the image after colour, resize and crop" in tested.stdout + tested.stderr
    assert tested.returncode == 1


def test_gradle_and_swift_manifests_name_what_is_there(bundle: Path) -> None:
    gradle = (bundle / "android" / "build.gradle.kts").read_text()
    for words in (
        "minSdk = 24",
        '"arm64-v8a"',
        "com.google.ai.edge.litert:litert",
        "com.microsoft.onnxruntime:onnxruntime-android",
        "noCompress",
    ):
        assert words in gradle
    assert (bundle / "android/src/main/assets/critters_model/critters_int8_tflite/critters.int8.tflite").is_file()
    assert (bundle / "ios/Sources/CrittersModel/Resources/critters.int8.onnx").is_file()
    assert (bundle / "ios/Tests/CrittersModelTests/Golden/golden/0/raw.bin").is_file()
    made = read_ship(bundle)
    assert {p.platform: p.folder for p in made.packages} == {"linux": "linux", "web": "web", "android": "android", "ios": "ios"}
    for package in made.packages:
        assert package.proof
        assert package.platform in ("linux", "web") or "no phone" in package.proof or "on a phone" in package.proof
