"""Shipping and verifying end to end: what goes out replays, what was tampered with is named, what failed a gate stays in."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shipping
from planting import FAULTS, HOSTILE, Fault, Plant, a_byte_of_the_model, channel_order, flip, hostile, mean, named, planted

from packlight.cli.main import main
from packlight.core.artifact import Manifest
from packlight.core.errors import GateError, InputError, PacklightError, TargetError
from packlight.core.files import sha256
from packlight.core.progress import Silent
from packlight.export.ship.spec import json_schema, read_ship
from packlight.export.ship.verify import Verified
from packlight.search.ship import ship
from packlight.search.verify import There, verify_bundle, verify_over
from packlight.targets.link.fake import Fake, Faults
from packlight.targets.link.local import Local


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


@pytest.mark.parametrize("fault", FAULTS, ids=[f.plant.__name__ for f in FAULTS])
def test_a_planted_fault_is_found_and_named(fault: Fault, bundle: Path, tmp_path: Path) -> None:
    found = replay(planted(fault, bundle, tmp_path / "bundle")).findings
    assert any(f.place == fault.place and named(fault, bundle) in f.what for f in found), found


@pytest.mark.parametrize(("kind", "words"), HOSTILE.items())
def test_a_hostile_archive_is_not_opened(kind: str, words: str, bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=words):
        replay(hostile(kind, bundle, tmp_path / "b.zip"))
    assert not (tmp_path.parent / "escaped.txt").exists()


# On a device.


def there(bundle: Path, link: Any) -> Verified:
    with link:
        return verify_over(bundle, link, Silent())


@pytest.fixture(scope="module")
def on_device(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One file, so that little is run."""
    return shipping.make_bundle(folder, tmp_path_factory.mktemp("device") / "out", "linux", data=None)


def test_a_bundle_replays_on_a_device(on_device: Path) -> None:
    result = there(on_device, Local())
    assert result.findings == ()
    assert result.skipped == ()
    assert result.stages == replay(on_device).stages


@pytest.mark.parametrize("plant", [a_byte_of_the_model, mean, channel_order])
def test_a_planted_fault_is_named_on_a_device(plant: Plant, on_device: Path, tmp_path: Path) -> None:
    fault = next(f for f in FAULTS if f.plant is plant)
    found = there(planted(fault, on_device, tmp_path / "bundle"), Local()).findings
    assert any(f.place == fault.place and named(fault, on_device) in f.what for f in found), found


def test_a_device_that_computes_otherwise_is_named(on_device: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is the shipped one and the numbers are not: only a replay there can find that."""
    run = There._run
    monkeypatch.setattr(There, "_run", lambda self, *asked: [o + 3 for o in run(self, *asked)])
    found = there(on_device, Local()).findings
    assert {f.place for f in found} == {"outputs"}
    assert all("is tolerated" in f.what for f in found)


def test_a_link_that_breaks_is_no_pass(on_device: Path) -> None:
    with pytest.raises(TargetError, match="broke"):
        there(on_device, Fake(faults=Faults(break_after=1)))


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


def test_what_failed_parity_stays_in(copied: Path, tmp_path: Path) -> None:
    """A float file that is 20 dB from its model: by the folder's own manifest it was not proven equal."""
    manifest = json.loads((copied / "manifest.json").read_text())
    float_file = next(a for a in manifest["artifacts"] if a["file"] == "critters.fp32.tflite")
    float_file["parity"][0].update(sqnr_db=20.0, max_abs=0.5)
    (copied / "manifest.json").write_text(json.dumps(manifest))
    asked = {"files": ("critters.fp32.tflite",)}
    assert "gate 'parity' does not let it out: 'critters.fp32.tflite'" in refused(copied, tmp_path / "out", **asked)
    made, _ = ship(shipping.order(copied, tmp_path / "out", "linux", allow=("parity",), **asked), Silent())
    assert [o.gate for o in made.overrides] == ["parity"]
    assert "**failed, overridden**" in (tmp_path / "out" / "MODEL_CARD.md").read_text()
    assert replay(tmp_path / "out").ok
    float_file["parity"] = []
    (copied / "manifest.json").write_text(json.dumps(manifest))
    assert "was never compared with its model" in refused(copied, tmp_path / "other", **asked)


def test_the_target_decides_what_goes(copied: Path, tmp_path: Path) -> None:
    def files(name: str, **more: object) -> dict[str, tuple[str, ...]]:
        made, _ = ship(shipping.order(copied, tmp_path / name, "linux", "android", data=None, **more), Silent())
        return {p.platform: p.artifacts for p in made.packages}

    onnx, tflite = "critters.int8.onnx", "critters.int8.tflite"
    assert files("avx2") == {"linux": (onnx,), "android": (onnx, tflite)}
    assert files("pi", target="raspberry-pi-5") == {"linux": (tflite,), "android": (tflite, onnx)}
    profile = tmp_path / "floats.toml"
    profile.write_text(
        'schema = 1\nname = "floats"\ntitle = "a board for floats"\nlinks = ["ssh"]\nnotes = []\n'
        '[device]\nmachine = "aarch64"\ncpu = "any"\nisa = []\ncores = 1\nram_bytes = 1\n'
        '[quantization]\nweight_max = 127\nper_channel = true\nreason = "none"\n'
        '[[runtimes]]\nname = "litert"\nformat = "tflite"\nprovider = "xnnpack"\nprecisions = ["fp32"]\ncaveats = []\n'
    )
    assert files("floats", target=str(profile)) == {"linux": ("critters.fp32.tflite",), "android": ("critters.fp32.tflite",)}
    with pytest.raises(InputError, match="nothing in .* is for linux, which runs tflite on target 'floats'"):
        files("none", target=str(profile), precision="int8")


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
