"""Faults to plant in a shipped bundle, each with the place and the words that must name it.

A fault gets a copy of the bundle and ship.json as a tree. ``rehash`` makes every hash of the bundle right again, as someone who re-typed a
value with the best intentions would; ``planted`` does so for SHA256SUMS in any case, so that only the fault itself can be found.
In the words, {onnx} and {tflite} stand for the two files of the bundle. The bundle holds packages for Linux and Android at least, the
preprocessing normalises with ImageNet's mean and deviation, and the report certified the files on ``n`` samples.
"""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from packlight.core.files import sha256
from packlight.export.ship.archive import pack
from packlight.export.ship.write import write_sums

Tree = dict[str, Any]
Plant = Callable[[Path, Tree], None]


class Fault(NamedTuple):
    """``what`` is wrong; ``plant`` does it; the finding is at ``place`` and holds ``words``. ``integer``: it needs integer doors."""

    what: str
    plant: Plant
    place: str
    words: str
    integer: bool = False


def planted(fault: Fault, bundle: Path, copy: Path) -> Path:
    """A copy of the bundle with the fault in it."""
    shutil.copytree(bundle, copy)
    tree = json.loads((copy / "ship.json").read_text())
    fault.plant(copy, tree)
    (copy / "ship.json").write_text(json.dumps(tree))
    if fault.plant not in (sums, a_link, licence):
        write_sums(copy)
    return copy


def named(fault: Fault, bundle: Path) -> str:
    """The words that a finding must hold."""
    tree = json.loads((bundle / "ship.json").read_text())
    return fault.words.format(onnx=file_of(tree, ".onnx"), tflite=file_of(tree, ".tflite"))


def rehash(place: Path, tree: Tree) -> None:
    apart = {"ship.json", "SHA256SUMS"}
    tree["files"] = {p.relative_to(place).as_posix(): sha256(p) for p in place.rglob("*") if p.is_file() and p.name not in apart}
    for artifact in tree["artifacts"]:
        artifact["files"] = {name: sha256(place / "models" / name) for name in artifact["files"]}


def flip(path: Path, at: int = -40) -> None:
    raw = bytearray(path.read_bytes())
    raw[at] ^= 0x55
    path.write_bytes(raw)


def artifact(tree: Tree, suffix: str) -> Tree:
    return next(a for a in tree["artifacts"] if a["file"].endswith(suffix))


def file_of(tree: Tree, suffix: str) -> str:
    return next((str(a["file"]) for a in tree["artifacts"] if a["file"].endswith(suffix)), "-")


def retyped(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text, f"'{old}' is not in {path.name}"
    path.write_text(text.replace(old, new), encoding="utf-8")


def a_byte_of_the_model(place: Path, tree: Tree) -> None:
    flip(place / "models" / file_of(tree, ".onnx"))


def a_byte_of_the_model_hash_mended(place: Path, tree: Tree) -> None:
    name = file_of(tree, ".tflite")
    flip(place / "models" / name, 2000)
    tree["files"][f"models/{name}"] = sha256(place / "models" / name)


def another_model_all_hashes_mended(place: Path, tree: Tree) -> None:
    flip(place / "models" / file_of(tree, ".tflite"), 2000)
    rehash(place, tree)


def a_swapped_model(place: Path, tree: Tree) -> None:
    shutil.copyfile(place / "models" / file_of(tree, ".onnx"), place / "models" / file_of(tree, ".tflite"))


def a_byte_of_a_package(place: Path, tree: Tree) -> None:
    (path,) = (place / "linux" / "python").glob("*/preprocess.py")
    flip(path)


def mean(place: Path, tree: Tree) -> None:
    tree["preprocess"]["mean"][1] = 0.46


def std(place: Path, tree: Tree) -> None:
    tree["preprocess"]["std"][2] = 0.25


def no_mean(place: Path, tree: Tree) -> None:
    tree["preprocess"]["mean"] = []


def channel_order(place: Path, tree: Tree) -> None:
    tree["preprocess"]["colour"] = "BGR"


def size(place: Path, tree: Tree) -> None:
    height, width = tree["preprocess"]["size"]
    tree["preprocess"]["size"] = [width - 1, height + 1]


def nearest(place: Path, tree: Tree) -> None:
    tree["preprocess"]["resize"] = "nearest"


def crop(place: Path, tree: Tree) -> None:
    tree["preprocess"]["crop"] = [16, 16]


def layout(place: Path, tree: Tree) -> None:
    door = artifact(tree, ".onnx")["signature"]["inputs"][0]
    n, c, h, w = door["shape"]
    door["layout"], door["shape"] = "NHWC", [n, h, w, c]


def door_scale(place: Path, tree: Tree) -> None:
    artifact(tree, ".tflite")["signature"]["inputs"][0]["quantization"]["scale"] *= 1.05


def door_zero_point(place: Path, tree: Tree) -> None:
    artifact(tree, ".tflite")["signature"]["inputs"][0]["quantization"]["zero_point"] += 1


def door_type(place: Path, tree: Tree) -> None:
    artifact(tree, ".tflite")["signature"]["inputs"][0]["dtype"] = "uint8"


def output_scale(place: Path, tree: Tree) -> None:
    artifact(tree, ".tflite")["signature"]["outputs"][0]["quantization"]["scale"] *= 2


def labels_in_another_order(place: Path, tree: Tree) -> None:
    tree["labels"] = [*reversed(tree["labels"])]
    (place / "labels.txt").write_text("".join(f"{label}\n" for label in tree["labels"]))
    rehash(place, tree)


def labels_file(place: Path, tree: Tree) -> None:
    first, second, *rest = (place / "labels.txt").read_text().splitlines()
    (place / "labels.txt").write_text("".join(f"{label}\n" for label in (second, first, *rest)))
    rehash(place, tree)


def stale_report(place: Path, tree: Tree) -> None:
    report = json.loads((place / "report.json").read_text())
    for measurement in report["artifacts"]:
        measurement["sha256"] = "0" * 64
    (place / "report.json").write_text(json.dumps(report))
    rehash(place, tree)


def a_missing_file(place: Path, tree: Tree) -> None:
    (place / "golden" / "3" / "image.png").unlink()


def a_file_too_many(place: Path, tree: Tree) -> None:
    (place / "models" / "extra.bin").write_bytes(b"x")


def a_link(place: Path, tree: Tree) -> None:
    (place / "models" / "extra.bin").symlink_to("/etc/hostname")


def golden_image(place: Path, tree: Tree) -> None:
    from PIL import Image

    path = place / "golden" / "0" / "image.png"
    with Image.open(path) as picture:
        Image.new(picture.mode, picture.size).save(path)
    rehash(place, tree)


def golden_output(place: Path, tree: Tree) -> None:
    import numpy as np

    path = place / tree["goldens"][0]["runs"][0]["outputs"][0]["file"]
    values = np.fromfile(path, "<f4")
    (values[::-1] + np.float32(1)).tofile(path)
    rehash(place, tree)


def golden_turn(place: Path, tree: Tree) -> None:
    golden = next(g for g in tree["goldens"] if g["kind"] == "turned")
    golden["orientation"] = 8


def a_stage_outside(place: Path, tree: Tree) -> None:
    tree["goldens"][0]["tensors"][0]["file"] = "../../../../etc/passwd"


def a_huge_stage(place: Path, tree: Tree) -> None:
    tree["goldens"][0]["tensors"][0]["shape"] = [1, 3, 1 << 20, 1 << 20]


def a_package_retyped(place: Path, tree: Tree) -> None:
    (path,) = (place / "linux" / "python").glob("*/data/spec.json")
    retyped(path, "0.485", "0.5")
    rehash(place, tree)


def kotlin_retyped(place: Path, tree: Tree) -> None:
    (path,) = (place / "android").rglob("Spec.kt")
    retyped(path, "0.485f", "0.5f")
    rehash(place, tree)


def kotlin_code(place: Path, tree: Tree) -> None:
    (path,) = (place / "android").rglob("Preprocess.kt")
    retyped(path, "/ 255f", "/ 256f")
    rehash(place, tree)


def cpp_retyped(place: Path, tree: Tree) -> None:
    retyped(place / "linux" / "cpp" / "spec.hpp", "Colour::RGB", "Colour::BGR")
    rehash(place, tree)


def tolerance(place: Path, tree: Tree) -> None:
    tree["goldens"][2]["runs"][0]["outputs"][0]["tolerance"] *= 50


def pixel_tolerance(place: Path, tree: Tree) -> None:
    tree["goldens"][1]["pixels"]["tolerance"] = 90


def precision(place: Path, tree: Tree) -> None:
    artifact(tree, ".tflite")["precision"] = "fp32"


def precision_and_name(place: Path, tree: Tree) -> None:
    name = file_of(tree, ".tflite")
    other = name.replace("int8", "fp32")
    (place / "models" / name).rename(place / "models" / other)
    text = json.dumps(tree).replace(name, other)
    tree.clear()
    tree.update(json.loads(text))
    artifact(tree, ".tflite")["precision"] = "fp32"
    rehash(place, tree)


def gate_held(place: Path, tree: Tree) -> None:
    report = json.loads((place / "report.json").read_text())
    for measurement in report["artifacts"]:
        measurement["trust"] = {
            **(measurement["trust"] or {}),
            "ok": False,
            "certified": False,
            "why": "class-drop: one class, 4 points worse",
        }
    (place / "report.json").write_text(json.dumps(report))
    rehash(place, tree)


def samples(place: Path, tree: Tree) -> None:
    tree["trust"]["n"] = 1_000_000


def licence(place: Path, tree: Tree) -> None:
    tree["licence"]["spdx"] = "MIT"


def sums(place: Path, tree: Tree) -> None:
    (place / "SHA256SUMS").write_text("")


FAULTS = [
    Fault("a byte of the ONNX file", a_byte_of_the_model, "files", "'models/{onnx}' is not the file that was shipped"),
    Fault(
        "a byte of the TFLite file, its hash mended",
        a_byte_of_the_model_hash_mended,
        "files",
        "'models/{tflite}' is not the file that was exported and measured",
    ),
    Fault(
        "a byte of the TFLite file, every hash mended",
        another_model_all_hashes_mended,
        "report",
        "the report is stale: it measured another '{tflite}'",
    ),
    Fault("one model in the place of the other", a_swapped_model, "files", "'models/{tflite}' is not the file that was shipped"),
    Fault("a byte of a package's code", a_byte_of_a_package, "files", "preprocess.py' is not the file that was shipped"),
    Fault(
        "mean 0.456 -> 0.46",
        mean,
        "preprocessing",
        "mean of channel 1: the specification says 0.46, the golden tensor was made with 0.456",
    ),
    Fault(
        "std 0.225 -> 0.25", std, "preprocessing", "std of channel 2: the specification says 0.25, the golden tensor was made with 0.225"
    ),
    Fault("mean forgotten", no_mean, "preprocessing", "mean of channel 0: the specification says 0, the golden tensor was made with 0.485"),
    Fault("RGB -> BGR", channel_order, "preprocessing", "channel order: the golden pixels are in the reverse order of colour BGR"),
    Fault("another size", size, "preprocessing", "size, crop or colour: the specification makes"),
    Fault("bilinear -> nearest", nearest, "preprocessing", "resize, crop or colour: pixels differ by up to"),
    Fault("a crop that was not there", crop, "preprocessing", "size, crop or colour: the specification makes [16, 16, 3]"),
    Fault("NCHW -> NHWC", layout, "doors", "{onnx}: door"),
    Fault("scale of an integer door, 5 % off", door_scale, "doors", "quantization: with scale", integer=True),
    Fault("zero point of an integer door, one off", door_zero_point, "doors", "quantization: with scale", integer=True),
    Fault("int8 door -> uint8", door_type, "doors", "dtype: the signature says uint8, the golden door is int8", integer=True),
    Fault("scale of an integer output, twice as large", output_scale, "outputs", "{tflite}: output", integer=True),
    Fault("labels in reverse order, everywhere", labels_in_another_order, "labels", "labels in another order?"),
    Fault("labels.txt: two labels swapped", labels_file, "labels", "'labels.txt' and ship.json have different labels, or in another order"),
    Fault("a report about other files", stale_report, "report", "the report is stale"),
    Fault("a file is missing", a_missing_file, "files", "'golden/3/image.png' is missing"),
    Fault("a file too many", a_file_too_many, "files", "'models/extra.bin' is in the bundle but not in ship.json"),
    Fault("a symbolic link", a_link, "files", "'models/extra.bin' in"),
    Fault("another golden image", golden_image, "golden", "'image.png' and raw.bin hold different pixels"),
    Fault("another golden output", golden_output, "outputs", "is tolerated"),
    Fault("another EXIF turn", golden_turn, "golden", "is turned by EXIF"),
    Fault("a golden file outside the bundle", a_stage_outside, "golden", "leads outside its folder"),
    Fault("a golden array of 13 TB", a_huge_stage, "golden", "would hold float32 [1, 3, 1048576, 1048576]"),
    Fault("a mean re-typed in the Python package", a_package_retyped, "packages", "spec.json' says something else than ship.json"),
    Fault("a mean re-typed in Spec.kt", kotlin_retyped, "packages", "Spec.kt' says something else than ship.json"),
    Fault("255 -> 256 in Preprocess.kt", kotlin_code, "packages", "Preprocess.kt' says something else than ship.json"),
    Fault("RGB -> BGR in spec.hpp", cpp_retyped, "packages", "spec.hpp' says something else than ship.json"),
    Fault("an output's tolerance, 50 times as wide", tolerance, "golden", "golden/2: the tolerance of 'golden/2/"),
    Fault(
        "a pixel tolerance of 90 grey levels",
        pixel_tolerance,
        "golden",
        "golden/1: the tolerance of 'golden/1/pixels.bin' is 90; 1 is what the golden values allow",
    ),
    Fault("int8 file said to be fp32", precision, "precision", "'{tflite}' is said to be fp32; its name says int8"),
    Fault(
        "int8 file said and named to be fp32, every hash mended",
        precision_and_name,
        "precision",
        "is said to be fp32; the numbers in it are int8",
    ),
    Fault(
        "the report says that a gate failed, ship.json that it held",
        gate_held,
        "gates",
        "gate 'trust': ship.json says that it held; the report says: ",
    ),
    Fault("certified on more samples than there were", samples, "gates", "ship.json says 1,000,000 samples, the report "),
    Fault("another licence in ship.json", licence, "files", "'ship.json' is not the file that was shipped"),
    Fault("SHA256SUMS emptied", sums, "files", "'SHA256SUMS' doesn't list the files that are there"),
]

HOSTILE = {
    "an entry that leaves the folder": "leads outside",
    "a bomb": "grows",
    "a link in the archive": "is a link",
    "an archive cut short": "not a zip that can be opened",
    "two names for one file": "one file on some systems",
}
"""Archives that must not be opened, and the words that say why."""


def hostile(kind: str, bundle: Path, out: Path) -> Path:
    """The bundle's archive with something in it, or missing from it, that keeps it from being opened."""
    pack(bundle, out)
    if kind == "an archive cut short":
        out.write_bytes(out.read_bytes()[:-400])
        return out
    with zipfile.ZipFile(out, "a", zipfile.ZIP_DEFLATED) as archive:
        if kind == "an entry that leaves the folder":
            archive.writestr("../../escaped.txt", b"x")
        elif kind == "a bomb":
            archive.writestr("models/zeros.bin", bytes(64 << 20))
        elif kind == "two names for one file":
            archive.writestr("Ship.json", b"{}")
        else:
            info = zipfile.ZipInfo("models/door")
            info.create_system, info.external_attr = 3, 0o120777 << 16
            archive.writestr(info, b"/etc/passwd")
    return out
