"""Android: a Gradle library module around LiteRT and ONNX Runtime, and an instrumented test that replays the golden inputs."""

from __future__ import annotations

from pathlib import Path

from ....core.artifact import Artifact
from ....core.errors import InputError
from ....core.tensor import TensorSpec
from ..spec import Golden, Package, Ship, Stage
from ..templates import fill
from . import builders
from .common import figures, identifier, inline, task_of, write, write_data
from .cpp import preprocessing, quoted

MIN_SDK = 24
ENGINES = {
    "tflite": ("LiteRtEngine", '    implementation("com.google.ai.edge.litert:litert:1.0.1")', "litert 1.0.1"),
    "onnx": ("OnnxEngine", '    implementation("com.microsoft.onnxruntime:onnxruntime-android:1.20.0")', "onnxruntime-android 1.20.0"),
}
TYPES = {"float32": "FLOAT32", "int8": "INT8", "uint8": "UINT8"}
PROOF = (
    "all of its Kotlin was compiled, against stubs of Android's, LiteRT's and ONNX Runtime's public API; its preprocessing, doors and "
    "self-test ran on a Java machine with the golden outputs in the runtimes' place; it was not built by Gradle and ran on no phone"
)


class Android:
    """A TFLite file, an ONNX file, or both; each reads one image."""

    formats: tuple[str, ...] = ("tflite", "onnx")
    most: int | None = None

    def build(self, ship: Ship, artifacts: tuple[Artifact, ...], bundle: Path) -> Package:
        home, module = bundle / "android", f"{identifier(ship.name)}_model"
        package = f"packlight.models.{identifier(ship.name)}"
        for artifact in artifacts:
            if ship.preprocess is None or len(artifact.signature.inputs) != 1:
                raise InputError(f"'{artifact.file}' doesn't read one image; the Android package does nothing else")
        title = inline(f"{ship.name}, {task_of(ship) or 'a model'}")
        engines = list(dict.fromkeys(a.format for a in artifacts))
        values = {
            "package": package,
            "module": module,
            "title": title,
            "min_sdk": str(MIN_SDK),
            "dependencies": "\n".join(ENGINES[e][1] for e in engines),
            "tests": "\n\n".join(_test(a) for a in artifacts),
            "example": f"val model = {ENGINES[artifacts[0].format][0]}.open(context, ModelSpec.{constant(artifacts[0])})",
            "proof": PROOF,
            **spec_values(ship, artifacts),
        }
        write(home / "build.gradle.kts", fill("android/build.gradle.kts", values))
        write(home / "consumer-rules.pro", fill("android/consumer-rules.pro", values))
        write(home / "README.md", fill("android/README.md", values))
        write(home / "src/main/AndroidManifest.xml", fill("android/AndroidManifest.xml", values))
        source = home / "src/main/java" / package.replace(".", "/")
        for name in ("Goldens.kt", "Model.kt", "Pictures.kt", "Postprocess.kt", "Preprocess.kt", "Spec.kt"):
            where = source if name != "Goldens.kt" else home / "src/androidTest/java" / package.replace(".", "/")
            write(where / name, fill(f"android/{name}", values))
        for engine in engines:
            write(source / f"{ENGINES[engine][0]}.kt", fill(f"android/{ENGINES[engine][0]}.kt", values))
        write(home / "src/androidTest/java" / package.replace(".", "/") / "GoldenTest.kt", fill("android/GoldenTest.kt", values))
        for artifact in artifacts:
            folder = home / "src/main/assets" / module / identifier(artifact.file)
            write_data(ship, artifact, bundle, folder, tests=home / "src/androidTest/assets" / identifier(artifact.file))
        needs = (f"minSdk {MIN_SDK}, arm64-v8a or x86_64", *(ENGINES[e][2] for e in engines))
        return Package(platform="android", folder="android", artifacts=tuple(a.file for a in artifacts), needs=needs, proof=PROOF)


def spec_values(ship: Ship, artifacts: tuple[Artifact, ...]) -> dict[str, str]:
    """The blanks of Spec.kt and Goldens.kt."""
    assert ship.preprocess is not None
    post = ship.postprocess
    return {
        "name": quoted(ship.name),
        "task": quoted(ship.task or ""),
        "labels": ", ".join(quoted(label) for label in ship.labels),
        "kind": post.kind.upper(),
        "answer_output": str(post.output),
        "logits": str(post.scores == "logits").lower(),
        "alphabet": quoted(post.alphabet),
        "blank": str(post.blank),
        "low": repr(float(post.range[0])),
        "high": repr(float(post.range[1])),
        "files": "\n\n".join(_file(ship, a) for a in artifacts),
        "goldens": "\n".join(_golden(g, ship, artifacts) for g in ship.goldens if g.raw is not None),
        **preprocessing(ship.preprocess),
    }


def constant(artifact: Artifact) -> str:
    """The name of a file in the code: "INT8_TFLITE"."""
    return f"{artifact.precision}_{artifact.format}".upper()


def asset(ship: Ship, artifact: Artifact) -> str:
    """Where a file lies among the assets."""
    return f"{identifier(ship.name)}_model/{identifier(artifact.file)}/{artifact.file}"


def _file(ship: Ship, artifact: Artifact) -> str:
    outputs = ", ".join(_door(s) for s in artifact.signature.outputs)
    call = f"ModelFile({quoted(asset(ship, artifact))}, {_door(artifact.signature.inputs[0])}, listOf({outputs}))"
    return f"    val {constant(artifact)} = {call}"


def _door(spec: TensorSpec) -> str:
    d = figures(spec, TYPES, "the Android package")
    return f"Door({quoted(spec.name)}, Door.Type.{d.kind}, {str(d.nhwc).lower()}, {d.axis}, {d.rows}, {d.scale!r}f, {d.zero})"


def _golden(golden: Golden, ship: Ship, artifacts: tuple[Artifact, ...]) -> str:
    assert golden.raw is not None
    assert golden.pixels is not None
    runs = []
    for artifact in artifacts:
        run = next(r for r in golden.runs if r.artifact == artifact.file)
        outputs = ", ".join(_stage(o, artifact) for o in run.outputs)
        kind = ship.postprocess.kind if run.answer.decided else "none"
        label = quoted(run.answer.label) if kind == "labels" else "null"
        text = quoted(run.answer.text or "") if kind == "text" else "null"
        key = quoted(asset(ship, artifact))
        runs.append(f"                {key} to Run({_stage(run.doors[0], artifact)}, listOf({outputs}), {label}, {text}),")
    height, width, channels = golden.raw.shape
    place = identifier(artifacts[0].file)
    head = f"{quoted(golden.name)}, {quoted(f'{place}/{golden.raw.file}')}, {height}, {width}, {channels}, {golden.orientation}"
    pixels = f"Stage({quoted(f'{place}/{golden.pixels.file}')}, {golden.pixels.tolerance!r})"
    body = "\n".join(runs)
    return f"        Golden(\n            {head},\n            {pixels},\n            mapOf(\n{body}\n            ),\n        ),"


def _stage(stage: Stage, artifact: Artifact) -> str:
    return f"Stage({quoted(f'{identifier(artifact.file)}/{stage.file}')}, {stage.tolerance!r})"


def _test(artifact: Artifact) -> str:
    name = constant(artifact)
    if artifact.format == "onnx":
        engine = f"OnnxEngine(model(ModelSpec.{name}), ModelSpec.{name})"
    else:
        direct = "java.nio.ByteBuffer.allocateDirect(bytes.size).order(java.nio.ByteOrder.nativeOrder())"
        engine = f"LiteRtEngine({direct}.apply {{ put(bytes); rewind() }}, ModelSpec.{name})"
    lines = [
        "    @Test",
        f"    fun {name.lower()}ComesOutAsShipped() {{",
        *([f"        val bytes = model(ModelSpec.{name})"] if artifact.format == "tflite" else []),
        f"        {engine}.use {{ engine ->",
        f"            assertEquals(emptyList<String>(), Goldens.replay(engine, ModelSpec.{name}, ::golden))",
        "        }",
        "    }",
    ]
    return "\n".join(lines)


builders.register("android")(Android())
