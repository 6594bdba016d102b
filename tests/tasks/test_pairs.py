"""Pairs of images, degradations and EXIF: what the model reads, against Pillow and numpy by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from packlight.core.errors import DataError
from packlight.core.preprocess import Preprocess
from packlight.tasks.data.folder import image_size, read_image
from packlight.tasks.data.load import load_data
from packlight.tasks.samples import alike, by_shape, gather_targets

RANDOM = np.random.default_rng(0)


def save(path: Path, height: int, width: int, grey: bool = False, **fields: object) -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = RANDOM.integers(0, 256, (height, width) if grey else (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, **fields)  # type: ignore[arg-type]
    return pixels


@pytest.mark.parametrize("turn", range(1, 9))
def test_the_exif_turn_is_undone_as_viewers_do(tmp_path: Path, turn: int) -> None:
    standing = RANDOM.integers(0, 256, (6, 9, 3), dtype=np.uint8)
    picture = Image.fromarray(standing)
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # EXIF's turn -> the Transpose that stores it so
    stored = picture.transpose(Image.Transpose(undo[turn])) if turn in undo else picture
    exif = Image.Exif()
    exif[0x0112] = turn
    stored.save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(read_image(tmp_path / "a.png"), standing)
    assert image_size(tmp_path / "a.png") == (6, 9)


def test_bicubic_pairs_are_cropped_and_downscaled_as_pillow_does(tmp_path: Path) -> None:
    pixels = save(tmp_path / "a.png", 27, 22)
    save(tmp_path / "b.png", 16, 12)
    save(tmp_path / "c.png", 24, 20)
    data = load_data(None, test=str(tmp_path), calib=str(tmp_path), degrade="bicubic:4").test
    assert data is not None
    (x,), y = data.batch([0])
    good = Image.fromarray(pixels).crop((0, 0, 20, 24))
    low = np.asarray(good.resize((5, 6), Image.Resampling.BICUBIC))
    assert np.array_equal(x[0], (low.astype(np.float32) / 255).transpose(2, 0, 1))
    assert np.array_equal(y[0], (np.asarray(good).astype(np.float32) / 255).transpose(2, 0, 1))  # type: ignore[index]
    assert np.array_equal(data.raw(0), low)
    assert [data.shape_of(i) for i in range(3)] == [(6, 5), (4, 3), (6, 5)]  # type: ignore[attr-defined]
    assert [list(r) for r in alike(data, range(3), 8)] == [[0], [1], [2]]
    assert by_shape(data) == [[0, 2], [1]]
    targets = gather_targets(data)
    assert targets is not None
    assert [t.shape for t in targets] == [(3, 24, 20), (3, 16, 12), (3, 24, 20)]
    with pytest.raises(DataError, match="set --crop to give all one size"):
        data.batch([0, 1])
    cropped = load_data(None, test=str(tmp_path), calib=str(tmp_path), degrade="bicubic:4", preprocess=Preprocess(crop=(4, 3))).test
    assert cropped is not None
    (x,), y = cropped.batch([0, 1, 2])
    assert (x.shape, y.shape) == ((3, 3, 4, 3), (3, 3, 16, 12))  # type: ignore[union-attr]


def test_noise_is_the_stream_that_papers_seed_and_is_not_clipped(tmp_path: Path) -> None:
    pixels = save(tmp_path / "a.png", 9, 7, grey=True)
    save(tmp_path / "b.png", 9, 7, grey=True)
    before = np.random.get_state()[1].copy()  # type: ignore[union-attr,index]
    data = load_data(None, test=str(tmp_path), calib=str(tmp_path), degrade="noise:25").test
    assert data is not None
    (x,), _ = data.batch([0, 1])
    assert np.array_equal(before, np.random.get_state()[1])  # type: ignore[index]
    noise = np.random.RandomState(0).normal(0, 25 / 255, (9, 7, 1))
    assert x[0, 0] == pytest.approx(pixels / 255 + noise[:, :, 0], abs=1e-6)
    assert x.min() < 0 or x.max() > 1
    assert data.raw(0).dtype == np.uint8  # type: ignore[union-attr]


def test_paired_folders_go_by_name(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save(tmp_path / "low" / f"{name}.png", 4, 5)
        save(tmp_path / "high" / f"{name}.png", 8, 10)
    data = load_data(None, test=str(tmp_path), calib=str(tmp_path)).test
    assert data is not None
    (x,), y = data.batch([1])
    assert np.array_equal(x[0], read_image(tmp_path / "low" / "b.png").astype(np.float32).transpose(2, 0, 1) / 255)
    assert np.array_equal(y[0], read_image(tmp_path / "high" / "b.png").astype(np.float32).transpose(2, 0, 1) / 255)  # type: ignore[index]
    with pytest.raises(DataError, match="pairs of images already"):
        load_data(str(tmp_path), degrade="noise:5")
    save(tmp_path / "low" / "c.png", 4, 5)
    with pytest.raises(DataError, match="has no image of the same name"):
        load_data(str(tmp_path))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("bicubic:1.5", "whole number of 2 or more"),
        ("salt:3", "known: bicubic, blur, noise"),
        ("noise", "has no number"),
        ("noise:-3", "positive number"),
    ],
)
def test_a_wrong_degradation_is_told(tmp_path: Path, text: str, words: str) -> None:
    save(tmp_path / "a.png", 9, 7)
    with pytest.raises(DataError, match=words):
        load_data(str(tmp_path), degrade=text)


def test_wrong_latents_are_told() -> None:
    for text in ("latents:", "latents:4xa", "latents:4,k=2", "latents:4,n=0"):
        with pytest.raises(DataError, match="latents"):
            load_data(text)
