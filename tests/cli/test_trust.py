"""``packlight trust`` end to end on saved models: finds a damaged row, names the figure, and refuses to certify on too little."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from packlight.cli.main import main
from packlight.core.bundle import Bundle
from packlight.core.errors import DataError
from packlight.search.groups import read_groups
from packlight.search.pictures import thumbnail
from packlight.tasks.data.load import load_data

CLASSES = 4


class Files(NamedTuple):
    before: Path
    same: Path
    hurt: Path
    data: Path


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """A linear model on 8 features, a copy with rounded weights, one with a damaged row; 2,400 labelled samples, a column ``light``."""
    place = tmp_path_factory.mktemp("trust")
    rng = np.random.default_rng(0)
    weight = rng.normal(0, 1, (CLASSES, 8)).astype(np.float32)
    x = rng.normal(0, 1, (2400, 8)).astype(np.float32)
    y = (x @ weight.T + rng.normal(0, 0.7, (2400, CLASSES))).argmax(1)
    np.savez(
        place / "d.npz", x_train=x[:40], y_train=y[:40], x_test=x, y_test=y, light_test=np.where(np.arange(2400) % 3 == 0, "dim", "full")
    )

    def save(name: str, matrix: np.ndarray) -> Path:
        model = nn.Linear(8, CLASSES, bias=False)
        model.weight.data = torch.from_numpy(matrix.astype(np.float32))
        labels = ("ant", "bee", "cat", "dog")
        return Bundle.capture(model, (torch.zeros(2, 8),), name=name, task="classification", labels=labels).save(place / name)

    hurt = weight.copy()
    hurt[2] *= 0.5
    return Files(save("before", weight), save("same", np.round(weight, 2)), save("hurt", hurt), place / "d.npz")


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main([str(a) for a in arguments])
    out = capsys.readouterr()
    return int(ended.value.code or 0), out.out, out.err


def test_a_rounded_copy_is_certified(files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "trust", files.before, files.same, "--data", files.data, "--group", "light")
    assert code == 0, err
    assert out.startswith("certified: 2,400 samples")
    assert "dim" in out


def test_a_damaged_row_fails_with_its_figure(files: Files, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept = tmp_path / "trust.json"
    code, out, err = run(capsys, "trust", files.before, files.hurt, "--data", files.data, "--json", "--out", kept)
    found = json.loads(out)
    assert code == 1
    assert "class 'cat'" in err
    assert not found["ok"]
    failed = {(c["name"], c["where"]) for c in found["checks"] if not c["ok"]}
    assert ("class-drop", "class 'cat'") in failed
    assert json.loads(kept.read_text()) == found
    assert found["worst"][0]["truth"] == "cat"


def test_limits_can_be_changed(files: Files, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    off = [f"--set={name}=100" for name in ("drop", "class-drop", "class-errors", "ece-rise")]
    assert run(capsys, "trust", files.before, files.hurt, "--data", files.data, *off)[0] == 0
    recipe = tmp_path / "r.toml"
    recipe.write_text("schema = 1\n[trust]\ndrop = 100\nclass-drop = 100\nclass-errors = 100\nece-rise = 100\nmin-samples = 5000\n")
    code, _, err = run(capsys, "trust", files.before, files.hurt, "--data", files.data, "--recipe", recipe)
    assert code == 1
    assert "not certified: 2,400 samples; 5,000 are needed" in err
    code, _, err = run(capsys, "trust", files.before, files.same, "--data", files.data, "--set", "clas-drop=1")
    assert code == 2
    assert "did you mean 'class-drop'" in err


def test_bad_input_is_told(files: Files, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(tmp_path / "bare.npz", x=np.zeros((10, 8), np.float32))
    for arguments, words in (
        ((files.before, tmp_path, "--data", files.data), "without bundle.json"),
        ((files.before, tmp_path / "no.onnx", "--data", files.data), "does not exist"),
        ((files.before, files.same, "--data", files.data, "--group", "colour"), "no column 'colour' with 2400 values; it has: light_test"),
        ((files.before, files.same, "--data", tmp_path / "bare.npz"), "no labels"),
        ((files.before, files.data, "--data", files.data), "no manifest.json beside it"),
    ):
        code, out, err = run(capsys, "trust", *arguments)
        assert code == 2, err
        assert words in err
        assert out == ""


def test_groups_of_a_folder_follow_the_files(tmp_path: Path) -> None:
    for name in ("a/1.png", "a/2.png", "b/3.png", "b/4.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    samples = load_data(str(tmp_path)).test
    assert samples is not None
    (tmp_path / "groups.csv").write_text("file,camera\nb/3.png,z\nb/4.png,w\na/2.png,y\na/1.png,x\n")
    expected = {"1.png": "x", "2.png": "y", "3.png": "z", "4.png": "w"}
    assert list(read_groups(str(tmp_path), "camera", samples)) == [expected[f.name] for f in samples.files]  # type: ignore[attr-defined]
    (tmp_path / "groups.csv").write_text("file,camera\nelsewhere.png,z\n")
    with pytest.raises(DataError, match=r"has no row for"):
        read_groups(str(tmp_path), "camera", samples)


@pytest.mark.parametrize(
    ("shape", "size"), [((32, 32, 3), (96, 96)), ((8, 8, 1), (96, 96)), ((300, 200, 3), (64, 96)), ((60, 40, 4), (40, 60))]
)
def test_thumbnails_are_small_and_crisp(shape: tuple[int, ...], size: tuple[int, int]) -> None:
    import base64
    import io

    png = thumbnail(np.random.default_rng(0).integers(0, 255, shape, np.uint8))
    assert Image.open(io.BytesIO(base64.b64decode(png))).size == size
    assert thumbnail(None) == ""
