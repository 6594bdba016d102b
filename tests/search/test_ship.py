"""Shipping and verifying end to end: what goes out replays, what was tampered with is named, what failed a gate stays in."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shipping
from PIL import Image

from packlight.cli.main import main
from packlight.core.artifact import Manifest
from packlight.core.errors import GateError, InputError, PacklightError
from packlight.core.files import sha256
from packlight.core.progress import Silent
from packlight.export.ship.archive import pack
from packlight.export.ship.spec import json_schema, read_ship
from packlight.export.ship.verify import Verified
from packlight.search.ship import ship
from packlight.search.verify import verify_bundle


@pytest.fixture(scope="module")
def folder(critters: Path) -> Path:
    return critters


@pytest.fixture(scope="module")
def bundle(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The int8 ONNX file and the int8 TFLite file with integer doors, for Linux and Android."""
    return shipping.make_bundle(folder, tmp_path_factory.mktemp("shipped") / "out", "linux", "android")


def replay(bundle: Path) -> Verified:
    return verify_bundle(bundle, device="local", progress=Silent())


def test_a_bundle_replays_as_folder_and_as_archive(bundle: Path) -> None:
    made = read_ship(bundle)
    assert {a.file for a in made.artifacts} == {"critters.int8.onnx", "critters.int8.tflite"}
    assert {g.kind for g in made.goldens} == {"as it is", "odd size", "grey", "alpha", "turned"}
    assert any(a.signature.inputs[0].quantization for a in made.artifacts)
    assert any(r.answer.decided for g in made.goldens for r in g.runs)
    for place in (bundle, bundle.with_name("out.zip")):
        result = replay(place)
        assert result.findings == ()
        assert result.skipped == ()
        assert result.goldens == 10
        assert result.stages == 10 * 3 + 10 * 2 * 2


def test_the_same_input_gives_the_same_archive(folder: Path, bundle: Path, tmp_path: Path) -> None:
    shipping.make_bundle(folder, tmp_path / "again", "linux", "android")
    assert sha256(tmp_path / "again.zip") == sha256(bundle.with_name("out.zip"))


def test_ship_json_fits_its_published_schema(bundle: Path) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    published = json.loads((Path(__file__).parents[2] / "docs" / "bundle.schema.json").read_text())
    assert published == json.loads(json.dumps(json_schema()))
    jsonschema.validate(json.loads((bundle / "ship.json").read_text()), published)


def test_the_card_says_what_a_person_needs(bundle: Path) -> None:
    card = (bundle / "MODEL_CARD.md").read_text()
    for words in ("Certified on 2,000 samples", "Apache-2.0", "ant, bee, cat", "resize 24x20", "scale ", "quantize", "golden/7", "proven"):
        assert words in card


# Faults. Each gets a copy of the bundle and ship.json as a tree; ``rehash`` makes every hash of the bundle right again, as someone who
# re-typed a value with the best intentions would.

Tree = dict[str, Any]
Fault = Callable[[Path, Tree], None]


def rehash(place: Path, tree: Tree) -> None:
    tree["files"] = {p.relative_to(place).as_posix(): sha256(p) for p in place.rglob("*") if p.is_file() and p.name != "ship.json"}
    for artifact in tree["artifacts"]:
        artifact["files"] = {name: sha256(place / "models" / name) for name in artifact["files"]}


def flip(path: Path, at: int = -40) -> None:
    raw = bytearray(path.read_bytes())
    raw[at] ^= 0x55
    path.write_bytes(raw)


def artifact(tree: Tree, suffix: str) -> Tree:
    return next(a for a in tree["artifacts"] if a["file"].endswith(suffix))


def a_byte_of_the_model(place: Path, tree: Tree) -> None:
    flip(place / "models" / "critters.int8.onnx")


def a_byte_of_the_model_hash_mended(place: Path, tree: Tree) -> None:
    flip(place / "models" / "critters.int8.tflite", 2000)
    tree["files"]["models/critters.int8.tflite"] = sha256(place / "models" / "critters.int8.tflite")


def another_model_all_hashes_mended(place: Path, tree: Tree) -> None:
    flip(place / "models" / "critters.int8.tflite", 2000)
    rehash(place, tree)


def a_byte_of_a_package(place: Path, tree: Tree) -> None:
    flip(place / "linux" / "python" / "critters_model" / "preprocess.py")


def mean(place: Path, tree: Tree) -> None:
    tree["preprocess"]["mean"][1] = 0.46


def std(place: Path, tree: Tree) -> None:
    tree["preprocess"]["std"][2] = 0.25


def no_mean(place: Path, tree: Tree) -> None:
    tree["preprocess"]["mean"] = []


def channel_order(place: Path, tree: Tree) -> None:
    tree["preprocess"]["colour"] = "BGR"


def size(place: Path, tree: Tree) -> None:
    tree["preprocess"]["size"] = [20, 24]


def nearest(place: Path, tree: Tree) -> None:
    tree["preprocess"]["resize"] = "nearest"


def crop(place: Path, tree: Tree) -> None:
    tree["preprocess"]["crop"] = [16, 16]


def layout(place: Path, tree: Tree) -> None:
    door = artifact(tree, ".onnx")["signature"]["inputs"][0]
    door["layout"], door["shape"] = "NHWC", [door["shape"][0], 24, 20, 3]


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
    (place / "labels.txt").write_text("bee\nant\ncat\ndog\neel\n")
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
    Image.new("RGB", (20, 24)).save(place / "golden" / "0" / "image.png")
    rehash(place, tree)


def golden_turn(place: Path, tree: Tree) -> None:
    golden = next(g for g in tree["goldens"] if g["kind"] == "turned")
    golden["orientation"] = 8


def a_stage_outside(place: Path, tree: Tree) -> None:
    tree["goldens"][0]["tensors"][0]["file"] = "../../../../etc/passwd"


def a_huge_stage(place: Path, tree: Tree) -> None:
    tree["goldens"][0]["tensors"][0]["shape"] = [1, 3, 1 << 20, 1 << 20]


def a_package_retyped(place: Path, tree: Tree) -> None:
    path = place / "linux" / "python" / "critters_model" / "data" / "spec.json"
    path.write_text(path.read_text().replace("0.485", "0.5"))
    rehash(place, tree)


FAULTS: list[tuple[Fault, str, str]] = [
    (a_byte_of_the_model, "files", "'models/critters.int8.onnx' is not the file that was shipped"),
    (a_byte_of_the_model_hash_mended, "files", "'models/critters.int8.tflite' is not the file that was exported and measured"),
    (another_model_all_hashes_mended, "report", "the report is stale: it measured another 'critters.int8.tflite'"),
    (a_byte_of_a_package, "files", "preprocess.py' is not the file that was shipped"),
    (mean, "preprocessing", "mean of channel 1: the specification says 0.46, the golden tensor was made with 0.456"),
    (std, "preprocessing", "std of channel 2: the specification says 0.25, the golden tensor was made with 0.225"),
    (no_mean, "preprocessing", "mean of channel 0: the specification says 0, the golden tensor was made with 0.485"),
    (channel_order, "preprocessing", "channel order: the golden pixels are in the reverse order of colour BGR"),
    (size, "preprocessing", "size, crop or colour: the specification makes [20, 24, 3], the golden pixels are [24, 20, 3]"),
    (nearest, "preprocessing", "resize, crop or colour: pixels differ by up to"),
    (crop, "preprocessing", "size, crop or colour: the specification makes [16, 16, 3]"),
    (layout, "doors", "critters.int8.onnx: door 'input_1', layout"),
    (door_scale, "doors", "critters.int8.tflite: door 'input_1', quantization: with scale"),
    (door_zero_point, "doors", "critters.int8.tflite: door 'input_1', quantization: with scale"),
    (door_type, "doors", "dtype: the signature says uint8, the golden door is int8"),
    (output_scale, "outputs", "critters.int8.tflite: output"),
    (labels_in_another_order, "labels", "labels in another order?"),
    (labels_file, "labels", "'labels.txt' and ship.json have different labels, or in another order"),
    (stale_report, "report", "the report is stale"),
    (a_missing_file, "files", "'golden/3/image.png' is missing"),
    (a_file_too_many, "files", "'models/extra.bin' is in the bundle but not in ship.json"),
    (a_link, "files", "'models/extra.bin' in"),
    (golden_image, "golden", "'image.png' and raw.bin hold different pixels"),
    (golden_turn, "golden", "is turned by EXIF"),
    (a_stage_outside, "golden", "leads outside its folder"),
    (a_huge_stage, "golden", "would hold float32 [1, 3, 1048576, 1048576]"),
    (a_package_retyped, "packages", "says something else than ship.json"),
]


@pytest.mark.parametrize(("fault", "place", "words"), FAULTS, ids=[f.__name__ for f, _, _ in FAULTS])
def test_a_planted_fault_is_found_and_named(fault: Fault, place: str, words: str, bundle: Path, tmp_path: Path) -> None:
    copy = tmp_path / "bundle"
    shutil.copytree(bundle, copy)
    tree = json.loads((copy / "ship.json").read_text())
    fault(copy, tree)
    (copy / "ship.json").write_text(json.dumps(tree))
    found = replay(copy).findings
    assert any(f.place == place and words in f.what for f in found), found


@pytest.mark.parametrize("kind", ["traversal", "bomb", "link"])
def test_a_hostile_archive_is_not_opened(kind: str, bundle: Path, tmp_path: Path) -> None:
    hostile = pack(bundle, tmp_path / "b.zip")
    with zipfile.ZipFile(hostile, "a", zipfile.ZIP_DEFLATED) as archive:
        if kind == "traversal":
            archive.writestr("../../escaped.txt", b"x")
        elif kind == "bomb":
            archive.writestr("models/zeros.bin", bytes(64 << 20))
        else:
            info = zipfile.ZipInfo("models/door")
            info.create_system, info.external_attr = 3, 0o120777 << 16
            archive.writestr(info, b"/etc/passwd")
    words = {"traversal": "leads outside", "bomb": "grows", "link": "is a link"}[kind]
    with pytest.raises(InputError, match=words):
        replay(hostile)
    assert not (tmp_path.parent / "escaped.txt").exists()


# Gates.


def refused(folder: Path, out: Path, **more: Any) -> str:
    with pytest.raises(GateError) as error:
        ship(shipping.order(folder, out, "linux", **more), Silent())
    assert not out.exists()
    return str(error.value)


@pytest.fixture
def copied(folder: Path, tmp_path: Path) -> Path:
    shutil.copytree(folder, tmp_path / "in")
    shutil.copy(folder.parent / f"{folder.name}-data.npz", tmp_path / "in-data.npz")
    return tmp_path / "in"


def test_what_failed_a_gate_stays_in(copied: Path, tmp_path: Path) -> None:
    out, artifacts = tmp_path / "out", list(Manifest.read(copied).artifacts)
    shipping.write_report(
        copied, artifacts, {**shipping.TRUST, "ok": False, "certified": False, "why": "class-drop: class 'cat', 4.00 points worse"}
    )
    assert "gate 'trust' does not let it out" in refused(copied, out)
    assert "gate 'certified'" in refused(copied, out, allow=("trust",))
    made, _ = ship(shipping.order(copied, out, "linux", allow=("trust", "certified")), Silent())
    assert [o.gate for o in made.overrides] == ["trust", "certified"]
    assert "class 'cat'" in made.overrides[0].why
    card = (out / "MODEL_CARD.md").read_text()
    assert "**Overridden by hand: trust**" in card
    assert "**Not certified**" in card


def test_an_uncertified_file_stays_in(copied: Path, tmp_path: Path) -> None:
    artifacts = list(Manifest.read(copied).artifacts)
    shipping.write_report(copied, artifacts, {**shipping.TRUST, "certified": False, "why": "not certified: 40 samples; 1,000 are needed"})
    assert "1,000 are needed" in refused(copied, tmp_path / "out")


def test_a_stale_report_and_none_at_all(copied: Path, tmp_path: Path) -> None:
    report = json.loads((copied / "report.json").read_text())
    for measurement in report["artifacts"]:
        measurement["sha256"] = "0" * 64
    (copied / "report.json").write_text(json.dumps(report))
    assert "the report is stale" in refused(copied, tmp_path / "out")
    (copied / "report.json").unlink()
    assert "has no report.json" in refused(copied, tmp_path / "out")


def test_a_changed_file_is_not_shipped(copied: Path, tmp_path: Path) -> None:
    flip(copied / "critters.int8.onnx")
    with pytest.raises(InputError, match="its sha256 differs"):
        ship(shipping.order(copied, tmp_path / "out", "linux"), Silent())


def test_unknown_names_are_told(copied: Path, tmp_path: Path) -> None:
    for order, words in (
        (shipping.order(copied, tmp_path / "out", "windows"), "unknown platform 'windows'"),
        (shipping.order(copied, tmp_path / "out", "linux", allow=("luck",)), "no gate is called 'luck'"),
        (shipping.order(copied, tmp_path / "out", "linux", files=("x.onnx",)), "'x.onnx' is not in the manifest"),
        (shipping.order(copied, tmp_path / "out", "linux", precision="fp16"), "nothing in .* is for linux"),
    ):
        with pytest.raises(PacklightError, match=words):
            ship(order, Silent())


def test_made_up_golden_images_where_there_are_no_data(copied: Path, tmp_path: Path) -> None:
    made, _ = ship(shipping.order(copied, tmp_path / "out", "linux", data=None), Silent())
    assert "golden inputs are made up: no --data was given" in made.notes
    assert replay(tmp_path / "out").ok


def test_the_commands(copied: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "bundle"
    sizes = ["--size", "24,20", "--mean", "0.485,0.456,0.406", "--std", "0.229,0.224,0.225"]
    for arguments, code in (
        (["ship", copied, "--to", "linux", "--out", out, "--data", copied.parent / "in-data.npz", *sizes], 0),
        (["verify", out], 0),
        (["verify", f"{out}.zip", "--json"], 0),
        (["ship", copied, "--to", "linux", "--out", out], 2),
        (["verify", tmp_path / "nothing"], 2),
    ):
        with pytest.raises(SystemExit) as ended:
            main([str(a) for a in arguments])
        assert ended.value.code == code, capsys.readouterr().err
    assert "'critters': 10 golden inputs" in capsys.readouterr().out
    flip(out / "labels.txt", 0)
    with pytest.raises(SystemExit) as ended:
        main(["verify", str(out), "--json"])
    said = capsys.readouterr()
    assert ended.value.code == 1
    assert any("labels.txt" in f["what"] for f in json.loads(said.out)["findings"])
    assert "is not as it was shipped" in said.err


def test_golden_answers_hold_labels(bundle: Path) -> None:
    made = read_ship(bundle)
    for golden in made.goldens:
        for run in golden.runs:
            output = np.fromfile(bundle / run.outputs[0].file, "<f4")
            assert run.answer.label == shipping.LABELS[int(output.argmax())]
