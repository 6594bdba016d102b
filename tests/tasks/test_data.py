"""Data in: every form of DATA, the splits made of it, and each wrong input told in one line."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from packlight.core.errors import DataError
from packlight.core.preprocess import Preprocess, preprocess
from packlight.tasks.data.cifar import read_plain_pickle
from packlight.tasks.data.load import load_data, splits_of
from packlight.tasks.data.split import stratified_order
from packlight.tasks.samples import Splits, gather_targets

RANDOM = np.random.default_rng(0)


def images(count: int, *shape: int) -> np.ndarray:
    return RANDOM.integers(0, 256, (count, *shape), dtype=np.uint8)


def image_folder(folder: Path, sizes: dict[str, int], side: int = 6) -> Path:
    for name, count in sizes.items():
        (folder / name).mkdir(parents=True)
        for i in range(count):
            Image.fromarray(images(side, side, 3)).save(folder / name / f"{i:02}.png")
    return folder


def sizes(splits: Splits) -> dict[str, int | None]:
    return {name: None if part is None else len(part) for name in ("train", "val", "calib", "test") for part in [getattr(splits, name)]}


def test_an_image_folder_is_split_class_by_class(tmp_path: Path) -> None:
    splits = load_data(str(image_folder(tmp_path, {"cat": 20, "ape": 10})), seed=3)
    assert sizes(splits) == {"train": 21, "val": 3, "calib": 21, "test": 6}
    assert splits.test is not None
    assert splits.test.classes == ("ape", "cat")
    assert np.bincount(gather_targets(splits.test)).tolist() == [2, 4]
    assert "seed 3" in splits.notes[0]
    files = [set(getattr(splits, name).files) for name in ("train", "val", "test")]
    assert len(set.union(*files)) == 30
    assert set(splits.calib.files) <= files[0]  # type: ignore[union-attr]
    again = load_data(str(tmp_path), seed=3)
    assert again.test.files == splits.test.files  # type: ignore[union-attr]
    assert load_data(str(tmp_path), seed=4).test.files != splits.test.files  # type: ignore[union-attr]


def test_folders_of_splits_and_what_they_give(tmp_path: Path) -> None:
    for name, count in (("train", 12), ("val", 4), ("test", 5)):
        image_folder(tmp_path / name, {"a": count, "b": count})
    spec = Preprocess(size=(4, 5), mean=(0.4, 0.5, 0.6), std=(0.2, 0.2, 0.3))
    splits = load_data(str(tmp_path), preprocess=spec)
    assert sizes(splits) == {"train": 24, "val": 8, "calib": 24, "test": 10}
    assert splits.train is not None
    (x,), y = splits.train.batch([0, 13])
    raw = splits.train.raw(13)
    assert raw is not None
    assert x.shape == (2, 3, 4, 5)
    assert np.array_equal(x[1], preprocess(raw, spec))
    assert y is not None
    assert y.tolist() == [0, 1]


def test_train_and_val_without_test_reports_on_val(tmp_path: Path) -> None:
    image_folder(tmp_path / "train", {"a": 10, "b": 10})
    image_folder(tmp_path / "validation", {"a": 3, "b": 3})
    splits = load_data(str(tmp_path))
    assert sizes(splits) == {"train": 18, "val": 2, "calib": 18, "test": 6}
    assert "reported on" in splits.notes[0]


def test_only_test_data_gives_up_some_for_calibration(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x_test=images(100, 4, 4, 3), y_test=np.arange(100) % 4)
    splits = load_data(str(tmp_path / "d.npz"))
    assert sizes(splits) == {"train": None, "val": None, "calib": 10, "test": 90}
    assert not set(splits.calib.rows) & set(splits.test.rows)  # type: ignore[union-attr]


def test_npz_of_grey_images_and_its_override(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=images(50, 7, 7), y=np.arange(50) % 5)
    np.savez(tmp_path / "c.npz", x=images(9, 7, 7))
    splits = load_data(str(tmp_path / "d.npz"), calib=str(tmp_path / "c.npz"), val=str(tmp_path / "d.npz"))
    assert sizes(splits) == {"train": 40, "val": 50, "calib": 9, "test": 10}
    assert splits.preprocess == Preprocess(colour="GREY")
    assert splits.calib is not None
    (x,), y = splits.calib.batch(range(2))
    assert x.shape == (2, 1, 7, 7)
    assert y is None
    assert splits.test.classes == tuple("01234")  # type: ignore[union-attr]


def test_train_and_test_npz_in_a_folder(tmp_path: Path) -> None:
    for name, count in (("train", 30), ("test", 8)):
        np.savez(tmp_path / f"{name}.npz", x=RANDOM.normal(size=(count, 2, 3, 3)), y=np.arange(count) % 2)
    splits = load_data(str(tmp_path))
    assert sizes(splits) == {"train": 27, "val": 3, "calib": 27, "test": 8}
    assert splits.preprocess is None
    assert splits.test is not None
    assert splits.test.batch([1])[0][0].dtype == np.float32
    assert splits.test.raw(0) is None


@pytest.mark.parametrize("binary", [False, True])
def test_cifar_batches(tmp_path: Path, binary: bool) -> None:
    planes = RANDOM.integers(0, 256, (60, 3072), dtype=np.uint8)
    labels = np.arange(60, dtype=np.uint8) % 10
    names = [f"class{i}" for i in range(10)]
    for i, name in enumerate([*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"]):
        rows = slice(10 * i, 10 * i + 10)
        if binary:
            np.concatenate([labels[rows, None], planes[rows]], 1).tofile(tmp_path / f"{name}.bin")
        else:
            (tmp_path / name).write_bytes(pickle.dumps({"data": planes[rows], "labels": labels[rows].tolist()}, protocol=2))
    if binary:
        (tmp_path / "batches.meta.txt").write_text("\n".join(names))
    else:
        (tmp_path / "batches.meta").write_bytes(pickle.dumps({"label_names": names}, protocol=2))
    splits = load_data(str(tmp_path))
    assert sizes(splits) == {"train": 45, "val": 5, "calib": 45, "test": 10}
    assert splits.test is not None
    assert splits.test.classes == tuple(names)
    assert np.array_equal(splits.test.raw(3), planes[53].reshape(3, 32, 32).transpose(1, 2, 0))
    assert gather_targets(splits.test).tolist() == labels[50:].tolist()  # type: ignore[union-attr]


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (eval, ("__import__('pathlib').Path('pwned').write_text('')",))


def test_a_pickle_with_code_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data_batch_1").write_bytes(pickle.dumps({"data": Evil(), "labels": []}))
    with pytest.raises(DataError, match=r"can't be read safely: it holds 'builtins\.eval', which is code"):
        read_plain_pickle(tmp_path / "data_batch_1")
    assert not (tmp_path / "pwned").exists()


FACTORIES = """
import numpy as np
import torch
x, y = np.random.default_rng(0).integers(0, 256, (40, 5, 5, 3), dtype=np.uint8), np.arange(40) % 4
def arrays(): return x, y
def named(): return {"train": (x, y), "test": (x[:8], y[:8]), "classes": ("a", "b", "c", "d")}
def split(name):
    if name == "val": raise FileNotFoundError("no val")
    return (x, y) if name == "train" else (x[:8], y[:8])
def pairs():
    for image, label in zip(x, y): yield image, label
def loader():
    data = torch.utils.data.TensorDataset(torch.zeros(40, 3, 5, 5), torch.from_numpy(y))
    return torch.utils.data.DataLoader(data, batch_size=16)
class Indexed:
    def __len__(self): return 40
    def __getitem__(self, i): return x[i], int(y[i])
def scaled(factor=1): return np.full((40, 3, 5, 5), factor, np.float32), y
def unlabelled(): return x
def fails(): raise RuntimeError("no disk")
def nothing(): return iter(())
def three(): return 3
def odd(): return {"trian": (x, y)}
"""


@pytest.fixture
def factories(tmp_path: Path) -> Path:
    (tmp_path / "d.py").write_text(FACTORIES)
    return tmp_path / "d.py"


@pytest.mark.parametrize(
    ("name", "train", "test"),
    [("arrays", 28, 8), ("named", 36, 8), ("split", 36, 8), ("pairs", 28, 8), ("loader", 28, 8), ("Indexed", 28, 8), ("unlabelled", 28, 8)],
)
def test_factories(factories: Path, name: str, train: int, test: int) -> None:
    splits = load_data(f"{factories}:{name}")
    assert splits.train is not None
    assert splits.test is not None
    assert (len(splits.train), len(splits.test)) == (train, test)
    (x,), y = splits.train.batch([0, 5])
    assert x.shape == (2, 3, 5, 5)
    assert x.dtype == np.float32
    assert (y is None) == (name == "unlabelled")


def test_the_ways_of_giving_the_same_data_agree(factories: Path) -> None:
    first = load_data(f"{factories}:arrays").train.batch(range(28))  # type: ignore[union-attr]
    for name in ("pairs", "Indexed"):
        other = load_data(f"{factories}:{name}").train.batch(range(28))  # type: ignore[union-attr]
        assert np.array_equal(first[0][0], other[0][0])
        assert np.array_equal(first[1], other[1])  # type: ignore[arg-type]


def test_factory_arguments(factories: Path) -> None:
    splits = load_data(f"{factories}:scaled", data_args={"factor": 3})
    assert splits.train.batch([0])[0][0].max() == 3  # type: ignore[union-attr]


def npz(**arrays: np.ndarray) -> dict[str, np.ndarray]:
    return arrays


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        (npz(a=np.zeros(3)), "holds a; expected x and y"),
        (npz(x=images(4, 2, 2), y=np.zeros(3, int)), "x has 4 samples but y has 3"),
        (npz(x=images(4, 2, 2), y=np.array([0, 1, -1, 2])), "label -1 of sample 2 is negative"),
        (npz(x=images(4, 2, 2), y=np.array([0, 1, 2, 1]), classes=np.array(["a", "b"])), "label 2 of sample 2 is out of range"),
        (npz(x=images(4, 2, 2, 5), y=np.zeros(4, int)), r"must be \(N, H, W\)"),
        (npz(x=np.zeros((4, 2, 2), np.int64), y=np.zeros(4, int)), "x is int64; give uint8"),
        (npz(x=np.zeros((4, 9, 9, 3), np.float32), y=np.zeros(4, int)), "looks like NHWC"),
        (npz(x=np.array([[1.0], [np.nan]]), y=np.zeros(2, int)), "NaN or infinity in sample 1"),
        (npz(x=images(0, 2, 2), y=np.zeros(0, int)), "holds no samples"),
        (npz(x=images(2, 2, 2), y=np.zeros(2, int)), "too few to split"),
        (npz(x=np.array([{}], dtype=object)), "pickled objects, which can run code"),
    ],
)
def test_wrong_arrays_in_one_line(tmp_path: Path, arrays: dict[str, np.ndarray], words: str) -> None:
    np.savez(tmp_path / "d.npz", **arrays)
    with pytest.raises(DataError, match=words) as caught:
        load_data(str(tmp_path / "d.npz"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("fails", r"RuntimeError: no disk \(at d\.py:20\)"),
        ("nothing", "yielded nothing"),
        ("three", "gave a int; expected"),
        ("odd", "the key 'trian'; known: train, val"),
        ("nte", "has no 'nte'; it has: arrays"),
    ],
)
def test_wrong_factories_in_one_line(factories: Path, name: str, words: str) -> None:
    with pytest.raises(DataError, match=words):
        load_data(f"{factories}:{name}")


def test_wrong_folders_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no images"):
        load_data(str(tmp_path / "empty"))
    image_folder(tmp_path / "hole", {"a": 4})
    (tmp_path / "hole" / "b").mkdir()
    with pytest.raises(DataError, match=r"class folder '.*b' holds no images"):
        load_data(str(tmp_path / "hole"))
    image_folder(tmp_path / "strange" / "train", {"a": 8, "b": 8})
    image_folder(tmp_path / "strange" / "test", {"a": 8, "z": 8})
    with pytest.raises(DataError, match=r"'.*z' is none of the training classes: a, b"):
        load_data(str(tmp_path / "strange"))
    with pytest.raises(DataError, match="does not exist; data is"):
        load_data(str(tmp_path / "none"))


def test_a_corrupt_image_is_named(tmp_path: Path) -> None:
    folder = image_folder(tmp_path, {"a": 12, "b": 12})
    whole = (folder / "b" / "07.png").read_bytes()
    (folder / "b" / "07.png").write_bytes(whole[: len(whole) // 2])
    splits = load_data(str(folder))
    with pytest.raises(DataError, match=r"image '.*b/07\.png' can't be decoded"):
        for part in (splits.train, splits.val, splits.test):
            assert part is not None
            part.batch(range(len(part)))


def test_images_of_different_sizes_need_a_size(tmp_path: Path) -> None:
    folder = image_folder(tmp_path, {"a": 12, "b": 12})
    Image.fromarray(images(9, 9, 3)).save(folder / "a" / "00.png")
    with pytest.raises(DataError, match="differ in size after preprocessing"):
        for part in (load_data(str(folder)).train, load_data(str(folder)).test, load_data(str(folder)).val):
            part.batch(range(len(part)))  # type: ignore[union-attr, arg-type]
    part = load_data(str(folder), preprocess=Preprocess(size=(6, 6))).train
    assert part is not None
    assert part.batch(range(len(part)))[0][0].shape == (len(part), 3, 6, 6)


def test_every_prefix_of_a_stratified_order_has_the_classes_in_proportion() -> None:
    targets = np.repeat([0, 1, 2], [600, 300, 100])
    order = stratified_order(targets, 1000, 0)
    assert sorted(order) == list(range(1000))
    for size in (50, 200, 500, 950):
        share = np.bincount(targets[order[:size]], minlength=3) / size
        assert np.abs(share - [0.6, 0.3, 0.1]).max() < 2 / size + 0.01


def test_pixels_are_what_preprocessing_sees() -> None:
    spec = Preprocess(mean=(0.4, 0.5, 0.6), std=(0.2, 0.2, 0.3))
    for x in (images(40, 6, 6, 3), images(40, 6, 6, 4), images(40, 6, 6)):
        part = splits_of({"all": (x, np.arange(40) % 4)}, preprocess=spec).train
        assert part is not None
        (model,), _ = part.batch([3, 1])
        pixels = part.pixels([3, 1])  # type: ignore[attr-defined]
        again = (pixels.astype(np.float32) / 255 - np.float32(spec.mean)) / np.float32(spec.std)
        assert np.allclose(model, again.transpose(0, 3, 1, 2), atol=1e-6)


def test_digits_of_scikit_learn() -> None:
    pytest.importorskip("sklearn")
    splits = load_data("packlight.tasks.data.digits:digits")
    assert sizes(splits) == {"train": 1258, "val": 180, "calib": 512, "test": 359}
    assert splits.train.x.max() == 255  # type: ignore[union-attr]


def test_the_shared_cifar(shared: Path) -> None:
    splits = load_data(f"{shared / 'data' / 'cifar10' / 'load.py'}:split")
    assert sizes(splits) == {"train": 45000, "val": 5000, "calib": 512, "test": 10000}
    assert np.bincount(gather_targets(splits.val)).tolist() == [500] * 10
